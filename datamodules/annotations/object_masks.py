"""Masks of objects as their annotations hold them, polygons or run lengths, in one array; pixels only when asked for.

The pixels are pycocotools' to the last one: hotcoco, which rasterises here, follows the same algorithm, and a test
compares the two. Polygons stay the JSON text that they came as: its numbers are parsed when a mask is asked for, which
takes a microsecond or two, where parsing all of COCO's takes seconds.
"""

import json
import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

_RUNS = b'"'  # what the text of run lengths begins with, and that of polygons does not
_POLYGONS = msgspec.json.Decoder(list[list[float]])


class Segmentations:
    """The masks of N objects.

    Attributes:
        starts, ends: int64 ``[N]``; object n has the bytes from ``starts[n]`` up to ``ends[n]``.
        text: uint8; for polygons JSON, ``[[x1,y1,x2,y2,…],…]``; for run lengths a quotation mark, and COCO's compressed
            form.
        relative: whether the numbers are parts of the image's width and height, or pixels.
    """

    def __init__(self, starts: np.ndarray, ends: np.ndarray, text: np.ndarray, relative: bool = False) -> None:
        self.starts, self.ends, self.text, self.relative = starts, ends, text, relative

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, which: np.ndarray) -> "Segmentations":
        """The masks of some objects, in that order; the text is shared.

        Shape:
            - which: ``[M]`` int64.
        """
        return Segmentations(self.starts[which], self.ends[which], self.text, self.relative)

    def polygons(self, number: int) -> list[list[float]]:
        """The polygons of an object, x1, y1, x2, y2, … each; none if it has run lengths."""
        text = self._text_of(number)
        return [] if text.startswith(_RUNS) else _POLYGONS.decode(text)

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

    def _text_of(self, number: int) -> bytes:
        return self.text[self.starts[number] : self.ends[number]].tobytes()

    def _decode_one(self, number: int, height: int, width: int) -> np.ndarray:
        from hotcoco import mask as rle  # takes a quarter of a second to import

        text = self._text_of(number)
        if text.startswith(_RUNS):
            return rle.decode({"size": [height, width], "counts": text[1:]})
        polygons = _POLYGONS.decode(text)
        if self.relative:
            scale = np.array([width, height], np.float64)
            polygons = [(np.reshape(polygon, (-1, 2)) * scale).ravel().tolist() for polygon in polygons]
        parts = [rle.fr_poly(polygon, height, width) for polygon in polygons]
        return rle.decode(parts[0] if len(parts) == 1 else rle.merge(parts))


class SegmentationBuilder:
    """Collects the masks of objects, one after another, as COCO's JSON has them.

    Args:
        relative: whether the polygons' numbers are parts of the image's width and height, or pixels.
    """

    def __init__(self, relative: bool = False) -> None:
        self._relative, self._ends, self._text = relative, array("q", [0]), bytearray()

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
            flat = segmentation.translate(None, b" \n\r\t")
            if _is_plain(flat):
                self._text += flat
                self._ends.append(len(self._text))
                return None
            segmentation = json.loads(segmentation)
        if isinstance(segmentation, dict):
            problem = self._add_runs(segmentation, height, width)
        else:
            problem = self._add_polygons(segmentation)
        if problem is None:
            self._ends.append(len(self._text))
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
        self._text += msgspec.json.encode(taken)
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
        self._text += _RUNS + counts
        return None

    def build(self) -> Segmentations:
        """All that were taken."""
        ends = np.array(self._ends, np.int64)
        return Segmentations(ends[:-1], ends[1:], np.frombuffer(self._text, np.uint8), self._relative)


def _is_plain(text: bytes) -> bool:
    """Whether JSON without blanks is polygons in which nothing needs a closer look.

    That is: numbers without exponents, which are finite then, in even counts of six or more.
    """
    rest = text.translate(None, b"0123456789.-")
    commas = len(rest) - 4
    if commas & 1 and commas >= 5 and rest == b"[[%b]]" % (b"," * commas):  # one polygon, as most objects have
        return True
    if not (rest.startswith(b"[[") and rest.endswith(b"]]")):
        return False
    return all(len(own) >= 5 and len(own) % 2 and not own.strip(b",") for own in rest[2:-2].split(b"],["))


def _fit(counts: bytes, pixels: int) -> bool:
    from hotcoco import mask as rle

    try:
        rle.area({"size": [1, pixels], "counts": counts})
    except ValueError:
        return False
    return True


def _are_counts(counts: Iterable[Any]) -> bool:
    return all(isinstance(count, int) and count >= 0 for count in counts)
