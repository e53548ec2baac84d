"""Backbones by name."""

from collections.abc import Callable
from difflib import get_close_matches

from .base import Backbone
from .lite0 import EfficientNetLite0
from .plain import PlainCNN
from .timm import TimmBackbone
from .torchvision import UNCUT, TorchvisionBackbone, torchvision_backbones

_OWN: dict[str, Callable[..., Backbone]] = {"plain": PlainCNN, "lite0": EfficientNetLite0}
"""Backbones of this package by the name that `build_backbone` knows them by."""


def available_backbones() -> list[str]:
    """Names that `build_backbone` takes, besides ``timm/<name>`` for each of timm's networks.

    Example:
        >>> "resnet50" in available_backbones()
        True
    """
    return sorted([*_OWN, *torchvision_backbones()])


def build_backbone(
    name: str,
    weights: str | None = None,
    frozen_stages: int = 0,
    freeze_norm: bool = False,
    out_indices: tuple[int, ...] | None = None,
) -> Backbone:
    """Builds a backbone by name.

    Args:
        name: One of `available_backbones`, torchvision's names among them, or ``timm/<name>``.
        weights: The name of published weights (``DEFAULT``, ``IMAGENET1K_V1``, a tag of timm's), or the path of a
            checkpoint. ``None``: random initialisation.
        frozen_stages: How many of the first stages are frozen, 0 to their number.
        freeze_norm: Whether every batch normalisation keeps its running statistics and its scale and shift.
        out_indices: Which stages' outputs are returned, increasing from 0. ``None``: all.

    Raises:
        ValueError: There is no such backbone, or an argument does not suit it.
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ImportError: ``name`` begins with ``timm/`` and timm is not installed.

    Example:
        >>> build_backbone("resnet50", out_indices=(1, 2, 3, 4)).channels
        (256, 512, 1024, 2048)
    """
    library, _, timm_name = name.partition("/")
    if library == "timm" and timm_name:
        return TimmBackbone(timm_name, weights, frozen_stages, freeze_norm, out_indices)
    if name in _OWN:
        return _OWN[name](
            weights=weights, frozen_stages=frozen_stages, freeze_norm=freeze_norm, out_indices=out_indices
        )
    if name.startswith(tuple(UNCUT)) or name in torchvision_backbones():
        return TorchvisionBackbone(name, weights, frozen_stages, freeze_norm, out_indices)
    near = get_close_matches(name, available_backbones(), n=3)
    hint = (
        f"did you mean {' or '.join(map(repr, near))}?" if near else f"choose from {', '.join(available_backbones())}"
    )
    raise ValueError(f"there is no backbone {name!r}; {hint} (timm's networks are named 'timm/<name>')")


def as_backbone(backbone: Backbone | str, weights: str | None = None) -> Backbone:
    """Return a backbone as it is, or build it from its name.

    Args:
        backbone: A backbone, or a name that `build_backbone` takes.
        weights: Weights of a backbone given by name, as in `build_backbone`.

    Raises:
        ValueError: ``weights`` is given together with a backbone that is already built.
    """
    if isinstance(backbone, str):
        return build_backbone(backbone, weights)
    if weights is not None:
        raise ValueError(
            f"weights: has no effect on a backbone that is already built, got {weights!r}; pass weights to "
            f"{type(backbone).__name__}, or give the backbone by name"
        )
    return backbone
