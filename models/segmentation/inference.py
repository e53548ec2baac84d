"""Running a segmentation model over large images by windows, and over an image's scales and mirror images.

Shape legend: B images, K classes, H x W pixels. A model here is anything that gives logits ``[B, K, H, W]`` for images
``[B, 3, H, W]`` of any size, uint8 or floating point in [0, 1].
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Logits = Callable[[Tensor], Tensor]


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along a side: as few as cover it with at least that overlap, evenly spread.

    Args:
        length: of the side, pixels.
        window: of a window, pixels.
        overlap: part of a window that the next one covers again at least, in [0, 1).

    >>> window_starts(10, 4, 0.5), window_starts(9, 4, 0.0), window_starts(3, 4, 0.5)
    ([0, 2, 4, 6], [0, 3, 5], [0])
    """
    if window >= length:
        return [0]
    step = max(1, math.floor(window * (1 - overlap)))
    steps = math.ceil((length - window) / step)
    return [(2 * k * (length - window) + steps) // (2 * steps) for k in range(steps + 1)]


def sliding_logits(model: Logits, images: Tensor, window: tuple[int, int], overlap: float) -> Tensor:
    """Logits of large images from windows that overlap; where they do, the mean of theirs.

    A side that is shorter than the window is taken whole. The windows run one after another, so memory is that of
    one, and of the result.

    Args:
        window: height and width, pixels.
        overlap: part of a window that the next one covers again at least.

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
    down, across = (
        _cover(a, b, starts).to(total) for a, b, starts in ((height, window[0], tops), (width, window[1], lefts))
    )
    return total / (down[:, None] * across)


def _cover(length: int, window: int, starts: Sequence[int]) -> Tensor:
    """How many windows lie over each pixel of a side: ``[length]``."""
    cover = torch.zeros(length)
    for start in starts:
        cover[start : start + window] += 1
    return cover


def augmented_logits(model: Logits, images: Tensor, scales: Sequence[float], flip: bool) -> Tensor:
    """Logarithm of the mean softmax over an image's scales, and over each one's mirror image.

    That is logits whose softmax is the mean, so that everything that takes logits works unchanged. Images are scaled
    with linear interpolation, smaller ones without aliasing; the probabilities are scaled back.

    Args:
        scales: factors of the side.
        flip: also take the mirror image of each.

    Shape:
        - images: ``[B, 3, H, W]``.
        - output: ``[B, K, H, W]``.
    """
    if tuple(scales) == (1.0,) and not flip:
        return model(images)
    total, size = None, images.shape[-2:]
    for scale in scales:
        view = images if scale == 1 else _scaled(images, scale)
        for mirrored in (False, True) if flip else (False,):
            logits = model(view.flip(-1) if mirrored else view)
            probabilities = (logits.flip(-1) if mirrored else logits).float().softmax(1)
            if probabilities.shape[-2:] != size:
                probabilities = F.interpolate(probabilities, size, mode="bilinear", align_corners=False)
            total = probabilities if total is None else total + probabilities
    if total is None:
        raise ValueError("scales: none given; give one factor or more, such as [1.0]")
    mean = total / (len(scales) * (2 if flip else 1))
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()


def _scaled(images: Tensor, scale: float) -> Tensor:
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    return F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=scale < 1)


def argmax_labels(logits: Tensor, size: tuple[int, int] | None = None, at_once: int = 16) -> Tensor:
    """The class of the highest logit at each pixel, or at each pixel of the image in another size.

    Logits are scaled with linear interpolation, a few classes at a time, so that a photograph of many pixels needs no
    memory for all classes' at once.

    Args:
        size: height and width of the result; None: the logits' own.
        at_once: classes scaled together.

    Shape:
        - logits: ``[B, K, H, W]``, K at most 255.
        - output: ``[B, *size]`` uint8.
    """
    if size is None or tuple(size) == tuple(logits.shape[-2:]):
        return logits.argmax(1).to(torch.uint8)
    best: Tensor | None = None
    label = torch.empty(0)
    for first in range(0, logits.shape[1], at_once):
        part = logits[:, first : first + at_once].float()
        top, number = F.interpolate(part, size, mode="bilinear", align_corners=False).max(1)
        number = (number + first).to(torch.uint8)
        # ties go to the first class, as argmax has it
        label = number if best is None else torch.where(top > best, number, label)
        best = top if best is None else torch.maximum(best, top)
    return label
