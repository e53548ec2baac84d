"""Classification with localization: a trunk that two heads share, one for the class and one for the object's box.

Shape legend: B images of H x W pixels, K classes, C channels of a feature map of h x w cells, D numbers of a feature
vector. Boxes are ``x1, y1, x2, y2`` as fractions of the image's width and height.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ..backbones import Backbone, as_backbone
from ..backbones.base import trace_shapes
from ..classification.layers import FullyConnectedHead
from ..ops.boxes import ordered_corners
from ..ops.checks import check_choice, check_dropout, check_min
from ..ops.init import init_he
from ..weights import HasLoadReport, LoadReport, load_state_dict_file, match_weights

BoxKind = Literal["agnostic", "per_class"]
Features = Literal["fc", "pooled", "spatial"]

_FIRST_BOX = (0.25, 0.25, 0.75, 0.75)
"""Approximate prediction of an untrained head: the center of the image, half as wide and high."""


class LocalizerOutput(NamedTuple):
    """The output of a localizer.

    Attributes:
        logits: ``[B, K]``.
        boxes: ``[B, 4]``, or ``[B, K, 4]`` with one box per class: x1, y1, x2, y2 as fractions of the image's sides,
            x1 <= x2 and y1 <= y2. Boxes may extend beyond the image; clip them with `striate.models.clip_boxes`.
    """

    logits: Tensor
    boxes: Tensor


class VectorBoxHead(nn.Module):
    """A linear layer that regresses boxes from a feature vector.

    A box is regressed as the coordinates of two opposite corners, which are then ordered, so that every output is a
    box. Features are divided by the square root of their number: a gradient step then moves a box equally far for 256
    and for 4,096 features. Otherwise the learning rate that suits the class scores overshoots (measured with AlexNet's
    256 units: boxes became worse than a constant one). The layer runs in float32 under autocast too, because bfloat16
    has only 128 values between 0.5 and 1.

    Args:
        in_features: Number D of features.
        boxes: Number of boxes per image: 1, or one per class.

    Shape:
        - input: ``[B, D]``
        - output: ``[B, boxes, 4]``
    """

    def __init__(self, in_features: int, boxes: int = 1) -> None:
        super().__init__()
        self.box = nn.Linear(in_features, 4 * boxes)
        nn.init.normal_(self.box.weight, std=0.1)
        with torch.no_grad():
            self.box.bias.copy_(torch.tensor(_FIRST_BOX).repeat(boxes))

    def forward(self, features: Tensor) -> Tensor:
        """Return the boxes ``[B, boxes, 4]`` of feature vectors ``[B, D]``."""
        with _full_precision(features):
            scaled = features.to(self.box.weight.dtype) * self.box.in_features**-0.5
            return ordered_corners(self.box(scaled).unflatten(1, (-1, 4)))


class MapBoxHead(nn.Module):
    """A convolutional head that regresses boxes from a feature map.

    After a 3 x 3 convolution and a ReLU, each cell predicts the distances of the box's four sides from its center, and
    a confidence. The box is the mean over the cells, weighted by the softmax of the confidence over the map. The
    positions of the cells are not learned: a box moves with its object, and the image may have any size. Computed in
    float32, as in `VectorBoxHead`.

    Args:
        channels: Channels C of the map.
        boxes: Number of boxes per image: 1, or one per class. They share the confidence of the cells.
        width: Channels of the 3 x 3 convolution.

    Shape:
        - input: ``[B, C, h, w]``
        - output: ``[B, boxes, 4]``

    Reference:
        Not published as such; it combines distances to the four sides (Tian et al., "FCOS", ICCV 2019, equation 1;
        here as fractions of the image, and of either sign) and a coordinate as the expectation over a map (Sun et al.,
        "Integral human pose regression", ECCV 2018).
    """

    def __init__(self, channels: int, boxes: int = 1, width: int = 128) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(channels, width, 3, padding=1)
        self.cell = nn.Conv2d(width, 1 + 4 * boxes, 1)
        init_he(self.hidden)
        nn.init.normal_(self.cell.weight, std=0.1 * width**-0.5)
        with torch.no_grad():
            half = torch.tensor(_FIRST_BOX) - 0.5
            self.cell.get_parameter("bias").copy_(torch.cat([torch.zeros(1), half.repeat(boxes)]))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the boxes ``[B, boxes, 4]`` of feature maps ``[B, C, h, w]``."""
        hidden = self.hidden(maps).relu()
        with _full_precision(maps):
            outputs = self.cell(hidden.to(self.cell.weight.dtype)).flatten(2)  # [B, 1 + 4 * boxes, h * w]
            weights = outputs[:, 0].softmax(dim=1)  # [B, h * w]
            rows, columns = maps.shape[-2:]
            sides = outputs[:, 1:].unflatten(1, (-1, 4)) + _centers(rows, columns, outputs)  # [B, boxes, 4, h * w]
            return ordered_corners((sides * weights[:, None, None]).sum(dim=-1))


def _centers(rows: int, columns: int, like: Tensor) -> Tensor:
    """Return the center of each cell twice, ``x, y, x, y`` as fractions of the map's sides, ``[4, h * w]``."""
    y = (torch.arange(rows, dtype=like.dtype, device=like.device) + 0.5) / rows
    x = (torch.arange(columns, dtype=like.dtype, device=like.device) + 0.5) / columns
    y, x = torch.meshgrid(y, x, indexing="ij")  # both [h, w]
    return torch.stack([x, y, x, y]).flatten(1)


def _full_precision(like: Tensor) -> torch.autocast:
    """Return a context that disables autocast on the device of a tensor ``[B, ...]``."""
    device_type = like.device.type if torch.amp.is_autocast_available(like.device.type) else "cpu"
    return torch.autocast(device_type, enabled=False)


class Localizer(nn.Module):
    """Predicts the class and the box of the object in an image, with one trunk for both.

    "Treat localization as a regression problem": a second head, next to the classifier, regresses a box. Both are
    trained together (`striate.tasks.Localization`). ``features`` selects the input of the box head:

    - ``fc``: the activations of fc7, 4,096 for AlexNet and VGG, as in DeepPose and R-CNN. With torchvision's alexnet
      and vgg, fc6 and fc7 are the network's layers with their weights. With any other backbone they are two new layers
      of ``hidden`` units, for images of ``image_size``.
    - ``pooled``: the input of the class scores' layer: for most networks the average of the last map. It works with any
      backbone, but averaging discards most of the position.
    - ``spatial``: the last map, before pooling or flattening (`MapBoxHead`), as in OverFeat and VGG. Class scores are
      computed as in `Classifier`.

    With a `TorchvisionBackbone` the class head is torchvision's. As in `Classifier`, the class head is named ``head``
    and the trunk ``backbone``, so a classifier's checkpoint as ``weights`` of the backbone loads both. The trunk must
    match completely, the head may match partly; `describe_weights` describes the result.

    Args:
        backbone: A backbone, or its name (see `build_backbone`).
        num_classes: Number K of classes.
        box: ``agnostic``: one box per image. ``per_class``: one box per class; the box of the target class is trained,
            and the box of the predicted class is the prediction.
        features: Input of the box head, see above.
        weights: Name of published weights or path of a checkpoint, for a backbone given by name.
        dropout: Dropout probability of the class head. ``None``: the head's default; 0.5 for new fully connected
            layers.
        image_size: Side of the square images for which new fully connected layers are built, in pixels.
        hidden: Units of each of these layers.
        box_width: Channels of the convolution in the box head of ``spatial`` features.

    Attributes:
        backbone: The trunk; a task may train it at a separate learning rate.
        head: The class head.
        box_head: The box head.
        num_classes: Number K of classes.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: `LocalizerOutput`: logits ``[B, K]``, boxes ``[B, 4]`` or, for ``per_class``, ``[B, K, 4]``

    Raises:
        ValueError: An argument is not one of its choices or would have no effect, ``features="fc"`` without
            ``image_size`` for a backbone without fc6 and fc7, or weights that do not match.

    Example:
        >>> images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
        >>> logits, boxes = Localizer("plain", num_classes=10, features="spatial")(images)
        >>> logits.shape, boxes.shape
        (torch.Size([2, 10]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        backbone: Backbone | str,
        num_classes: int,
        box: BoxKind = "agnostic",
        features: Features = "pooled",
        weights: str | None = None,
        dropout: float | None = None,
        image_size: int | None = None,
        hidden: int = 4096,
        box_width: int = 128,
    ) -> None:
        super().__init__()
        check_choice(get_args(BoxKind), box=box)
        check_choice(get_args(Features), features=features)
        check_min(1, num_classes=num_classes, image_size=image_size, hidden=hidden, box_width=box_width)
        check_dropout(dropout=dropout)
        self.num_classes, self.box, self.features = num_classes, box, features
        self.backbone = as_backbone(backbone, weights)
        self.head = _class_head(self.backbone, num_classes, features, dropout, image_size, hidden)
        self._head_report = _load_head(self.head, self.backbone)
        boxes = num_classes if box == "per_class" else 1
        self.box_head: nn.Module
        if features == "spatial":
            self.box_head = MapBoxHead(self.backbone.channels[-1], boxes, box_width)
        else:
            self.box_head = VectorBoxHead(_last(self.head).in_features, boxes)

    def forward(self, images: Tensor) -> LocalizerOutput:
        """Return the logits and boxes of images ``[B, 3, H, W]``."""
        maps = self.backbone(images)[-1]
        if isinstance(self.head, FullyConnectedHead):
            _check_size(maps, self.head)
        vector = self.head[:-1](maps) if isinstance(self.head, nn.Sequential) else self.head.features(maps)  # [B, D]
        boxes = self.box_head(maps if self.features == "spatial" else vector)  # [B, boxes, 4]
        return LocalizerOutput(_last(self.head)(vector), boxes if self.box == "per_class" else boxes[:, 0])

    def describe_weights(self) -> str | None:
        """Describe what was loaded into the trunk and the class head, as lines of text, or return None."""
        trunk = self.backbone.load_report
        if trunk is None:
            return None
        lines = [f"from {trunk.origin}:", f"  trunk: all {len(trunk.loaded)} tensors" + _prefix_note(trunk.prefix)]
        head = self._head_report
        if head is None or not head.loaded:
            lines.append("  class head: new, nothing in the file matches it")
        else:
            lines.append(f"  class head: {', '.join(head.loaded)}" + _prefix_note(head.prefix))
            shapes = [
                f"{k} ({list(theirs)} in the file, {list(ours)} in the model)"
                for k, (theirs, ours) in head.mismatched.items()
            ]
            if new := [*head.missing, *shapes]:
                lines.append(f"  class head, new: {', '.join(new)}")
        return "\n".join([*lines, "  box head: new"])


def _prefix_note(prefix: str) -> str:
    return f", prefix {prefix!r}" if prefix else ""


def _class_head(
    backbone: Backbone, num_classes: int, features: str, dropout: float | None, image_size: int | None, hidden: int
) -> Any:
    """Build the class head, the input of whose last layer is also the input of the box head."""
    has_last_stage = backbone.out_indices[-1] == backbone.num_stages - 1
    head = backbone.make_head(num_classes, dropout) if has_last_stage else None
    has_fc = hasattr(head, "fc6")
    if image_size is not None:
        if has_fc or features == "pooled":
            reason = "the backbone has fc6 and fc7 for any size" if has_fc else "it adds no fully connected layers"
            raise ValueError(f"image_size: has no effect with features={features!r} ({reason}), got {image_size}")
        shape = trace_shapes(backbone.stages, image_size)[-1]
        side = shape[1] if backbone.nhwc else shape[2]
        new = FullyConnectedHead(backbone.channels[-1], side, num_classes, hidden, 0.5 if dropout is None else dropout)
        init_he(new)
        return new
    if features == "fc" and not has_fc:
        raise ValueError(
            f"features: 'fc' needs fc6 and fc7, which torchvision's alexnet and vgg have, got "
            f"{type(backbone).__name__}; set image_size, the side of your images in pixels, for new layers, or use "
            "features='pooled'"
        )
    if head is None or (features == "pooled" and has_fc) or not isinstance(_last(head), nn.Linear):
        return Backbone.make_head(backbone, num_classes, dropout)  # average pooling and a linear layer
    return head


def _last(head: Any) -> Any:
    """Return the layer that computes the logits."""
    if isinstance(head, nn.Sequential):
        return head[-1]
    return head.fc8 if isinstance(head, FullyConnectedHead) else head.classifier


def _load_head(head: nn.Module, backbone: Backbone) -> LoadReport | None:
    """Load the class head from the trunk's checkpoint; torchvision's heads are loaded by `make_head`."""
    if isinstance(head, HasLoadReport):
        return head.load_report
    trunk = backbone.load_report
    if trunk is None or not Path(trunk.origin).is_file():
        return None
    prefix = trunk.prefix.removesuffix("backbone.") + "head."
    fitting, report = match_weights(head, load_state_dict_file(trunk.origin), prefixes=[prefix])
    head.load_state_dict(fitting, strict=False)
    return report


def _check_size(maps: Tensor, head: FullyConnectedHead) -> None:
    # maps: [B, C, h, w]
    if maps.shape[-2:] != (head.in_size, head.in_size):
        raise ValueError(
            f"image_size: fc6 was built for a last feature map of {head.in_size} x {head.in_size} cells, got "
            f"{maps.shape[-2]} x {maps.shape[-1]}; resize the images to image_size, or change image_size"
        )
