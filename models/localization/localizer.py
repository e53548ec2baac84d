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
from ..weights import LoadReport, load_state_dict_file, match_weights

BoxKind = Literal["agnostic", "per_class"]
Features = Literal["fc", "pooled", "spatial"]

_FIRST_BOX = (0.25, 0.25, 0.75, 0.75)
"""What an untrained head predicts, about: the middle of the image, half as wide and high."""


class LocalizerOutput(NamedTuple):
    """What a localizer gives.

    Attributes:
        logits: ``[B, K]``.
        boxes: ``[B, 4]``, or ``[B, K, 4]``, one for each class: x1, y1, x2, y2 as fractions of the image's sides, x1 <=
            x2 and y1 <= y2. What is regressed may stick out of the image; `striate.models.clip_boxes` cuts that off.
    """

    logits: Tensor
    boxes: Tensor


class VectorBoxHead(nn.Module):
    """One linear layer from a feature vector to boxes: the box as four numbers to be regressed.

    The four numbers are coordinates of two opposite corners, put in order, so that every output is a box. Features are
    divided by the root of their number first: a step of gradient descent then moves a box equally far from 256 features
    and from 4,096, where it would overshoot at the rate that suits the class scores (measured: from AlexNet's 256 units
    the boxes got worse than a constant one). The layer is computed in float32 under autocast too: bfloat16 has no more
    than 128 places between 0.5 and 1.

    Args:
        in_features: D.
        boxes: How many boxes an image: 1, or one for each class.

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
        """Boxes of feature vectors."""
        with _full_precision(features):
            scaled = features.to(self.box.weight.dtype) * self.box.in_features**-0.5
            return ordered_corners(self.box(scaled).unflatten(1, (-1, 4)))


class MapBoxHead(nn.Module):
    """Boxes from a feature map, whose cells know where they are.

    After a 3 x 3 convolution and a ReLU each cell says how far the box's four sides lie from its own centre, and how
    much it is to be trusted; the box is the mean of what the cells say, weighted by the softmax of that trust over the
    map. A cell's centre is known and not learned: an object that moves by a cell takes its box along, and the image may
    have any size. Precision as in `VectorBoxHead`.

    Args:
        channels: C.
        boxes: How many boxes an image: 1, or one for each class. All of them share the cells' weights.
        width: Channels of the convolution.

    Shape:
        - input: ``[B, C, h, w]``
        - output: ``[B, boxes, 4]``

    Reference:
        Not a paper's head, but two known ideas: distances to the four sides (Tian et al., "FCOS", ICCV 2019, equation
        1; here as fractions of the image, and of either sign) and a coordinate as the expectation over a map (Sun et
        al., "Integral human pose regression", ECCV 2018).
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
        """Boxes of feature maps."""
        hidden = self.hidden(maps).relu()
        with _full_precision(maps):
            said = self.cell(hidden.to(self.cell.weight.dtype)).flatten(2)  # [B, 1 + 4 * boxes, h * w]
            trust = said[:, 0].softmax(dim=1)  # [B, h * w]
            rows, columns = maps.shape[-2:]
            sides = said[:, 1:].unflatten(1, (-1, 4)) + _centres(rows, columns, said)  # [B, boxes, 4, h * w]
            return ordered_corners((sides * trust[:, None, None]).sum(dim=-1))


def _centres(rows: int, columns: int, like: Tensor) -> Tensor:
    """The centre of each cell, twice: ``x, y, x, y`` as fractions of the map's sides, ``[4, h * w]``."""
    y = (torch.arange(rows, dtype=like.dtype, device=like.device) + 0.5) / rows
    x = (torch.arange(columns, dtype=like.dtype, device=like.device) + 0.5) / columns
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y, x, y]).flatten(1)


def _full_precision(like: Tensor) -> torch.autocast:
    """Suspends autocast, if there is any."""
    kind = like.device.type if torch.amp.is_autocast_available(like.device.type) else "cpu"
    return torch.autocast(kind, enabled=False)


class Localizer(nn.Module):
    """Tells what an image's object is and where it is, with one trunk for both.

    "Treat localization as a regression problem": beside the class scores a second head gives four numbers, and both are
    trained together (`striate.tasks.Localization`). What the box head looks at is the choice of ``features``:

    - ``fc``: the vector of fc7, 4,096 numbers for AlexNet and VGG, as DeepPose and R-CNN have it. Over
      torchvision's alexnet and vgg these are the network's own layers with their weights; over any other backbone, for
      images of ``image_size``, two new layers of ``hidden`` units.
    - ``pooled``: the vector that the class scores are computed from: for most networks the last map, averaged. Fit for
      any backbone; but averaging keeps little of where things are.
    - ``spatial``: the last map itself, before anything is averaged or flattened (`MapBoxHead`); the class scores come
      as they do in `Classifier`. OverFeat and VGG attach their heads there.

    Over a `TorchvisionBackbone` the class head is torchvision's own. As in `Classifier` it is called ``head`` and the
    trunk ``backbone``, so a classifier's checkpoint given to the backbone as ``weights`` fills both: the whole
    trunk, or it is refused; of the head what fits. `load_report` says what that was.

    Args:
        backbone: A backbone, or the name of one (see `build_backbone`).
        num_classes: Classes K to tell apart.
        box: ``agnostic``: one box an image. ``per_class``: one for each class, of which that of the true class is
            trained, and that of the predicted class is what is predicted.
        features: What the box head sees, see above.
        weights: For a backbone given by name: the name of published weights, or the path of a checkpoint.
        dropout: Probability that a feature of the class head is zeroed in training. ``None``: as the head has it; 0.5
            for new fully connected layers.
        image_size: Side of the square images, in pixels, that new fully connected layers are built for.
        hidden: Units of each of these layers.
        box_width: Channels of the convolution in the box head of ``spatial`` features.

    Attributes:
        backbone: The trunk; a task may give it a learning rate of its own.
        head: The class head.
        box_head: The box head.
        num_classes: K.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: `LocalizerOutput`: logits ``[B, K]``, boxes ``[B, 4]`` or, for ``per_class``, ``[B, K, 4]``

    Raises:
        ValueError: An argument is none of its choices, or another one leaves it without effect; ``features="fc"`` for a
            backbone that has no such layers, without ``image_size``; or weights that do not fit.

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
        check_min(1, num_classes=num_classes)
        check_dropout(dropout=dropout)
        self.num_classes, self.box, self.features = num_classes, box, features
        self.backbone = as_backbone(backbone, weights)
        self.head = _class_head(self.backbone, num_classes, features, dropout, image_size, hidden)
        _load_head(self.head, self.backbone)
        boxes = num_classes if box == "per_class" else 1
        self.box_head: nn.Module
        if features == "spatial":
            self.box_head = MapBoxHead(self.backbone.channels[-1], boxes, box_width)
        else:
            self.box_head = VectorBoxHead(_last(self.head).in_features, boxes)

    def forward(self, images: Tensor) -> LocalizerOutput:
        """Class scores and boxes of a batch."""
        maps = self.backbone(images)[-1]
        if isinstance(self.head, FullyConnectedHead):
            _check_size(maps, self.head)
        vector = self.head[:-1](maps) if isinstance(self.head, nn.Sequential) else self.head.features(maps)
        boxes = self.box_head(maps if self.features == "spatial" else vector)  # [B, boxes, 4]
        return LocalizerOutput(_last(self.head)(vector), boxes if self.box == "per_class" else boxes[:, 0])

    def load_report(self) -> str | None:
        """What trunk and class head were given from a checkpoint, in lines of text; None: nothing was loaded."""
        trunk: LoadReport | None = self.backbone.load_report
        if trunk is None:
            return None
        lines = [f"from {trunk.origin}:", f"  trunk: all {len(trunk.loaded)} tensors" + _under(trunk.prefix)]
        head: LoadReport | None = getattr(self.head, "load_report", None)
        if head is None or not head.loaded:
            lines.append("  class head: new, nothing in the file fits it")
        else:
            lines.append(f"  class head: {', '.join(head.loaded)}" + _under(head.prefix))
            shapes = [f"{k} ({list(theirs)} there, {list(ours)} here)" for k, (theirs, ours) in head.mismatched.items()]
            if new := [*head.missing, *shapes]:
                lines.append(f"  class head, new: {', '.join(new)}")
        return "\n".join([*lines, "  box head: new"])


def _under(prefix: str) -> str:
    return f", there under {prefix!r}" if prefix else ""


def _class_head(
    backbone: Backbone, num_classes: int, features: str, dropout: float | None, image_size: int | None, hidden: int
) -> Any:
    """The class head whose last layer but one gives the vector of the features asked for."""
    whole = backbone.out_indices[-1] == backbone.num_stages - 1
    own = backbone.make_head(num_classes, dropout) if whole else None
    has_fc = hasattr(own, "fc6")
    if image_size is not None:
        if has_fc or features == "pooled":
            why = "the backbone brings fc6 and fc7, for any size" if has_fc else "nothing is flattened with them"
            raise ValueError(f"image_size={image_size} would have no effect with features={features!r}: {why}")
        shape = trace_shapes(backbone.stages, image_size)[-1]
        side = shape[1] if backbone.nhwc else shape[2]
        made = FullyConnectedHead(backbone.channels[-1], side, num_classes, hidden, 0.5 if dropout is None else dropout)
        init_he(made)
        return made
    if features == "fc" and not has_fc:
        raise ValueError(
            f"features='fc': {type(backbone).__name__} has no fully connected layers fc6 and fc7 (torchvision's "
            "alexnet and vgg have); give image_size, the side of your images in pixels, for new ones, or take "
            "features='pooled'"
        )
    if own is None or (features == "pooled" and has_fc) or not isinstance(_last(own), nn.Linear):
        return Backbone.make_head(backbone, num_classes, dropout)  # average pooling and a linear layer
    return own


def _last(head: Any) -> Any:
    """The layer that gives the logits."""
    if isinstance(head, nn.Sequential):
        return head[-1]
    return head.fc8 if isinstance(head, FullyConnectedHead) else head.classifier


def _load_head(head: Any, backbone: Backbone) -> None:
    """Takes over what of a class head lies beside the trunk in its checkpoint; torchvision's head did so by itself."""
    trunk = backbone.load_report
    if trunk is None or not Path(trunk.origin).is_file() or hasattr(head, "load_report"):
        return
    prefix = trunk.prefix.removesuffix("backbone.") + "head."
    fitting, head.load_report = match_weights(head, load_state_dict_file(trunk.origin), prefixes=[prefix])
    head.load_state_dict(fitting, strict=False)


def _check_size(maps: Tensor, head: FullyConnectedHead) -> None:
    if maps.shape[-2:] != (head.in_size, head.in_size):
        raise ValueError(
            f"the images give a last feature map of {maps.shape[-2]} x {maps.shape[-1]} cells, but fc6 was built for "
            f"{head.in_size} x {head.in_size}: resize the images to the model's image_size, or change image_size"
        )
