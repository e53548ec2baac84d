"""Instance masks whose pixel values are object ids: from ids to objects, and the source of such masks."""

import contextlib
import os
from pathlib import Path

import cv2
import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..annotations.absence import absence_by_reading
from ..annotations.annotation_errors import Fault, record, recording
from ..annotations.mask_files import read_ids, record_turned
from ..images.bit_depth import ReadOptions
from ..images.read import ImageError, read_image
from ..loading.sources import Sample
from .id_classes import IdClasses, OneClass

_MAX_COUNTED = 2**22  # ids up to which counting all values is faster than sorting the pixels


def split_ids(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber the objects of a mask from 1.

    Returns:
        The ids other than 0, ascending; the mask with the number of each pixel's object, 0 = none.

    Shape:
        - ids: ``[H, W]`` of nonnegative whole numbers.
        - Output: ``[N]`` int64; ``[H, W]`` int32.
    """
    if ids.max(initial=0) < _MAX_COUNTED:
        present = np.flatnonzero(np.bincount(ids.ravel()))
        values = present[present > 0]
        number_of = np.zeros(ids.max(initial=0) + 1, np.int32)
        number_of[values] = np.arange(1, len(values) + 1)
        return values, number_of[ids]
    values, inverse = np.unique(ids, return_inverse=True)
    has_background = int(values[0] == 0)
    return values[has_background:].astype(np.int64), (inverse.reshape(ids.shape) + (1 - has_background)).astype(
        np.int32
    )


def split_components(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber the connected parts of a mask's objects from 1; pixels that touch at a corner are connected.

    Returns:
        The id of each part, ascending; the mask with the number of each pixel's part, 0 = none.

    Shape:
        - ids: ``[H, W]`` of nonnegative whole numbers.
        - Output: ``[N]`` int64; ``[H, W]`` int32.
    """
    from scipy.ndimage import find_objects

    values, numbered = split_ids(ids)
    parts = np.zeros_like(numbered)
    owners: list[int] = []
    for number, (rows, columns) in enumerate(find_objects(numbered), start=1):
        count, labels = cv2.connectedComponents((numbered[rows, columns] == number).astype(np.uint8), connectivity=8)
        parts[rows, columns] += np.where(labels > 0, labels + len(owners), 0)
        owners += [values[number - 1]] * (count - 1)
    return np.array(owners, np.int64), parts


def count_components(ids: np.ndarray) -> int:
    """Count the connected parts of a mask ``[H, W]`` that has a single value beside 0; 0 if it has none or several."""
    values, numbered = split_ids(ids)
    return cv2.connectedComponents(numbered.astype(np.uint8), connectivity=8)[0] - 1 if len(values) == 1 else 0


def background_value(ids: np.ndarray) -> int:
    """Return the value of half of a mask ``[H, W]`` or more, if no pixel is 0: likely the background; otherwise 0."""
    values, numbered = split_ids(ids)
    counts = np.bincount(numbered.ravel(), minlength=2)
    best = int(counts[1:].argmax()) if len(values) else 0
    return int(values[best]) if not counts[0] and 2 * counts[1 + best] >= ids.size > 0 else 0


def masks_and_boxes(numbered: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks and boxes of some objects.

    Args:
        numbered: Mask of numbered objects, see `split_ids`.
        numbers: Numbers of the objects, from 1.

    Shape:
        - numbered: ``[H, W]``.
        - numbers: ``[N]``.
        - Output: ``[N, H, W]`` uint8, 0 or 1; ``[N, 4]`` float32, x1, y1, x2, y2.
    """
    from scipy.ndimage import find_objects

    slices = find_objects(numbered)
    masks, boxes = np.zeros((len(numbers), *numbered.shape), np.uint8), np.zeros((len(numbers), 4), np.float32)
    for mask, box, number in zip(masks, boxes, numbers.tolist(), strict=True):
        rows, columns = slices[number - 1]
        mask[rows, columns] = numbered[rows, columns] == number
        box[...] = columns.start, rows.start, columns.stop, rows.stop
    return masks, boxes


class IdFiles:
    """Images with one mask of object ids each: a source of instance segmentation.

    Args:
        root: Folder that the paths are relative to.
        images: Image files, ``[M]`` bytes, see `encode_paths`.
        masks: Mask file of each image, ``[M]`` bytes.
        classes: Returns the class of an id.
        split_components: Whether each connected part of an id is an object.

    Attributes:
        selected: Indices of the images that the source returns.
        options: How image files are read, see `ReadOptions`.
    """

    options = ReadOptions()

    def __init__(
        self, root: Path, images: np.ndarray, masks: np.ndarray, classes: IdClasses, split_components: bool = False
    ) -> None:
        self.root, self.images, self.masks, self.classes = root, images, masks, classes
        self.split_components = split_components
        self.selected = np.arange(len(images))  # [M]

    def __len__(self) -> int:
        return len(self.selected)

    def path(self, index: int) -> Path:
        """Return the file of the image with this index."""
        return self.root / os.fsdecode(self.images[self.selected[index]])

    def files(self) -> list[str]:
        """Return the file of each image."""
        return [str(self.path(index)) for index in range(len(self))]

    def absence(self, training: bool = False) -> Fault | None:
        """Return why no image has an object; None: one has."""
        return absence_by_reading(self, self.root, lambda sample: len(sample["labels"]) > 0)

    def __getitem__(self, index: int) -> Sample:
        image = int(self.selected[index])
        path, mask_path = self.path(index), self.root / os.fsdecode(self.masks[image])
        pixels, ids = read_image(path, options=self.options), read_ids(mask_path)
        if pixels.shape[:2] != ids.shape:
            raise ImageError.size_mismatch(
                path, pixels.shape[1::-1], f"its mask {str(mask_path)!r} is", ids.shape[::-1]
            )
        if recording():
            record_turned(path, mask_path)
            self._record_faults(path, mask_path, ids)
        values, numbered = (split_components if self.split_components else split_ids)(ids)
        labels = self.classes(values, image, mask_path)
        objects = np.flatnonzero(labels >= 0)
        masks, boxes = masks_and_boxes(numbered, objects + 1)
        return {
            "image": pixels,
            "path": str(path),
            "image_id": image,
            "boxes": boxes,
            "labels": labels[objects],
            "masks": masks,
        }

    def _record_faults(self, path: Path, mask: Path, ids: np.ndarray) -> None:
        """Record it if the ids ``[H, W]`` of an image are one value with several parts, or have no background."""
        images = [str(path)]
        if not self.split_components and (count := count_components(ids)) > 1:
            found = f"{mask.name} has one value and {count} separate parts, which are one object"
            record(Fault("merged-objects", path, [path], "path", found, images=images))
        if isinstance(self.classes, OneClass) and (value := background_value(ids)):
            found = f"{mask.name} has no pixel of 0, and value {value}, an object, covers half of it or more"
            record(Fault("no-background", path, [path], "path", found, images=images))

    def warn_of_first_masks(self) -> None:
        """Warn if the first masks have separate parts of one value each, or a background other than 0."""
        masks = []
        for name in self.masks[:3]:
            with contextlib.suppress(ValueError):  # reported when its sample is read
                masks.append(read_ids(self.root / os.fsdecode(name)))
        first = f"the first: {os.fsdecode(self.masks[0])}" if len(self.masks) else ""
        single = all(len(np.unique(ids)) <= 2 for ids in masks) and not self.split_components
        if single and (count := max(map(count_components, masks), default=0)) > 1:
            rank_zero_warn(
                f"{count} separate parts are one object (masks of {self.root} have one value each, {first}): set "
                "split_components: true if each part is an object"
            )
        values = [background_value(ids) for ids in masks] if isinstance(self.classes, OneClass) else []
        if values and all(values):
            rank_zero_warn(
                f"the background may be trained on as an object (masks of {self.root} have no pixel of 0, and value "
                f"{values[0]} covers half of {os.fsdecode(self.masks[0])} or more): write 0 where there is no object"
            )
