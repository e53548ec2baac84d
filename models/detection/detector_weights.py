"""Loading of whole detectors: torchvision's published weights, or a checkpoint of theirs or ours, into our modules.

Shape legend: K classes, A anchors per cell.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from ..backbones import Backbone, backbone_name
from ..pretrained import find_weights
from ..weights import match_weights, pretrained_is_skipped

_SCORES = re.compile(r".*(cls_score|bbox_pred|cls_logits|mask_fcn_logits)\.(weight|bias)$")
"""Layers whose size depends on the number of classes."""

_MASK_BRANCH = re.compile(r"roi_heads\.mask_|^mask_branch\.|^controller\.")
"""Layers that a file of a detector lacks."""

_LEVEL_SCALES = re.compile(r"head\.level_scales$")
"""Numbers that a file of torchvision's FCOS lacks; they are 1 there."""

_EXACT_NORM = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "maskrcnn_resnet50_fpn")
"""Networks whose ``COCO_V1`` was trained with an epsilon of 0 in batch normalization."""

_KEY = "detector_weights"
"""Argument of our detectors for weights of the whole detector."""

_UPGRADES = (
    (re.compile(r"(inner_blocks|layer_blocks)\.(\d+)\.(weight|bias)$"), r"\1.\2.0.\3"),
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
    (
        re.compile(r"mask_head\.mask_fcn(\d)\.(weight|bias)$"),
        lambda match: f"mask_head.{int(match[1]) - 1}.0.{match[2]}",
    ),
)
"""Names in files written before torchvision 0.13 -> names since."""


def published_weights(builder: str, weights: str) -> torchvision.models.WeightsEnum | None:
    """torchvision's entry for weights of a detector. None for a file under another name than torchvision publishes.

    Args:
        builder: torchvision's name of the network.
        weights: The name of published weights, short or full, or the path of a file.

    Raises:
        ValueError: ``weights`` is neither.
    """
    source = find_weights(builder, weights)
    return None if source is None else source.published


def read_weights(builder: str, weights: str | Path, key: str = "weights") -> dict[str, Tensor]:
    """Read a state dict: published weights by name, or a file.

    Args:
        builder: torchvision's name of the network.
        weights: The name of published weights, or the path of a file.
        key: Argument that ``weights`` were given for, for messages.
    """
    source = find_weights(builder, weights, key)
    assert source is not None
    return source.state()


def norm_is_exact(builder: str, weights: str | None) -> bool:
    """Whether these weights expect batch normalization with an epsilon of 0."""
    if weights is None or builder not in _EXACT_NORM:
        return False
    entry = published_weights(builder, weights)
    return entry is not None and entry.name == "COCO_V1"


def prepare_backbone(backbone: Backbone, builder: str, weights: str | None) -> None:
    """Adapt a backbone to published weights of a detector, in place, without reading a file.

    Args:
        backbone: The backbone of the detector.
        builder: torchvision's name of the network.
        weights: The name of published weights, or the path of a file. None: nothing is done.

    Raises:
        ValueError: There are no such weights, or they are for another backbone.
    """
    if weights is None:
        return
    entry = published_weights(builder, weights)
    name = backbone_name(backbone)
    if entry is not None and name != "resnet50":
        raise ValueError(
            f"detector_weights: {weights!r} of torchvision's {builder!r} need the backbone 'resnet50', got {name!r}; "
            "use that backbone, or remove detector_weights"
        )
    if norm_is_exact(builder, weights):
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0


def coco_ids(categories: Sequence[str]) -> list[int]:
    """Indices of a network's outputs for COCO's 80 classes: their ids. Ten of the ids from 1 to 90 are not in use."""
    return [number for number, name in enumerate(categories) if name not in ("__background__", "N/A")]


def _coco_categories() -> list[str]:
    return torchvision.models.get_weight("FasterRCNN_ResNet50_FPN_Weights.COCO_V1").meta["categories"]


def _kept_outputs(outputs: int, num_classes: int) -> list[int] | None:
    """Indices of a file's classes that a detector with ``num_classes`` loads, without background. None: none."""
    categories = _coco_categories()
    if outputs != len(categories):
        return None
    ids = coco_ids(categories)
    if num_classes == len(ids):
        return ids
    return list(range(1, outputs)) if num_classes == outputs - 1 else None


def _select_rows(value: Tensor, shape: torch.Size, num_classes: int, background: int) -> Tensor | None:
    """Select the rows of a layer for COCO's ids that belong to our classes. None: the layer does not fit.

    Args:
        value: The layer's tensor in the file, ``[A * outputs * per, …]``.
        shape: Shape of our layer, ``[A * (background + K) * per, …]``.
        num_classes: Number of classes K.
        background: Number of outputs before the first class, 1 or 0.
    """
    if shape == value.shape or shape[1:] != value.shape[1:] or shape[0] % (num_classes + background):
        return None
    outputs = len(_coco_categories())
    per_output, rest = divmod(value.shape[0], outputs)
    kept = _kept_outputs(outputs, num_classes)
    if rest or kept is None or per_output != shape[0] // (num_classes + background):
        return None
    # with a background, the four numbers of a class are contiguous; without, anchors are the outer dimension
    split = (1, outputs, per_output) if background else (per_output, outputs, 1)
    rows = value.unflatten(0, split)[:, [0] * background + kept]
    return rows.flatten(0, 2)


def load_detector(detector: nn.Module, builder: str, weights: str | None) -> None:
    """Load the weights of a whole detector, unless there are none or loading is switched off.

    With another number of classes than the file's, the layers that predict classes keep their initialization. So does a
    mask branch, if the file is that of a detector without one, and so do the scales of FCOS' levels. All other tensors
    must fit. What was loaded is stored as
    ``detector.load_report``.

    Args:
        detector: A detector with ``network`` (torchvision's modules under torchvision's names), ``backbone`` (under
            ``network.backbone.body``) and ``num_classes``.
        builder: torchvision's name of the network.
        weights: The name of published weights, or the path of a file. None: nothing is done.

    Raises:
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ValueError: Names or shapes differ.
    """
    if weights is None or pretrained_is_skipped():
        return
    state = {upgraded_name(name, builder): value for name, value in read_weights(builder, weights, _KEY).items()}
    expected = detector.state_dict()
    aliases = _torchvision_names(detector, expected)
    background = int(builder.startswith(("fasterrcnn", "maskrcnn")))
    num_classes: int = detector.num_classes  # type: ignore[assignment]
    backbone: Backbone = detector.backbone  # type: ignore[assignment]
    for name in filter(_SCORES.match, list(state)):
        if key := next((ours for theirs, ours in aliases.items() if name.endswith(theirs)), ""):
            rows = _select_rows(state[name], expected[key].shape, num_classes, background)
            state[name] = state[name] if rows is None else rows
    fitting, report = match_weights(detector, state, aliases=aliases)
    unfit = [name for name in report.mismatched if not _SCORES.match(name) or "rpn" in name]
    # numbers of batches, which frozen batch normalization does not have
    unexpected = [name for name in report.unexpected if not name.endswith("num_batches_tracked")]
    required = [name for name in report.missing if not _LEVEL_SCALES.search(name)]
    missing = [name for name in required if not _MASK_BRANCH.search(name)]
    partial = len(missing) < len(required) and any(map(_MASK_BRANCH.search, fitting))
    if unfit or missing or partial or unexpected or not fitting:
        raise ValueError(
            f"{_KEY}: {weights!r} does not match this {type(detector).__name__} with the backbone "
            f"{backbone_name(backbone)!r}:\n{report.describe()}"
        )
    detector.load_state_dict(fitting, strict=False)
    detector.load_report = replace(report, origin=f"{_KEY} {weights}")  # type: ignore[assignment]


def upgraded_name(name: str, builder: str) -> str:
    """torchvision's current name of a tensor, whose name may be from before torchvision 0.13."""
    for old, new in _UPGRADES:
        name = old.sub(new, name)
    if builder.startswith("retinanet"):
        # convolutions and their ReLUs used to be numbered together
        name = re.sub(
            r"((?:classification|regression)_head\.conv)\.(\d)\.(weight|bias)$",
            lambda match: f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}",
            name,
        )
    return name


def _torchvision_names(detector: nn.Module, expected: Mapping[str, Tensor]) -> dict[str, str]:
    """torchvision's name of each tensor -> our name."""
    body = "network.backbone.body."
    names: dict[str, str] = getattr(detector.backbone, "torchvision_names", dict)()
    aliases = {f"backbone.body.{theirs}": f"{body}{ours}" for theirs, ours in names.items()}
    aliases |= {key.removeprefix("network."): key for key in expected if not key.startswith(body)}
    return aliases
