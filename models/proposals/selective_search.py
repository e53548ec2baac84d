"""Selective search: boxes of objects of any class, from the hierarchical grouping of regions.

Shape legend: an image of H x W pixels; N proposed boxes. Boxes are ``x1, y1, x2, y2`` in pixels, with coordinates
between pixels: a box around the whole image is ``0, 0, W, H``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..ops.checks import check_above, check_choice, check_min
from ..ops.pixels import PixelRange, check_pixel_type, layout_hint
from .color_spaces import ColorSpace, Floats, convert_color
from .grouping import Measure, group_regions
from .regions import Integers, color_indices, measure_regions, segment, texture_indices

Mode = Literal["single", "fast", "quality"]


@dataclass(frozen=True)
class SearchStrategy:
    """One hierarchical grouping of an image.

    Attributes:
        color: Color space of the segmentation and of the similarities: ``hsv``, ``lab``, ``rgi`` (normalized red and
            green, and intensity), ``h`` (hue), ``intensity`` or ``rgb``.
        measures: Similarity of two regions is the sum of these: ``color``, ``texture``, ``size``, ``fill``.
        k: Scale of the initial segmentation, and the minimum size of its segments in pixels.

    Raises:
        ValueError: A name is unknown, there is no measure, or ``k`` is not above 0.
    """

    color: ColorSpace = "hsv"
    measures: tuple[Measure, ...] = ("color", "texture", "size", "fill")
    k: float = 100.0

    def __post_init__(self) -> None:
        check_choice(get_args(ColorSpace), color=self.color)
        if not self.measures:
            raise ValueError(f"measures: must have at least one of {', '.join(get_args(Measure))}, got none")
        for measure in self.measures:
            check_choice(get_args(Measure), measures=measure)
        check_above(0, k=self.k)


_ALL: tuple[Measure, ...] = ("color", "texture", "size", "fill")
_MODES: dict[str, tuple[tuple[ColorSpace, ...], tuple[float, ...], tuple[tuple[Measure, ...], ...]]] = {
    "single": (("hsv",), (100,), (_ALL,)),
    "fast": (("hsv", "lab"), (50, 100), (_ALL, _ALL[1:])),
    "quality": (("hsv", "lab", "rgi", "h", "intensity"), (50, 100, 150, 300), (_ALL, _ALL[1:], ("fill",), ("size",))),
}


def search_strategies(mode: Mode = "fast") -> list[SearchStrategy]:
    """Return the groupings of a mode: 1 of ``single``, 8 of ``fast``, 80 of ``quality``.

    Raises:
        ValueError: ``mode`` is unknown.

    Example:
        >>> search_strategies("single")
        [SearchStrategy(color='hsv', measures=('color', 'texture', 'size', 'fill'), k=100)]
        >>> len(search_strategies("fast")), len(search_strategies("quality"))
        (8, 80)
    """
    check_choice(get_args(Mode), mode=mode)
    colors, scales, similarities = _MODES[mode]
    return [SearchStrategy(color, measures, k) for color, k, measures in product(colors, scales, similarities)]


@torch.no_grad()
def selective_search(
    image: Tensor,
    mode: Mode | Sequence[SearchStrategy] = "fast",
    *,
    min_side: float = 20,
    max_boxes: int | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Propose boxes that may contain an object, of any class, by selective search.

    The image is segmented, and the most similar neighboring segments are joined until one is left. The box around each
    region on the way is a proposal. Several color spaces, similarities and scales diversify the proposals. See
    `search_strategies` for those of a mode. On a photograph of 500 x 375 pixels, ``single`` proposes some 300 boxes,
    ``fast`` 2,000 and ``quality`` 10,000.

    Needs scikit-image: ``pip install 'striate[proposals]'``. It runs on the CPU, in one thread.

    Args:
        image: The pixels of one image: ``uint8`` in [0, 255], or floating point in [0, 1], which is rounded to 8 bits.
        mode: ``single``, ``fast`` or ``quality``; or your own strategies.
        min_side: Boxes whose width or height is below this, in pixels, are dropped. The published value is 20, for
            photographs of 500 pixels.
        max_boxes: Maximum number of boxes, best first. None: all.
        seed: Seed of the random numbers in the ranking. The same image and seed give the same boxes, in the same order.

    Returns:
        Boxes and scores, highest score first. A score is ``1 / (1 + v)``, where ``v`` is the published ranking: a
        random number in [0, 1) times the position of the region in its hierarchy, from 1 at the top. Its order matters,
        not its value. No box occurs twice. An image that is a single segment, such as one of a single color, has one
        box: the whole image, if that is not below ``min_side``.

    Shape:
        - image: ``[3, H, W]``
        - output: boxes float32 ``[N, 4]``, scores float32 ``[N]``

    Raises:
        ImportError: scikit-image is not installed.
        TypeError: ``image`` is neither ``uint8`` nor floating point.
        ValueError: ``image`` is not ``[3, H, W]`` or outside [0, 1], ``mode`` is unknown or empty, ``min_side`` is
            below 0, or ``max_boxes`` below 1.

    Reference:
        Uijlings et al., "Selective search for object recognition", IJCV 2013. Where the paper leaves it open, and in
        the ranking of the initial regions, this follows the authors' MATLAB code: the scaling of the color spaces,
        histogram bins around 25 levels, and the derivative in the last texture bin. Deviations from that code follow
        the paper: texture is measured in each channel (there, three times in the first) with a sigma of 1 (there,
        0.8). OpenCV's ``ximgproc`` differs from both in the scales, the derivatives and the ranking.
    """
    strategies = search_strategies(mode) if isinstance(mode, str) else list(mode)
    if not strategies:
        raise ValueError("mode: must have at least one strategy, got an empty list")
    check_min(0, min_side=min_side)
    check_min(1, max_boxes=max_boxes)
    ranked, scores = rank_boxes(*_search(_eight_bit(image), strategies), min_side, seed)
    return torch.from_numpy(ranked).float()[:max_boxes], torch.from_numpy(scores).float()[:max_boxes]


def _search(pixels: np.ndarray, strategies: Sequence[SearchStrategy]) -> tuple[Integers, Integers]:
    """Boxes ``[N, 4]`` of all regions of an image ``[H, W, 3]``, and their positions in their hierarchies ``[N]``.

    The initial regions count once per segmentation, below the last of the joined regions.
    """
    boxes, positions = [], []
    for color, same_color in groupby(strategies, key=lambda strategy: strategy.color):
        channels = convert_color(pixels, color)
        bins = color_indices(channels), texture_indices(channels)
        for k, same_segments in groupby(same_color, key=lambda strategy: strategy.k):
            regions = measure_regions(segment(channels, k), *bins)
            count = len(regions.sizes)
            boxes.append(regions.boxes)
            positions.append(np.full(count, count))
            for strategy in same_segments:
                boxes.append(group_regions(regions, strategy.measures).boxes[count:])
                positions.append(np.arange(count - 1, 0, -1))
    return np.concatenate(boxes), np.concatenate(positions)


def rank_boxes(boxes: Integers, positions: Integers, min_side: float, seed: int) -> tuple[Integers, Floats]:
    """Order boxes by a random number times their position, lowest first, and drop small ones and duplicates.

    Args:
        boxes: Boxes ``[N, 4]``.
        positions: Position of each box in its hierarchy, ``[N]``; 1 is the top.
        min_side: Minimum width and height, in pixels.
        seed: Seed of the random numbers.

    Returns:
        The boxes that are left, ``[M, 4]``, and their scores, ``[M]``, descending. Of equal boxes the best one counts.
    """
    random = torch.rand(len(boxes), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()
    values = random * positions
    large = ((boxes[:, 2:] - boxes[:, :2]) >= min_side).all(axis=1)
    boxes, values = boxes[large], values[large]
    order = np.argsort(values, kind="stable")
    boxes, values = boxes[order], values[order]
    first = np.sort(np.unique(boxes, axis=0, return_index=True)[1])
    return boxes[first], 1 / (1 + values[first])


def _eight_bit(image: Tensor) -> np.ndarray:
    """Check an image ``[3, H, W]`` and return its pixels, uint8 ``[H, W, 3]``."""
    check_pixel_type(image, "image")
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        hint = "; repeat its channel with image.expand(3, -1, -1)" if image.shape[:1] == (1,) else ""
        raise ValueError(
            f"image: must be [3, H, W] with at least one pixel, got {list(image.shape)}"
            f"{hint or layout_hint(image.shape)}"
        )
    PixelRange().check([image], training=False, names=["image"])
    if image.dtype != torch.uint8:
        image = (image.double().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
