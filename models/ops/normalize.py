"""Normalization of pixels on the device, with the statistics that a network was trained with.

Shapes: ``B`` images, ``C`` channels (3 for RGB), ``H`` by ``W`` pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..compat import ConversionAwareModule
from .pixels import PixelRange, check_pixel_layout

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's training pixels, RGB in [0, 1]."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet's training pixels, RGB in [0, 1]."""


class Normalize(ConversionAwareModule):
    """Compute ``(pixels in [0, 1] - mean) / std``.

    Batches are moved to the device as ``uint8``, a quarter of the bytes of float32. There, scaling and normalization
    are a single multiply-add in float32 or wider. The result has the dtype of the module: float32, unless the model was
    converted, for example by ``.to(torch.bfloat16)``. Under autocast it stays float32 and the first convolution casts
    it. The memory format of the input is preserved, such as ``channels_last``.

    The constants belong to a network's weights and are set by its constructor. They are not part of the state dict, and
    they keep full precision when the model is cast.

    Args:
        mean: Mean of each channel, of pixels in [0, 1].
        std: Standard deviation of each channel, of pixels in [0, 1], above 0.

    Shape:
        - images: ``[B, C, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: ``[B, C, H, W]``, floating point

    Raises:
        ValueError: ``mean`` and ``std`` differ in length, or a ``std`` is not above 0; in ``forward``, images have
            another layout, or floating point pixels are outside [0, 1] (`PixelRange`).
        TypeError: In ``forward``, images are neither uint8 nor floating point.

    Example:
        >>> normalize = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
        tensor([1.0000, 1.0000, 1.0000])
    """

    mean: Tensor
    std: Tensor
    _scale: Tensor
    _scale_uint8: Tensor
    _shift: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise ValueError(f"mean: must have one number per channel, as std, got {mean!r} and std={std!r}")
        if min(std) <= 0:
            raise ValueError(f"std: must be above 0, got {std!r}")
        self._constants = tuple(float(m) for m in mean), tuple(float(s) for s in std)
        self.register_buffer("mean", torch.tensor(self._constants[0]), persistent=False)
        self.register_buffer("std", torch.tensor(self._constants[1]), persistent=False)
        self._range = PixelRange()
        self._compute_affine()

    def _compute_affine(self) -> None:
        """Set the constants exactly, in float32 or wider, on the module's current device."""
        device, dtype = self.mean.device, torch.promote_types(self.mean.dtype, torch.float32)
        mean, std = (torch.tensor(constant, dtype=torch.float64, device="cpu") for constant in self._constants)
        if device.type != "meta":
            self.mean = mean.to(device, self.mean.dtype)
            self.std = std.to(device, self.std.dtype)
        for name, value in (("_scale", 1 / std), ("_scale_uint8", 1 / (255 * std)), ("_shift", -mean / std)):
            self.register_buffer(name, value[:, None, None].to(device, dtype), persistent=False)  # [C, 1, 1]

    def on_converted(self) -> None:
        """Restore the constants: ``.to(bfloat16)`` rounds them, and ``.to_empty()`` leaves them unset."""
        self._compute_affine()

    def forward(self, images: Tensor) -> Tensor:
        """Normalize a batch ``[B, C, H, W]``.

        Raises:
            TypeError: ``images`` is neither ``uint8`` nor floating point.
            ValueError: ``images`` is not ``[B, C, H, W]`` with the channels of ``mean``, or floating point pixels are
                outside [0, 1].
        """
        check_pixel_layout(images, len(self._constants[0]))
        self._range.check([images], self.training)
        scale = self._scale_uint8 if images.dtype == torch.uint8 else self._scale
        return torch.addcmul(self._shift, images, scale).to(self.mean.dtype)

    def extra_repr(self) -> str:
        """Mean and standard deviation, for ``repr``."""
        return "mean=({}), std=({})".format(*(", ".join(f"{v:.6g}" for v in c) for c in self._constants))
