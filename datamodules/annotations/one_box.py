"""Images with one object each, a class and a box: the source of localization, and how the object is selected."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..images.read import ImageError, read_image, reduced_sizes
from ..images.sizes import image_sizes
from ..loading.targets import box_areas
from .annotation_errors import AnnotationErrors, DataError
from .labeled_images import LabeledFiles
from .objects import ObjectSource, usable_boxes

ObjectRule = Literal["one", "largest"]

UNKNOWN_SIDE = np.iinfo(np.int32).max
"""Stands for the side of an image whose size is unknown; no box lies outside it."""


class BoxSource(LabeledFiles):
    """Image files with one class and one box each: a source of localization.

    Args:
        paths: Image files; an array from `encode_paths` is not copied.
        labels: Class of each file.
        boxes: x1, y1, x2, y2 in pixels.
        root: Folder that the paths are relative to.
        sizes: Width and height of the images in which the boxes were drawn; 0, 0 or None: those of the files.
        rescale: Whether to scale the box of an image that has another size; otherwise, the image counts as unreadable.

    Shape:
        - labels: ``[N]`` int64.
        - boxes: ``[N, 4]`` float32.
        - sizes: ``[N, 2]`` int32.

    Attributes:
        short_side: Length in pixels that the transforms need (see `read_image`); None: full resolution. Ignored where
            the size of an image is unknown. The box is that of the returned image.
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
        self.boxes, self.sizes, self.rescale = boxes, sizes, rescale  # boxes [N, 4], sizes [N, 2]

    def part(self, selected: np.ndarray) -> "BoxSource":
        """Return a subset of the files, selected by a bool mask ``[N]`` or by indices ``[M]``."""
        sizes = None if self.sizes is None else self.sizes[selected]
        return BoxSource(
            self.paths[selected], self.labels[selected], self.boxes[selected], self.root, sizes, rescale=self.rescale
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = os.fsdecode(self.paths[index])
        path = Path(name) if self.root is None else self.root / name
        known = self.sizes is not None and bool(self.sizes[index].all())
        pixels = read_image(path, self.short_side if known else None, self.options)
        box = self._box(index, path, pixels.shape[1], pixels.shape[0])
        return {"image": pixels, "label": int(self.labels[index]), "box": box, "path": str(path)}

    def _box(self, index: int, path: Path, width: int, height: int) -> np.ndarray:
        """Return the box in an image of this size, clipped to it: ``[4]`` float32."""
        box = self.boxes[index].astype(np.float64)
        annotated = (0, 0) if self.sizes is None else tuple(self.sizes[index].tolist())
        if all(annotated) and annotated != (width, height):
            is_reduced = self.short_side is not None and (width, height) in reduced_sizes(*annotated)
            if not self.rescale and not is_reduced:
                raise ImageError.size_mismatch(path, (width, height), "its annotations are for", annotated)
            box *= np.tile([width / annotated[0], height / annotated[1]], 2)
        clipped = box.clip(0, [width, height, width, height]).astype(np.float32)
        if not (clipped[:2] < clipped[2:]).all():
            raise ImageError(path, f"box {box.round(2).tolist()} lies outside its image, {width}x{height}")
        return clipped


def select_objects(image_of: np.ndarray, boxes: np.ndarray, rule: str) -> np.ndarray:
    """Select one object per image.

    Args:
        image_of: Index of each object's image.
        boxes: Boxes of the objects, in pixels.
        rule: ``one``: the object of images with a single object; other images are left out. ``largest``: the object
            with the largest box, the first on ties. ``first``: the first object.

    Returns:
        Indices of the selected objects, in the order of their images.

    Shape:
        - image_of: ``[N]`` int64.
        - boxes: ``[N, 4]``.
        - Output: ``[M]`` int64.
    """
    keys = (-box_areas(boxes.astype(np.float64)), image_of) if rule == "largest" else (image_of,)
    order = np.lexsort(keys)  # stable: ties stay in their order
    _, first, counts = np.unique(image_of[order], return_index=True, return_counts=True)
    return order[first[counts == 1] if rule == "one" else first]


def one_object_per_image(source: ObjectSource, classes: Sequence[int], rule: str) -> BoxSource:
    """Return the images of a detection source with one selected object each; images without one are left out.

    Args:
        source: Images with all their objects. Crowds and difficult objects do not count.
        classes: Labels of the classes of interest; label ``classes[k]`` becomes k.
        rule: See `select_objects`.

    Raises:
        DataError: The source has no usable object.
    """
    if (fault := source.absence()) is not None:
        raise DataError.of(fault)
    images, objects = source.images, source.objects
    image_of = np.repeat(np.arange(len(images.names)), np.diff(objects.starts))
    new_label = np.full(max(*classes, int(objects.labels.max(initial=0))) + 1, -1, np.int64)
    new_label[list(classes)] = np.arange(len(classes))
    labels = new_label[objects.labels]
    in_split = np.zeros(len(images.names), np.bool_)
    in_split[source.selected] = True
    counted = np.flatnonzero(in_split[image_of] & (labels >= 0) & ~objects.iscrowd & ~objects.difficult)
    selected = counted[select_objects(image_of[counted], objects.boxes[counted], rule)]
    kept = image_of[selected]
    return BoxSource(images.names[kept], labels[selected], objects.boxes[selected], images.root, images.sizes[kept])


def usable_source(
    root: Path,
    paths: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    errors: AnnotationErrors,
    names: np.ndarray,
    unit: str,
    sizes: np.ndarray | None = None,
) -> tuple[BoxSource, np.ndarray]:
    """Return the images with usable boxes, where only the image files know the image sizes.

    Args:
        root: Folder that `paths` are relative to.
        paths: Image files, encoded by `encode_paths`.
        labels: Class of each file.
        boxes: x1, y1, x2, y2 in pixels.
        errors: Counts the boxes that cannot be used, and warns about them.
        names: Name of each box in messages.
        unit: What `names` number.
        sizes: Width and height of the files, 0 if they cannot be read; None: they are read from their headers.

    Returns:
        The source, and which of the files are in it. A file whose size cannot be read is included, and counts as
        unreadable when its sample is requested.

    Shape:
        - paths, labels, names: ``[N]``.
        - boxes: ``[N, 4]`` float64.
        - sizes: ``[N, 2]``.
        - Output: ``[N]`` bool.
    """
    if sizes is None:
        sizes = image_sizes(root / os.fsdecode(path) for path in paths)
    usable = usable_boxes(boxes.copy(), np.where(sizes == 0, UNKNOWN_SIDE, sizes), names, errors, unit)
    errors.warn()
    return BoxSource(paths[usable], labels[usable], boxes[usable].astype(np.float32), root, sizes[usable]), usable


def warn_about_missing_boxes(folder: Path, names: Sequence[str], total: int, reason: str) -> None:
    """Warn once about the images without a published box, if there are any."""
    if names:
        rank_zero_warn(f"{len(names)} of {total} images left out: {reason} in {folder} (first: {names[0]})")


def require_images(source: BoxSource, where: str, rule: str, class_names: Sequence[str]) -> BoxSource:
    """Return the source if it has images.

    Args:
        source: Images with one object each, see `one_object_per_image`.
        where: Argument and file or image set, with which the message begins.
        rule: Selection rule, ``one`` or ``largest``.
        class_names: Classes of interest.

    Raises:
        ValueError: The source is empty.
    """
    if not len(source):
        count = "exactly one object" if rule == "one" else "an object"
        raise ValueError(
            f"{where}: no image has {count} of the classes {', '.join(class_names[:5])}"
            f"{', …' if len(class_names) > 5 else ''} that is neither difficult nor a crowd"
            + ("; set objects: largest to include images with several" if rule == "one" else "")
        )
    return source
