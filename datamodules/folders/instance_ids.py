"""Instance masks whose pixel values are object ids: from ids to objects, and the source of such masks."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..annotations.absence import absence_by_reading
from ..annotations.annotation_errors import Fault, record, recording
from ..annotations.mask_files import read_ids, record_turned
from ..annotations.smoothed import count_smoothed
from ..images.bit_depth import ReadOptions
from ..images.read import ImageError, read_image
from ..images.sizes import image_sizes
from ..loading.sources import Sample
from .id_classes import IdClasses, OneClass

_MAX_COUNTED = 2**22  # ids up to which counting all values is faster than sorting the pixels
_WHITE = 255  # value of the objects in masks of black and white
_SAMPLED_MASKS, _SAMPLED_PIXELS = 64, 2**26  # that are looked at before training: one or two seconds


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


class SuspectIds(NamedTuple):
    """What may be wrong with the ids of a mask.

    Attributes:
        values: The ids other than 0, ascending.
        parts: Connected parts of the only value; 0: there are several values, or none.
        background: The value of half of the mask or more, if no pixel is 0: likely the background; otherwise 0.
        on_edges: Number of values that come from smoothed edges.
    """

    values: np.ndarray
    parts: int
    background: int
    on_edges: int


def inspect_ids(ids: np.ndarray) -> SuspectIds:
    """Return what may be wrong with a mask of ids ``[H, W]``."""
    values, numbered = split_ids(ids)
    if not len(values):
        return SuspectIds(values, 0, 0, 0)
    counts = np.bincount(numbered.ravel())
    best = int(counts[1:].argmax())
    is_background = not counts[0] and 2 * counts[1 + best] >= ids.size
    if len(values) == 1:
        parts = cv2.connectedComponents(numbered.astype(np.uint8), connectivity=8)[0] - 1
        return SuspectIds(values, parts, int(values[0]) if is_background else 0, 0)
    on_edges = count_smoothed(numbered, len(values) if values[-1] == _WHITE else -1)
    return SuspectIds(values, 0, int(values[best]) if is_background else 0, on_edges)


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
        """Record what is suspicious about the ids ``[H, W]`` of an image as a whole."""
        images, found = [str(path)], inspect_ids(ids)
        if not self.split_components and found.parts > 1:
            text = f"{mask.name} has one value and {found.parts} separate parts, which are one object"
            record(Fault("merged-objects", path, [path], "path", text, images=images))
        if isinstance(self.classes, OneClass) and found.background:
            text = f"{mask.name} has no pixel of 0, and value {found.background}, an object, covers half of it or more"
            record(Fault("no-background", path, [path], "path", text, images=images))
        if found.on_edges:
            text = f"{found.on_edges} of {len(found.values)} values of {mask.name} occur only along edges"
            record(Fault("smoothed-mask", path, [path], "path", text, images=images))

    def warn_of_masks(self) -> None:
        """Warn of masks with smoothed edges, separate parts of one value, or a background other than 0, in a sample.

        While faults are recorded, each image's are when it is read.
        """
        found: list[tuple[str, SuspectIds]] = []
        for name in [] if recording() else self._sampled_masks():
            with contextlib.suppress(ValueError):  # reported when its sample is read
                found.append((name, inspect_ids(read_ids(self.root / name))))

        def listed(masks: list[tuple[str, SuspectIds]], what: str) -> str:
            return f"{len(masks)} of {len(found)} masks of {self.root} {what}, first: {masks[0][0]}"

        if smoothed := [one for one in found if one[1].on_edges]:
            worst = smoothed[0][1]
            what = f"have gray values that occur only along edges, {worst.on_edges} of {len(worst.values)} values"
            rank_zero_warn(
                f"the rims of objects are trained on as objects ({listed(smoothed, what)}): save the masks without "
                "antialiasing or interpolation"
            )
        binary = all(len(ids.values) <= 1 for _, ids in found)  # otherwise, one object may be in parts
        merged = [one for one in found if one[1].parts > 1 and (binary or one[1].values[0] == _WHITE)]
        if merged and not self.split_components:
            rank_zero_warn(
                f"{merged[0][1].parts} separate parts are one object ({listed(merged, 'have one value')}): "
                "set split_components: true if each part is an object"
            )
        filled = [one for one in found if one[1].background]
        if filled and isinstance(self.classes, OneClass):
            what = f"have no pixel of 0, and value {filled[0][1].background} covers half of a mask or more"
            rank_zero_warn(
                f"the background may be trained on as an object ({listed(filled, what)}): write 0 where there is no "
                "object"
            )

    def _sampled_masks(self) -> list[str]:
        """Return masks at equal distances, fewer if they are large; a set of few masks is looked at whole."""
        names = [os.fsdecode(name) for name in self.masks]
        width, height = next(iter(image_sizes(self.root / name for name in names[:1])), (1, 1))
        count = min(max(_SAMPLED_PIXELS // max(int(width) * int(height), 1), 3), _SAMPLED_MASKS, len(names))
        return [names[index] for index in np.linspace(0, len(names) - 1, count).round().astype(int)]
