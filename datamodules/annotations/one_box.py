"""Images of which one object counts: its class and its box, held as a few arrays, and how it is chosen."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..images.read import ImageError, read_image, reduced_sizes
from ..images.sizes import image_sizes
from ..loading.targets import box_areas
from .annotation_errors import AnnotationErrors
from .labeled_images import LabeledFiles
from .objects import ObjectSource, usable_boxes

Choice = Literal["one", "largest"]

_UNKNOWN = np.iinfo(np.int32).max


class BoxSource(LabeledFiles):
    """Image files with a class and a box each: a source of localization.

    Args:
        paths: the files; an array of bytes is kept as it is.
        labels: class of each file.
        boxes: x1, y1, x2, y2 in pixels.
        root: what the paths are relative to.
        sizes: width and height of the images that the boxes were drawn in; 0, 0 or None: of the images as they are.
        rescale: an image may have another size, and its box is then scaled with it; otherwise it counts as
            unreadable.

    Shape:
        - labels: ``[N]`` int64.
        - boxes: ``[N, 4]`` float32.
        - sizes: ``[N, 2]`` int32.

    Attributes:
        short_side: the length that is enough for what follows (see `read_image`); None: all pixels. Without effect
            where an image's size is not known beforehand. The box is that in the image that is given.
    """

    def __init__(
        self,
        paths: Sequence[Path | str] | np.ndarray,
        labels: np.ndarray,
        boxes: np.ndarray,
        root: Path | None = None,
        sizes: np.ndarray | None = None,
        rescale: bool = False,
    ) -> None:
        super().__init__(paths, labels, root)
        self.boxes, self.sizes, self.rescale = boxes, sizes, rescale

    def part(self, chosen: np.ndarray) -> "BoxSource":
        """Some of the files: a mask, or their numbers."""
        sizes = None if self.sizes is None else self.sizes[chosen]
        return BoxSource(
            self.paths[chosen], self.labels[chosen], self.boxes[chosen], self.root, sizes, rescale=self.rescale
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = os.fsdecode(self.paths[index])
        path = Path(name) if self.root is None else self.root / name
        known = self.sizes is not None and bool(self.sizes[index].all())
        pixels = read_image(path, self.short_side if known else None)
        box = self._box(index, path, pixels.shape[1], pixels.shape[0])
        return {"image": pixels, "label": int(self.labels[index]), "box": box, "path": str(path)}

    def _box(self, index: int, path: Path, width: int, height: int) -> np.ndarray:
        """The box in an image of this size, clipped to it: ``[4]`` float32."""
        box = self.boxes[index].astype(np.float64)
        drawn = (0, 0) if self.sizes is None else tuple(self.sizes[index].tolist())
        if all(drawn) and drawn != (width, height):
            smaller = self.short_side is not None and (width, height) in reduced_sizes(*drawn)
            if not self.rescale and not smaller:
                raise ImageError(
                    path,
                    f"the image is {width}x{height}, but its annotations are for {drawn[0]}x{drawn[1]}",
                    "size-mismatch",
                )
            box *= np.tile([width / drawn[0], height / drawn[1]], 2)
        seen = box.clip(0, [width, height, width, height]).astype(np.float32)
        if not (seen[:2] < seen[2:]).all():
            raise ImageError(path, f"nothing of its box {box.round(2).tolist()} lies in the image, {width}x{height}")
        return seen


def choose_objects(of_image: np.ndarray, boxes: np.ndarray, rule: str) -> np.ndarray:
    """One object an image.

    Args:
        of_image: the image of each object.
        boxes: their boxes, in pixels.
        rule: ``one``: that of images with a single object; others are left out. ``largest``: the one whose box has
            the largest area, the first of equals. ``first``: the first.

    Returns:
        The chosen objects' numbers, in the order of their images.

    Shape:
        - of_image: ``[N]`` int64.
        - boxes: ``[N, 4]``.
        - Output: ``[M]`` int64.
    """
    keys = (-box_areas(boxes.astype(np.float64)), of_image) if rule == "largest" else (of_image,)
    order = np.lexsort(keys)  # stable: equals stay in their order
    _, first, counts = np.unique(of_image[order], return_index=True, return_counts=True)
    return order[first[counts == 1] if rule == "one" else first]


def one_object_each(source: ObjectSource, wanted: Sequence[int], rule: str) -> BoxSource:
    """Images of a detection set with the one object that counts; images without one are left out.

    Args:
        source: images with all their objects. Crowds and difficult objects do not count.
        wanted: the labels that count; label ``wanted[k]`` becomes k.
        rule: see `choose_objects`.
    """
    images, objects = source.images, source.objects
    of_image = np.repeat(np.arange(len(images.names)), np.diff(objects.starts))
    renumbered = np.full(max(*wanted, int(objects.labels.max(initial=0))) + 1, -1, np.int64)
    renumbered[list(wanted)] = np.arange(len(wanted))
    labels = renumbered[objects.labels]
    counted = np.flatnonzero((labels >= 0) & ~objects.iscrowd & ~objects.difficult)
    chosen = counted[choose_objects(of_image[counted], objects.boxes[counted], rule)]
    own = of_image[chosen]
    return BoxSource(images.names[own], labels[chosen], objects.boxes[chosen], images.root, images.sizes[own])


def usable_source(
    root: Path,
    paths: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    errors: AnnotationErrors,
    ids: np.ndarray,
    unit: str,
) -> tuple[BoxSource, np.ndarray]:
    """The images whose boxes can be used, where only the image files know their sizes.

    Args:
        root: what `paths` are relative to.
        paths: the files, an array of bytes.
        labels: class of each file.
        boxes: x1, y1, x2, y2 in pixels, ``[N, 4]`` float64.
        errors: Counts the others, and warns of them.
        ids: what to call each box in a message.
        unit: what `ids` number.

    Returns:
        The source, and which of the files are in it. A file whose size cannot be read is: it will count as unreadable
        when its sample is asked for.
    """
    sizes = image_sizes(root / os.fsdecode(path) for path in paths)
    usable = usable_boxes(boxes.copy(), np.where(sizes == 0, _UNKNOWN, sizes), ids, errors, unit)
    errors.warn()
    return BoxSource(paths[usable], labels[usable], boxes[usable].astype(np.float32), root, sizes[usable]), usable


def warn_of_absent(where: Path, absent: Sequence[str], total: int, why: str) -> None:
    """One warning that counts the images without a box, if there are any; their publishers never gave them one."""
    if absent:
        rank_zero_warn(f"{where}: {len(absent)} of {total} images left out: {why} (the first: {absent[0]})")


def require_images(source: BoxSource, where: str, rule: str, names: list[str]) -> BoxSource:
    """Return the source if it has images.

    Args:
        source: Images with one object each, as `one_object_each` selects them.
        where: Argument and file or image set that the message begins with.
        rule: Selection rule, ``one`` or ``largest``.
        names: Classes of interest.

    Raises:
        ValueError: The source is empty.
    """
    if not len(source):
        what = "exactly one object" if rule == "one" else "an object"
        raise ValueError(
            f"{where}: no image in it has {what} of the classes {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
            " that is neither difficult nor a crowd"
            + ("; data.init_args.objects: largest takes images with several" if rule == "one" else "")
        )
    return source
