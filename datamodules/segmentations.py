"""Masks of objects as their annotations hold them, polygons or run lengths, in flat arrays; pixels only when asked for.

The pixels are pycocotools' to the last one: hotcoco, which rasterises here, follows the same algorithm, and a test
compares the two. Coordinates of few decimals (COCO's have two, YOLO's parts of an image six) are kept as whole numbers
of their last decimal in int32, which gives the very same float64 back; others as float64.
"""

import json
import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

_DECIMALS = (100.0, 1e6, 1e8)  # what coordinates are tried to be whole numbers of, as 1 / this
_BLOCK = 1 << 20  # numbers


class Segmentations:
    """The masks of N objects.

    Attributes:
        objects: int64 ``[N + 1]``; object n has the polygons ``objects[n]`` up to ``objects[n + 1]``.
        polygons: int64 ``[P + 1]``, likewise, the numbers of each polygon.
        numbers: x1, y1, x2, y2, …: float64, or int32 that `unit` divides.
        unit: see `numbers`.
        runs: int64 ``[N + 1]``, likewise, the bytes of each object's compressed run lengths; none for polygons.
        text: uint8, the run lengths.
        relative: whether the numbers are parts of the image's width and height, or pixels.
    """

    def __init__(
        self,
        objects: np.ndarray,
        polygons: np.ndarray,
        numbers: np.ndarray,
        runs: np.ndarray,
        text: np.ndarray,
        relative: bool = False,
        unit: float = 1.0,
    ) -> None:
        self.objects, self.polygons, self.runs, self.text, self.relative = objects, polygons, runs, text, relative
        self.numbers, self.unit = numbers, unit

    def __len__(self) -> int:
        return len(self.objects) - 1

    def select(self, which: np.ndarray) -> "Segmentations":
        """The masks of some objects, in that order.

        Shape:
            - which: ``[M]`` int64.
        """
        objects, parts = _gathered(self.objects, which)
        polygons, places = _gathered(self.polygons, parts)
        runs, letters = _gathered(self.runs, which)
        return Segmentations(
            objects, polygons, self.numbers[places], runs, self.text[letters], self.relative, self.unit
        )

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
        scale = np.array([width, height], np.float64) if self.relative else 1.0
        parts = [
            rle.fr_poly((self._polygon(part).reshape(-1, 2) * scale).ravel().tolist(), height, width)
            for part in range(self.objects[number], self.objects[number + 1])
        ]
        return rle.decode(parts[0] if len(parts) == 1 else rle.merge(parts))

    def _polygon(self, part: int) -> np.ndarray:
        numbers = self.numbers[self.polygons[part] : self.polygons[part + 1]]
        return numbers / self.unit if numbers.dtype == np.int32 else numbers


class SegmentationBuilder:
    """Collects the masks of objects, one after another, as COCO's JSON has them.

    Args:
        relative: whether the polygons' numbers are parts of the image's width and height, or pixels.
    """

    def __init__(self, relative: bool = False) -> None:
        self._relative = relative
        self._objects, self._polygons, self._runs = array("q", [0]), array("q", [0]), array("q", [0])
        self._numbers, self._text = _Numbers(_DECIMALS if relative else _DECIMALS[:1]), bytearray()

    def add(self, segmentation: Any, height: int, width: int) -> str | None:
        """Take the mask of the next object.

        Args:
            segmentation: a list of polygons; or run lengths, ``{"size": [h, w], "counts": …}``, compressed (text) or
                not (a list of numbers); or the JSON of one of these, as bytes.
            height, width: of the object's image.

        Returns:
            What is wrong with it, in which case it is not taken; None if it was. Single polygons of fewer than three
            points are passed over where others are left.
        """
        if isinstance(segmentation, bytes):
            if self._add_plain(segmentation):
                return None
            segmentation = json.loads(segmentation)
        if isinstance(segmentation, dict):
            problem = self._add_runs(segmentation, height, width)
        else:
            problem = self._add_polygons(segmentation)
        if problem is None:
            self._close()
        return problem

    def _add_plain(self, text: bytes) -> bool:
        """Take the text of polygons in which nothing needs a closer look; they are parsed later, many at a time."""
        flat = text.translate(None, b" \n\r\t")
        rest = flat.translate(None, b"0123456789.-")
        commas = len(rest) - 4
        if commas & 1 and commas >= 5 and rest == b"[[%b]]" % (b"," * commas):  # one polygon, as most are
            self._take(flat[2:-2], commas + 1)
            self._close()
            return True
        rests = rest[2:-2].split(b"],[") if rest.startswith(b"[[") and rest.endswith(b"]]") else []
        if not rests or any(len(own) < 5 or not len(own) % 2 or own.strip(b",") for own in rests):
            return False
        for polygon, own in zip(flat[2:-2].split(b"],["), rests, strict=True):
            self._take(polygon, len(own) + 1)
        self._close()
        return True

    def _take(self, polygon: bytes, count: int) -> None:
        self._numbers.add(polygon, count)
        self._polygons.append(len(self._numbers))

    def _close(self) -> None:
        self._objects.append(len(self._polygons) - 1)
        self._runs.append(len(self._text))

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
            self._take(",".join(map(repr, polygon)).encode(), len(polygon))
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
        # hotcoco refuses those that run over the image; those that end too early it would fill up with zeros, but they
        # fit an image of a pixel less, too
        if not _fit(counts, height * width) or _fit(counts, height * width - 1):
            return "run lengths that do not add up to the image"
        self._text += counts
        return None

    def build(self) -> Segmentations:
        """All that were taken."""
        numbers, unit = self._numbers.build()
        return Segmentations(
            np.array(self._objects, np.int64),
            np.array(self._polygons, np.int64),
            numbers,
            np.array(self._runs, np.int64),
            np.frombuffer(bytes(self._text), np.uint8),
            self._relative,
            unit,
        )


class _Numbers:
    """Millions of numbers, given as JSON's text, parsed and packed a block at a time.

    Args:
        units: what they are tried to be whole numbers of, as 1 / this.
    """

    def __init__(self, units: Sequence[float]) -> None:
        self._units, self._count, self._waiting = units, 0, 0
        self._texts: list[bytes] = []
        self._blocks: list[tuple[np.ndarray, float]] = []

    def __len__(self) -> int:
        return self._count

    def add(self, text: bytes, count: int) -> None:
        """Take `count` numbers with commas between them."""
        self._texts.append(text)
        self._count += count
        self._waiting += count
        if self._waiting >= _BLOCK:
            self._pack()

    def _pack(self) -> None:
        numbers = msgspec.json.decode(b"[" + b",".join(self._texts) + b"]", type=list[float])
        self._blocks.append(_packed(np.array(numbers, np.float64), self._units))
        self._texts, self._waiting = [], 0

    def build(self) -> tuple[np.ndarray, float]:
        """All of them, and their unit: int32 that it divides, or float64 and 1."""
        self._pack()
        if len({(block.dtype, unit) for block, unit in self._blocks}) == 1:
            return np.concatenate([block for block, _ in self._blocks]), self._blocks[0][1]
        return _packed(np.concatenate([block / unit for block, unit in self._blocks]), self._units)


def _packed(numbers: np.ndarray, units: Sequence[float]) -> tuple[np.ndarray, float]:
    """Numbers as int32 and what divides them, where that gives the very same back; else as they are, and 1."""
    for unit in units:
        whole = np.rint(numbers * unit)
        if (np.abs(whole) < 2**31).all() and (whole / unit == numbers).all():
            return whole.astype(np.int32), unit
    return numbers, 1.0


def _fit(counts: bytes, pixels: int) -> bool:
    from hotcoco import mask as rle

    try:
        rle.area({"size": [1, pixels], "counts": counts})
    except ValueError:
        return False
    return True


def _gathered(starts: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where some of many lists, laid end to end, start when only they are laid so, and where their items are now.

    Shape:
        - starts: ``[N + 1]``; list n has the items ``starts[n]`` up to ``starts[n + 1]``.
        - which: ``[M]``.
        - Output: ``[M + 1]``, and one number an item of the lists chosen; int64.
    """
    lengths = starts[which + 1] - starts[which]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return ends, np.repeat(starts[which] - ends[:-1], lengths) + np.arange(ends[-1])


def _are_counts(counts: Iterable[Any]) -> bool:
    return all(isinstance(count, int) and count >= 0 for count in counts)
