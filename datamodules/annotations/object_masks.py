"""Masks of objects as annotations store them, polygons or run lengths, in one array; decoded on demand.

The pixels equal pycocotools' exactly: hotcoco, which rasterizes here, follows the same algorithm, and a test compares
the two. Polygons stay JSON text: parsing the numbers of a mask on demand takes a microsecond or two, parsing all of
COCO's takes seconds.
"""

import json
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

_RUNS = b'"'  # first byte of the text of run lengths, which polygons do not begin with
_FARTHEST = 2.0**40  # pixels; the coordinates of a polygon and their sum stay below it
_DIGITS, _LONG = bytes.maketrans(b"123456789", b"0" * 9), b"0" * 20
_POLYGONS = msgspec.json.Decoder(list[list[float]])


class ObjectMasks:
    """Masks of N objects.

    Args:
        starts, ends: Byte range of each object in `text`.
        text: JSON ``[[x1,y1,x2,y2,…],…]`` for polygons; a quotation mark and COCO's compressed form for run lengths.
        relative: Whether coordinates are fractions of the image's width and height, instead of pixels.

    Shape:
        - starts, ends: ``[N]`` int64.
        - text: ``[B]`` uint8, for B bytes.
    """

    def __init__(self, starts: np.ndarray, ends: np.ndarray, text: np.ndarray, relative: bool = False) -> None:
        self.starts, self.ends, self.text, self.relative = starts, ends, text, relative  # starts, ends [N]

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, indices: np.ndarray) -> "ObjectMasks":
        """Return the masks with the indices ``[M]`` int64, in that order; the text is shared."""
        return ObjectMasks(self.starts[indices], self.ends[indices], self.text, self.relative)

    def polygons(self, index: int) -> list[list[float]]:
        """Return the polygons of an object, x1, y1, x2, y2, … each; an empty list if it has run lengths."""
        text = self._text_of(index)
        return [] if text.startswith(_RUNS) else _POLYGONS.decode(text)

    def extent(self, index: int, height: int, width: int) -> list[float]:
        """Return the box around the mask of an object, x1, y1, x2, y2; that of polygons may be outside their image.

        Args:
            index: Index of the object.
            height, width: Size of its image in pixels.
        """
        from hotcoco import mask as rle

        if polygons := self.polygons(index):
            points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
            return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
        x, y, box_width, box_height = rle.to_bbox({"size": [height, width], "counts": self._text_of(index)[1:]})
        return [x, y, x + box_width, y + box_height]

    def decode(self, indices: Sequence[int], height: int, width: int) -> np.ndarray:
        """Decode the masks of objects of one image.

        Args:
            indices: Indices of the N objects.
            height, width: Size of the image in pixels.

        Returns:
            0 or 1; the union where an object has several polygons.

        Shape:
            - Output: ``[N, height, width]`` uint8.

        Raises:
            ValueError: Run lengths do not fit the image.
        """
        masks = np.zeros((len(indices), height, width), np.uint8)
        for mask, index in zip(masks, indices, strict=True):
            mask[...] = self._decode_one(index, height, width)
        return masks

    def _text_of(self, index: int) -> bytes:
        return self.text[self.starts[index] : self.ends[index]].tobytes()

    def _decode_one(self, index: int, height: int, width: int) -> np.ndarray:
        """Decode one mask: ``[H, W]`` uint8."""
        from hotcoco import mask as rle  # takes a quarter of a second to import

        text = self._text_of(index)
        if text.startswith(_RUNS):
            return rle.decode({"size": [height, width], "counts": text[1:]})
        polygons = _POLYGONS.decode(text)
        if self.relative:
            scale = np.array([width, height], np.float64)
            polygons = [(np.reshape(polygon, (-1, 2)) * scale).ravel().tolist() for polygon in polygons]
        parts = [rle.fr_poly(polygon, height, width) for polygon in polygons]
        return rle.decode(parts[0] if len(parts) == 1 else rle.merge(parts))


class ObjectMasksBuilder:
    """Collects the masks of objects, one after another, in the forms of COCO's JSON.

    Args:
        relative: Whether coordinates are fractions of the image's width and height, instead of pixels.
    """

    def __init__(self, relative: bool = False) -> None:
        self._relative, self._ends, self._text = relative, array("q", [0]), bytearray()

    def add(self, segmentation: Any, height: int, width: int) -> str | None:
        """Add the mask of the next object.

        Args:
            segmentation: A list of polygons; or run lengths, ``{"size": [h, w], "counts": …}``, compressed (text) or
                not (a list of numbers); or the JSON of one of these, as bytes.
            height, width: Size of the object's image in pixels.

        Returns:
            None if it was added, otherwise the reason why it cannot be used. Polygons of fewer than three points are
            skipped if the object has others.
        """
        if isinstance(segmentation, bytes):
            compact = segmentation.translate(None, b" \n\r\t")
            if _is_plain(compact):
                self._text += compact
                self._ends.append(len(self._text))
                return None
            try:
                segmentation = json.loads(segmentation)
            except (ValueError, RecursionError) as error:  # a number of thousands of digits
                return f"cannot be read ({error})"
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
            return f"must be polygons or run lengths, got {type(polygons).__name__}"
        valid = []
        for polygon in polygons:
            if problem := _not_coordinates(polygon):
                return problem
            if len(polygon) % 2:
                return "a polygon has an odd number of coordinates"
            if not polygon:
                continue
            # faster than testing each number; a sum with NaN or infinity is neither above nor below
            if not (-_FARTHEST < sum(polygon) < _FARTHEST and min(polygon) > -_FARTHEST and max(polygon) < _FARTHEST):
                return "a polygon has a coordinate that is NaN, infinite or far outside"
            if len(polygon) >= 6:
                valid.append(polygon)
        if not valid:
            return "no polygon has three points"
        self._text += msgspec.json.encode(valid)
        return None

    def _add_runs(self, runs: dict[str, Any], height: int, width: int) -> str | None:
        from hotcoco import mask as rle

        size, counts = runs.get("size"), runs.get("counts")
        if size != [height, width]:
            return "run lengths are for another size than the image's"
        if isinstance(counts, list):
            valid = all(type(count) is int and count >= 0 for count in counts)
            if not valid or sum(counts) != height * width:
                return "run lengths do not add up to the image"
            counts = rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
        elif isinstance(counts, str):
            counts = counts.encode(errors="replace")
        if not isinstance(counts, bytes) or not counts:
            return "run lengths are neither text nor a list of numbers"
        # hotcoco rejects run lengths that exceed the image, but pads short ones with zeros; these fit an image with
        # one pixel less, too
        if not _fit(counts, height * width) or _fit(counts, height * width - 1):
            return "run lengths do not add up to the image"
        self._text += _RUNS + counts
        return None

    def build(self) -> ObjectMasks:
        """Return all masks that were added."""
        ends = np.array(self._ends, np.int64)
        return ObjectMasks(ends[:-1], ends[1:], np.frombuffer(self._text, np.uint8), self._relative)


def _not_coordinates(polygon: Any) -> str | None:
    """Return why a polygon is not a list of numbers; None: it is one.

    >>> _not_coordinates([[1, 2], [3, 2]]).partition("; ")[0]
    'a polygon must be a flat list x1, y1, x2, y2, …, got a list of points [[1, 2], [3, 2]]'
    """
    if isinstance(polygon, list) and set(map(type, polygon)) <= {int, float}:
        return None
    got = json.dumps(polygon)
    got = got if len(got) <= 40 else f"{got[:39]}…"
    if isinstance(polygon, int | float):
        return (
            f"a mask must be a list of polygons [[x1, y1, x2, y2, …]], got the number {got} in it; add outer brackets"
        )
    if isinstance(polygon, list) and polygon and all(isinstance(point, list) for point in polygon):
        return (
            f"a polygon must be a flat list x1, y1, x2, y2, …, got a list of points {got}; write the numbers without "
            "the inner brackets"
        )
    return f"a polygon is not a list of numbers, got {got}"


def _is_plain(text: bytes) -> bool:
    """Return whether JSON without whitespace is polygons that need no further checks.

    Such polygons have numbers without exponents, which are therefore finite, and an even count of at least six.
    """
    if _LONG in text.translate(_DIGITS):  # perhaps too large for a float
        return False
    rest = text.translate(None, b"0123456789.-")
    commas = len(rest) - 4
    if commas & 1 and commas >= 5 and rest == b"[[%b]]" % (b"," * commas):  # a single polygon, as most objects have
        return True
    if not (rest.startswith(b"[[") and rest.endswith(b"]]")):
        return False
    return all(len(part) >= 5 and len(part) % 2 and not part.strip(b",") for part in rest[2:-2].split(b"],["))


def _fit(counts: bytes, pixels: int) -> bool:
    """Return whether compressed run lengths do not exceed a number of pixels."""
    from hotcoco import mask as rle

    try:
        rle.area({"size": [1, pixels], "counts": counts})
    except (ValueError, OverflowError):
        return False
    return True
