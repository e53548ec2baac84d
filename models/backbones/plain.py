"""A small plain convolutional network for first experiments and for tests."""

from collections.abc import Sequence

from torch import nn

from ..ops.checks import check_min
from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from .base import Backbone


class PlainCNN(Backbone):
    """Stages of 3x3 convolutions with batch normalization and ReLU, each halving the map.

    Stage ``i`` halves the map in its first convolution and has ``widths[i]`` channels and stride ``2 ** (i + 1)``. The
    default network has 0.3 million parameters and trains on a laptop at 64 pixels.

    Args:
        widths: Channels of each stage.
        depth: Number of convolutions in each stage.
        in_channels: Channels of the images: 3 (normalized with ImageNet's mean and standard deviation), or any other
            number (normalized to [-1, 1]).
        weights: Path of a checkpoint. ``None``: He's initialization.
        frozen_stages: Number of leading stages to freeze.
        freeze_norm: Whether to freeze the running statistics, scale and shift of every batch normalization.
        out_indices: Indices of the stages whose outputs are returned, increasing from 0. ``None``: all.

    Shape:
        - images: ``[B, in_channels, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: list of ``[B, widths[i], H / 2 ** (i + 1), W / 2 ** (i + 1)]``.

    Raises:
        ValueError: ``widths`` is empty or has a number below 1, ``depth`` is below 1, or ``weights`` does not match.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128),
        depth: int = 2,
        in_channels: int = 3,
        weights: str | None = None,
        frozen_stages: int = 0,
        freeze_norm: bool = False,
        out_indices: tuple[int, ...] | None = None,
    ) -> None:
        check_min(1, depth=depth)
        if not widths or min(widths) < 1:
            raise ValueError(f"widths: must have a positive number of channels for each stage, got {widths}")
        ins = (in_channels, *widths)
        rgb = in_channels == 3
        super().__init__(
            [_stage(a, b, depth) for a, b in zip(ins, widths, strict=False)],
            channels=widths,
            strides=[2 ** (i + 1) for i in range(len(widths))],
            mean=IMAGENET_MEAN if rgb else (0.5,) * in_channels,  # 0.5 and 0.5 normalize to [-1, 1]
            std=IMAGENET_STD if rgb else (0.5,) * in_channels,
            frozen_stages=frozen_stages,
            freeze_norm=freeze_norm,
            out_indices=out_indices,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self._load_trunk(weights)

    def make_head(self, num_classes: int, dropout: float | None = None) -> nn.Module:
        """Build a head with max pooling, which suits small objects better than an average over the background.

        See `Backbone.make_head`.
        """
        head = super().make_head(num_classes, dropout)
        assert isinstance(head, nn.Sequential)
        head[0] = nn.AdaptiveMaxPool2d(1)
        return head


def _stage(in_channels: int, width: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(depth):
        stride = 2 if index == 0 else 1  # only the first convolution of a stage is strided
        layers += [
            nn.Conv2d(in_channels if index == 0 else width, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
