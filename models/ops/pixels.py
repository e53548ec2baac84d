"""The check of pixels that all models share: type, layout and range.

Shape legend: B images, C channels (3 for RGB), H by W pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

OVERSHOOT = 0.25
"""How far floating point pixels may leave [0, 1]. A sharpening interpolation adds less."""


def check_pixel_type(images: Any, name: str = "images") -> None:
    """Require a tensor ``[...]`` of pixels: ``uint8`` or floating point.

    Args:
        images: The pixels.
        name: Name of the argument in messages.

    Raises:
        TypeError: It is not a tensor, or has another type.
    """
    expected = f"{name}: must be a tensor, uint8 in [0, 255] or floating point in [0, 1]"
    if not isinstance(images, Tensor):
        raise TypeError(f"{expected}, got {type(images).__name__}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        fix = "" if images.dtype == torch.bool or images.is_complex() else "; convert pixels with .to(torch.uint8)"
        raise TypeError(f"{expected}, got {images.dtype}{fix}")


def check_pixel_layout(images: Any, channels: int = 3) -> None:
    """Require a batch of pixels, ``[B, channels, H, W]``.

    Raises:
        TypeError: It is not a tensor of uint8 or floating point.
        ValueError: It has another shape; the message suggests how to change it.
    """
    check_pixel_type(images)
    if images.ndim != 4 or images.shape[1] != channels:
        hint = layout_hint(images.shape, channels)
        if images.ndim == 3 and images.shape[0] == channels:
            hint = "; add the batch dimension with images[None]"
        raise ValueError(f"images: must be [B, {channels}, H, W], got {list(images.shape)}{hint}")


def layout_hint(shape: Sequence[int], channels: int = 3) -> str:
    """Return the end of an error message about the layout of one image or a batch; empty without a suggestion.

    >>> layout_hint([2, 32, 48, 3])
    '; move channels to the front with images.permute(0, 3, 1, 2)'
    """
    if len(shape) in (3, 4) and shape[-1] == channels and shape[-3] != channels:
        order = ", ".join(map(str, (0, 3, 1, 2) if len(shape) == 4 else (2, 0, 1)))
        return f"; move channels to the front with images.permute({order})"
    return ""


class PixelRange:
    """Requires floating point pixels in [0, 1], which pixels from 0 to 255 and normalized pixels are not.

    uint8 costs nothing. Floating point pixels on the CPU are checked in each call. On a GPU a check waits for the
    device: it is made in each call in evaluation, and in training until a batch has passed. Within ``torch.compile``
    and where values cannot be read, nothing is checked.
    """

    def __init__(self) -> None:
        self._passed = False

    def check(self, images: Sequence[Tensor], training: bool, names: Sequence[str] = ("images",)) -> None:
        """Check a batch.

        Args:
            images: Tensors of pixels, on one device.
            training: Whether the model is in training mode.
            names: Name of each tensor in messages.

        Shape:
            - images: ``[...]`` each

        Raises:
            ValueError: Pixels are outside [0, 1] by more than 0.25, NaN or infinite.
        """
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        pairs = list(zip(names, images, strict=True))
        floats = {name: image for name, image in pairs if image.is_floating_point() and image.numel()}
        if not floats:
            return
        device = next(iter(floats.values())).device.type
        if device != "cpu" and training and self._passed:
            return
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            return
        try:
            extremes = [torch.stack(image.detach().aminmax()).float() for image in floats.values()]  # [2] each
            limits = torch.stack(extremes).tolist()  # waits for a GPU once
        except (RuntimeError, NotImplementedError):  # on the meta device, under vmap
            return
        for name, (low, high) in zip(floats, limits, strict=True):
            if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
                raise ValueError(
                    f"{name}: floating point pixels must be in [0, 1], got values from {low:.4g} to {high:.4g}; pass "
                    "pixels from 0 to 255 as uint8, and leave normalization to the model"
                )
        self._passed = True
