"""Faster R-CNN as published: one feature map, a region proposal network, and Fast R-CNN's head on what it proposes."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from torchvision.ops import RoIPool

from ...backbones import Backbone, TorchvisionBackbone, as_backbone
from ...classification.zfnet import ZFNetBackbone
from ...weights import LoadReport, load_state_dict_file, match_weights
from ..detector import Detections, Detector
from ..resize import ImageBatch, ResizeAndPad
from .roi_head import RoIFullyConnected, RoIHead, RoISettings
from .rpn import RPN, RPNSettings


class _Net(NamedTuple):
    """What a trunk of the paper brings with it: cells of a pooled region a side, channels of the RPN."""

    pool_size: int
    rpn_channels: int


_NETS = {"vgg16": _Net(7, 512), "zf": _Net(6, 256)}
_FC = {"vgg": (0, 3), "alexnet": (1, 4)}
"""Start of torchvision's name -> where fc6 and fc7 stand in its ``classifier``."""


class PaddedZFNetBackbone(ZFNetBackbone):
    """ZFNet's trunk with the padding of SPP-net's and Faster R-CNN's ZF, up to conv5: one map, of stride 16.

    Half a kernel of padding everywhere: cell i then looks at the image about pixel 16 i, which is what projecting a box
    onto the map by division takes for granted. Without padding, as `ZFNetBackbone` has it, that is pixel 16 i + 20.
    The weights are the same, by the same names.

    Args:
        weights: A checkpoint of ours, of `ZFNet` or of a model on it. None: N(0, 2 / fan-in).
        width: Factor on all channel counts, which are rounded to multiples of 8.
        frozen_stages: How many of the three stages (conv1; conv2; conv3 to conv5) do not train.

    Reference:
        He et al., "Spatial pyramid pooling", ECCV 2014, appendix A, and py-faster-rcnn's ZF. Those normalise responses
        within a map, before the pooling; here it is `ZFNet`'s own, across maps after it, to which its weights belong.
    """

    def __init__(self, weights: str | None = None, width: float = 1.0, frozen_stages: int = 0) -> None:
        super().__init__(
            width,
            frozen_stages=frozen_stages,
            out_indices=(2,),
            weights=weights,
            init="he" if weights is None else None,
        )
        for layer in self.stages.modules():
            if isinstance(layer, nn.Conv2d):
                layer.padding = tuple(side // 2 for side in layer.kernel_size)
            elif isinstance(layer, nn.MaxPool2d):
                layer.padding = 1


class SingleMapFasterRCNN(Detector):
    """Faster R-CNN as published, on one feature map, with py-faster-rcnn's values as defaults.

    The trunk's last map goes to the `RPN`, and to the `RoIHead` with what that proposes: regions are pooled by maxima,
    and go through fc6 and fc7. Four losses of weight 1: ``loss_objectness``, ``loss_rpn_box``, ``loss_class``,
    ``loss_box``. All is trained together; no gradient flows through the proposals' coordinates.

    Args:
        num_classes: K, without background.
        backbone: ``vgg16``: up to conv5_3, conv1 and conv2 frozen. ``zf``: `PaddedZFNetBackbone`. Or any backbone,
            whose last map is taken.
        weights: Of a backbone given by name: torchvision's name for published weights of VGG-16 (``IMAGENET1K_V1``),
            or the path of a checkpoint. fc6 and fc7 are taken along where they fit, also of a backbone that is built
            already and has weights.
        resize: None: shorter side 600 pixels, longer side at most 1,000.
        rpn_channels: Of the RPN's 3 x 3 convolution. None: 512; 256 for ``zf``.
        pool_size: Cells of a pooled region, a side. None: 7; 6 for ``zf``.
        hidden: Units of fc6 and of fc7.
        dropout: Probability of dropping a unit of fc6 and of fc7.
        rpn: Anchors, sampling and proposals; None: the reference's.
        roi: Sampling and detection; None: the reference's.

    Raises:
        ValueError: There is no such backbone, or ``weights`` are given for one that is built already.

    Reference:
        Ren, He, Girshick, Sun, "Faster R-CNN: towards real-time object detection with region proposal networks", NIPS
        2015. Where the paper is silent or its two codes differ, this is py-faster-rcnn trained end to end ("approximate
        joint training"). Where it leaves that, see docs/detection.md, `RPN` and `RoIHead`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str = "vgg16",
        weights: str | None = None,
        resize: ResizeAndPad | None = None,
        rpn_channels: int | None = None,
        pool_size: int | None = None,
        hidden: int = 4096,
        dropout: float = 0.5,
        rpn: RPNSettings | None = None,
        roi: RoISettings | None = None,
    ) -> None:
        net = _NETS["vgg16"] if isinstance(backbone, Backbone) else _named(backbone)
        trunk = _trunk(backbone, weights)
        channels, stride, size = trunk.channels[-1], trunk.strides[-1], pool_size or net.pool_size
        if resize is None:
            resize = ResizeAndPad(600, 1000, size_divisible=stride, fill=trunk.normalize.mean.tolist())
        super().__init__(num_classes, resize)
        self.backbone = trunk
        self.rpn = RPN(channels, rpn_channels or net.rpn_channels, stride, rpn)
        body = RoIFullyConnected(channels, size, hidden, dropout)
        self._body_report = _load_fully_connected(body, trunk)
        self.head = RoIHead(RoIPool(size, 1 / stride), body, hidden, num_classes, roi)

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """The objects of each image of a batch, in pixels of the resized images."""
        maps = self.backbone(batch.pixels)[-1]
        proposals = self.rpn.propose(self.rpn(maps), batch.sizes, batch.original_sizes)
        return self.head.detect(maps, proposals, batch.sizes)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The four losses of a batch."""
        maps = self.backbone(batch.pixels)[-1]
        said = self.rpn(maps)
        proposals = self.rpn.propose(said, batch.sizes, batch.original_sizes, for_training=True)
        return self.rpn.losses(said, batch.sizes, targets) | self.head.losses(maps, proposals, targets)

    def load_report(self) -> str | None:
        """What trunk, fc6 and fc7 were given from a checkpoint, in lines of text; None: nothing was loaded."""
        report = self.backbone.load_report
        if report is None:
            return None
        loaded = self._body_report.loaded if self._body_report else ()
        layers = [name for name in ("fc6", "fc7") if f"{name}.weight" in loaded and f"{name}.bias" in loaded]
        lines = [f"from {report.origin}:", f"  trunk: all {len(report.loaded)} tensors"]
        lines.append(
            f"  {' and '.join(layers)}: taken over" if layers else "  fc6 and fc7: new, nothing there fits them"
        )
        return "\n".join([*lines, "  RPN, class scores and boxes: new"])


def _named(backbone: str) -> _Net:
    if backbone in _NETS:
        return _NETS[backbone]
    near = get_close_matches(backbone, _NETS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(_NETS)}"
    raise ValueError(f"backbone={backbone!r}: {hint} Any other is given as an object, such as TorchvisionBackbone")


def _trunk(backbone: Backbone | str, weights: str | None) -> Backbone:
    if backbone == "zf":
        return PaddedZFNetBackbone(weights)
    if backbone == "vgg16":
        return TorchvisionBackbone("vgg16", weights, frozen_stages=2, out_indices=(4,))
    return as_backbone(backbone, weights)


def _load_fully_connected(body: RoIFullyConnected, trunk: Backbone) -> LoadReport | None:
    """Takes over fc6 and fc7 from the file that the trunk's weights come from, where they are there and fit."""
    found = _beside(trunk)
    if found is None:
        return None
    state, prefixes, aliases = found
    fitting, report = match_weights(body, state, prefixes=prefixes, aliases=aliases)
    body.load_state_dict(fitting, strict=False)
    return report


def _beside(trunk: Backbone) -> tuple[dict[str, Tensor], list[str], dict[str, str]] | None:
    """All tensors of the trunk's file, prefixes under which fc6 and fc7 may be, and other names for them -> ours."""
    report: Any = trunk.load_report
    if report is None:
        return None
    places: tuple[int, ...] = ()
    if isinstance(trunk, TorchvisionBackbone):
        found = trunk.full_checkpoint()
        if found is None:
            return None
        state, theirs, ours = found
        places = next((where for start, where in _FC.items() if trunk.name.startswith(start)), ())
    elif Path(report.origin).is_file():
        state = load_state_dict_file(report.origin)
        theirs = ours = report.prefix.removesuffix("backbone.")
    else:
        return None
    aliases = {
        f"{container}.{place}.{kind}": f"{layer}.{kind}"
        for layer, place in zip(("fc6", "fc7"), places, strict=False)
        for container in ("classifier", "head.body")
        for kind in ("weight", "bias")
    }
    return state, [theirs, ours, f"{ours}head.", f"{ours}head.body."], aliases
