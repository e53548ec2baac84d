"""Matching of anchors (or proposals) to objects, and sampling of those that are trained on.

Shape legend: N objects, A anchors; boxes are ``x1, y1, x2, y2`` in one unit. A match is an int64: the index of an
object, or `BACKGROUND`, or `IGNORED`. Nothing here has a gradient.

The IoU of all pairs is computed one block of anchors at a time. Memory therefore does not grow with N times A, and the
operands stay in the CPU's cache. Only maxima are kept; the object itself is looked up only for matched anchors.
"""

import heapq
from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import check_boxes, common_float
from .checks import check_fraction, check_min

BACKGROUND = -1
"""Match of an anchor that is trained as background."""
IGNORED = -2
"""Match of an anchor that is not trained on."""

_PAIRS_PER_BLOCK = {"cpu": 2**15 - 1}
"""Pairs in a block, by device type. On the CPU they fit its cache, and are one fewer than torch splits among threads,
which would wait for one another at so little work."""
_PAIRS_PER_BLOCK_ELSEWHERE = 2**22
"""Pairs in a block on other devices, where fewer kernel launches matter more."""
_MIN_ANCHORS_PER_BLOCK = 64
"""If a block of this many anchors and all objects is too large, the objects are split too."""
_MIN_OVERLAP = 1e-6
"""An IoU up to this counts as no overlap, as in SSD's code."""
_CANDIDATES = 64
"""Next best anchors looked up at once for an object that competes with others."""


def match_anchors(
    boxes: Tensor,
    anchors: Tensor,
    foreground_iou: float = 0.5,
    background_iou: float = 0.5,
    allow_low_quality: bool = False,
    min_background_iou: float = 0.0,
) -> Tensor:
    """Match each anchor to the object that it overlaps most, if the overlap is large enough.

    An anchor with a highest IoU of at least ``foreground_iou`` is matched to that object. One below ``background_iou``
    is background. One in between is ignored.

    Args:
        boxes: Ground-truth boxes.
        anchors: Anchors or proposals.
        foreground_iou: Minimum IoU of a foreground anchor. RPN of Faster R-CNN: 0.7; head, Fast R-CNN: 0.5.
        background_iou: IoU below which an anchor is background. RPN: 0.3; head: 0.5.
        allow_low_quality: Whether the anchors with the highest IoU with an object (all on ties) are foreground too,
            however low that IoU is. Each is matched to the object that it overlaps most itself (RPN).
        min_background_iou: Background anchors with a lower IoU with every object are ignored (Fast R-CNN: 0.1).

    Shape:
        - boxes: ``[N, 4]``
        - anchors: ``[A, 4]``
        - output: int64 ``[A]``

    Raises:
        ValueError: Boxes are not ``[N, 4]``, or thresholds are out of order.

    Note:
        An object that no anchor overlaps is not matched. In torchvision's ``Matcher``, every anchor would share its
        highest IoU of 0, and all would become foreground.

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.2; Girshick, "Fast R-CNN", ICCV 2015, section 2.3.

    Example:
        >>> anchors = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 0.0, 5.0, 4.0], [9.0, 9.0, 12.0, 12.0]])
        >>> match_anchors(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), anchors, foreground_iou=0.7, background_iou=0.3)
        tensor([ 0, -2, -1])
    """
    check_thresholds(foreground_iou, background_iou, min_background_iou)
    return _match(_ComputedIoU(boxes, anchors), foreground_iou, background_iou, allow_low_quality, min_background_iou)


def match_iou(
    iou: Tensor,
    foreground_iou: float = 0.5,
    background_iou: float = 0.5,
    allow_low_quality: bool = False,
    min_background_iou: float = 0.0,
) -> Tensor:
    """`match_anchors` for a given matrix of IoUs, or of another measure of overlap.

    Shape:
        - iou: ``[N, A]``
        - output: int64 ``[A]``

    Raises:
        ValueError: ``iou`` is not a matrix, or thresholds are out of order.
    """
    check_thresholds(foreground_iou, background_iou, min_background_iou)
    if iou.ndim != 2:
        raise ValueError(f"iou: must be [N, A], objects by anchors, got {list(iou.shape)}")
    return _match(_GivenIoU(iou), foreground_iou, background_iou, allow_low_quality, min_background_iou)


@torch.no_grad()
def _match(iou: "_IoU", foreground: float, background: float, low_quality: bool, min_background: float) -> Tensor:
    """The match of each anchor, int64 ``[A]``; see `match_anchors`."""
    best = _best_overlaps(iou)
    matches = torch.where(best.of_anchors < background, BACKGROUND, IGNORED)
    if min_background > 0:
        matches.masked_fill_(best.of_anchors < min_background, IGNORED)
    is_foreground = best.of_anchors >= foreground
    if low_quality:
        is_foreground[_best_pairs(iou, best)[1]] = True
    matched = is_foreground.nonzero()[:, 0]
    matches[matched] = _best_objects(iou, matched)
    return matches


@torch.no_grad()
def bipartite_then_threshold(boxes: Tensor, anchors: Tensor, threshold: float = 0.5) -> Tensor:
    """SSD's matching: one anchor for each object first, then all other anchors by a threshold.

    The first step repeatedly takes the pair with the highest IoU among unmatched objects and anchors, as SSD's code
    does: two objects with the same best anchor get two anchors. The second step matches each remaining anchor to the
    object that it overlaps most, if the IoU is at least ``threshold``.

    Args:
        boxes: Ground-truth boxes.
        anchors: Default boxes.
        threshold: IoU threshold of the second step.

    Shape:
        - boxes: ``[N, 4]``
        - anchors: ``[A, 4]``
        - output: int64 ``[A]``, the index of an object, or `BACKGROUND`

    Raises:
        ValueError: Boxes are not ``[N, 4]``, or the threshold is not in (0, 1].

    Note:
        An object that overlaps no anchor (IoU up to 1e-6), or for which none is left, is skipped in the first step.
        torchvision's ``SSDMatcher`` differs: if two objects have the same best anchor, the later object takes it.

    Reference:
        Liu et al., "SSD", ECCV 2016, section 2.2; ``MatchBBox`` in the authors' code.

    Example:
        >>> anchors = torch.tensor([[0.0, 0.0, 4.0, 4.0], [20.0, 0.0, 24.0, 4.0], [0.0, 0.0, 4.0, 3.0]])
        >>> bipartite_then_threshold(torch.tensor([[0.0, 0.0, 4.0, 4.0], [22.0, 3.0, 30.0, 9.0]]), anchors)
        tensor([0, 1, 0])
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold: must be in (0, 1], got {threshold}")
    iou = _ComputedIoU(boxes, anchors)
    best = _best_overlaps(iou)
    matches = torch.full_like(best.of_anchors, BACKGROUND, dtype=torch.int64)
    matched = (best.of_anchors >= threshold).nonzero()[:, 0]
    matches[matched] = _best_objects(iou, matched)
    # the first of each object's best anchors, [N]
    best_anchors = best.of_objects.new_full((len(boxes),), len(anchors), dtype=torch.int64).scatter_reduce_(
        0, *_best_pairs(iou, best), "amin"
    )
    objects = torch.arange(len(boxes), device=matches.device)
    # one slot more than anchors, for the objects that overlap none
    slots = torch.where(best.of_objects > _MIN_OVERLAP, best_anchors, len(anchors))
    owners = objects.new_full((len(anchors) + 1,), BACKGROUND).index_put_((slots,), objects)
    if bool(((owners[slots] != objects) & (slots < len(anchors))).any()):  # two objects share their best anchor
        assigned = _assign_greedily(best.of_objects.tolist(), best_anchors.tolist(), boxes, anchors)
        slots, objects = (torch.tensor(list(each), device=matches.device) for each in (assigned, assigned.values()))
        owners.fill_(BACKGROUND).index_put_((slots,), objects)
    owners = owners[:-1]
    return torch.where(owners >= 0, owners, matches)


def _assign_greedily(values: list[float], best_anchors: list[int], boxes: Tensor, anchors: Tensor) -> dict[int, int]:
    """Assign objects that compete for anchors: anchor -> object, the pair with the highest IoU first.

    On ties the first anchor goes first.

    Args:
        values: Highest IoU of each object.
        best_anchors: Index of each object's best anchor.
        boxes: Ground-truth boxes ``[N, 4]``.
        anchors: Default boxes ``[A, 4]``.
    """
    columns = _ComputedIoU(boxes.cpu(), anchors.cpu())
    free = torch.ones(len(anchors), dtype=torch.bool)
    queue = [(-value, place, index) for index, (value, place) in enumerate(zip(values, best_anchors, strict=True))]
    heapq.heapify(queue)
    assigned: dict[int, int] = {}
    candidates: dict[int, list[tuple[float, int, int]]] = {}  # further anchors of an object, the best last
    while queue:
        negative, place, index = heapq.heappop(queue)
        if -negative <= _MIN_OVERLAP:
            break
        if place not in assigned:
            assigned[place], free[place] = index, False
            continue
        rest = candidates.setdefault(index, [])
        while rest and rest[-1][1] in assigned:
            rest.pop()
        if not rest and len(assigned) < len(anchors):
            overlaps = _iou(columns.boxes[:, index, None], columns.anchors).mul_(free)  # [A]
            top = zip(*(each.tolist() for each in overlaps.topk(min(_CANDIDATES, len(overlaps)))), strict=True)
            rest.extend(sorted(((-overlap, anchor, index) for overlap, anchor in top), reverse=True))
        if rest:
            heapq.heappush(queue, rest.pop())
    return assigned


class _ComputedIoU:
    """IoUs of objects ``[N, 4]`` with anchors ``[A, 4]``, computed on demand.

    ``template`` is an empty ``[N, A]`` of the dtype and device of the IoUs.
    """

    def __init__(self, boxes: Tensor, anchors: Tensor) -> None:
        """Arrange boxes ``[N, 4]`` and anchors ``[A, 4]`` by coordinate."""
        check_boxes(boxes, "boxes")
        check_boxes(anchors, "anchors")
        self.boxes, self.anchors = (_columns(each.detach()) for each in common_float(boxes, anchors))
        self.template = self.boxes.new_empty(()).expand(len(boxes), len(anchors))

    def block(self, objects: slice, anchors: slice | Tensor) -> Tensor:
        """IoUs of some objects with some anchors, ``[N', A']``."""
        return _iou(self.boxes[:, objects][:, :, None], self.anchors[:, anchors][:, None])

    def transposed_block(self, objects: slice, anchors: Tensor) -> Tensor:
        """The same as ``[A', N']``, in which maxima over objects are faster."""
        return _iou(self.boxes[:, objects][:, None], self.anchors[:, anchors][:, :, None])

    def rows(self, objects: Tensor, anchors: Tensor) -> Tensor:
        """IoUs of objects ``[P]`` with anchors of each, ``[P, S]``: ``[P, S]``."""
        return _iou(self.boxes[:, objects][:, :, None], self.anchors[:, anchors])


class _GivenIoU:
    """The interface of `_ComputedIoU` on a matrix ``[N, A]``."""

    def __init__(self, iou: Tensor) -> None:
        """Keep a reference to the matrix ``[N, A]``."""
        self.template = iou.detach()

    def block(self, objects: slice, anchors: slice | Tensor) -> Tensor:
        """``[N', A']``; see `_ComputedIoU.block`."""
        return self.template[objects, anchors]

    def transposed_block(self, objects: slice, anchors: Tensor) -> Tensor:
        """``[A', N']``; see `_ComputedIoU.transposed_block`."""
        return self.template[objects, anchors].T

    def rows(self, objects: Tensor, anchors: Tensor) -> Tensor:
        """``[P, S]``; see `_ComputedIoU.rows`."""
        return self.template[objects[:, None], anchors]


_IoU = _ComputedIoU | _GivenIoU


def _columns(boxes: Tensor) -> Tensor:
    """Boxes ``[N, 4]`` as ``[5, N]``: the four coordinates, then the areas."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return torch.cat([boxes.T, areas[None].clamp(min=torch.finfo(boxes.dtype).tiny)])  # above 0, as 0 / 0 is NaN


def _iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """IoU of ``[5, …]`` with ``[5, …]``, with three intermediate tensors at most; rounded exactly as torchvision's."""
    x1, y1, x2, y2, area = boxes
    left, top, right, bottom, anchor_area = anchors
    intersection = torch.minimum(x2, right).sub_(torch.maximum(x1, left)).clamp_(min=0)
    height = torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)).clamp_(min=0)
    intersection.mul_(height)
    return intersection.div_(torch.add(area, anchor_area, out=height).sub_(intersection))


class _BestOverlaps(NamedTuple):
    """Highest IoUs, in blocks of ``block_size`` anchors."""

    of_anchors: Tensor  # [A]
    of_objects: Tensor  # [N]
    by_block: Tensor  # [blocks, N], of each object within each block of anchors
    block_size: int


def _block_size(iou: _IoU, partners: int) -> int:
    """Number of anchors (or objects) per block if each is compared with this many partners."""
    pairs = _PAIRS_PER_BLOCK.get(iou.template.device.type, _PAIRS_PER_BLOCK_ELSEWHERE)
    return max(_MIN_ANCHORS_PER_BLOCK, pairs // max(partners, 1))


def _object_chunks(iou: _IoU) -> list[slice]:
    """The objects in chunks that fit a block together with the minimum number of anchors."""
    count, size = len(iou.template), _block_size(iou, _MIN_ANCHORS_PER_BLOCK)
    return [slice(start, start + size) for start in range(0, count, size)]


def _best_overlaps(iou: _IoU) -> _BestOverlaps:
    objects, anchors = iou.template.shape
    size = _block_size(iou, objects)
    starts = range(0, anchors if objects else 0, size)
    of_anchors, by_block = iou.template.new_zeros(anchors), iou.template.new_zeros(len(starts), objects)
    for chunk in _object_chunks(iou):
        for number, start in enumerate(starts):
            block, best = iou.block(chunk, slice(start, start + size)), of_anchors[start : start + size]
            torch.amax(block, dim=1, out=by_block[number, chunk])
            if chunk.start == 0:
                torch.amax(block, dim=0, out=best)
            else:
                torch.maximum(best, block.amax(dim=0), out=best)
    of_objects = by_block.amax(dim=0) if len(starts) else iou.template.new_zeros(objects)
    return _BestOverlaps(of_anchors, of_objects, by_block, size)


def _best_pairs(iou: _IoU, best: _BestOverlaps) -> tuple[Tensor, Tensor]:
    """Objects ``[Q]`` and anchors ``[Q]`` of the pairs that have the object's highest IoU, above 0."""
    blocks, objects = ((best.by_block == best.of_objects) & (best.of_objects > 0)).nonzero(as_tuple=True)
    offsets, split = torch.arange(best.block_size, device=objects.device), _block_size(iou, best.block_size)
    pairs = []
    for some, block in zip(objects.split(split), blocks.split(split), strict=True):
        # the last block may be short
        anchors = (block[:, None] * best.block_size + offsets).clamp(max=len(best.of_anchors) - 1)
        row, column = (iou.rows(some, anchors) == best.of_objects[some][:, None]).nonzero(as_tuple=True)
        pairs.append((some[row], anchors[row, column]))
    return torch.cat([object for object, _ in pairs]), torch.cat([anchor for _, anchor in pairs])


def _best_objects(iou: _IoU, anchors: Tensor) -> Tensor:
    """The object with the highest IoU for each of the anchors ``[A']``, the first on ties: int64 ``[A']``."""
    if not len(anchors):
        return anchors
    result = []
    for part in anchors.split(_block_size(iou, len(iou.template))):
        best, objects = iou.template.new_full((len(part),), -1), torch.zeros_like(part)
        for chunk in _object_chunks(iou):
            block = iou.transposed_block(chunk, part)
            index = block.argmax(dim=1)  # along rows: along columns torch (2.14) takes ten times as long
            highest = block.gather(1, index[:, None])[:, 0]
            objects = torch.where(highest > best, index + chunk.start, objects)
            best = torch.maximum(best, highest)
        result.append(objects)
    return torch.cat(result)


def check_thresholds(foreground: float, background: float, min_background: float = 0.0) -> None:
    """Require thresholds of `match_anchors` that are in order.

    Raises:
        ValueError: They are not.
    """
    if not 0 <= min_background <= background <= foreground <= 1 or foreground == 0:
        raise ValueError(
            "foreground_iou: must be above 0 and 1 >= foreground_iou >= background_iou >= min_background_iou >= 0, got "
            f"{foreground}, {background} and {min_background}"
        )


def sample_balanced(
    matches: Tensor, count: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw the anchors of one image that are trained on: a limited fraction of foreground, the rest background.

    If there is too little foreground, background fills up. If there is too little background, fewer are drawn.

    Args:
        matches: Result of `match_anchors`.
        count: Maximum number of anchors. RPN of Faster R-CNN: 256; Fast R-CNN: 64 in each of 2 images.
        positive_fraction: Maximum fraction of foreground. RPN: 0.5; Fast R-CNN: 0.25.
        generator: Random number generator. None: torch's default.

    Shape:
        - matches: int64 ``[A]``
        - output: indices of anchors in increasing order, int64 ``[P]`` of foreground and ``[Q]`` of background,
          P + Q <= count

    Raises:
        ValueError: ``count`` is negative, ``positive_fraction`` outside [0, 1], or ``matches`` not ``[A]``.

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015, section 2.3; Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1.3.
    """
    check_min(0, count=count)
    check_fraction(positive_fraction=positive_fraction)
    if matches.ndim != 1:
        raise ValueError(f"matches: must be [A], got {list(matches.shape)}")
    positives, negatives = (matches >= 0).nonzero()[:, 0], (matches == BACKGROUND).nonzero()[:, 0]
    positives = _sample(positives, int(count * positive_fraction + 1e-6), generator)  # 0.29 * 100 is 28.999999999999996
    return positives, _sample(negatives, count - len(positives), generator)


def _sample(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Up to ``count`` of the indices ``[I]``, drawn without replacement and in their order."""
    device = indices.device if generator is None else generator.device
    drawn = torch.randperm(len(indices), generator=generator, device=device)[:count]
    return indices[drawn.to(indices.device).sort().values]
