"""The seam that every task of striate builds on: images in, feature maps out, finer to coarser.

Shapes: ``B`` images of ``H`` by ``W`` pixels; level ``i`` of the maps is ``[B, channels[i], H / strides[i],
W / strides[i]]`` for sides that the stride divides (networks that do not pad every convolution give a little less).
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from ..weights import LoadReport, load_weights, pretrained_is_skipped

Result = TypeVar("Result")

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

_PROBES = (256, 512)
"""Sides, in pixels, of the two images whose maps are compared to measure a stride."""


class Backbone(nn.Module):
    """Stages run one after the other, each giving a feature map, on pixels normalised as the weights expect.

    Subclass it, or hand it any list of modules: ``Backbone([stem, body])`` measures their channels and strides.

    A frozen stage is constant: its parameters take no gradient and it stays in evaluation mode, so that neither batch
    statistics nor dropout act in it, whatever ``train()`` is told.

    Args:
        stages: Modules, each taking the output of the one before; the first takes normalised images.
        channels: Channels of each stage's output. ``None``: measured, with ``strides``, on shapes alone.
        strides: Pixels of the image per cell of each stage's output, on either side.
        mean: Mean of each channel, of values in [0, 1].
        std: Standard deviation of each channel, of values in [0, 1].
        frozen_stages: How many of the first stages are frozen, 0 to their number.
        freeze_norm: Whether every batch normalisation keeps its running statistics and its scale and shift.
        out_indices: Which stages' outputs are returned, increasing from 0. Stages after the last are left out of the
            network. ``None``: all.
        nhwc: Whether the stages' outputs are ``[B, H, W, C]``; what is returned is ``[B, C, H, W]`` always.

    Attributes:
        normalize: From pixels to what the first stage takes.
        stages: The stages up to the last that is returned.
        out_indices: Which stages' outputs are returned.
        channels: Channels of each returned map.
        strides: Stride of each returned map, in pixels.
        load_report: What was loaded into the stages, and from where; None where nothing was.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: list of ``[B, channels[i], H / strides[i], W / strides[i]]``.

    Raises:
        ValueError: ``frozen_stages`` or ``out_indices`` name stages that there are not.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    out_indices: tuple[int, ...]
    load_report: LoadReport | None = None

    def __init__(
        self,
        stages: Iterable[nn.Module],
        channels: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        frozen_stages: int = 0,
        freeze_norm: bool = False,
        out_indices: Sequence[int] | None = None,
        nhwc: bool = False,
    ) -> None:
        super().__init__()
        self.nhwc = nhwc
        self.normalize = Normalize(mean, std)
        self.stages = nn.ModuleList(stages)
        if channels is None or strides is None:
            channels, strides = measure(self.stages, len(mean), nhwc)
        self._select(channels, strides, out_indices)
        self.stages = self.stages[: self.out_indices[-1] + 1]
        self._freeze(frozen_stages, freeze_norm)

    def _select(self, channels: Sequence[int], strides: Sequence[int], out_indices: Sequence[int] | None) -> None:
        self.num_stages = len(channels)
        self.out_indices = check_out_indices(out_indices, self.num_stages)
        self.channels = tuple(channels[i] for i in self.out_indices)
        self.strides = tuple(strides[i] for i in self.out_indices)

    def _freeze(self, frozen_stages: int, freeze_norm: bool) -> None:
        kept = self.out_indices[-1] + 1
        if not 0 <= frozen_stages <= kept:
            raise ValueError(f"frozen_stages must be 0 to {kept}, the number of stages in use, got {frozen_stages}")
        self.frozen_stages = frozen_stages
        self.freeze_norm = freeze_norm
        for parameter in self._frozen_parameters():
            parameter.requires_grad_(False)
        self.train(self.training)

    def _load_trunk(self, weights: str | None) -> None:
        """Takes the stages' weights out of a checkpoint of ours; stages that are left out here may be in the file."""
        if weights is not None and not pretrained_is_skipped():
            dropped = [rf"stages\.{index}\." for index in range(len(self.stages), self.num_stages)]
            self.load_report = load_weights(self, weights, ignore=dropped)

    def _frozen_modules(self) -> list[nn.Module]:
        """What ``frozen_stages`` keeps in evaluation mode and without gradient."""
        return list(self.stages[: self.frozen_stages])

    def _norms(self) -> list[nn.Module]:
        return [m for m in self.modules() if isinstance(m, BATCH_NORMS)] if self.freeze_norm else []

    def _frozen_parameters(self) -> list[nn.Parameter]:
        return [p for m in chain(self._frozen_modules(), self._norms()) for p in m.parameters()]

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode, and leaves in evaluation mode what is frozen."""
        super().train(mode)
        for module in chain(self._frozen_modules(), self._norms()):
            module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Gives the feature maps of a batch, finer to coarser.

        Raises:
            ValueError: The images are too small for a stage; names their size and the smallest that works.
        """
        return self.run(self._maps, images)

    def run(self, walk: Callable[[Tensor], Result], images: Tensor) -> Result:
        """What a walk through the stages makes of a batch, once it is normalised; for walks besides `forward`'s own.

        Args:
            walk: From normalised images ``[B, 3, H, W]`` to whatever is wanted of the stages.
            images: As `forward` takes them.

        Raises:
            ValueError: The images are too small for a stage; names their size and the smallest that works.
        """
        x = self.normalize(images)
        try:
            return walk(x)
        except (RuntimeError, AssertionError) as error:
            if torch.compiler.is_compiling():
                raise  # the search below is not to be compiled
            height, width = x.shape[-2:]
            smallest = smallest_side(self.stages, x.shape[1])
            if smallest is None or min(height, width) >= smallest:
                raise  # for another reason
            raise ValueError(
                f"images are {height} x {width} pixels, too small for {_name(self)}: it needs {smallest} x {smallest} "
                f"at least; resize them, or take another network ({error})"
            ) from error

    def _maps(self, x: Tensor) -> list[Tensor]:
        """The feature maps of normalised images ``[B, 3, H, W]``."""
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                maps.append(x.permute(0, 3, 1, 2) if self.nhwc else x)
        return maps

    def make_head(self, num_classes: int, dropout: float | None = None) -> nn.Module:
        """Builds what classifies the last feature map: here average pooling, dropout and a linear layer.

        Args:
            num_classes: Classes K to tell apart.
            dropout: Probability that a feature is zeroed in training. ``None``: 0.

        Shape:
            - the head's input: ``[B, channels[-1], h, w]``; its output: logits ``[B, K]``.
        """
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(1),
            nn.Dropout(dropout or 0.0),
            nn.Linear(self.channels[-1], num_classes),
        )


def _name(backbone: Backbone) -> str:
    name = getattr(backbone, "name", None)
    return repr(name) if isinstance(name, str) else type(backbone).__name__


def check_out_indices(out_indices: Sequence[int] | None, num_stages: int) -> tuple[int, ...]:
    """The stages to return, all of them for ``None``.

    Raises:
        ValueError: They are not increasing numbers from 0 to ``num_stages - 1``, at least one.
    """
    if out_indices is None:
        return tuple(range(num_stages))
    chosen = tuple(out_indices)
    if not chosen or list(chosen) != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] >= num_stages:
        raise ValueError(
            f"out_indices must be increasing numbers from 0 to {num_stages - 1} (there are {num_stages} stages), "
            f"got {chosen}"
        )
    return chosen


class _ShapesOnly(TorchFunctionMode):
    """Leaves out what keeps shape and dtype; on the meta device that is three quarters of the time."""

    kept = frozenset({F.batch_norm, F.layer_norm, F.dropout, F.relu, F.relu6, F.silu, F.gelu, F.hardswish})

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in self.kept and args:
            return args[0]
        return func(*args, **(kwargs or {}))


def trace_shapes(modules: Iterable[nn.Module], side: int, in_channels: int = 3) -> list[tuple[int, ...]]:
    """The shape of each module's output when they run in sequence on one square image; nothing is computed.

    The modules may lie on any device; they run on the meta device, in evaluation mode, and stay as they are.
    """
    x = torch.empty(1, in_channels, side, side, device="meta")
    shapes = []
    for module in modules:
        x = _on_meta(module, x)
        shapes.append(tuple(x.shape))
    return shapes


def _on_meta(module: nn.Module, x: Tensor) -> Any:
    """What a module makes of a tensor on the meta device, in evaluation mode; the module stays as it is."""
    tensors = {k: v.detach().to("meta") for k, v in chain(module.named_parameters(), module.named_buffers())}
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), x.dtype)
    try:
        with torch.no_grad(), _ShapesOnly():
            return functional_call(module, tensors, (x.to(dtype),))
    finally:
        for m, mode in modes:
            m.training = mode


def smallest_side(modules: Iterable[nn.Module], in_channels: int = 3, largest: int = 256) -> int | None:
    """The side, in pixels, of the smallest square image that modules in sequence can run on; nothing is computed.

    Args:
        modules: Each takes the output of the one before; the first takes an image.
        in_channels: Channels of the image.
        largest: Where the search ends, in pixels.

    Returns:
        The side; None where none up to ``largest`` works.
    """
    modules = list(modules)
    for side in range(1, largest + 1):
        x = torch.empty(1, in_channels, side, side, device="meta")
        try:
            for module in modules:
                x = _on_meta(module, x)
        except Exception:  # whatever a layer says to a map without room for its window
            continue
        return side
    return None


def measure(
    modules: Iterable[nn.Module], in_channels: int = 3, nhwc: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Measures channels and strides of the outputs of modules that run in sequence.

    The stride is the pixels by which an image must grow for the map to grow by a cell: convolutions without padding
    take a constant off the map, which the difference of two images cancels.

    Args:
        modules: Each takes the output of the one before; the first takes an image.
        in_channels: Channels of the image.
        nhwc: Whether outputs are ``[B, H, W, C]``.

    Returns:
        Channels, strides in pixels.

    Raises:
        ValueError: An output is no feature map: its size does not follow the image's.
    """
    modules = list(modules)
    small, large = (trace_shapes(modules, side, in_channels) for side in _PROBES)
    channel_dim, row_dim = (3, 1) if nhwc else (1, 2)
    channels, strides = [], []
    for index, (a, b) in enumerate(zip(small, large, strict=True)):
        cells = b[row_dim] - a[row_dim] if len(b) == 4 else 0
        if cells <= 0 or (_PROBES[1] - _PROBES[0]) % cells:
            raise ValueError(
                f"the output of module {index} ({type(modules[index]).__name__}) is no feature map: images of "
                f"{_PROBES[0]} and {_PROBES[1]} pixels give it the shapes {list(a)} and {list(b)}"
            )
        channels.append(b[channel_dim])
        strides.append((_PROBES[1] - _PROBES[0]) // cells)
    return tuple(channels), tuple(strides)
