"""YOLO, version 1: one network evaluation per image, in which each cell of a grid predicts classes and boxes."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...backbones import Backbone, as_backbone
from ...backbones.base import trace_shapes
from ...backbones.darknet import LEAK, YOLOv1Backbone, convolution, init_leaky
from ...ops.boxes import clip_boxes
from ...ops.checks import check_dropout, check_min, indexed
from ..detector import Detections, Detector, check_detection_settings
from ..postprocessing import select_detections
from ..resize import ImageBatch, ResizeAndPad
from .loss import YOLOTerms, decode_grid, encode_grid, split_grid, yolo_terms

_INITIAL_BOX = 0.5
"""Initial output of the predictors, about: the center of the cell, and a quarter of the image's sides."""


class YOLOHead(nn.Module):
    """Convolutions and fully connected layers from the backbone's map to the outputs of each cell.

    Args:
        in_channels: Number of channels C of the backbone's last map.
        in_size: Height and width h of that map, in cells.
        grid_size: Number of cells per side S.
        outputs: Number of outputs per cell D.
        convs: Number of filters of each 3 x 3 convolution. If ``in_size`` is 2 S, the second (or the only one) halves
            the map.
        hidden: Number of units of each fully connected layer before the last, with a leaky ReLU and dropout. Empty: a
            1 x 1 convolution computes the outputs, from a map that must have S cells per side.
        bottleneck: Number of units of a linear layer without activation before ``hidden``. None: no such layer.
        dropout: Probability of dropping a unit of ``hidden``.
        batch_norm: Whether batch normalization follows each convolution.

    Shape:
        - input: ``[B, C, h, h]``
        - output: ``[B, S, S, D]``

    Raises:
        ValueError: The convolutions do not end in S x S cells although they must, or an argument is out of range.
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
            raise ValueError(f"bottleneck: has no effect without hidden layers, got {bottleneck}; remove it")
        check_min(1, **indexed("convs", convs), **indexed("hidden", hidden), bottleneck=bottleneck)
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
                f"grid_size: without hidden layers must equal the cells per side of the backbone's last map, "
                f"{in_size}, or half of them with convs, got {grid_size}; change grid_size or image_size"
            )
        self.fc = _fully_connected(in_channels * size**2, hidden, bottleneck, dropout)
        self.out: nn.Module
        if hidden:
            self.out = nn.Linear(hidden[-1], grid_size**2 * outputs)
        else:
            self.out = nn.Conv2d(in_channels, outputs, 1)
        init_leaky(self)

    def forward(self, maps: Tensor) -> Tensor:
        """Compute the outputs of each cell, ``[B, S, S, D]``."""
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

    Each of S x S cells has P predictors with a box and a confidence each, and one probability per class. An object
    belongs to the cell of its center. All outputs are linear and trained by squared errors (`yolo_terms`). Images are
    stretched to a square of ``image_size`` pixels. There are 271,703,550 parameters for 20 classes.

    Fast YOLO: ``backbone=YOLOv1Backbone("fast")``, ``convs=(1024, 1024)``, ``bottleneck=256``.

    Args:
        num_classes: Number of classes K.
        backbone: A `Backbone`, or the name of one (see `build_backbone`). None: YOLO's 20 convolutions.
        weights: Weights of a backbone given by name or by None: the name of published weights, or the path of a
            checkpoint.
        image_size: Side of the square that images are resized to, in pixels.
        grid_size: Number of cells per side S.
        boxes_per_cell: Number of predictors per cell P, the paper's B.
        convs: Number of filters of each 3 x 3 convolution after the backbone. The second halves the map if that makes
            it S x S.
        hidden: Number of units of each fully connected layer before the last. Empty: a 1 x 1 convolution computes the
            outputs, which needs a map of S x S cells and far fewer parameters.
        bottleneck: Number of units of a linear layer before them, as in Fast YOLO. None: no such layer.
        dropout: Probability of dropping a unit of the fully connected layers.
        batch_norm: Whether batch normalization follows ``convs``; not in the paper.
        coord_weight: Weight of the errors of boxes.
        no_object_weight: Weight of the confidence of predictors without an object.
        score_threshold: Detections have a higher score than this. The authors' code uses 0.001 for evaluation and 0.2
            for drawing.
        nms_iou: Of two detections of one class with a higher IoU, the one with the lower score is dropped.
        max_detections: Maximum number of detections per image. None: all that are left after suppression, as in the
            authors' code; at most ``grid_size**2 * boxes_per_cell`` of each class.

    Attributes:
        backbone: The backbone.
        head: A `YOLOHead`.

    Shape:
        - images: ``[B, 3, H, W]``, or B tensors ``[3, H_i, W_i]``, ``uint8`` or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: An argument is out of range, or the backbone's map does not fit the grid.

    Reference:
        Redmon, Divvala, Girshick, Farhadi, "You only look once: unified, real-time object detection", CVPR 2016,
        section 2; not the later ``yolov1.cfg``, which has batch normalization, a locally connected layer, and P = 3.
        Where the paper is silent, this follows the authors' code as first released (November 2015): several objects in
        one cell (`encode_grid`), boxes that overlap no object (`responsible_predictors`), NMS by class at 0.5 of boxes
        that may leave the image, which are clipped after it, no padding except in convolutions. Deviations from both:

        - The last layer starts near 0, with boxes of a quarter of the image's sides at the centers of their cells.
          With an IoU of exactly 0 everywhere, as from boxes of size 0, the error alone would decide at first.
        - A confidence or class probability below 0 counts as 0 in a score, since the product of two such would be a
          high score. A score above 1 counts as 1, after sorting.
        - A box that lies outside the image is dropped, after suppression; that code writes it with inverted corners.
        - Objects smaller than a hundredth of the image are learned; that code skips them.
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
        max_detections: int | None = None,
    ) -> None:
        check_min(1, image_size=image_size, grid_size=grid_size, boxes_per_cell=boxes_per_cell)
        check_min(0, coord_weight=coord_weight, no_object_weight=no_object_weight)
        check_detection_settings(score_threshold, nms_iou, max_detections)
        built = YOLOv1Backbone(weights=weights) if backbone is None else as_backbone(backbone, weights)
        super().__init__(num_classes, ResizeAndPad(fixed_size=(image_size, image_size)))
        self.backbone = built
        shape = trace_shapes(built.stages, image_size)[-1]
        self.head = YOLOHead(
            built.channels[-1],
            shape[1] if built.nhwc else shape[2],
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
        self._init_output()

    @torch.no_grad()
    def _init_output(self) -> None:
        out = self.head.out
        assert isinstance(out, (nn.Linear, nn.Conv2d)) and out.bias is not None
        nn.init.normal_(out.weight, std=0.01)
        out.bias.view(-1, self.head.outputs)[:, : 4 * self.boxes_per_cell] = _INITIAL_BOX

    def grid(self, pixels: Tensor) -> Tensor:
        """Compute the outputs of each cell, ``[B, S, S, 5 * P + K]``, for images ``[B, 3, image_size, image_size]``."""
        return self.head(self.backbone(pixels)[-1])

    def terms(self, batch: ImageBatch, targets: Sequence[dict[str, Tensor]]) -> YOLOTerms:
        """Compute the five terms of the loss, from targets in pixels of the resized images.

        Of several objects in a cell, one is drawn at random in training, and the first is used in evaluation.

        Shape:
            - targets: B dictionaries with ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``
        """
        boxes = [target["boxes"].float() / self.image_size for target in targets]
        labels = [target["labels"] for target in targets]
        target = encode_grid(boxes, labels, self.grid_size, shuffle=self.training)
        output = split_grid(self.grid(batch.pixels), self.boxes_per_cell)
        return yolo_terms(output, target, self.coord_weight, self.no_object_weight)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute ``loss_box`` (center and size), ``loss_object``, ``loss_no_object``, ``loss_class``, scalars."""
        terms = self.terms(batch, targets)
        return {
            "loss_box": terms.center + terms.size,
            "loss_object": terms.objects,
            "loss_no_object": terms.no_objects,
            "loss_class": terms.classes,
        }

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Detect objects from all pairs of a predictor's box and a class of its cell; see `Detector.detect`."""
        output = split_grid(self.grid(batch.pixels), self.boxes_per_cell)
        boxes = decode_grid(output.boxes) * float(self.image_size)
        confidence, classes = output.confidence.clamp(min=0), output.classes.clamp(min=0)
        scores = confidence[..., None] * classes[..., None, :]  # [B, S, S, P, K]
        return [self._select(*prediction) for prediction in zip(boxes.flatten(1, 3), scores.flatten(1, 3), strict=True)]

    def _select(self, boxes: Tensor, scores: Tensor) -> Detections:
        """Detections of one image from boxes ``[A, 4]`` and scores ``[A, K]``."""
        detections = select_detections(boxes, scores, self.score_threshold, self.nms_iou, None)
        clipped = clip_boxes(detections["boxes"], float(self.image_size), float(self.image_size))
        inside = (clipped[:, 2:] > clipped[:, :2]).all(1).nonzero()[:, 0][: self.max_detections]
        labels, scores = detections["labels"][inside], detections["scores"][inside].clamp(max=1)
        return Detections(boxes=clipped[inside], scores=scores, labels=labels)
