"""Which anchor (or proposal) answers for which object, and which of them are trained on.

Shape legend: N objects, A anchors; boxes are ``x1, y1, x2, y2`` in one unit. A match is an int64: the object's number,
or `BACKGROUND`, or `IGNORED`. Nothing here has a gradient.

The IoU of all pairs is worked through a block of anchors at a time, so that memory does not grow with N times A and the
CPU's cache holds what is computed with. Only maxima are kept; which object is an anchor's is looked up for the few that
get one.
"""

import heapq
from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import check_boxes

BACKGROUND = -1
"""Match of an anchor that is trained to be background."""
IGNORED = -2
"""Match of an anchor that is not trained on."""

_PAIRS = {"cpu": 2**15 - 1}
"""Pairs in a block, by the kind of device. On the CPU what its cache holds, and one less than torch shares out among
threads: for work this small they would wait for one another. Elsewhere few launches count more."""
_PAIRS_ELSEWHERE = 2**22
_FEWEST = 64
"""Anchors of a block at least; of so many objects that such a block would be too large, some at a time."""
_TOUCHING = 1e-6
"""An IoU up to this is none (SSD's code)."""
_CANDIDATES = 64
"""Next best anchors of an object that are looked up at once where objects compete."""


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
    pairs = _BoxPairs(boxes, anchors)
    return _match(pairs, foreground_iou, background_iou, allow_low_quality, least_background_iou)


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
    pairs = _MatrixPairs(iou)
    return _match(pairs, foreground_iou, background_iou, allow_low_quality, least_background_iou)


@torch.no_grad()
def _match(pairs: "_Pairs", foreground: float, background: float, low_quality: bool, least: float) -> Tensor:
    best = _best_overlaps(pairs)
    matches = torch.where(best.anchor_iou < background, BACKGROUND, IGNORED)
    if least > 0:
        matches.masked_fill_(best.anchor_iou < least, IGNORED)
    has_object = best.anchor_iou >= foreground
    if low_quality:
        has_object[_best_pairs(pairs, best)[1]] = True
    chosen = has_object.nonzero()[:, 0]
    matches[chosen] = _objects_of(pairs, chosen)
    return matches


@torch.no_grad()
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
    pairs = _BoxPairs(boxes, anchors)
    best = _best_overlaps(pairs)
    matches = torch.full_like(best.anchor_iou, BACKGROUND, dtype=torch.int64)
    chosen = (best.anchor_iou >= threshold).nonzero()[:, 0]
    matches[chosen] = _objects_of(pairs, chosen)
    own = best.object_iou.new_full((len(boxes),), len(anchors), dtype=torch.int64).scatter_reduce_(
        0, *_best_pairs(pairs, best), "amin"
    )
    numbers = torch.arange(len(boxes), device=matches.device)
    # one seat more than anchors, for the objects that touch none
    seats = torch.where(best.object_iou > _TOUCHING, own, len(anchors))
    owner = numbers.new_full((len(anchors) + 1,), BACKGROUND).index_put_((seats,), numbers)
    if bool(((owner[seats] != numbers) & (seats < len(anchors))).any()):  # two objects want one anchor
        shared = _share_out(best.object_iou.tolist(), own.tolist(), boxes, anchors)
        seats, numbers = (torch.tensor(list(each), device=matches.device) for each in (shared, shared.values()))
        owner.fill_(BACKGROUND).index_put_((seats,), numbers)
    owner = owner[:-1]
    return torch.where(owner >= 0, owner, matches)


def _share_out(values: list[float], places: list[int], boxes: Tensor, anchors: Tensor) -> dict[int, int]:
    """Anchor -> object where objects compete: the pair of highest IoU first; of equal ones the first anchor."""
    pairs = _BoxPairs(boxes.cpu(), anchors.cpu())
    free = torch.ones(len(anchors), dtype=torch.bool)
    queue = [(-value, place, number) for number, (value, place) in enumerate(zip(values, places, strict=True))]
    heapq.heapify(queue)
    taken: dict[int, int] = {}
    further: dict[int, list[tuple[float, int, int]]] = {}  # of an object, its next best first at the end
    while queue:
        negative, place, number = heapq.heappop(queue)
        if -negative <= _TOUCHING:
            break
        if place not in taken:
            taken[place], free[place] = number, False
            continue
        rest = further.setdefault(number, [])
        while rest and rest[-1][1] in taken:
            rest.pop()
        if not rest and len(taken) < len(anchors):
            rest.extend(_next_best(pairs, free, number))
        if rest:
            heapq.heappush(queue, rest.pop())
    return taken


def _next_best(pairs: "_BoxPairs", free: Tensor, number: int) -> list[tuple[float, int, int]]:
    iou = _iou(pairs.boxes[:, number, None], pairs.anchors).mul_(free)
    values, places = iou.topk(min(_CANDIDATES, len(iou)))
    return sorted(((-v, p, number) for v, p in zip(values.tolist(), places.tolist(), strict=True)), reverse=True)


class _BoxPairs:
    """The IoU of objects with anchors, computed where it is asked for."""

    def __init__(self, boxes: Tensor, anchors: Tensor) -> None:
        check_boxes(boxes, "boxes")
        check_boxes(anchors, "anchors")
        dtype = torch.promote_types(torch.promote_types(boxes.dtype, anchors.dtype), torch.float32)
        self.boxes, self.anchors = (_columns(each.detach().to(dtype)) for each in (boxes, anchors))
        self.like = self.boxes.new_empty(()).expand(len(boxes), len(anchors))

    def of_all(self, anchors: slice | Tensor, objects: slice) -> Tensor:
        """Of each of n objects with each of k anchors, ``[n, k]``."""
        return _iou(self.boxes[:, objects][:, :, None], self.anchors[:, anchors][:, None])

    def of_each(self, anchors: Tensor, objects: slice) -> Tensor:
        """The same the other way round, ``[k, n]``: what an anchor's best object is quickly found in."""
        return _iou(self.boxes[:, objects][:, None], self.anchors[:, anchors][:, :, None])

    def of(self, objects: Tensor, anchors: Tensor) -> Tensor:
        """Of ``[P]`` objects with S anchors each, ``[P, S]``."""
        return _iou(self.boxes[:, objects][:, :, None], self.anchors[:, anchors])


class _MatrixPairs:
    """As `_BoxPairs`, looked up."""

    def __init__(self, iou: Tensor) -> None:
        self.like = iou.detach()

    def of_all(self, anchors: slice | Tensor, objects: slice) -> Tensor:
        return self.like[objects, anchors]

    def of_each(self, anchors: Tensor, objects: slice) -> Tensor:
        return self.like[objects, anchors].T

    def of(self, objects: Tensor, anchors: Tensor) -> Tensor:
        return self.like[objects[:, None], anchors]


_Pairs = _BoxPairs | _MatrixPairs


def _columns(boxes: Tensor) -> Tensor:
    """``[5, N]``: each coordinate lies together, and then the areas."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return torch.cat([boxes.T, areas[None].clamp(min=torch.finfo(boxes.dtype).tiny)])  # not 0: 0 / 0 is no IoU


def _iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Of ``[5, …]`` with ``[5, …]``; no more than three results alive. Rounded as torchvision's, so equal to it."""
    x1, y1, x2, y2, area = boxes
    left, top, right, bottom, anchor_area = anchors
    shared = torch.minimum(x2, right).sub_(torch.maximum(x1, left)).clamp_(min=0)
    high = torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)).clamp_(min=0)
    shared.mul_(high)
    return shared.div_(torch.add(area, anchor_area, out=high).sub_(shared))


class _Best(NamedTuple):
    """The highest IoU of each anchor ``[A]``, of each object ``[N]``, and of each object in each block."""

    anchor_iou: Tensor
    object_iou: Tensor
    by_block: Tensor
    block: int


def _block_size(pairs: _Pairs, partners: int) -> int:
    """How many at once, if each has so many partners."""
    return max(_FEWEST, _PAIRS.get(pairs.like.device.type, _PAIRS_ELSEWHERE) // max(partners, 1))


def _shares(pairs: _Pairs) -> list[slice]:
    """The objects, as many at a time as make a block with the fewest anchors."""
    count, most = len(pairs.like), _block_size(pairs, _FEWEST)
    return [slice(start, start + most) for start in range(0, count, most)]


def _best_overlaps(pairs: _Pairs) -> _Best:
    objects, anchors = pairs.like.shape
    block = _block_size(pairs, objects)
    starts = range(0, anchors if objects else 0, block)
    anchor_iou, by_block = pairs.like.new_zeros(anchors), pairs.like.new_zeros(len(starts), objects)
    for share in _shares(pairs):
        for number, start in enumerate(starts):
            iou, best = pairs.of_all(slice(start, start + block), share), anchor_iou[start : start + block]
            torch.amax(iou, dim=1, out=by_block[number, share])
            if share.start == 0:
                torch.amax(iou, dim=0, out=best)
            else:
                torch.maximum(best, iou.amax(dim=0), out=best)
    object_iou = by_block.amax(dim=0) if len(starts) else pairs.like.new_zeros(objects)
    return _Best(anchor_iou, object_iou, by_block, block)


def _best_pairs(pairs: _Pairs, best: _Best) -> tuple[Tensor, Tensor]:
    """Objects and anchors between which the IoU is the object's highest, and above 0: ``[Q]`` and ``[Q]``."""
    blocks, objects = ((best.by_block == best.object_iou) & (best.object_iou > 0)).nonzero(as_tuple=True)
    within = torch.arange(best.block, device=objects.device)
    found = []
    for some, where in zip(*(each.split(_block_size(pairs, best.block)) for each in (objects, blocks)), strict=True):
        anchors = (where[:, None] * best.block + within).clamp(max=len(best.anchor_iou) - 1)  # the last block is short
        row, column = (pairs.of(some, anchors) == best.object_iou[some][:, None]).nonzero(as_tuple=True)
        found.append((some[row], anchors[row, column]))
    return torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])


def _objects_of(pairs: _Pairs, anchors: Tensor) -> Tensor:
    """The object with which each of ``[k]`` anchors has the highest IoU; of equal ones the first."""
    if not len(anchors):
        return anchors
    parts = anchors.split(_block_size(pairs, len(pairs.like)))
    found = []
    for part in parts:
        best, objects = pairs.like.new_full((len(part),), -1), torch.zeros_like(part)
        for share in _shares(pairs):
            iou = pairs.of_each(part, share)
            places = iou.argmax(dim=1)  # along rows: down the columns torch (2.14) takes ten times as long
            highest = iou.gather(1, places[:, None])[:, 0]
            objects = torch.where(highest > best, places + share.start, objects)
            best = torch.maximum(best, highest)
        found.append(objects)
    return torch.cat(found)


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
