"""Masks of objects as their annotations hold them, polygons or run lengths, in flat arrays; pixels only when asked for.

The pixels are pycocotools' to the last one: hotcoco, which rasterises here, follows the same algorithm, and a test
compares the two. Coordinates with two decimals, as COCO's have, are kept as hundredths in int32, which gives the very
same float64 back; others as float64.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_HUNDREDTHS = 100.0


class Segmentations:
    """The masks of N objects.

    Attributes:
        objects: int64 ``[N + 1]``; object n has the polygons ``objects[n]`` up to ``objects[n + 1]``.
        polygons: int64 ``[P + 1]``, likewise, the numbers of each polygon.
        numbers: float64, or int32 in hundredths: x1, y1, x2, y2, ….
        runs: int64 ``[N + 1]``, likewise, the bytes of each object's compressed run lengths; none for polygons.
        text: uint8, the run lengths.
    """

    def __init__(
        self, objects: np.ndarray, polygons: np.ndarray, numbers: np.ndarray, runs: np.ndarray, text: np.ndarray
    ) -> None:
        self.objects, self.polygons, self.runs, self.text = objects, polygons, runs, text
        hundredths = np.rint(numbers * _HUNDREDTHS)
        exact = bool((np.abs(hundredths) < 2**31).all() and (hundredths / _HUNDREDTHS == numbers).all())
        self.numbers = hundredths.astype(np.int32) if exact else numbers

    def __len__(self) -> int:
        return len(self.objects) - 1

    def decode(self, which: Sequence[int], height: int, width: int) -> np.ndarray:
        """Masks of some objects of one image.

        Args:
            which: their numbers.
            height, width: of the image, pixels.

        Returns:
            0 or 1; where an object has several polygons, their union.

        Shape:
            - Output: ``[len(which), height, width]`` uint8.

        Raises:
            ValueError: for run lengths that do not fit the image.
        """
        masks = np.zeros((len(which), height, width), np.uint8)
        for mask, number in zip(masks, which, strict=True):
            mask[...] = self._decode_one(number, height, width)
        return masks

    def _decode_one(self, number: int, height: int, width: int) -> np.ndarray:
        from hotcoco import mask as rle  # takes a quarter of a second to import

        if self.runs[number] < self.runs[number + 1]:
            counts = self.text[self.runs[number] : self.runs[number + 1]].tobytes()
            return rle.decode({"size": [height, width], "counts": counts})
        parts = [
            rle.fr_poly(self._polygon(part).tolist(), height, width)
            for part in range(self.objects[number], self.objects[number + 1])
        ]
        return rle.decode(parts[0] if len(parts) == 1 else rle.merge(parts))

    def _polygon(self, part: int) -> np.ndarray:
        numbers = self.numbers[self.polygons[part] : self.polygons[part + 1]]
        return numbers / _HUNDREDTHS if numbers.dtype == np.int32 else numbers


class SegmentationBuilder:
    """Collects the masks of objects, one after another, as COCO's JSON has them."""

    def __init__(self) -> None:
        self._objects, self._polygons, self._runs = array("q", [0]), array("q", [0]), array("q", [0])
        self._numbers, self._text = array("d"), bytearray()

    def add(self, segmentation: Any, height: int, width: int) -> str | None:
        """Take the mask of the next object.

        Args:
            segmentation: a list of polygons; or run lengths, ``{"size": [h, w], "counts": …}``, compressed (text) or
                not (a list of numbers).
            height, width: of the object's image.

        Returns:
            What is wrong with it, in which case it is not taken; None if it was. Single polygons of fewer than three
            points are passed over where others are left.
        """
        problem = (
            self._add_runs(segmentation, height, width)
            if isinstance(segmentation, dict)
            else (self._add_polygons(segmentation))
        )
        if problem is None:
            self._objects.append(len(self._polygons) - 1)
            self._runs.append(len(self._text))
        return problem

    def _add_polygons(self, polygons: Any) -> str | None:
        if not polygons:
            return "no mask"
        if not isinstance(polygons, list):
            return f"a mask that is neither polygons nor run lengths but {type(polygons).__name__}"
        taken = []
        for polygon in polygons:
            if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
                return "a polygon that is not a list of numbers"
            if not math.isfinite(sum(polygon)):  # one sum is faster than a look at each
                return "a polygon with a coordinate that is NaN or infinite"
            if len(polygon) % 2:
                return "a polygon with an odd number of coordinates"
            if len(polygon) >= 6:
                taken.append(polygon)
        if not taken:
            return "no polygon of three points or more"
        for polygon in taken:
            self._numbers.extend(polygon)
            self._polygons.append(len(self._numbers))
        return None

    def _add_runs(self, runs: dict[str, Any], height: int, width: int) -> str | None:
        from hotcoco import mask as rle

        size, counts = runs.get("size"), runs.get("counts")
        if size != [height, width]:
            return "run lengths of another size than the image"
        if isinstance(counts, list):
            if not _are_counts(counts) or sum(counts) != height * width:
                return "run lengths that do not add up to the image"
            counts = rle.frPyObjects({"size": size, "counts": counts}, height, width)["counts"]
        elif isinstance(counts, str):
            counts = counts.encode()
        if not isinstance(counts, bytes) or not counts:
            return "run lengths that are neither text nor a list of numbers"
        try:
            rle.area({"size": size, "counts": counts})
        except ValueError:
            return "run lengths that do not add up to the image"
        self._text += counts
        return None

    def build(self) -> Segmentations:
        """All that were taken."""
        return Segmentations(
            np.array(self._objects, np.int64),
            np.array(self._polygons, np.int64),
            np.array(self._numbers, np.float64),
            np.array(self._runs, np.int64),
            np.frombuffer(bytes(self._text), np.uint8),
        )


def _are_counts(counts: Iterable[Any]) -> bool:
    return all(isinstance(count, int) and count >= 0 for count in counts)
