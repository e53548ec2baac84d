"""Objects of many images, stored as a few arrays, and the sources that return them sample by sample.

There is no Python object per annotation: forked workers would copy every page of them, because reading an object
updates its reference count, until each worker held the whole.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..images.bit_depth import ReadOptions
from ..images.file_names import resolve_names
from ..images.read import ImageError, read_image, reduced_sizes
from ..images.sizes import image_sizes
from ..loading.epoch_sampling import ClassPresence
from ..loading.sources import Sample
from ..loading.targets import mask_areas
from .absence import no_objects
from .annotation_errors import AnnotationErrors, Fault, recording
from .clipping import report_clipped
from .dataset_layout import check_files_exist, encode_paths, missing
from .object_masks import ObjectMasks
from .validity import BOX_CODES, box_faults


def usable_boxes(
    boxes: np.ndarray,
    sizes: np.ndarray,
    names: np.ndarray,
    errors: AnnotationErrors,
    unit: str = "annotation",
    pixel: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Clip boxes to their images in place, and return which of them are valid; see `report_clipped`.

    Args:
        boxes: x1, y1, x2, y2 in pixels.
        sizes: Width and height of each box's image.
        names: Name of each box in messages.
        errors: Counts the boxes that are not valid.
        unit: What `names` number.
        pixel: Width and height of a pixel, in the unit of the boxes.

    Returns:
        Which boxes are valid, see `box_faults`.

    Shape:
        - boxes: ``[N, 4]`` float64.
        - sizes: ``[N, 2]``.
        - pixel: a number, or ``[N, 2]``.
        - Output: ``[N]`` bool.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        inside = (boxes[:, :2] >= 0) & (boxes[:, 2:] <= sizes)
        has_area = boxes[:, 2:].astype(np.float32) > boxes[:, :2].astype(np.float32)
        usable = np.asarray(np.all(inside & has_area, axis=1))
    odd = np.flatnonzero(~usable)  # few boxes need the slower check
    written, limits = boxes[odd], np.asarray(sizes)[odd]
    codes = box_faults(written, limits, pixel[odd] if isinstance(pixel, np.ndarray) else pixel)
    usable[odd] = np.isin(codes, ("", "box-beyond"))
    report_clipped(written, limits, codes, names[odd], errors.file, unit)
    for code in BOX_CODES[1:]:
        if code != "box-beyond" or recording():  # `report_clipped` warns of those otherwise
            which = codes == code
            errors.add(code, names[odd[which]], unit, positions=odd[which], boxes=written[which])
    boxes[odd] = np.clip(written, 0, np.concatenate([limits, limits], axis=1))
    return usable


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of M images, N in all, those of an image next to each other.

    Attributes:
        starts: int64 ``[M + 1]``; image m has the objects ``starts[m]`` up to ``starts[m + 1]``.
        boxes: float32 ``[N, 4]``, x1, y1, x2, y2 in pixels.
        labels: int32 ``[N]``, 0 to K-1; -1 for the background, which only semantic masks have.
        iscrowd, difficult: bool ``[N]``.
        area: float32 ``[N]``, pixels; NaN: that of the mask, computed when the mask is decoded.
        masks: Masks of the objects; None: read without masks.
        origin: File or folder of the annotations, for messages.
        left_out: What was dropped and why, see `AnnotationErrors.summary`; empty: nothing.
    """

    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    iscrowd: np.ndarray
    difficult: np.ndarray
    area: np.ndarray
    masks: ObjectMasks | None = None
    origin: str = ""
    left_out: str = ""

    @staticmethod
    def grouped(
        num_images: int,
        image_of: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        iscrowd: np.ndarray | None = None,
        difficult: np.ndarray | None = None,
        area: np.ndarray | None = None,
        masks: ObjectMasks | None = None,
        errors: AnnotationErrors | None = None,
    ) -> "Objects":
        """Build objects that are sorted by image; None: no crowd, none difficult, and the areas of the boxes.

        Args:
            num_images: Number of images.
            image_of, boxes, labels, iscrowd, difficult, area, masks: The objects.
            errors: What was dropped of their file.

        Shape:
            - image_of: ``[N]`` int64, index of each object's image, ascending.
            - boxes: ``[N, 4]``.
            - labels, iscrowd, difficult, area: ``[N]``.
        """
        boxes, no_flags = boxes.astype(np.float32), np.zeros(len(boxes), np.bool_)
        return Objects(
            np.searchsorted(image_of, np.arange(num_images + 1)),
            boxes,
            labels.astype(np.int32),
            no_flags if iscrowd is None else iscrowd,
            no_flags.copy() if difficult is None else difficult,
            (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) if area is None else area.astype(np.float32),
            masks,
            *(("", "") if errors is None else (str(errors.file), errors.summary())),
        )

    def of(self, image: int) -> Sample:
        """Return the fields of an image's target, without masks, as copies."""
        objects = slice(self.starts[image], self.starts[image + 1])
        return {
            "boxes": self.boxes[objects].copy(),
            "labels": self.labels[objects].astype(np.int64),
            "iscrowd": self.iscrowd[objects].copy(),
            "difficult": self.difficult[objects].copy(),
            "area": self.area[objects].copy(),
        }

    def masks_of(self, image: int, height: int, width: int) -> np.ndarray:
        """Decode the masks of an image's objects: uint8 ``[N, H, W]``."""
        if self.masks is None:
            raise ValueError("this source was read without masks")
        return self.masks.decode(range(self.starts[image], self.starts[image + 1]), height, width)

    def counts(self) -> np.ndarray:
        """Return the number of objects, other than crowds, of each image: int64 ``[M]``."""
        before = np.concatenate([[0], np.cumsum(~self.iscrowd)])
        return before[self.starts[1:]] - before[self.starts[:-1]]

    def presence(self) -> ClassPresence:
        """Return which classes occur in each image; crowds do not count."""
        return ClassPresence.of_objects(self.starts, self.labels, ~self.iscrowd)

    def absence(self, root: Path, crowds_count: bool = False, difficult_count: bool = False) -> Fault | None:
        """Return why there is no usable object; None: there is one.

        Args:
            root: Folder of the images, where the file of the annotations is not known.
            crowds_count, difficult_count: Whether crowds and difficult objects can be used.
        """
        if ((self.labels >= 0) & (crowds_count | ~(self.iscrowd | (self.difficult & (not difficult_count))))).any():
            return None
        crowds, difficult = int(self.iscrowd.sum()), int((self.difficult & ~self.iscrowd).sum())
        reasons = []
        if crowds:
            reasons.append(f"{crowds} are crowds, which are never trained on (set crowds: objects if they are not)")
        if difficult:
            reasons.append(f"{difficult} are difficult, which no metric counts")
        if self.left_out:
            reasons.append(f"dropped: {self.left_out}")
        return no_objects(self.origin or root, len(self.starts) - 1, "; ".join(reasons) or "it has no annotation")


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images that annotations refer to.

    Attributes:
        root: Folder that the names are relative to.
        names: ``[M]`` bytes, see `encode_paths`.
        sizes: int32 ``[M, 2]``, width and height according to the annotations; 0, 0: unknown.
        ids: int64 ``[M]``, the source's own numbers.
    """

    root: Path
    names: np.ndarray
    sizes: np.ndarray
    ids: np.ndarray

    @staticmethod
    def of_names(
        root: Path, names: Sequence[str], sizes: np.ndarray | None = None, ids: np.ndarray | None = None
    ) -> "ImageTable":
        """Build a table from names; without `sizes` ``[M, 2]`` they are unknown, without `ids` ``[M]`` positions.

        Names in another Unicode form, or with backslashes, become those of the existing files (`FileNames`).
        """
        if not all(name.isascii() and "\\" not in name for name in names):
            names = resolve_names(root, names)
        sizes = np.zeros((len(names), 2), np.int32) if sizes is None else sizes
        return ImageTable(root, encode_paths(names), sizes, np.arange(len(names)) if ids is None else ids)

    def path(self, image: int) -> str:
        """Return the file of an image, as text: each part of a ``Path`` would be interned in every worker."""
        return os.path.join(self.root, os.fsdecode(self.names[image]))  # noqa: PTH118

    def read(self, image: int, short_side: int | None = None, options: ReadOptions | None = None) -> np.ndarray:
        """Read an image, and check that it has the size that its annotations were made for.

        Args:
            image: Index of the image.
            short_side, options: See `read_image`.

        Shape:
            - Output: ``[H, W, 3]`` uint8.

        Raises:
            ImageError: It cannot be read, or has another size.
        """
        path = self.path(image)
        pixels = read_image(path, short_side, options or ReadOptions())
        width, height = self.sizes[image].tolist()
        expected = [(width, height)] if short_side is None else reduced_sizes(width, height)
        if width and pixels.shape[1::-1] not in expected:
            raise ImageError.size_mismatch(path, pixels.shape[1::-1], "its annotations are for", (width, height))
        return pixels

    def measured(self) -> np.ndarray:
        """Return the sizes, unknown ones read from the files: int32 ``[M, 2]``.

        The size of an unreadable image remains 0, 0; reading its sample reports the problem.
        """
        sizes, unknown = self.sizes.copy(), np.flatnonzero(self.sizes[:, 0] == 0)
        sizes[unknown] = image_sizes(map(self.path, unknown.tolist()))
        return sizes

    def missing(self) -> list[str]:
        """Return the names of images that do not exist. Folders are listed; no file is opened."""
        return missing(self.root, map(os.fsdecode, self.names))

    def check(self, annotations: Path) -> None:
        """Check that each image of `annotations` exists.

        Raises:
            MissingFileError: Some do not; the message has their number and the first five.
        """
        check_files_exist(self.root, [os.fsdecode(name) for name in self.names], str(annotations))


def confined(name: str) -> bool:
    """Return whether a path, as it is written, stays in the folder that it is relative to."""
    flat = os.path.normpath(name.replace("\\", "/"))
    return not (os.path.isabs(flat) or flat.split("/")[0] == ".." or flat[1:2] == ":")  # noqa: PTH117


def image_numbers(stems: Sequence[str]) -> np.ndarray:
    """Return image ids from file names: the numbers in them if all are different numbers, otherwise positions.

    Shape:
        - Output: ``[M]`` int64.
    """
    digits = [stem.replace("_", "") for stem in stems]
    # isdecimal accepts digits of other scripts, as int does; 18 digits fit into int64
    if all(text.isdecimal() and len(text) <= 18 for text in digits) and len(set(map(int, digits))) == len(digits):
        return np.array([int(text) for text in digits], np.int64)
    return np.arange(len(stems))


class ObjectSource:
    """Images with their objects: a source of detection or instance segmentation.

    Args:
        images: Images.
        objects: Objects of the images.
        with_masks: Whether samples have masks too.
        skip_empty: Whether to leave out images without objects other than crowds.

    Attributes:
        short_side: Length in pixels that the transforms need (see `read_image`); None: full resolution. Ignored where
            samples have masks. Boxes and areas are those of the returned image.
        options: How image files are read, see `ReadOptions`.
    """

    short_side: int | None = None
    options = ReadOptions()

    def __init__(
        self, images: ImageTable, objects: Objects, with_masks: bool = False, skip_empty: bool = False
    ) -> None:
        self.images, self.objects, self.with_masks = images, objects, with_masks
        self.selected = np.flatnonzero(objects.counts()) if skip_empty else np.arange(len(images.names))

    def __len__(self) -> int:
        return len(self.selected)

    @property
    def sizes(self) -> np.ndarray:
        """Width and height of each image: ``[N, 2]``."""
        return self.images.sizes[self.selected]

    def path(self, index: int) -> str:
        """Return the file of the image with this index."""
        return self.images.path(int(self.selected[index]))

    def presence(self) -> ClassPresence:
        """Return which classes occur in each image; crowds do not count."""
        return self.objects.presence().select(self.selected)

    def files(self) -> list[str]:
        """Return the file of each image."""
        return [self.images.path(image) for image in self.selected.tolist()]

    def absence(self, training: bool = False) -> Fault | None:
        """Return why no image has a usable object; None: one has."""
        return self.objects.absence(self.images.root, difficult_count=training)

    def __getitem__(self, index: int) -> Sample:
        image = int(self.selected[index])
        pixels = self.images.read(image, None if self.with_masks else self.short_side, self.options)
        sample: Sample = {
            "image": pixels,
            "path": self.images.path(image),
            "image_id": int(self.images.ids[image]),
        }
        sample |= self.objects.of(image)
        size, full = pixels.shape[1::-1], tuple(self.images.sizes[image].tolist())
        if full[0] and size != full:  # decoded at reduced resolution
            scale = np.divide(size, full)
            sample["boxes"] *= np.tile(scale, 2).astype(np.float32)
            sample["area"] *= np.float32(scale.prod())
        if self.with_masks:
            sample["masks"] = self.objects.masks_of(image, *pixels.shape[:2])
            sample["area"] = _known_areas(sample["area"], sample["masks"])
        return sample


def _known_areas(area: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Areas ``[N]``, those that are NaN taken from the masks ``[N, H, W]``."""
    unknown = np.isnan(area)
    if unknown.any():
        area[unknown] = mask_areas(masks[unknown])
    return area


class SemanticSource:
    """Images with the masks of their objects merged into one mask: 0 = background, then the classes from 1.

    Where objects overlap, the smallest is on top, regardless of their order; crowds are below all objects.

    Args:
        images: Images.
        objects: Objects of the images, with masks.

    Attributes:
        options: How image files are read, see `ReadOptions`.
    """

    options = ReadOptions()

    def __init__(self, images: ImageTable, objects: Objects) -> None:
        self.images, self.objects = images, objects

    def __len__(self) -> int:
        return len(self.images.names)

    def presence(self) -> ClassPresence:
        """Return which classes occur in each image, without the background."""
        objects = self.objects
        return ClassPresence.of_objects(objects.starts, objects.labels + 1, ~objects.iscrowd)

    def absence(self, training: bool = False) -> Fault | None:
        """Return why no image has a usable object; None: one has."""
        return self.objects.absence(self.images.root, crowds_count=True)

    def files(self) -> list[str]:
        """Return the file of each image."""
        return [self.images.path(image) for image in range(len(self))]

    def __getitem__(self, index: int) -> Sample:
        pixels = self.images.read(index, options=self.options)
        masks = self.objects.masks_of(index, *pixels.shape[:2])
        target = self.objects.of(index)
        area = _known_areas(target["area"], masks)
        semantic = np.zeros(pixels.shape[:2], np.uint8)
        # crowds first, then from the largest object to the smallest
        for number in np.lexsort((-area, ~target["iscrowd"])):
            semantic[masks[number] != 0] = target["labels"][number] + 1
        return {"image": pixels, "mask": semantic, "path": self.images.path(index)}
