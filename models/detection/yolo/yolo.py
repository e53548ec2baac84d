"""YOLO, the first: a network looks once at the whole image, and each cell of a grid says what lies in it and where."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...backbones import Backbone, as_backbone
from ...backbones.base import trace_shapes
from ...backbones.darknet import LEAK, YOLOv1Backbone, convolution, init_leaky
from ...ops.boxes import clip_boxes
from ...ops.checks import check_dropout, check_min
from ..detector import Detections, Detector, check_detection_settings
from ..postprocessing import select_detections
from ..resize import ImageBatch, ResizeAndPad
from .loss import YOLOTerms, decode_grid, encode_grid, split_grid, yolo_terms

_FIRST_BOX = 0.5
"""What an untrained predictor gives, about: the centre of its cell, and a quarter of the image's sides."""


class YOLOHead(nn.Module):
    """What follows the trunk: convolutions, fully connected layers, and the numbers of each cell.

    Args:
        in_channels: C, channels of the trunk's last map.
        in_size: h, height and width of that map, in cells.
        grid_size: S.
        outputs: D, numbers a cell.
        convs: filters of each 3 x 3 convolution. If ``in_size`` is 2 S, the second (or the only one) halves the map.
        hidden: units of each fully connected layer before the last, with a leaky ReLU and dropout; none: a 1 x 1
            convolution gives the numbers of each cell, of a map that must be of S cells then.
        bottleneck: units of a linear layer, without activation, before the first of ``hidden``; None: no such layer.
        dropout: probability of dropping a unit of ``hidden``.
        batch_norm: whether each convolution is followed by a batch normalisation.

    Shape:
        - input: ``[B, C, h, h]``
        - output: ``[B, S, S, D]``

    Raises:
        ValueError: if the convolutions do not end in S x S cells where they must, or an argument is out of its range.
    """

    def __init__(
        self,
        in_channels: int,
        in_size: int,
        grid_size: int,
        outputs: int,
        convs: Sequence[int] = (1024, 1024, 1024, 1024),
        hidden: Sequence[int] = (4096,),
        bottleneck: int | None = None,
        dropout: float = 0.5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_dropout(dropout=dropout)
        if bottleneck is not None and not hidden:
            raise ValueError(f"bottleneck={bottleneck} would have no effect: hidden names no layer to follow it")
        check_min(1, **{f"convs[{i}]": width for i, width in enumerate(convs)}, bottleneck=bottleneck)
        check_min(1, **{f"hidden[{i}]": units for i, units in enumerate(hidden)})
        self.grid_size, self.outputs = grid_size, outputs
        halves = in_size == 2 * grid_size and bool(convs)
        size = grid_size if halves else in_size
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for index, filters in enumerate(convs):
            stride = 2 if halves and index == min(1, len(convs) - 1) else 1
            layers[f"conv{index + 1}"] = convolution(in_channels, filters, 3, stride, batch_norm)
            in_channels = filters
        self.convs = nn.Sequential(layers)
        if not hidden and size != grid_size:
            raise ValueError(
                f"grid_size={grid_size}: the trunk's last map has {in_size} x {in_size} cells; without hidden layers "
                "a grid has as many on either side, or half as many behind convs; change grid_size or image_size"
            )
        self.fc = _fully_connected(in_channels * size**2, hidden, bottleneck, dropout)
        self.out: nn.Module
        if hidden:
            self.out = nn.Linear(hidden[-1], grid_size**2 * outputs)
        else:
            self.out = nn.Conv2d(in_channels, outputs, 1)
        init_leaky(self)

    def forward(self, maps: Tensor) -> Tensor:
        """The numbers of each cell."""
        maps = self.convs(maps)
        if isinstance(self.out, nn.Conv2d):
            return self.out(maps).permute(0, 2, 3, 1)
        return self.out(self.fc(maps.flatten(1))).unflatten(1, (self.grid_size, self.grid_size, self.outputs))


def _fully_connected(units: int, hidden: Sequence[int], bottleneck: int | None, dropout: float) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if bottleneck is not None:
        layers["bottleneck"] = nn.Linear(units, bottleneck)
        units = bottleneck
    for index, size in enumerate(hidden):
        fc = nn.Linear(units, size)
        layers[f"fc{index + 1}"] = nn.Sequential(fc, nn.LeakyReLU(LEAK, inplace=True), nn.Dropout(dropout))
        units = size
    return nn.Sequential(layers)


class YOLOv1(Detector):
    """YOLO as published, with the paper's values as defaults: 24 convolutions, 2 fully connected layers, 7 x 7 cells.

    Each of S x S cells has P predictors, which give a box and a confidence each, and one probability a class. An object
    belongs to the cell of its centre. Everything is linear and trained by squared errors (`yolo_loss`). An image is
    resized to the square of ``image_size``, whatever its shape. 271,703,550 parameters for 20 classes.

    Fast YOLO: ``backbone=YOLOv1Backbone("fast")``, ``convs=(1024, 1024)``, ``bottleneck=256``.

    Args:
        num_classes: K.
        backbone: the trunk; a `Backbone`, or the name of one (see `build_backbone`). None: YOLO's own 20
            convolutions.
        weights: for a backbone given by name, or by None: the name of published weights, or the path of a checkpoint.
        image_size: side of the square that images are resized to, pixels.
        grid_size: S.
        boxes_per_cell: P, the paper's B.
        convs: filters of each 3 x 3 convolution behind the trunk. The second halves the map if that makes it S x S.
        hidden: units of each fully connected layer before the last; none: the cells' numbers come from a 1 x 1
            convolution, which needs a map of S x S cells, and far fewer parameters.
        bottleneck: units of a linear layer before them; Fast YOLO has one.
        dropout: probability of dropping a unit of the fully connected layers.
        batch_norm: whether ``convs`` are followed by batch normalisations; the paper has none.
        coord_weight: weight of the boxes' errors.
        no_object_weight: weight of the confidence where there is no object.
        score_threshold: detections of a lower score are left out. The authors' code takes 0.001 for evaluation, 0.2
            for pictures.
        nms_iou: of two detections of one class that overlap by more, the surer is kept.
        max_detections: at most so many an image, the surest.

    Attributes:
        backbone: the trunk.
        head: a `YOLOHead`.

    Raises:
        ValueError: for an argument out of its range, and for a trunk whose map does not suit the grid.

    Reference:
        Redmon, Divvala, Girshick, Farhadi, "You only look once: unified, real-time object detection", CVPR 2016,
        section 2; not the later ``yolov1.cfg``, which has batch normalisation, a locally connected layer, and P = 3.
        Where the paper is silent, the authors' code as first released counts (November 2015): several objects in one
        cell (`encode_grid`), boxes that meet no object (`responsible_predictors`), NMS by class at 0.5, no padding
        but the convolutions' own. Left from both:

        - The last layer starts near 0, with boxes of a quarter of the image's sides in their cells' centres: an IoU of
          exactly 0 everywhere, as from boxes of no size, would leave all choices to the error at first.
        - A confidence or class probability below 0 counts as 0 in a score (the product of two such would be a sure
          detection), and a score above 1 as 1, after the order is made.
        - Objects smaller than a hundredth of the image, which that code skips, are learned.
    """

    def __init__(
        self,
        num_classes: int = 20,
        backbone: Backbone | str | None = None,
        weights: str | None = None,
        image_size: int = 448,
        grid_size: int = 7,
        boxes_per_cell: int = 2,
        convs: Sequence[int] = (1024, 1024, 1024, 1024),
        hidden: Sequence[int] = (4096,),
        bottleneck: int | None = None,
        dropout: float = 0.5,
        batch_norm: bool = False,
        coord_weight: float = 5.0,
        no_object_weight: float = 0.5,
        score_threshold: float = 0.001,
        nms_iou: float = 0.5,
        max_detections: int = 300,
    ) -> None:
        check_min(1, image_size=image_size, grid_size=grid_size, boxes_per_cell=boxes_per_cell)
        check_detection_settings(score_threshold, nms_iou, max_detections)
        trunk = YOLOv1Backbone(weights=weights) if backbone is None else as_backbone(backbone, weights)
        super().__init__(num_classes, ResizeAndPad(fixed_size=(image_size, image_size)))
        self.backbone = trunk
        shape = trace_shapes(trunk.stages, image_size)[-1]
        self.head = YOLOHead(
            trunk.channels[-1],
            shape[1] if trunk.nhwc else shape[2],
            grid_size,
            5 * boxes_per_cell + num_classes,
            convs,
            hidden,
            bottleneck,
            dropout,
            batch_norm,
        )
        self.image_size, self.grid_size, self.boxes_per_cell = image_size, grid_size, boxes_per_cell
        self.coord_weight, self.no_object_weight = coord_weight, no_object_weight
        self.score_threshold, self.nms_iou, self.max_detections = score_threshold, nms_iou, max_detections
        self._start_output()

    @torch.no_grad()
    def _start_output(self) -> None:
        out = self.head.out
        assert isinstance(out, (nn.Linear, nn.Conv2d)) and out.bias is not None
        nn.init.normal_(out.weight, std=0.01)
        out.bias.view(-1, self.head.outputs)[:, : 4 * self.boxes_per_cell] = _FIRST_BOX

    def grid(self, pixels: Tensor) -> Tensor:
        """The numbers of each cell, ``[B, S, S, 5 * P + K]``, of images ``[B, 3, image_size, image_size]``."""
        return self.head(self.backbone(pixels)[-1])

    def terms(self, batch: ImageBatch, targets: Sequence[dict[str, Tensor]]) -> YOLOTerms:
        """The five terms of the loss, of targets in pixels of the resized images.

        Of several objects in a cell one is drawn in training; in evaluation it is the first.
        """
        boxes = [target["boxes"].float() / self.image_size for target in targets]
        labels = [target["labels"] for target in targets]
        truth = encode_grid(boxes, labels, self.grid_size, shuffle=self.training)
        output = split_grid(self.grid(batch.pixels), self.boxes_per_cell)
        return yolo_terms(output, truth, self.coord_weight, self.no_object_weight)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """``loss_box`` (centres and sides), ``loss_object``, ``loss_no_object``, ``loss_class``; see `yolo_terms`."""
        terms = self.terms(batch, targets)
        return {
            "loss_box": terms.centre + terms.size,
            "loss_object": terms.objects,
            "loss_no_object": terms.no_objects,
            "loss_class": terms.classes,
        }

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Every predictor's box with every class of its cell, less those that are too weak or have a better one."""
        output = split_grid(self.grid(batch.pixels), self.boxes_per_cell)
        size = float(self.image_size)
        boxes = clip_boxes(decode_grid(output.boxes) * size, size, size)
        seen = (boxes[..., 2:] > boxes[..., :2]).all(-1)  # boxes that lie outside the image are none
        confidence = output.confidence.clamp(min=0) * seen
        scores = confidence[..., None] * output.classes.clamp(min=0)[..., None, :]  # [B, S, S, P, K]
        return [
            self._select(own_boxes, own_scores)
            for own_boxes, own_scores in zip(boxes.flatten(1, 3), scores.flatten(1, 3), strict=True)
        ]

    def _select(self, boxes: Tensor, scores: Tensor) -> Detections:
        """Of one image; boxes ``[A, 4]``, scores ``[A, K]``."""
        found = select_detections(boxes, scores, self.score_threshold, self.nms_iou, self.max_detections)
        return {**found, "scores": found["scores"].clamp(max=1)}
