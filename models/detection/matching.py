"""Which anchor (or proposal) answers for which object, and which of them are trained on.

Shape legend: N objects, A anchors; boxes are ``x1, y1, x2, y2`` in one unit. A match is an int64: the object's number,
or `BACKGROUND`, or `IGNORED`. Nothing here has a gradient.

The IoU of all pairs is worked through a block of anchors at a time, so that memory does not grow with N times A.
"""

import heapq
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..boxes import check_boxes

BACKGROUND = -1
"""Match of an anchor that is trained to be background."""
IGNORED = -2
"""Match of an anchor that is not trained on."""

_PAIRS = {"cpu": 2**18}
"""Pairs in a block, by the kind of device: on the CPU what its cache holds; elsewhere few launches count more."""
_PAIRS_ELSEWHERE = 2**25
_TOUCHING = 1e-6
"""An IoU up to this is none (SSD's code)."""
_CANDIDATES = 64
"""Next best anchors of an object that are looked up at once where objects compete."""

_Block = Callable[[int, int], Tensor]


class BestOverlaps(NamedTuple):
    """The best partner of each anchor and of each object; of equal ones the first.

    Attributes:
        anchor_iou: ``[A]``; 0 without objects.
        anchor_object: int64 ``[A]``; 0 without objects.
        object_iou: ``[N]``; 0 without anchors.
        object_anchor: int64 ``[N]``; 0 without anchors.
        anchor_is_best: bool ``[A]``, whether some object has no better anchor than this, and touches it.
    """

    anchor_iou: Tensor
    anchor_object: Tensor
    object_iou: Tensor
    object_anchor: Tensor
    anchor_is_best: Tensor


def match_anchors(
    boxes: Tensor,
    anchors: Tensor,
    foreground_iou: float = 0.5,
    background_iou: float = 0.5,
    allow_low_quality: bool = False,
    least_background_iou: float = 0.0,
) -> Tensor:
    """Give each anchor the object that it overlaps most, if it overlaps it enough.

    An anchor whose best IoU is at least ``foreground_iou`` has that object; one below ``background_iou`` is background;
    one between is ignored.

    Args:
        boxes: the objects'.
        anchors: the anchors, or proposals.
        foreground_iou: Faster R-CNN's RPN: 0.7; its head, and Fast R-CNN's: 0.5.
        background_iou: the RPN: 0.3; the head: 0.5.
        allow_low_quality: of each object the anchors that overlap it most, all of them where several do so equally, are
            foreground too, however little that is; each for the object that it itself overlaps most (the RPN).
        least_background_iou: background that overlaps every object less is ignored (Fast R-CNN: 0.1).

    Shape:
        - boxes: ``[N, 4]``
        - anchors: ``[A, 4]``
        - output: int64 ``[A]``

    Raises:
        ValueError: boxes that are not ``[N, 4]``, or thresholds out of order.

    Note:
        An object that no anchor touches gets none. In torchvision's ``Matcher`` every anchor would then be among its
        best ones, at an IoU of 0, and all would become foreground.

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.2; Girshick, "Fast R-CNN", ICCV 2015, section 2.3.

    Example:
        >>> anchors = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 0.0, 5.0, 4.0], [9.0, 9.0, 12.0, 12.0]])
        >>> match_anchors(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), anchors, foreground_iou=0.7, background_iou=0.3)
        tensor([ 0, -2, -1])
    """
    _check_thresholds(foreground_iou, background_iou, least_background_iou)
    best = best_overlaps(boxes, anchors, with_ties=allow_low_quality)
    return _thresholded(best, foreground_iou, background_iou, allow_low_quality, least_background_iou)


def match_iou(
    iou: Tensor,
    foreground_iou: float = 0.5,
    background_iou: float = 0.5,
    allow_low_quality: bool = False,
    least_background_iou: float = 0.0,
) -> Tensor:
    """`match_anchors` where the IoU of each object with each anchor is at hand, or another measure in its place.

    Shape:
        - iou: ``[N, A]``
        - output: int64 ``[A]``

    Raises:
        ValueError: ``iou`` is no matrix, or thresholds out of order.
    """
    _check_thresholds(foreground_iou, background_iou, least_background_iou)
    if iou.ndim != 2:
        raise ValueError(f"iou must be [N, A], of each object with each anchor, got {list(iou.shape)}")
    best = _best_of_blocks(lambda start, stop: iou[:, start:stop], iou, allow_low_quality)
    return _thresholded(best, foreground_iou, background_iou, allow_low_quality, least_background_iou)


def bipartite_then_threshold(boxes: Tensor, anchors: Tensor, threshold: float = 0.5) -> Tensor:
    """SSD's matching: each object gets an anchor of its own, then each other anchor the object that it overlaps enough.

    The first step takes, again and again, the pair of highest IoU among the objects and anchors that have no partner,
    as SSD's code does: two objects whose best anchor is the same get two anchors. The second gives each anchor left the
    object that it overlaps most, where that is at least ``threshold``.

    Args:
        boxes: the objects'.
        anchors: the default boxes.
        threshold: of the second step.

    Shape:
        - boxes: ``[N, 4]``
        - anchors: ``[A, 4]``
        - output: int64 ``[A]``: an object, or `BACKGROUND`

    Raises:
        ValueError: boxes that are not ``[N, 4]``, or a threshold that is not above 0.

    Note:
        An object that touches no anchor (IoU up to 1e-6), or for which none is left, gets none of its own.
        torchvision's ``SSDMatcher`` differs: where two objects have the same best anchor, the later one takes it.

    Reference:
        Liu et al., "SSD", ECCV 2016, section 2.2; ``MatchBBox`` in the authors' code.

    Example:
        >>> anchors = torch.tensor([[0.0, 0.0, 4.0, 4.0], [20.0, 0.0, 24.0, 4.0], [0.0, 0.0, 4.0, 3.0]])
        >>> bipartite_then_threshold(torch.tensor([[0.0, 0.0, 4.0, 4.0], [22.0, 3.0, 30.0, 9.0]]), anchors)
        tensor([0, 1, 0])
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: {threshold}; give an IoU above 0 and at most 1")
    best = best_overlaps(boxes, anchors)
    matches = torch.where(best.anchor_iou >= threshold, best.anchor_object, BACKGROUND)
    touching = best.object_iou > _TOUCHING
    numbers = torch.arange(len(boxes), device=matches.device)
    seats = torch.where(touching, best.object_anchor, len(anchors))  # one more, for the objects that touch no anchor
    owner = numbers.new_full((len(anchors) + 1,), BACKGROUND).index_put_((seats,), numbers)
    if bool((touching & (owner[seats] != numbers)).any()):  # two objects want one anchor
        own = _share_out(best.object_iou.tolist(), best.object_anchor.tolist(), boxes, anchors)
        places = torch.tensor(list(own), device=matches.device)
        owner = owner.fill_(BACKGROUND).index_put_((places,), torch.tensor(list(own.values()), device=matches.device))
    owner = owner[:-1]
    return torch.where(owner >= 0, owner, matches)


def _share_out(values: list[float], places: list[int], boxes: Tensor, anchors: Tensor) -> dict[int, int]:
    """Anchor -> object where objects compete: the pair of highest IoU first; of equal ones the first anchor."""
    queue = [(-value, place, number) for number, (value, place) in enumerate(zip(values, places, strict=True))]
    heapq.heapify(queue)
    taken: dict[int, int] = {}
    further: dict[int, list[tuple[float, int, int]]] = {}  # of an object, its next best first at the end
    while queue:
        negative, place, number = heapq.heappop(queue)
        if -negative <= _TOUCHING:
            break
        if place not in taken:
            taken[place] = number
            continue
        rest = further.setdefault(number, [])
        while rest and rest[-1][1] in taken:
            rest.pop()
        if not rest and len(taken) < len(anchors):
            rest.extend(_next_best(boxes[number], anchors, taken, number))
        if rest:
            heapq.heappush(queue, rest.pop())
    return taken


def _next_best(box: Tensor, anchors: Tensor, taken: dict[int, int], number: int) -> list[tuple[float, int, int]]:
    iou = _pairwise_iou(*_widened(box[None], anchors))[0]
    iou[torch.tensor(list(taken), device=iou.device)] = 0
    values, places = iou.topk(min(_CANDIDATES, len(iou)))
    return sorted(((-v, p, number) for v, p in zip(values.tolist(), places.tolist(), strict=True)), reverse=True)


def best_overlaps(boxes: Tensor, anchors: Tensor, with_ties: bool = False) -> BestOverlaps:
    """The best partners of all anchors and objects, without the matrix of all pairs.

    Args:
        boxes: the objects'.
        anchors: the anchors.
        with_ties: whether ``anchor_is_best`` is wanted; else it is empty.

    Shape:
        - boxes: ``[N, 4]``
        - anchors: ``[A, 4]``

    Raises:
        ValueError: boxes that are not ``[N, 4]``.
    """
    check_boxes(boxes, "boxes")
    check_boxes(anchors, "anchors")
    boxes, anchors = _widened(boxes, anchors)
    shaped_like = boxes.new_empty(()).expand(len(boxes), len(anchors))
    return _best_of_blocks(lambda start, stop: _pairwise_iou(boxes, anchors[start:stop]), shaped_like, with_ties)


@torch.no_grad()
def _best_of_blocks(block: _Block, matrix: Tensor, with_ties: bool) -> BestOverlaps:
    """From the IoU ``[N, stop - start]`` of a block of anchors; ``matrix`` gives shape, dtype and device only."""
    objects, anchors = matrix.shape
    anchor_iou, object_iou = matrix.new_zeros(anchors), matrix.new_zeros(objects)
    anchor_object, object_anchor = (torch.zeros_like(each, dtype=torch.int64) for each in (anchor_iou, object_iou))
    is_best = torch.zeros_like(anchor_iou, dtype=torch.bool)
    if not objects or not anchors:
        return BestOverlaps(anchor_iou, anchor_object, object_iou, object_anchor, is_best)
    step = max(64, _PAIRS.get(matrix.device.type, _PAIRS_ELSEWHERE) // objects)
    bounds = [(start, min(start + step, anchors)) for start in range(0, anchors, step)]
    values, places = matrix.new_empty(len(bounds), objects), object_anchor.new_empty(len(bounds), objects)
    for number, (start, stop) in enumerate(bounds):
        iou = block(start, stop)
        torch.max(iou, dim=0, out=(anchor_iou[start:stop], anchor_object[start:stop]))
        torch.max(iou, dim=1, out=(values[number], places[number]))
        places[number] += start
    object_iou, at = values.max(dim=0)
    object_anchor = places.gather(0, at[None])[0]
    if with_ties:
        reached = (values == object_iou) & (object_iou > 0)  # [blocks, N]
        for (start, stop), some in zip(bounds, reached.any(1).tolist(), strict=True):
            if some:
                is_best[start:stop] = ((block(start, stop) == object_iou[:, None]) & (object_iou > 0)[:, None]).any(0)
    return BestOverlaps(anchor_iou, anchor_object, object_iou, object_anchor, is_best)


def _widened(boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, anchors.dtype), torch.float32)
    return boxes.detach().to(dtype), anchors.detach().to(dtype)


def _pairwise_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """IoU ``[N, A]`` with three matrices alive at most; 0 for two boxes without area."""
    across, down = (
        torch.minimum(boxes[:, None, side + 2], anchors[:, side + 2]).sub_(
            torch.maximum(boxes[:, None, side], anchors[:, side])
        ).clamp_(min=0)
        for side in (0, 1)
    )  # fmt: skip
    shared = across.mul_(down)
    areas = [(each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (boxes, anchors)]
    union = torch.add(areas[0][:, None], areas[1], out=down).sub_(shared)
    return shared.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def _thresholded(best: BestOverlaps, foreground: float, background: float, low_quality: bool, least: float) -> Tensor:
    kept = best.anchor_iou >= foreground
    if low_quality:
        kept |= best.anchor_is_best
    low = torch.where(best.anchor_iou < background, BACKGROUND, IGNORED)
    if least > 0:
        low = low.masked_fill(best.anchor_iou < least, IGNORED)
    return torch.where(kept, best.anchor_object, low)


def _check_thresholds(foreground: float, background: float, least: float) -> None:
    if not 0 <= least <= background <= foreground <= 1 or foreground == 0:
        raise ValueError(
            f"foreground_iou={foreground}, background_iou={background}, least_background_iou={least}: they must fall, "
            "from at most 1 to at least 0, and foreground_iou be above 0"
        )


def sample_balanced(
    matches: Tensor, count: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw the anchors of one image that are trained on: at most a share of foreground, the rest background.

    Where foreground is short, background takes its place; where background is short, fewer are drawn.

    Args:
        matches: of `match_anchors`.
        count: how many at most. Faster R-CNN's RPN: 256; Fast R-CNN: 64 of each of 2 images.
        positive_fraction: the most of them that are foreground. The RPN: 0.5; Fast R-CNN: 0.25.
        generator: to draw from; none: torch's own.

    Shape:
        - matches: int64 ``[A]``
        - output: numbers of the anchors, int64 ``[P]`` of foreground and ``[Q]`` of background, rising, P + Q <= count

    Raises:
        ValueError: a negative ``count``, a fraction outside 0 … 1, or ``matches`` that are not ``[A]``.

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015, section 2.3; Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.3.
    """
    if count < 0 or not 0 <= positive_fraction <= 1:
        raise ValueError(f"count={count}, positive_fraction={positive_fraction}: give 0 or more, and 0 … 1")
    if matches.ndim != 1:
        raise ValueError(f"matches must be [A], got {list(matches.shape)}")
    positives, negatives = (matches >= 0).nonzero()[:, 0], (matches == BACKGROUND).nonzero()[:, 0]
    positives = _draw(positives, int(count * positive_fraction + 1e-6), generator)  # 0.29 * 100 is 28.999999999999996
    return positives, _draw(negatives, count - len(positives), generator)


def _draw(numbers: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    device = numbers.device if generator is None else generator.device
    drawn = torch.randperm(len(numbers), generator=generator, device=device)[:count]
    return numbers[drawn.to(numbers.device).sort().values]
