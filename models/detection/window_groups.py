"""Which detections of overlapping windows are parts of one object: the rules behind `sliding_detections`.

A detection is *whole* if no border of its window cuts it. Detections have numbers, through all windows.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

_SCORE = 0.5
"""A detection joins, extends or shows whole one of higher score only if it has at least this fraction of its score."""


class Pair(NamedTuple):
    """Two detections of one class that overlap, by their numbers; the first number is the lower one."""

    first: int
    second: int
    common: float  # area of their intersection
    iou: float  # without what lies outside the other's window, where a border cuts the other one
    inside: tuple[float, float]  # fraction of each, in the other's window, that is in the other; 0 if no border cuts it
    seen: tuple[bool, bool]  # whether the other's window shows it completely


class Parts(NamedTuple):
    """The detections of all windows of an image, and how they overlap."""

    pairs: Sequence[Pair]  # also those of one window
    window_of: Sequence[int]
    whole: Sequence[bool]
    scores: Sequence[float]
    areas: Sequence[float]
    iou: float  # parts of an object have a higher IoU


def spanning_parts(parts: Parts, inside: float) -> set[int]:
    """Find the detections that span several objects which a window holds apart.

    Two or more objects in one window, all of higher score, lie in such a detection, and are more than half of it.
    Objects of another window count only if they are whole: one object may well be in two parts there.

    Args:
        parts: The detections.
        inside: An object with more than this fraction of its area in the detection lies in it.
    """
    lying: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    for pair in parts.pairs:
        for part, other in (pair[:2], pair[1::-1]):
            comparable = parts.whole[part] or parts.window_of[part] == parts.window_of[other]
            if comparable and parts.scores[part] > parts.scores[other] and pair.common > inside * parts.areas[part]:
                lying[other].append((part, pair.common))
    spanning: set[int] = set()
    # by descending score, so that what spans several objects is no evidence itself
    for other in sorted(lying, key=lambda number: -parts.scores[number]):
        windows = defaultdict(list)
        for part, common in lying[other]:
            if part not in spanning:
                windows[parts.window_of[part]].append(common)
        if any(len(areas) > 1 and sum(areas) > parts.areas[other] / 2 for areas in windows.values()):
            spanning.add(other)
    return spanning


class PartGroups:
    """Groups of the numbers of detections, each the parts of one object.

    Args:
        parts: The detections.
        inside: See `spanning_parts`, which belong to no group.
    """

    def __init__(self, parts: Parts, inside: float) -> None:
        self.parts = parts
        spanning = spanning_parts(parts, inside)
        self._pairs = {pair[:2]: pair for pair in parts.pairs if spanning.isdisjoint(pair[:2])}
        self._groups = {number: [number] for number in range(len(parts.scores)) if number not in spanning}
        self._join_equal()
        self._join_cut()

    def groups(self) -> list[list[int]]:
        """All groups, by their first number."""
        return list({id(group): group for group in self._groups.values()}.values())

    def _join_equal(self) -> None:
        """Join parts that equal each other where both windows show them, those of high IoU and scores first."""
        scores = self.parts.scores
        for pair in sorted(
            self._pairs.values(), key=lambda pair: -pair.iou * min(scores[number] for number in pair[:2])
        ):
            one, other = self._groups[pair.first], self._groups[pair.second]
            # never two objects of a window, which the network holds apart
            windows = ({self.parts.window_of[number] for number in group} for group in (one, other))
            strong = pair.first in self._strong(one) and pair.second in self._strong(other)
            if pair.iou > self.parts.iou and strong and set.isdisjoint(*windows) and self._agree(one, other):
                self._join(one, other)

    def _join_cut(self) -> None:
        """Then join parts that have no equal in the other window, such as two arms of an object that is one there."""
        cut = [
            (fraction, part, other)
            for pair in self._pairs.values()
            for fraction, seen, part, other in zip(pair.inside, pair.seen, pair[:2], pair[1::-1], strict=True)
            # the masks of a narrow strip and of the whole object fit each other less well
            if fraction * (1 + seen) > self.parts.iou and self._decides(other, part)
        ]
        for _, part, other in sorted(cut, key=lambda one: -one[0]):
            groups = self._groups[part], self._groups[other]
            windows = {self.parts.window_of[number] for number in groups[0]}
            strong = part in self._strong(groups[0]) and other in self._strong(groups[1])
            if strong and self.parts.window_of[other] not in windows and self._agree(*groups):
                self._join(*groups)

    def _join(self, one: list[int], other: list[int]) -> None:
        joined = one + other
        for number in joined:
            self._groups[number] = joined

    def _decides(self, leader: int, part: int) -> bool:
        return self.parts.scores[leader] >= _SCORE * self.parts.scores[part]

    def _agree(self, one: list[int], other: list[int]) -> bool:
        """Whether all parts of each group belong to the object that the other group shows whole, if it does."""
        for group, rest in ((one, other), (other, one)):
            whole = self._whole(group)
            if whole:
                leader = max(whole, key=self.parts.scores.__getitem__)
                if not all(self._belongs(part, leader) for part in rest):
                    return False
        return True

    def _belongs(self, part: int, leader: int) -> bool:
        """Whether a detection is the object that another window shows whole, or lies in it and is cut."""
        pair = self._pair(part, leader)
        if pair is None or self.parts.window_of[part] == self.parts.window_of[leader]:
            return False
        side = part == pair.second
        fraction = pair.common / self.parts.areas[part] if pair.inside[side] else 0
        fits = pair.iou > self.parts.iou or fraction * (1 + pair.seen[side]) > self.parts.iou
        return fits and self._decides(leader, part)

    def visible(self, group: list[int]) -> list[int]:
        """The parts of an object that make up its mask and box: those of no low score, or one that shows it whole.

        A box may end before the border that cuts its object. If no window with a whole part shows all others, those
        that equal the best whole part, and reach beyond its window, are therefore added to it.
        """
        whole = self._whole(group)
        if not whole:
            return self._strong(group)
        beyond = {number: [part for part in group if self._continues(part, number)] for number in whole}
        best = max(whole, key=lambda number: (not beyond[number], self.parts.scores[number]))
        return [best, *beyond[best]]

    def _continues(self, part: int, leader: int) -> bool:
        """Whether a cut part equals a whole one where both windows show them, and reaches beyond its window."""
        pair = self._pair(part, leader)
        if pair is None or self.parts.whole[part] or pair.iou <= self.parts.iou:
            return False
        return not pair.seen[part == pair.second] and self._decides(part, leader)

    def best(self, group: list[int]) -> int:
        """The part whose score the object has: the best of all, or of those that equal the one that shows it whole."""
        first = self.visible(group)[0]
        pairs = {number: self._pair(number, first) for number in group} if self.parts.whole[first] else {}
        equal = [number for number, pair in pairs.items() if pair is not None and pair.iou > self.parts.iou]
        return max([first, *equal] if pairs else group, key=self.parts.scores.__getitem__)

    def _strong(self, group: list[int]) -> list[int]:
        """The parts of no low score beside the others: a weak one neither extends the object nor joins others to it."""
        best = max(group, key=self.parts.scores.__getitem__)
        return [number for number in group if self._decides(number, best)]

    def _whole(self, group: list[int]) -> list[int]:
        return [number for number in group if self.parts.whole[number]]

    def _pair(self, one: int, other: int) -> Pair | None:
        return self._pairs.get((min(one, other), max(one, other)))
