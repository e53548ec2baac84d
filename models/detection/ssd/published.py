"""SSD300 and SSD512 as published, and SSD300 as torchvision builds it, with its weights."""

from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

from ...backbones.vgg16 import vgg16_names
from ...ops.checks import check_choice
from ...pretrained import find_weights
from ...weights import State, pretrained_is_skipped
from .backbone import CAFFE_MEAN, CAFFE_STD, SSDVGG16
from .default_boxes import ssd_scales
from .ssd import SSD, ExtraLayer

BoxScales = Literal["voc", "coco"]


class _Architecture(NamedTuple):
    """What distinguishes the two published sizes."""

    image_size: int
    extra: tuple[ExtraLayer, ...]
    steps: tuple[int, ...]
    voc: tuple[int, int]  # scales of the first two maps, in percent, in the authors' experiments on VOC
    coco: tuple[int, int]  # and on COCO


_HALVING, _UNPADDED = ExtraLayer(256), ExtraLayer(256, stride=1, padding=0)
_300 = _Architecture(
    300, (ExtraLayer(512), _HALVING, _UNPADDED, _UNPADDED), (8, 16, 32, 64, 100, 300), voc=(10, 20), coco=(7, 15)
)
_512 = _Architecture(
    512,
    (ExtraLayer(512), _HALVING, _HALVING, _HALVING, ExtraLayer(256, kernel=4, stride=1)),
    (8, 16, 32, 64, 128, 256, 512),
    voc=(7, 15),
    coco=(4, 10),
)


class PublishedSSD(SSD):
    """SSD on VGG-16 as published, in one of two sizes; use `SSD300` or `SSD512`.

    Args:
        num_classes: Number of classes K, without background.
        backbone: An `SSDVGG16`, which is also where a classifier's weights are given. None: one with random weights.
        boxes: Scales of the default boxes: those of the authors' experiments on ``voc`` or on ``coco``.
        weights: Path of a checkpoint of the same size to start from, possibly with other classes. `SSD300` also reads
            torchvision's ``ssd300_vgg16``, which needs a backbone with `CAFFE_MEAN` and `CAFFE_STD`; see
            `SSD300.from_torchvision`.
        kwargs: Other arguments of `SSD` that do not change the architecture: ``clip`` (the authors' final code clips no
            default box), ``match_iou``, ``negatives``, ``score_threshold``, ….

    Raises:
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ValueError: ``boxes`` is unknown, a number is out of range, or ``weights`` belong to another network.
    """

    _architecture: ClassVar[_Architecture]

    def __init__(
        self,
        num_classes: int = 20,
        backbone: SSDVGG16 | None = None,
        boxes: BoxScales = "voc",
        weights: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice(get_args(BoxScales), boxes=boxes)
        image_size, extra, steps, voc, coco = self._architecture
        super().__init__(
            num_classes,
            SSDVGG16() if backbone is None else backbone,
            image_size,
            extra,
            scales=ssd_scales(len(steps), *(voc if boxes == "voc" else coco)),
            aspects=None,
            steps=steps,
            l2_norm=20.0,
            batch_norm=False,
            weights=weights,
            **kwargs,
        )


class SSD300(PublishedSSD):
    """SSD300: 8,732 default boxes on maps of 38, 19, 10, 5, 3 and 1 cells per side.

    Default boxes have sides of 10, 20, 37, 54, 71 and 88 % of the image's on VOC, and of 7, 15, 33, 51, 69 and 87 % on
    COCO. Arguments and errors are those of `PublishedSSD`.

    Reference:
        Liu et al., "SSD: single shot multibox detector", ECCV 2016: table 6, 77.2 % on VOC 2007 with the augmentation
        of its section 3.6; and the authors' ``ssd_pascal.py``, ``ssd_coco.py``. See `SSD` and `SSDVGG16` for the
        deviations. Weights of new layers are uniform with variance 1 / fan-in, as Caffe's "xavier" draws them.
    """

    _architecture = _300

    def _renamed(self, state: State) -> State:
        """The state dict ``[...]`` under our names if it is torchvision's."""
        return from_torchvision_names(state)

    @classmethod
    def from_torchvision(cls, weights: str | Path | None = "COCO_V1", num_classes: int = 90) -> Self:
        """Build torchvision's ``ssd300_vgg16``: the same boxes, scores and losses from the same weights.

        Its default boxes are COCO's, with no side longer than the image's, and detections are clipped to the image
        before non-maximum suppression. Its class c is c - 1 here. Losses differ if two objects share their best
        default box: torchvision then leaves one of them unmatched.

        Args:
            weights: torchvision's name, or the path of a file with such weights. None: random weights.
            num_classes: Number of classes K, without background. torchvision's 91 for COCO are 90 here.

        Raises:
            FileNotFoundError: ``weights`` is the path of a file that does not exist.
            ValueError: There are no such weights, or they do not fit.
        """
        backbone = SSDVGG16(mean=CAFFE_MEAN, std=CAFFE_STD)
        model = cls(num_classes, backbone, boxes="coco", clip="sides", clip_first=True)
        source = find_weights("ssd300_vgg16", weights)
        if source is not None and not pretrained_is_skipped():
            model.load(source.state(), str(weights))
        return model


class SSD512(PublishedSSD):
    """SSD512: 24,564 default boxes on maps of 64, 32, 16, 8, 4, 2 and 1 cells per side.

    Default boxes have sides of 7, 15, 30, 45, 60, 75 and 90 % of the image's on VOC, and of 4, 10, 26, 42, 58, 74 and
    90 % on COCO. Arguments and errors are those of `PublishedSSD`.

    Reference:
        As for `SSD300`; the paper's table 6 reports 79.8 % on VOC 2007. torchvision's unfinished variant for 512 pixels
        has maps of 6 and 4 cells in place of 4 and 2.
    """

    _architecture = _512


def from_torchvision_names(state: State) -> State:
    """Rename the weights of torchvision's ``ssd300_vgg16`` to the names of `SSD300`; return others unchanged.

    torchvision has conv1 to conv4 under ``features``, conv5 to fc7 as the first of its extra layers, and the factors
    of conv4_3's normalization as a vector.

    Args:
        state: Names with any prefix -> tensors.
    """
    scale = next((key for key in state if key.endswith("backbone.scale_weight")), None)
    if scale is None:
        return state
    prefix = scale.removesuffix("backbone.scale_weight")
    names = _torchvision_layers()
    result = {"norm.weight": state[scale].reshape(-1, 1, 1)}
    for key, value in state.items():
        layer, _, part = key.removeprefix(prefix).rpartition(".")
        if layer in names and key.startswith(prefix):
            result[f"{names[layer]}.{part}"] = value
    return result


def _torchvision_layers() -> dict[str, str]:
    """torchvision's name of each layer with weights -> our name."""
    our_names, torchvision_names, _ = vgg16_names()
    names = {}
    for ours, theirs in zip(our_names[:-2], torchvision_names[:-2], strict=True):
        index = int(theirs.rpartition(".")[2])
        # its extra.0 begins with pool4, which is number 23 of VGG-16's features
        names[f"backbone.extra.0.{index - 23}" if index > 23 else f"backbone.{theirs}"] = f"backbone.{ours}"
    names |= {"backbone.extra.0.7.1": "backbone.stages.4.fc6", "backbone.extra.0.7.3": "backbone.stages.4.fc7"}
    for number in range(len(_300.extra)):
        names[f"backbone.extra.{number + 1}.0"] = f"extra.{number}.squeeze"
        names[f"backbone.extra.{number + 1}.2"] = f"extra.{number}.conv"
    for number in range(2 + len(_300.extra)):
        names[f"head.classification_head.module_list.{number}"] = f"class_heads.{number}"
        names[f"head.regression_head.module_list.{number}"] = f"box_heads.{number}"
    return names
