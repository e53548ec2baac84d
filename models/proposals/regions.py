"""The initial regions of selective search, and what is measured of them: sizes, boxes, histograms, neighbors.

Shape legend: an image of H x W pixels; C channels of a color space; R regions; P pairs of neighbors.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .color_spaces import Floats, Pixels, scikit_image

Integers: TypeAlias = NDArray[np.int64]

SIGMA = 0.8
"""Standard deviation, in pixels, of the Gaussian that smooths the image before it is segmented."""

COLOR_BINS = 25
"""Bins of a channel's color histogram."""

TEXTURE_BINS = 10
"""Bins of the histogram of one orientation and channel."""

TEXTURE_SIGMA = 1.0
"""Standard deviation, in pixels, of the Gaussian whose derivatives are the texture."""

TEXTURE_RANGE = 0.43
"""Derivative, per pixel and of channels from 0 to 1, at the center of the last bin; larger ones count there too.

The paper does not give it; this is the value of the authors' code. Beside a step from 0 to 1 it is 0.36.
"""


@dataclass(frozen=True)
class Regions:
    """Measurements of R regions.

    Attributes:
        sizes: Number of pixels, ``[R]``.
        boxes: Smallest box around each region, ``x1, y1, x2, y2`` between pixels, ``[R, 4]``.
        color: Color histograms, whose sums are 1, ``[R, 25 * C]``.
        texture: Texture histograms, whose sums are 1, ``[R, 8 * 10 * C]``.
        pairs: The two regions of each pair of neighbors, lower first, ``[P, 2]``.
    """

    sizes: Integers
    boxes: Integers
    color: Floats
    texture: Floats
    pairs: Integers


def segment(channels: Pixels, k: float) -> Integers:
    """Segment an image as Felzenszwalb and Huttenlocher (IJCV 2004), with segments of at least ``k`` pixels.

    Args:
        channels: Channels ``[H, W, C]``, from 0 to 255. A single channel counts as three equal ones, as in the authors'
            code of selective search.
        k: Scale: larger values give larger segments. It is also the minimum size, in pixels.

    Returns:
        The segment of each pixel, ``[H, W]``, from 0.
    """
    scaled = channels / 255 * (3 / channels.shape[2]) ** 0.5  # scikit-image divides k by 255
    labels = scikit_image("segmentation").felzenszwalb(scaled, scale=k, sigma=SIGMA, min_size=int(k))
    return labels.astype(np.int64)


def color_indices(channels: Pixels) -> Integers:
    """Return the bin of each pixel and channel ``[H, W, C]``: the nearest of 25 levels from 0 to 255, 0 … 24."""
    return np.rint(channels * ((COLOR_BINS - 1) / 255)).astype(np.int64)


def texture_indices(channels: Pixels) -> Integers:
    """Return the bins of the Gaussian derivatives of channels ``[H, W, C]`` in four directions, ``[H, W, C, 4]``.

    The directions are right, right and down, down, left and down. The bin is negative where the derivative is, -9 …
    9: the opposite direction then has the bin of the absolute value, so that four signed numbers stand for eight
    orientations.
    """
    from scipy.ndimage import gaussian_filter1d

    def smooth(values: Floats, axis: int, order: int) -> Floats:
        return gaussian_filter1d(values, TEXTURE_SIGMA, axis=axis, order=order, mode="nearest")

    values = channels / np.float32(255)
    right = smooth(smooth(values, 0, 0), 1, 1)
    down = smooth(smooth(values, 1, 0), 0, 1)
    diagonals = (right + down) * np.float32(0.5**0.5), (down - right) * np.float32(0.5**0.5)
    derivatives = np.stack([right, diagonals[0], down, diagonals[1]], axis=-1)
    last = TEXTURE_BINS - 1
    return np.clip(np.rint(derivatives * (last / TEXTURE_RANGE)), -last, last).astype(np.int64)


def measure_regions(labels: Integers, color: Integers, texture: Integers) -> Regions:
    """Measure the regions of a segmentation.

    Args:
        labels: The region of each pixel, ``[H, W]``, 0 … R-1.
        color: `color_indices` ``[H, W, C]``.
        texture: `texture_indices` ``[H, W, C, 4]``.
    """
    sizes = np.bincount(labels.ravel())
    return Regions(
        sizes,
        _boxes(labels, len(sizes)),
        _color_histograms(labels, color, sizes),
        _texture_histograms(labels, texture, sizes),
        neighbor_pairs(labels),
    )


def neighbor_pairs(labels: Integers) -> Integers:
    """Return the pairs of regions of which two pixels touch, at a side or a corner, ``[P, 2]``, lower first, sorted.

    The segmentation joins pixels over the same eight directions. ``labels`` are ``[H, W]``.
    """
    count = int(labels.max()) + 1
    shifts = [
        (labels[:, :-1], labels[:, 1:]),
        (labels[:-1], labels[1:]),
        (labels[:-1, :-1], labels[1:, 1:]),
        (labels[:-1, 1:], labels[1:, :-1]),
    ]
    keys = []
    for one, other in shifts:
        border = one != other
        one, other = one[border], other[border]
        keys.append(np.minimum(one, other) * count + np.maximum(one, other))
    return np.stack(np.divmod(np.unique(np.concatenate(keys)), count), axis=1)


def _boxes(labels: Integers, count: int) -> Integers:
    """Smallest boxes around regions, ``[R, 4]``, of labels ``[H, W]``."""
    height, width = labels.shape
    boxes = np.empty((count, 4), dtype=np.int64)
    for axis, (length, lines) in enumerate(((width, labels.T), (height, labels))):
        # which regions a column, or row, has
        present = np.zeros((length, count), dtype=bool)
        present[np.arange(length)[:, None], lines] = True
        boxes[:, axis] = present.argmax(axis=0)
        boxes[:, axis + 2] = length - present[::-1].argmax(axis=0)
    return boxes


def _color_histograms(labels: Integers, indices: Integers, sizes: Integers) -> Floats:
    """Histograms ``[R, 25 * C]`` of indices ``[H, W, C]``."""
    return _count(labels, indices, COLOR_BINS).reshape(len(sizes), -1) / (sizes[:, None] * indices.shape[2])


def _texture_histograms(labels: Integers, indices: Integers, sizes: Integers) -> Floats:
    """Histograms ``[R, C * 8 * 10]`` of signed indices ``[H, W, C, 4]``."""
    last, channels = TEXTURE_BINS - 1, indices.shape[2]
    signed = _count(labels, indices.reshape(*labels.shape, -1) + last, 2 * last + 1)  # [R, C * 4, 19]
    counts = np.zeros((len(sizes), channels, 2, 4, TEXTURE_BINS))
    counts[:, :, 0, :, 1:] = signed[..., last + 1 :].reshape(len(sizes), channels, 4, last)
    counts[:, :, 1, :, 1:] = signed[..., last - 1 :: -1].reshape(len(sizes), channels, 4, last)
    counts[..., 0] = sizes[:, None, None, None] - counts.sum(axis=-1)  # the rest has no derivative in this direction
    return counts.reshape(len(sizes), -1) / (sizes[:, None] * channels * 8)


def _count(labels: Integers, indices: Integers, bins: int) -> Integers:
    """How often each region has each index, ``[R, D, bins]``, of labels ``[H, W]`` and indices ``[H, W, D]``."""
    regions, depth = int(labels.max()) + 1, indices.shape[2]
    flat = labels.reshape(-1)
    counts = np.empty((regions, depth, bins), dtype=np.int64)
    for number in range(depth):  # one at a time takes the least memory, and is as fast
        combined = flat * bins + indices[..., number].reshape(-1)
        counts[:, number] = np.bincount(combined, minlength=regions * bins).reshape(regions, bins)
    return counts
