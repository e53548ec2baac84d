"""Base class of all backbones, which map images to feature maps in order of increasing stride.

Shape legend: B images of H x W pixels. Map i is ``[B, channels[i], H / strides[i], W / strides[i]]`` if the stride
divides the sides; networks that do not pad every convolution return slightly smaller maps.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..compat import has_forward_hooks
from ..modes import evaluation_mode
from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from ..weights import LoadReport, load_weights, pretrained_is_skipped

Result = TypeVar("Result")

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

_PROBES = (256, 512)
"""Sides, in pixels, of the two square images whose maps are compared to measure a stride."""


class Backbone(nn.Module):
    """A sequence of stages that each return a feature map, applied to normalized pixels.

    Subclass it, or pass any list of modules: ``Backbone([stem, body])`` measures their channels and strides.

    Frozen stages are constant: their parameters need no gradient, and they stay in evaluation mode, so that neither
    batch statistics nor dropout change their output, also after ``train()``.

    Args:
        stages: Modules that each take the output of the previous one; the first takes normalized images.
        channels: Channels of each stage's output. ``None``: measure them, and the strides, on the meta device.
        strides: Stride of each stage's output, in pixels per cell.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        frozen_stages: Number of leading stages to freeze.
        freeze_norm: Whether to freeze the running statistics, scale and shift of every batch normalization.
        out_indices: Indices of the stages whose outputs are returned, increasing from 0. Later stages are removed from
            the network. ``None``: all.
        nhwc: Whether the stages' outputs are ``[B, H, W, C]``. Returned maps are always ``[B, C, H, W]``.

    Attributes:
        normalize: The normalization from pixels to the input of the first stage.
        stages: The stages up to the last one returned.
        out_indices: Indices of the returned stages.
        channels: Channels of each returned map.
        strides: Stride of each returned map, in pixels.
        load_report: Report on the weights loaded into the stages, or None.
        name: Name for `build_backbone`, or None; see `backbone_name`.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: list of ``[B, channels[i], H / strides[i], W / strides[i]]``.

    Raises:
        ValueError: ``frozen_stages`` or ``out_indices`` exceeds the number of stages.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    out_indices: tuple[int, ...]
    load_report: LoadReport | None = None
    name: str | None = None

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
        self.stages = self.stages[: self.out_indices[-1] + 1]  # later stages would only cost time
        self._freeze(frozen_stages, freeze_norm)

    def _select(self, channels: Sequence[int], strides: Sequence[int], out_indices: Sequence[int] | None) -> None:
        self.num_stages = len(channels)  # including stages that are removed
        self.out_indices = check_out_indices(out_indices, self.num_stages)
        self.channels = tuple(channels[i] for i in self.out_indices)
        self.strides = tuple(strides[i] for i in self.out_indices)

    def _freeze(self, frozen_stages: int, freeze_norm: bool) -> None:
        used = self.out_indices[-1] + 1
        if not 0 <= frozen_stages <= used:
            raise ValueError(f"frozen_stages: must be 0 to {used}, the number of stages in use, got {frozen_stages}")
        self.frozen_stages = frozen_stages
        self.freeze_norm = freeze_norm
        for parameter in self._frozen_parameters():
            parameter.requires_grad_(False)
        self.train(self.training)  # puts frozen modules in evaluation mode

    def _load_trunk(self, weights: str | None) -> None:
        """Load the stages from a striate checkpoint, which may have stages that were removed here."""
        if weights is not None and not pretrained_is_skipped():
            removed = [rf"stages\.{index}\." for index in range(len(self.stages), self.num_stages)]
            self.load_report = load_weights(self, weights, ignore=removed)

    def _frozen_modules(self) -> list[nn.Module]:
        """Return the modules that ``frozen_stages`` keeps in evaluation mode and without gradient."""
        return list(self.stages[: self.frozen_stages])

    def _norms(self) -> list[nn.Module]:
        return [m for m in self.modules() if isinstance(m, BATCH_NORMS)] if self.freeze_norm else []

    def _frozen_parameters(self) -> list[nn.Parameter]:
        return [p for m in chain(self._frozen_modules(), self._norms()) for p in m.parameters()]

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in chain(self._frozen_modules(), self._norms()):
            module.eval()
        return self

    def forward(self, images: Tensor, only: Sequence[int] | None = None) -> list[Tensor]:
        """Return the feature maps of a batch, in order of increasing stride.

        Args:
            images: Pixels.
            only: Increasing indices of the maps to return, so that others take no memory. None: all.

        Shape:
            - images: ``[B, 3, H, W]``
            - output: list of ``[B, channels[i], H / strides[i], W / strides[i]]``

        Raises:
            ValueError: The images are too small for a stage; the message names the smallest size that works.
        """
        indices = range(len(self.out_indices)) if only is None else only
        return self.run(partial(self._maps, indices=indices), images)

    def run(self, function: Callable[[Tensor], Result], images: Tensor) -> Result:
        """Call a function of the normalized images, and explain errors caused by images that are too small.

        Use it to traverse the stages in another way than `forward`.

        Args:
            function: Takes the normalized images ``[B, 3, H, W]``.
            images: Pixels ``[B, 3, H, W]``, as for `forward`.

        Raises:
            ValueError: The images are too small for a stage; the message names the smallest size that works.
        """
        x = self.normalize(images)
        try:
            return function(x)
        except (RuntimeError, AssertionError) as error:
            if torch.compiler.is_compiling():
                raise  # the search below cannot be compiled
            height, width = x.shape[-2:]
            smallest = smallest_side(self.stages, x.shape[1])
            if smallest is None or min(height, width) >= smallest:
                raise  # the error has another cause
            raise ValueError(
                f"images: {_name(self)} needs at least {smallest} x {smallest} pixels, got {height} x {width}; resize "
                f"them, or choose another network ({error})"
            ) from error

    def _maps(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Compute some of the feature maps, ``[B, C, h, w]`` each, of normalized images ``[B, 3, H, W]``."""
        maps, returned = [], {self.out_indices[index] for index in indices}
        for index, stage in enumerate(self.stages):
            for module in _steps(stage):
                x = module(x)
            if index in returned:
                maps.append(x.permute(0, 3, 1, 2) if self.nhwc else x)  # [B, H, W, C] to [B, C, H, W]
        return maps

    def make_head(self, num_classes: int, dropout: float | None = None) -> nn.Module:
        """Build a classification head for the last feature map: average pooling, dropout and a linear layer.

        Args:
            num_classes: Number K of classes.
            dropout: Dropout probability of the pooled features. ``None``: 0.

        Shape:
            - input of the head: ``[B, channels[-1], h, w]``; output: logits ``[B, K]``.
        """
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(1),
            nn.Dropout(dropout or 0.0),
            nn.Linear(self.channels[-1], num_classes),
        )


def _steps(stage: nn.Module) -> Iterable[nn.Module]:
    """The modules of a stage to call in turn: without gradient, the map of the stage before is then released early.

    A stage that is called as a whole keeps its input until it returns.
    """
    alone = torch.is_grad_enabled() or type(stage) is not nn.Sequential or has_forward_hooks(stage)
    return (stage,) if alone else stage.children()


def backbone_name(backbone: Backbone) -> str:
    """Return the name of a backbone for messages: that of its architecture if it has one, else its class's."""
    return backbone.name or type(backbone).__name__


def _name(backbone: Backbone) -> str:
    return type(backbone).__name__ if backbone.name is None else repr(backbone.name)


def check_out_indices(out_indices: Sequence[int] | None, num_stages: int) -> tuple[int, ...]:
    """Return the indices as a tuple, or those of all stages for ``None``.

    Raises:
        ValueError: They are empty, not increasing, or not in 0 to ``num_stages - 1``.
    """
    if out_indices is None:
        return tuple(range(num_stages))
    indices = tuple(out_indices)
    if not indices or list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= num_stages:
        raise ValueError(
            f"out_indices: must be increasing numbers from 0 to {num_stages - 1} (there are {num_stages} stages), "
            f"got {indices}"
        )
    return indices


class _ShapesOnly(TorchFunctionMode):
    """Skips functions that keep shape and dtype; on the meta device they take three quarters of the time."""

    skipped = frozenset({F.batch_norm, F.layer_norm, F.dropout, F.relu, F.relu6, F.silu, F.gelu, F.hardswish})

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in self.skipped and args:
            return args[0]
        return func(*args, **(kwargs or {}))


def trace_shapes(modules: Iterable[nn.Module], side: int, in_channels: int = 3) -> list[tuple[int, ...]]:
    """Infer the output shape of each module in a sequence for one square image, without computing values.

    The modules may be on any device. They run on the meta device in evaluation mode, and are not modified.
    """
    x = torch.empty(1, in_channels, side, side, device="meta")
    shapes = []
    for module in modules:
        x = _on_meta(module, x)
        shapes.append(tuple(x.shape))
    return shapes


def _on_meta(module: nn.Module, x: Tensor) -> Any:
    """Run a module on a meta tensor ``[1, C, H, W]`` in evaluation mode, without modifying the module."""
    tensors = {k: v.detach().to("meta") for k, v in chain(module.named_parameters(), module.named_buffers())}
    # the image must match a model in half or double precision
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), x.dtype)
    with evaluation_mode(module), torch.no_grad(), _ShapesOnly():
        return functional_call(module, tensors, (x.to(dtype),))


def smallest_side(modules: Iterable[nn.Module], in_channels: int = 3, largest: int = 256) -> int | None:
    """Find the smallest square image that a sequence of modules can process, without computing values.

    Args:
        modules: Modules that each take the output of the previous one; the first takes an image.
        in_channels: Channels of the image.
        largest: Largest side to try, in pixels.

    Returns:
        The side in pixels, or None if none up to ``largest`` works.
    """
    modules = list(modules)
    for side in range(1, largest + 1):
        x = torch.empty(1, in_channels, side, side, device="meta")
        try:
            for module in modules:
                x = _on_meta(module, x)
        except Exception:  # layers raise various types for a map smaller than their window
            continue
        return side
    return None


def measure(
    modules: Iterable[nn.Module], in_channels: int = 3, nhwc: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Measure the channels and strides of the outputs of a sequence of modules.

    The stride is the number of pixels by which the image must grow for the map to grow by one cell. It is measured on
    the difference between two images, because convolutions without padding shrink a map by a constant.

    Args:
        modules: Modules that each take the output of the previous one; the first takes an image.
        in_channels: Channels of the image.
        nhwc: Whether outputs are ``[B, H, W, C]``.

    Returns:
        Channels, and strides in pixels.

    Raises:
        ValueError: An output is not a feature map: its size does not scale with the image.
    """
    modules = list(modules)
    small, large = (trace_shapes(modules, side, in_channels) for side in _PROBES)
    channel_dim, row_dim = (3, 1) if nhwc else (1, 2)
    channels, strides = [], []
    for index, (a, b) in enumerate(zip(small, large, strict=True)):
        cells = b[row_dim] - a[row_dim] if len(b) == 4 else 0  # cells by which the map grows
        if cells <= 0 or (_PROBES[1] - _PROBES[0]) % cells:
            raise ValueError(
                f"stages: the output of module {index} ({type(modules[index]).__name__}) is not a feature map, got the "
                f"shapes {list(a)} and {list(b)} for images of {_PROBES[0]} and {_PROBES[1]} pixels"
            )
        channels.append(b[channel_dim])
        strides.append((_PROBES[1] - _PROBES[0]) // cells)
    return tuple(channels), tuple(strides)
