"""Inference of segmentation models: sliding windows, test-time augmentation by scales and flips, and label maps.

Shape legend: B images, K classes, H x W pixels. A model is any callable that returns logits ``[B, K, H, W]`` for images
``[B, 3, H, W]`` of any size, uint8 or floating point in [0, 1].
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import Concatenate, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modes import evaluation_mode
from ..ops.windows import window_starts

Logits = Callable[[Tensor], Tensor]
Arguments = ParamSpec("Arguments")


def evaluated(
    function: Callable[Concatenate[Logits, Arguments], Tensor],
) -> Callable[Concatenate[Logits, Arguments], Tensor]:
    """Run a function of a model and images ``[B, 3, H, W]`` with the model in evaluation mode, if it is a module."""

    @wraps(function)
    def wrapped(model: Logits, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        with evaluation_mode(model) if isinstance(model, nn.Module) else nullcontext():
            return function(model, *args, **kwargs)  # logits [B, K, H, W]

    return wrapped


@evaluated
def sliding_logits(model: Logits, images: Tensor, window: tuple[int, int], overlap: float) -> Tensor:
    """Compute the logits of large images as the mean over overlapping windows.

    A side shorter than the window is not split. The windows run one after another, in the memory of one window and of
    the result.

    Args:
        model: The model.
        images: Pixels.
        window: Height and width of the window, in pixels.
        overlap: Minimum fraction of a window that overlaps with the next one, in [0, 1).

    Shape:
        - images: ``[B, 3, H, W]``.
        - output: ``[B, K, H, W]``.
    """
    height, width = images.shape[-2:]
    tops, lefts = (window_starts(a, b, overlap) for a, b in zip((height, width), window, strict=True))
    if len(tops) == len(lefts) == 1:
        return model(images)
    total: Tensor | None = None
    for top in tops:
        for left in lefts:
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            logits = model(images[..., rows, columns])
            if total is None:
                total = logits.new_zeros((*logits.shape[:2], height, width))
            total[..., rows, columns] += logits
    assert total is not None
    # windows over each row and column; their product is the count at each pixel
    down, across = (
        _cover(a, b, starts).to(total) for a, b, starts in ((height, window[0], tops), (width, window[1], lefts))
    )
    return total / (down[:, None] * across)


def _cover(length: int, window: int, starts: Sequence[int]) -> Tensor:
    """Count the windows over each pixel of a side of L pixels, ``[L]``."""
    cover = torch.zeros(length)
    for start in starts:
        cover[start : start + window] += 1
    return cover


@evaluated
def augmented_logits(model: Logits, images: Tensor, scales: Sequence[float], flip: bool) -> Tensor:
    """Compute the logarithm of the mean softmax over scaled and horizontally flipped images.

    These are logits whose softmax is the mean, so they can be used like other logits. Images are resized with linear
    interpolation, with antialiasing if they get smaller; probabilities are resized back.

    Args:
        model: The model.
        images: Pixels.
        scales: Factors on the sides of the image.
        flip: Whether to include the horizontal flip of each scale.

    Shape:
        - images: ``[B, 3, H, W]``.
        - output: ``[B, K, H, W]``.
    """
    if tuple(scales) == (1.0,) and not flip:
        return model(images)
    total, size = None, images.shape[-2:]
    for scale in scales:
        view = images if scale == 1 else _rescale(images, scale)
        for flipped in (False, True) if flip else (False,):
            logits = model(view.flip(-1) if flipped else view)
            probabilities = (logits.flip(-1) if flipped else logits).float().softmax(1)
            if probabilities.shape[-2:] != size:
                probabilities = F.interpolate(probabilities, size, mode="bilinear", align_corners=False)
            total = probabilities if total is None else total + probabilities
    if total is None:
        raise ValueError("scales: must have at least one factor, got []; use [1.0] for no scaling")
    mean = total / (len(scales) * (2 if flip else 1))  # [B, K, H, W]
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()


def _rescale(images: Tensor, scale: float) -> Tensor:
    # [B, 3, H, W] to [B, 3, scale * H, scale * W]
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    return F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=scale < 1)


def argmax_labels(logits: Tensor, size: tuple[int, int] | None = None, chunk: int = 16) -> Tensor:
    """Return the class with the highest logit at each pixel, optionally of the resized image.

    Logits are resized with linear interpolation, a few classes at a time, to limit the memory for large images.

    Args:
        logits: Logits of any floating type.
        size: Height and width of the result, in pixels. ``None``: those of the logits.
        chunk: Number of classes resized at a time.

    Shape:
        - logits: ``[B, K, H, W]``, K at most 255.
        - output: ``[B, *size]`` uint8.
    """
    if size is None or tuple(size) == tuple(logits.shape[-2:]):
        return logits.argmax(1).to(torch.uint8)
    best: Tensor | None = None
    label = torch.empty(0)
    for first in range(0, logits.shape[1], chunk):
        part = logits[:, first : first + chunk].float()
        # best logit and its class within the chunk, [B, H, W]
        top, number = F.interpolate(part, size, mode="bilinear", align_corners=False).max(1)
        number = (number + first).to(torch.uint8)
        # the first class on ties, as in argmax
        label = number if best is None else torch.where(top > best, number, label)
        best = top if best is None else torch.maximum(best, top)
    return label
