"""Detection by classifying all windows of an image, at several scales and aspect ratios.

This is the detector of the time before region proposals, and OverFeat's. It has nothing to do with
`sliding_detections`, which applies any detector to parts of a large image.

Shape legend: B images; A windows of an image; R sampled windows of all images; K classes; S x S pixels of the
classifier's input. Boxes are ``x1, y1, x2, y2`` in pixels of the resized images.
"""

import math
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import ops

from ..classification.layers import TrunkWithHead
from ..modes import evaluation_mode
from ..ops.boxes import clip_boxes
from ..ops.checks import OrMapping, as_settings, check_above, check_choice, check_min, indexed
from .convolved_classifier import convolved_logits, cropped_logits, inexact_layers, last_pooling, trunk_stride
from .detector import Detections, Detector, Images, check_detection_settings, check_images
from .postprocessing import select_detections
from .resize import ImageBatch, ResizeAndPad
from .two_stage.roi_head import SamplingSettings, sample_regions

Way = Literal["crops", "convolutional"]


class WindowGrid(NamedTuple):
    """The windows of one scale and aspect ratio: a regular grid on the image, resized so that a window has S pixels.

    Attributes:
        size: Height and width of the resized image, in pixels.
        steps: Number of rows and columns of windows. The last ones may leave the image by less than the stride.
    """

    size: tuple[int, int]
    steps: tuple[int, int]


class WayComparison(NamedTuple):
    """The two ways to classify the windows of an image.

    Attributes:
        windows: Number of windows of an image.
        crops: Time of the windows one by one, in seconds per image.
        convolutional: Time of one pass per scale and aspect ratio, in seconds per image.
        difference: Largest absolute difference of two probabilities.
    """

    windows: int
    crops: float
    convolutional: float
    difference: float


class SlidingWindowDetector(Detector):
    """A classifier with a background class, applied to all windows of an image.

    For each side and ratio the image is resized so that a window of that shape becomes the classifier's input. Windows
    whose best class is likely are detections, after non-maximum suppression. Boxes are the windows themselves: there is
    no regression.

    The classifier sees the windows in one of two ways. ``crops`` cuts them out and classifies them in batches; it works
    with any classifier. ``convolutional`` applies the trunk to the whole resized image once, and the fully connected
    layers as convolutions to its map. It needs a `TrunkWithHead`. Both give the same probabilities, up to rounding, if
    no layer of the trunk sees beyond a window: without padding, and without pooling that rounds up to a last cell of
    fewer pixels. `UnpaddedCNN` is such a trunk. AlexNet's, ZFNet's and VGG's pad.

    In training, windows that lie in the image, and the objects' own boxes, are labeled by their IoU with the objects. A
    sample of them is cut out and classified, with cross-entropy as the loss.

    Args:
        num_classes: Number of classes K, without background.
        classifier: Any module from pixels ``[R, 3, S, S]`` to logits ``[R, K + 1]``. The background is the last one,
            index K.
        window: Side S of the classifier's input, in pixels. None: ``classifier.image_size``.
        sides: Square roots of the areas of the windows, in pixels of the image.
        ratios: Heights of the windows divided by their widths.
        stride: Distance of neighboring windows in pixels of the classifier's input. None: as fine as the convolutional
            way allows, or an eighth of ``window`` for other classifiers.
        way: ``crops`` or ``convolutional``. None: convolutional if both are the same, otherwise crops.
        dense_pooling: In the convolutional way, apply the trunk's last max pooling at all offsets, as OverFeat, so that
            windows may be closer than the cells of the last map by the stride of this pooling.
        allow_padding: Accept a trunk for the convolutional way whose probabilities differ from those of crops, as
            OverFeat's do.
        resize: How images are brought to one size first. None: they keep their size.
        sampling: Windows that are trained on, or a dictionary of the settings. None: at most 32 in an image, a quarter
            of them objects with an IoU of at least 0.6, the rest background below 0.4.
        score_threshold: Detections have a higher score than this.
        nms_iou: Of two detections of one class with a higher IoU, the one with the lower score is dropped.
        max_detections: Maximum number of detections per image.
        crops_at_once: Number of windows that the way ``crops`` classifies in one batch.

    Attributes:
        way: The way in use.
        stride: The distance of windows, in pixels of the classifier's input.

    Raises:
        TypeError: A setting has a wrong type, or ``way`` is ``convolutional`` and the classifier not a `TrunkWithHead`.
        ValueError: A number is out of range, the classifier has not K + 1 outputs, ``stride`` is no multiple of what
            the convolutional way has, or the two ways differ and ``allow_padding`` is False; names the layers.

    Reference:
        Sermanet et al., "OverFeat", ICLR 2014, section 3.3. There is no regression of boxes here, and windows are
        merged by non-maximum suppression.
    """

    def __init__(
        self,
        num_classes: int,
        classifier: nn.Module,
        window: int | None = None,
        sides: Sequence[float] = (64.0, 96.0, 128.0, 192.0),
        ratios: Sequence[float] = (1.0,),
        stride: int | None = None,
        way: Way | None = None,
        dense_pooling: bool = False,
        allow_padding: bool = False,
        resize: ResizeAndPad | None = None,
        sampling: OrMapping[SamplingSettings] | None = None,
        score_threshold: float = 0.05,
        nms_iou: float = 0.3,
        max_detections: int = 100,
        crops_at_once: int = 512,
    ) -> None:
        super().__init__(num_classes, ResizeAndPad() if resize is None else resize)
        check_detection_settings(score_threshold, nms_iou, max_detections)
        check_min(1, window=window, stride=stride, crops_at_once=crops_at_once)
        for name, values in (("sides", sides), ("ratios", ratios)):
            if not values:
                raise ValueError(f"{name}: must have at least one number, got an empty list")
            check_above(0, **indexed(name, values))
        self.classifier = classifier
        self.window = _window(classifier, window)
        self.sides, self.ratios = tuple(sides), tuple(ratios)
        self.dense_pooling, self.crops_at_once = dense_pooling, crops_at_once
        default = {"samples": 32, "foreground_iou": 0.6, "background_iou": (0.0, 0.4)}
        self.sampling = as_settings(SamplingSettings, "sampling", default if sampling is None else sampling)
        self.score_threshold, self.nms_iou, self.max_detections = score_threshold, nms_iou, max_detections
        _check_outputs(classifier, num_classes)
        self.way: Way = self._choose_way(way, allow_padding)
        self.stride = self._choose_stride(stride)

    def _choose_way(self, way: Way | None, allow_padding: bool) -> Way:
        if way is not None:
            check_choice(("crops", "convolutional"), way=way)
        classifier = self.classifier
        if not isinstance(classifier, TrunkWithHead):
            if way == "convolutional":
                kind = type(classifier).__name__
                raise TypeError(f"way: convolutional needs a TrunkWithHead as classifier, got {kind}; use crops")
            return "crops"
        inexact = inexact_layers(classifier)
        if way is None:
            return "crops" if inexact and not allow_padding else "convolutional"
        if way == "convolutional" and inexact and not allow_padding:
            raise ValueError(
                f"way: convolutional differs from crops, since these layers see beyond a window: {', '.join(inexact)}; "
                "use a trunk without padding, such as UnpaddedCNN, or way: crops, or accept it with allow_padding: true"
            )
        return way

    def _choose_stride(self, stride: int | None) -> int:
        finest = self._finest_stride()
        if finest is None:
            return max(1, self.window // 8) if stride is None else stride
        if stride is None:
            return finest
        if self.way == "convolutional" and stride % finest:
            raise ValueError(f"stride: must be a multiple of the trunk's stride {finest}, got {stride}")
        return stride

    def _finest_stride(self) -> int | None:
        """The distance of windows in the convolutional way, in pixels; None for other classifiers."""
        if not isinstance(self.classifier, TrunkWithHead):
            return None
        stride, pool = trunk_stride(self.classifier), last_pooling(self.classifier)
        if not self.dense_pooling:
            return stride
        if pool is None:
            raise ValueError("dense_pooling: needs a trunk whose last layer is a max pooling, got another last layer")
        return stride // (pool.stride if isinstance(pool.stride, int) else pool.stride[0])

    def grids(self, height: int, width: int) -> list[WindowGrid]:
        """Compute the grids of windows of an image, one per side and ratio that fits into it.

        Args:
            height: Height of the image, in pixels.
            width: Width of the image, in pixels.
        """
        grids = []
        for side in self.sides:
            for ratio in self.ratios:
                scale_y, scale_x = self.window / (side * ratio**0.5), self.window / (side / ratio**0.5)
                size = round(height * scale_y), round(width * scale_x)
                if min(size) >= self.window:
                    rows, columns = (-(-(length - self.window) // self.stride) + 1 for length in size)
                    grids.append(WindowGrid(size, (rows, columns)))
        return grids

    def count_windows(self, height: int, width: int) -> int:
        """Return the number of windows of an image of this many pixels."""
        return sum(math.prod(grid.steps) for grid in self.grids(height, width))

    def windows(self, height: int, width: int) -> Tensor:
        """Compute the windows of an image, grid by grid and row by row. They may leave it on the right and below.

        Shape:
            - output: ``[A, 4]``, float32
        """
        boxes = [torch.zeros(0, 4)]
        for size, steps in self.grids(height, width):
            tops, lefts = (torch.arange(number) * float(self.stride) for number in steps)
            top, left = (grid.flatten() for grid in torch.meshgrid(tops, lefts, indexing="ij"))
            corners = torch.stack([left, top, left + self.window, top + self.window], dim=1)
            boxes.append(corners * torch.tensor([width / size[1], height / size[0]] * 2))
        return torch.cat(boxes)

    def probabilities(self, pixels: Tensor, way: Way | None = None) -> Tensor:
        """Classify all windows of images, in the order of `windows`. The background is the last class.

        Args:
            pixels: Images of one size.
            way: ``crops`` or ``convolutional``. None: the detector's.

        Shape:
            - pixels: ``[B, 3, H, W]``
            - output: ``[B, A, K + 1]``, float32
        """
        way = self._choose_way(way, allow_padding=True) if way else self.way
        images = _as_float(pixels)
        computed = [images.new_zeros(len(images), 0, self.num_classes + 1)]
        for grid in self.grids(*images.shape[-2:]):
            logits = self._logits(self._resized(images, grid), way)[..., : grid.steps[0], : grid.steps[1]]
            computed.append(logits.float().flatten(2).transpose(1, 2).softmax(dim=-1))
        return torch.cat(computed, dim=1)

    def _resized(self, images: Tensor, grid: WindowGrid) -> Tensor:
        """Images ``[B, 3, H, W]``, resized and padded on the right and below so that all windows lie inside."""
        resized = F.interpolate(images, size=grid.size, mode="bilinear", align_corners=False)
        height, width = (self.window + (number - 1) * self.stride for number in grid.steps)
        canvas = images.new_tensor(self.resize.fill)[:, None, None].repeat(len(images), 1, height, width)
        canvas[..., : grid.size[0], : grid.size[1]] = resized[..., :height, :width]
        return canvas

    def _logits(self, images: Tensor, way: Way) -> Tensor:
        """Logits ``[B, K + 1, h, w]`` of all windows of resized images ``[B, 3, H, W]``."""
        classifier = self.classifier
        if way == "crops" or not isinstance(classifier, TrunkWithHead):
            return cropped_logits(classifier, images, self.window, self.stride, self.crops_at_once)
        step = self.stride // (self._finest_stride() or 1)
        return convolved_logits(classifier, images, self.dense_pooling)[..., ::step, ::step]

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Detect objects in all windows; see `Detector.detect`."""
        found: list[Detections] = []
        together = len(set(batch.sizes)) == 1
        parts = [batch.pixels] if together else batch.pixels.split(1)
        for pixels in parts:
            height, width = batch.sizes[len(found)]
            probabilities = self.probabilities(pixels[..., :height, :width])
            boxes = clip_boxes(self.windows(height, width).to(probabilities), width=width, height=height)
            found += [self._select(boxes, scores) for scores in probabilities[..., :-1]]
        return found

    def _select(self, boxes: Tensor, scores: Tensor) -> Detections:
        """Detections of windows ``[A, 4]`` with scores ``[A, K]``."""
        return select_detections(boxes, scores, self.score_threshold, self.nms_iou, self.max_detections)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute ``loss_class``, the mean cross-entropy of sampled windows, a scalar."""
        inside = []
        for height, width in batch.sizes:
            windows = self.windows(height, width)
            limit = torch.tensor([width, height]) + 1e-3
            inside.append(windows[(windows[:, 2:] <= limit).all(dim=1)].to(batch.pixels.device))
        sampled = sample_regions(inside, targets, self.num_classes, self.sampling)
        labels = torch.cat([windows.labels for windows in sampled])
        if not len(labels):
            return {"loss_class": torch.stack([p.sum() for p in self.classifier.parameters()]).sum() * 0.0}
        crops = self.crop(batch.pixels, [windows.boxes for windows in sampled])
        return {"loss_class": F.cross_entropy(self.classifier(crops).float(), labels)}

    def crop(self, pixels: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Cut boxes out of images and resize them to the classifier's input.

        For windows inside the image these are the pixels that `probabilities` sees.

        Shape:
            - pixels: ``[B, 3, H, W]``
            - boxes: B tensors ``[R_i, 4]``
            - output: ``[R, 3, S, S]``, floating point in [0, 1]
        """
        images = _as_float(pixels)
        regions = [box.to(images) for box in boxes]
        # one bilinear sample at the center of each pixel, as in interpolation
        with torch.autocast(images.device.type, enabled=False):
            return ops.roi_align(images, regions, self.window, sampling_ratio=1, aligned=True)

    @torch.no_grad()
    def compare_ways(self, images: Images) -> WayComparison:
        """Measure both ways to classify the windows of images of one size.

        Args:
            images: The images; see `Images`.

        Raises:
            TypeError: The classifier is not a `TrunkWithHead`.

        Shape:
            - images: ``[B, 3, H, W]``
        """
        with evaluation_mode(self):
            pixels = self.resize(check_images(images)).pixels
            results, seconds = [], []
            for way in ("crops", "convolutional"):
                self.probabilities(pixels[:1], way)  # warm up
                begin = time.perf_counter()
                results.append(self.probabilities(pixels, way).cpu())  # waits for a GPU
                seconds.append((time.perf_counter() - begin) / len(pixels))
        difference = (results[0] - results[1]).abs().max().item() if results[0].numel() else 0.0
        return WayComparison(results[0].shape[1], seconds[0], seconds[1], difference)


def _as_float(pixels: Tensor) -> Tensor:
    """Pixels ``[B, 3, H, W]`` as float32 in [0, 1]."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def _window(classifier: nn.Module, window: int | None) -> int:
    size = getattr(classifier, "image_size", None)
    if window is None:
        if not isinstance(size, int):
            raise ValueError("window: must be the side of the classifier's input in pixels, got None; state it")
        return size
    if isinstance(classifier, TrunkWithHead):
        classifier.check_size(window, window)
    return window


def _check_outputs(classifier: nn.Module, num_classes: int) -> None:
    outputs = getattr(classifier, "num_classes", None)
    if isinstance(outputs, int) and outputs != num_classes + 1:
        raise ValueError(
            f"classifier: must have num_classes + 1 = {num_classes + 1} outputs, the last for the background, got "
            f"{outputs}; build it with num_classes: {num_classes + 1}"
        )
