"""Recognizes YOLO's labels of keypoints: a box, and a constant number of points behind it."""

from collections.abc import Sequence
from typing import Literal

Points = Literal["auto", "polygons", "keypoints"]

_BOX = 4  # numbers of a box, without the class
_WITHOUT_VISIBILITY = 3  # labels from which points without visibility are told from polygons
_MARGIN = 0.25  # of the box, by which keypoints may lie outside of it
_TOLERANCE = 0.02


class KeypointEvidence:
    """Collects whether all labels of a set can be boxes with keypoints rather than polygons.

    Labels with keypoints have the same count of numbers throughout: 4 of a box, and 3 of each point (x, y and a
    visibility of 0, 1 or 2) or 2. With 2, the points must lie in or near the box, and four points that are a
    parallelogram are an oriented box, whose points are a polygon.
    """

    def __init__(self) -> None:
        self.labels, self.length = 0, 0
        self._of_three = self._of_two = True
        self._oriented_boxes = True

    def add(self, numbers: Sequence[float]) -> None:
        """Add a label: its numbers without the class."""
        if self.labels and len(numbers) != self.length:
            self._of_three = self._of_two = False
        self.labels, self.length = self.labels + 1, len(numbers)
        if not (self._of_three or self._of_two):
            return
        is_box = len(numbers) > _BOX and _is_box(numbers)
        self._of_three &= is_box and has_visibility(numbers)
        self._of_two &= is_box and len(numbers) % 2 == 0 and _points_are_near(numbers)
        self._oriented_boxes &= len(numbers) == 8 and _is_parallelogram(numbers)

    def found(self) -> str | None:
        """Return what shows that the labels are keypoints; None: they are not, or too few to tell."""
        count = f"all {self.labels} have {self.length} numbers after the class, a box and"
        if self.labels and self._of_three:
            points = (self.length - _BOX) // 3
            return f"{count} {points} points, each with a visibility of 0, 1 or 2"
        if self.labels >= _WITHOUT_VISIBILITY and self._of_two and not self._oriented_boxes:
            return f"{count} {(self.length - _BOX) // 2} points in it"
        return None

    def hint(self) -> str | None:
        """Return what shows that too few labels to tell may be keypoints; None: they are not, or `found` tells."""
        if 0 < self.labels < _WITHOUT_VISIBILITY and self._of_two and not self._of_three and not self._oriented_boxes:
            return f"all {self.labels} have {(self.length - _BOX) // 2} points that may lie in a box before them"
        return None


def has_visibility(numbers: Sequence[float]) -> bool:
    """Return whether the numbers behind a box are points of x, y and a visibility of 0, 1 or 2.

    >>> has_visibility([0.5, 0.5, 0.2, 0.2, 0.45, 0.5, 2, 0, 0, 0])
    True
    """
    points = numbers[_BOX:]
    places = [value for index, value in enumerate(points) if index % 3 < 2]
    return (
        len(points) > 0
        and len(points) % 3 == 0
        and all(value in (0, 1, 2) for value in points[2::3])
        and all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in places)
    )


def _is_box(numbers: Sequence[float]) -> bool:
    x, y, width, height = numbers[:_BOX]
    inside = all(
        center - side / 2 >= -_TOLERANCE and center + side / 2 <= 1 + _TOLERANCE
        for center, side in ((x, width), (y, height))
    )
    return width > 0 and height > 0 and inside


def _points_are_near(numbers: Sequence[float]) -> bool:
    """Return whether points of x and y lie in or near their box; missing points are 0, 0."""
    x, y, width, height = numbers[:_BOX]
    reach = 0.5 + _MARGIN
    points = list(zip(numbers[_BOX::2], numbers[_BOX + 1 :: 2], strict=True))
    present = [point for point in points if point != (0, 0)]
    return all(abs(px - x) <= reach * width and abs(py - y) <= reach * height for px, py in present)


def _is_parallelogram(numbers: Sequence[float]) -> bool:
    return all(abs(numbers[k] + numbers[k + 4] - numbers[k + 2] - numbers[k + 6]) < _TOLERANCE for k in (0, 1))
