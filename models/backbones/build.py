"""Backbones by name: the builder of all backbones of striate, torchvision and timm."""

from collections.abc import Callable

from ..ops.checks import suggest
from .base import Backbone, backbone_name
from .lite0 import EfficientNetLite0
from .plain import PlainCNN
from .timm import TimmBackbone
from .torchvision import WITHOUT_STAGES, TorchvisionBackbone, torchvision_backbones

_BUILDERS: dict[str, Callable[..., Backbone]] = {"plain": PlainCNN, "lite0": EfficientNetLite0}
"""Backbones of this package, by their name in `build_backbone`."""

_TIMM = "timm/"
"""Prefix of timm's networks, whose names may equal torchvision's."""


def available_backbones() -> list[str]:
    """List the names that `build_backbone` accepts, in addition to ``timm/<name>`` for timm's networks.

    Example:
        >>> "resnet50" in available_backbones()
        True
    """
    return sorted([*_BUILDERS, *torchvision_backbones()])


def build_backbone(
    name: str,
    weights: str | None = None,
    frozen_stages: int = 0,
    freeze_norm: bool = False,
    out_indices: tuple[int, ...] | None = None,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: One of `available_backbones`, which include torchvision's names, or ``timm/<name>``.
        weights: Name of published weights (``DEFAULT``, ``IMAGENET1K_V1``, a tag of timm's), or path of a checkpoint.
            ``None``: random initialization.
        frozen_stages: Number of leading stages to freeze.
        freeze_norm: Whether to freeze the running statistics, scale and shift of every batch normalization.
        out_indices: Indices of the stages whose outputs are returned, increasing from 0. ``None``: all.

    Raises:
        ValueError: The name is unknown, or another argument does not fit the backbone.
        FileNotFoundError: ``weights`` is the path of a missing file.
        ImportError: ``name`` starts with ``timm/`` and timm is not installed.

    Example:
        >>> build_backbone("resnet50", out_indices=(1, 2, 3, 4)).channels
        (256, 512, 1024, 2048)
    """
    _check_name("name", name)
    if name.startswith(_TIMM):
        return TimmBackbone(name.removeprefix(_TIMM), weights, frozen_stages, freeze_norm, out_indices)
    if name in _BUILDERS:
        return _BUILDERS[name](
            weights=weights, frozen_stages=frozen_stages, freeze_norm=freeze_norm, out_indices=out_indices
        )
    return TorchvisionBackbone(name, weights, frozen_stages, freeze_norm, out_indices)


def _check_name(argument: str, name: str) -> None:
    """Require the name of a backbone; the error names the argument. Names of timm are checked later, by timm."""
    is_timm = name.startswith(_TIMM) and name != _TIMM
    if not (is_timm or name in _BUILDERS or name.startswith(tuple(WITHOUT_STAGES)) or name in torchvision_backbones()):
        hint = f"{suggest(name, available_backbones(), n=3)} (timm's networks are named 'timm/<name>')"
        raise ValueError(f"{argument}: unknown backbone, got {name!r}; {hint}")


def as_backbone(backbone: Backbone | str, weights: str | None = None) -> Backbone:
    """Return a backbone unchanged, or build it by name.

    Args:
        backbone: A backbone, or its name for `build_backbone`.
        weights: Name or path of the weights, for a backbone given by name.

    Raises:
        ValueError: The name is unknown, or ``weights`` is given together with a backbone that is already built.
    """
    if isinstance(backbone, str):
        _check_name("backbone", backbone)
        return build_backbone(backbone, weights)
    if weights is not None:
        raise ValueError(
            f"weights: has no effect on a backbone that is already built, got {weights!r}; pass weights to "
            f"{type(backbone).__name__}, or give the backbone by name"
        )
    return backbone


def dilated_backbone(backbone: Backbone, output_stride: int) -> Backbone:
    """Dilate a backbone in place if the stride of its last map exceeds ``output_stride``, and return it.

    Raises:
        ValueError: Its last map cannot have a stride of ``output_stride``.
    """
    name = backbone_name(backbone)
    if backbone.strides[-1] > output_stride:
        dilate = getattr(backbone, "dilate", None)
        if dilate is None:
            raise ValueError(
                f"backbone: {name} has a last stride of {backbone.strides[-1]} and cannot be dilated to "
                f"output_stride={output_stride}; use a ResNet of torchvision's, or build timm's networks with options: "
                f"{{output_stride: {output_stride}}}"
            )
        dilate(output_stride)
    if backbone.strides[-1] != output_stride:
        raise ValueError(
            f"output_stride: exceeds the last stride of {name}, {backbone.strides[-1]}, got {output_stride}; set "
            "output_stride to that stride, or use more stages"
        )
    return backbone
