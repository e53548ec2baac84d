"""Helpers that build the stages of backbones: named sequences and scaled channel counts."""

from collections import OrderedDict

from torch import nn


def named_layers(**layers: nn.Module) -> nn.Sequential:
    """Return a sequence whose layers have the paper's names: ``named_layers(conv1=..., relu1=...)``."""
    return nn.Sequential(OrderedDict(layers))


def scale_channels(channels: int, width: float) -> int:
    """Scale a layer's channel count by a factor and round it to the nearest multiple of 8.

    Raises:
        ValueError: The result is 0.
    """
    if not (eights := round(channels * width / 8)) > 0:
        raise ValueError(
            f"width: scales a layer of {channels} channels to 0 (counts are multiples of 8), got {width}; use more "
            f"than {4 / channels:.3f}"
        )
    return 8 * eights
