"""Weights of whole detectors: torchvision's published ones, or a checkpoint of theirs or ours, into our own modules.

Shape legend: K classes, A anchors a cell.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from ..backbones import Backbone
from ..pretrained import find_weights
from ..weights import match_weights, pretrained_is_skipped

_SCORES = re.compile(r".*(cls_score|bbox_pred|cls_logits)\.(weight|bias)$")
"""Layers whose size follows from the number of classes."""

_EXACT_NORM = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""Networks whose ``COCO_V1`` was trained with batch normalisation without the small number that keeps from 0."""

_KEY = "detector_weights"
"""The argument of our detectors that names weights of the whole."""

_UPGRADES = (
    (re.compile(r"(inner_blocks|layer_blocks)\.(\d+)\.(weight|bias)$"), r"\1.\2.0.\3"),
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
"""Names in files from before torchvision 0.13 -> names since."""


def published_weights(builder: str, weights: str) -> torchvision.models.WeightsEnum | None:
    """torchvision's entry for weights of a detector; None for the path of a file with another name than it publishes.

    Args:
        builder: torchvision's name of the network.
        weights: The name of published weights, in short or in full, or a path.

    Raises:
        ValueError: It is neither.
    """
    source = find_weights(builder, weights)
    return None if source is None else source.published


def read_weights(builder: str, weights: str | Path, key: str = "weights") -> dict[str, Tensor]:
    """The tensors of weights, from torchvision's site where they are named, else from the file.

    Args:
        builder: torchvision's name of the network.
        weights: The name of published weights, or a path.
        key: The argument that they were given by, for messages.
    """
    source = find_weights(builder, weights, key)
    assert source is not None
    return source.state()


def norm_is_exact(builder: str, weights: str | None) -> bool:
    """Whether these weights expect batch normalisation with an epsilon of 0."""
    if weights is None or builder not in _EXACT_NORM:
        return False
    entry = published_weights(builder, weights)
    return entry is not None and entry.name == "COCO_V1"


def prepare_trunk(trunk: Backbone, builder: str, weights: str | None) -> None:
    """Makes a trunk as published weights of a detector expect it, in place; reads no file.

    Raises:
        ValueError: There are no such weights, or they are for another trunk.
    """
    if weights is None:
        return
    entry = published_weights(builder, weights)
    name = getattr(trunk, "name", type(trunk).__name__)
    if entry is not None and name != "resnet50":
        raise ValueError(
            f"detector_weights={weights!r} are of torchvision's {builder!r}, over 'resnet50', not {name!r}: take that "
            "backbone, or leave detector_weights out"
        )
    if norm_is_exact(builder, weights):
        for module in trunk.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0


def coco_ids(categories: Sequence[str]) -> list[int]:
    """Which outputs of a network stand for COCO's 80 classes: their ids, of which ten from 1 to 90 are not in use."""
    return [number for number, name in enumerate(categories) if name not in ("__background__", "N/A")]


def _coco_categories() -> list[str]:
    return torchvision.models.get_weight("FasterRCNN_ResNet50_FPN_Weights.COCO_V1").meta["categories"]


def _outputs_kept(outputs: int, num_classes: int) -> list[int] | None:
    """Which of a file's classes a detector with fewer takes over, its background not among them; None: none."""
    categories = _coco_categories()
    if outputs != len(categories):
        return None
    ids = coco_ids(categories)
    if num_classes == len(ids):
        return ids
    return list(range(1, outputs)) if num_classes == outputs - 1 else None


def _pick(value: Tensor, own: torch.Size, num_classes: int, background: int) -> Tensor | None:
    """The rows of a layer that scores COCO's ids (or gives boxes for each) which our classes have; None: not fitting.

    Args:
        value: The file's, ``[A * outputs * per, …]``.
        own: Shape of ours, ``[A * (background + K) * per, …]``.
        num_classes: K.
        background: Outputs before the first class: 1 or 0.
    """
    if own == value.shape or own[1:] != value.shape[1:] or own[0] % (num_classes + background):
        return None
    outputs = len(_coco_categories())
    each, rest = divmod(value.shape[0], outputs)
    kept = _outputs_kept(outputs, num_classes)
    if rest or kept is None or each != own[0] // (num_classes + background):
        return None
    # boxes of a class lie together, four to a class, where there is a background; else the anchors come first
    split = (1, outputs, each) if background else (each, outputs, 1)
    rows = value.unflatten(0, split)[:, [0] * background + kept]
    return rows.flatten(0, 2)


def load_detector(detector: nn.Module, builder: str, weights: str | None) -> None:
    """Loads a whole detector, if there are weights and loading is not switched off.

    Layers that score classes, for other classes than the file's, keep their initialisation; all else must fit. What was
    taken over is kept as ``detector.load_report``.

    Args:
        detector: Has ``network`` (torchvision's modules under torchvision's names), ``backbone`` (under
            ``network.backbone.body``) and ``num_classes``.
        builder: torchvision's name of that network.
        weights: The name of published weights, or a path; None: nothing is done.

    Raises:
        FileNotFoundError: The path of a file that does not exist.
        ValueError: Names or shapes differ.
    """
    if weights is None or pretrained_is_skipped():
        return
    state = {upgraded_name(name, builder): value for name, value in read_weights(builder, weights, _KEY).items()}
    own = detector.state_dict()
    aliases = _torchvision_names(detector, own)
    background = int(builder.startswith("fasterrcnn"))
    num_classes: int = detector.num_classes  # type: ignore[assignment]
    for name in filter(_SCORES.match, list(state)):
        if key := next((ours for theirs, ours in aliases.items() if name.endswith(theirs)), ""):
            picked = _pick(state[name], own[key].shape, num_classes, background)
            state[name] = state[name] if picked is None else picked
    fitting, report = match_weights(detector, state, aliases=aliases)
    unfit = [name for name in report.mismatched if not _SCORES.match(name) or "rpn" in name]
    # classifiers' leftovers (batches counted) are no part of a frozen normalisation's
    unexpected = [name for name in report.unexpected if not name.endswith("num_batches_tracked")]
    if unfit or report.missing or unexpected or not fitting:
        raise ValueError(
            f"detector_weights={weights!r} do not fit this {type(detector).__name__} over "
            f"{getattr(detector.backbone, 'name', type(detector.backbone).__name__)!r}:\n{report.describe()}"
        )
    detector.load_state_dict(fitting, strict=False)
    detector.load_report = replace(report, origin=f"{_KEY} {weights}")  # type: ignore[assignment]


def upgraded_name(name: str, builder: str) -> str:
    """The name that torchvision gives today to a tensor of a file, whose names may be from before its version 0.13."""
    for old, new in _UPGRADES:
        name = old.sub(new, name)
    if builder.startswith("retinanet"):
        # before, convolutions and their ReLUs were counted alike
        name = re.sub(
            r"((?:classification|regression)_head\.conv)\.(\d)\.(weight|bias)$",
            lambda found: f"{found[1]}.{int(found[2]) // 2}.0.{found[3]}",
            name,
        )
    return name


def _torchvision_names(detector: nn.Module, own: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of the tensors in torchvision's own network -> ours."""
    trunk = "network.backbone.body."
    names: dict[str, str] = getattr(detector.backbone, "torchvision_names", dict)()
    aliases = {f"backbone.body.{theirs}": f"{trunk}{ours}" for theirs, ours in names.items()}
    aliases |= {key.removeprefix("network."): key for key in own if not key.startswith(trunk)}
    return aliases
