"""SSD300 and SSD512 as published, and SSD300 as torchvision has it, with its weights."""

from pathlib import Path
from typing import Literal, Self, get_args

from ...ops.checks import check_choice
from ...segmentation.fcn_backbones import vgg16_names
from ...weights import State, pretrained_is_skipped
from ..checkpoint_mapping import read_weights
from .backbone import CAFFE_MEAN, CAFFE_STD, SSDVGG16
from .default_boxes import Clip, ssd_scales
from .ssd import SSD, ExtraLayer

Boxes = Literal["voc", "coco"]

_EXTRA_300 = (
    ExtraLayer(512),
    ExtraLayer(256),
    ExtraLayer(256, stride=1, padding=0),
    ExtraLayer(256, stride=1, padding=0),
)
_EXTRA_512 = (ExtraLayer(512), *(ExtraLayer(256) for _ in range(3)), ExtraLayer(256, kernel=4, stride=1))


def _first_scales(boxes: str, voc: tuple[int, int], coco: tuple[int, int]) -> tuple[int, int]:
    check_choice(get_args(Boxes), boxes=boxes)
    return voc if boxes == "voc" else coco


class SSD300(SSD):
    """SSD300: 8,732 default boxes on maps of 38, 19, 10, 5, 3 and 1 cells a side.

    Args:
        num_classes: K, without background.
        backbone: `SSDVGG16`, to which a classifier's weights are given; ``None``: that, with random weights.
        boxes: Whose default boxes: of the authors' experiments on VOC (10, 20, 37, 54, 71 and 88 % of the image's side)
            or on COCO (7, 15, 33, 51, 69 and 87 %).
        clip: What of default boxes that leave the image is cut off (`default_boxes`); the authors' final code: nothing.
        match_iou: As in `SSD`.
        negatives: As in `SSD`.
        score_threshold: Detections score more.
        nms_iou: Of two detections of one class that overlap more, the less sure one goes.
        candidates: How many of each class, the surest, take part in that.
        max_detections: How many an image has at most.
        clip_first: Whether boxes are cut off at the image's edge before suppression and not after.
        weights: Path of a checkpoint to go on from: an SSD300's, of ours or of torchvision's ``ssd300_vgg16``, perhaps
            for other classes. For torchvision's the backbone needs `CAFFE_MEAN` and `CAFFE_STD`: see
            `from_torchvision`.

    Raises:
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ValueError: ``boxes`` is unknown; ``weights`` of another network.

    Reference:
        Liu et al., "SSD: single shot multibox detector", ECCV 2016: table 6, 77.2 % on VOC 2007 with the augmentation
        of its section 3.6; and the authors' ``ssd_pascal.py``, ``ssd_coco.py``. See `SSD` and `SSDVGG16` for what is
        different here. Weights of new layers are uniform of variance 1 / fan-in, as Caffe's xavier has it.
    """

    def __init__(
        self,
        num_classes: int = 20,
        backbone: SSDVGG16 | None = None,
        boxes: Boxes = "voc",
        clip: Clip | None = None,
        match_iou: float = 0.5,
        negatives: float = 3.0,
        score_threshold: float = 0.01,
        nms_iou: float = 0.45,
        candidates: int = 400,
        max_detections: int = 200,
        clip_first: bool = False,
        weights: str | None = None,
    ) -> None:
        first, second = _first_scales(boxes, voc=(10, 20), coco=(7, 15))
        super().__init__(
            num_classes,
            SSDVGG16() if backbone is None else backbone,
            image_size=300,
            extra=_EXTRA_300,
            scales=ssd_scales(6, first, second),
            steps=(8, 16, 32, 64, 100, 300),
            clip=clip,
            l2_norm=20.0,
            match_iou=match_iou,
            negatives=negatives,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            candidates=candidates,
            max_detections=max_detections,
            clip_first=clip_first,
            weights=weights,
        )

    def _renamed(self, state: State) -> State:
        return from_torchvision_names(state)

    @classmethod
    def from_torchvision(cls, weights: str | Path | None = "COCO_V1", num_classes: int = 90) -> Self:
        """Torchvision's ``ssd300_vgg16``: the same boxes, scores and losses from the same weights.

        Its default boxes are COCO's, no side longer than the image's, and detections are cut off at the image's edge
        before suppression. Its class c is c - 1 here. Losses differ where two objects have the same best default box:
        there torchvision leaves one of them without.

        Args:
            weights: Torchvision's name, or the path of a file with such weights; ``None``: random ones.
            num_classes: K, without background: torchvision's 91 of COCO are 90 here.

        Raises:
            FileNotFoundError: ``weights`` is the path of a file that does not exist.
            ValueError: There are no such weights, or they do not fit.
        """
        backbone = SSDVGG16(mean=CAFFE_MEAN, std=CAFFE_STD)
        model = cls(num_classes, backbone, boxes="coco", clip="sides", clip_first=True)
        if weights is not None and not pretrained_is_skipped():
            model.load(read_weights("ssd300_vgg16", weights), str(weights))
        return model


class SSD512(SSD):
    """SSD512: 24,564 default boxes on maps of 64, 32, 16, 8, 4, 2 and 1 cells a side.

    Args:
        num_classes: K, without background.
        backbone: `SSDVGG16`, to which a classifier's weights are given; ``None``: that, with random weights.
        boxes: Whose default boxes: of the authors' experiments on VOC (7, 15, 30, 45, 60, 75 and 90 % of the image's
            side) or on COCO (4, 10, 26, 42, 58, 74 and 90 %).
        clip: What of default boxes that leave the image is cut off (`default_boxes`); the authors' final code: nothing.
        match_iou: As in `SSD`.
        negatives: As in `SSD`.
        score_threshold: Detections score more.
        nms_iou: Of two detections of one class that overlap more, the less sure one goes.
        candidates: How many of each class, the surest, take part in that.
        max_detections: How many an image has at most.
        clip_first: Whether boxes are cut off at the image's edge before suppression and not after.
        weights: Path of an SSD512's checkpoint to go on from, perhaps for other classes.

    Raises:
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ValueError: ``boxes`` is unknown; ``weights`` of another network.

    Reference:
        As for `SSD300`; the paper's table 6 has 79.8 % on VOC 2007. (Torchvision's unfinished variant for 512 pixels
        has maps of 6 and 4 cells in the place of 4 and 2.)
    """

    def __init__(
        self,
        num_classes: int = 20,
        backbone: SSDVGG16 | None = None,
        boxes: Boxes = "voc",
        clip: Clip | None = None,
        match_iou: float = 0.5,
        negatives: float = 3.0,
        score_threshold: float = 0.01,
        nms_iou: float = 0.45,
        candidates: int = 400,
        max_detections: int = 200,
        clip_first: bool = False,
        weights: str | None = None,
    ) -> None:
        first, second = _first_scales(boxes, voc=(7, 15), coco=(4, 10))
        super().__init__(
            num_classes,
            SSDVGG16() if backbone is None else backbone,
            image_size=512,
            extra=_EXTRA_512,
            scales=ssd_scales(7, first, second),
            steps=(8, 16, 32, 64, 128, 256, 512),
            clip=clip,
            l2_norm=20.0,
            match_iou=match_iou,
            negatives=negatives,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            candidates=candidates,
            max_detections=max_detections,
            clip_first=clip_first,
            weights=weights,
        )


def from_torchvision_names(state: State) -> State:
    """The weights of torchvision's ``ssd300_vgg16`` under the names of `SSD300`; others as they are.

    Torchvision has conv1 to conv4 under ``features``, conv5 to fc7 as the first of its extra layers, and the factors of
    conv4_3's normalisation flat.

    Args:
        state: Names, behind any prefix, -> tensors.
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
    """Torchvision's name of each layer with weights -> ours."""
    ours, theirs, _ = vgg16_names()
    names = {}
    for own, other in zip(ours[:-2], theirs[:-2], strict=True):
        index = int(other.rpartition(".")[2])
        # its extra.0 begins with pool4, which is number 23 of VGG-16's features
        names[f"backbone.extra.0.{index - 23}" if index > 23 else f"backbone.{other}"] = f"backbone.{own}"
    names |= {"backbone.extra.0.7.1": "backbone.stages.4.fc6", "backbone.extra.0.7.3": "backbone.stages.4.fc7"}
    for number in range(len(_EXTRA_300)):
        names[f"backbone.extra.{number + 1}.0"] = f"extra.{number}.squeeze"
        names[f"backbone.extra.{number + 1}.2"] = f"extra.{number}.conv"
    for number in range(2 + len(_EXTRA_300)):
        names[f"head.classification_head.module_list.{number}"] = f"class_heads.{number}"
        names[f"head.regression_head.module_list.{number}"] = f"box_heads.{number}"
    return names
