"""Objects of many images as a few arrays, the sources that give them out, and what is wrong with annotations.

Nothing is kept as one Python object an annotation: forked workers would copy each page of them, by counting
references, until every worker held the whole.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..images.read import ImageError, read_image, reduced_sizes
from ..images.sizes import image_sizes
from ..loading.sampling import ClassPresence
from ..loading.sources import Sample
from .annotation_errors import AnnotationErrors, recording
from .dataset_layout import check_there, missing
from .object_masks import Segmentations
from .validity import BOX_CODES, box_faults


def usable_boxes(
    boxes: np.ndarray,
    sizes: np.ndarray,
    ids: np.ndarray,
    errors: AnnotationErrors,
    unit: str = "annotation",
    pixel: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Clip boxes to their images in place, and return which of them are valid.

    Args:
        boxes: x1, y1, x2, y2 in pixels.
        sizes: Width and height of each box's image.
        ids: Name of each box in messages.
        errors: Counts the boxes that are not valid.
        unit: What `ids` number.
        pixel: Width and height of a pixel, in the unit of the boxes.

    Returns:
        Which boxes are valid, see `box_faults`.

    Shape:
        - boxes: ``[N, 4]`` float64.
        - sizes: ``[N, 2]``.
        - pixel: a number, or ``[N, 2]``.
        - Output: ``[N]`` bool.
    """
    with np.errstate(invalid="ignore"):
        plain = ((boxes[:, :2] >= 0) & (boxes[:, 2:] <= sizes)).all(axis=1)
        plain &= (boxes[:, 2:].astype(np.float32) > boxes[:, :2].astype(np.float32)).all(axis=1)
    usable = plain.copy()
    odd = np.flatnonzero(~plain)  # few; only these need a closer look
    written, limits = boxes[odd], np.asarray(sizes)[odd]
    codes = box_faults(written, limits, pixel if np.isscalar(pixel) else pixel[odd])
    usable[odd] = np.isin(codes, ("", "box-beyond"))
    for code in BOX_CODES[1:]:
        if code != "box-beyond" or recording():  # clipped without a warning otherwise
            which = codes == code
            errors.add(code, ids[odd[which]], unit, positions=odd[which], boxes=written[which])
    boxes[odd] = np.clip(written, 0, np.concatenate([limits, limits], axis=1))
    return usable


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of M images, those of one image next to each other.

    Attributes:
        starts: int64 ``[M + 1]``; image m has the objects ``starts[m]`` up to ``starts[m + 1]``.
        boxes: float32 ``[N, 4]``, x1, y1, x2, y2 in pixels.
        labels: int32 ``[N]``, 0 to K-1.
        iscrowd, difficult: bool ``[N]``.
        area: float32 ``[N]``, pixels.
        masks: where masks are asked for.
    """

    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    iscrowd: np.ndarray
    difficult: np.ndarray
    area: np.ndarray
    masks: Segmentations | None = None

    def of(self, image: int) -> Sample:
        """The fields of an image's target, without masks; copies."""
        own = slice(self.starts[image], self.starts[image + 1])
        return {
            "boxes": self.boxes[own].copy(),
            "labels": self.labels[own].astype(np.int64),
            "iscrowd": self.iscrowd[own].copy(),
            "difficult": self.difficult[own].copy(),
            "area": self.area[own].copy(),
        }

    def masks_of(self, image: int, height: int, width: int) -> np.ndarray:
        """The masks of an image's objects, decoded now: uint8 ``[N, H, W]``."""
        if self.masks is None:
            raise ValueError("this source was read without masks")
        return self.masks.decode(range(self.starts[image], self.starts[image + 1]), height, width)

    def real_counts(self) -> np.ndarray:
        """How many objects, other than crowds, each image has: int64 ``[M]``."""
        before = np.concatenate([[0], np.cumsum(~self.iscrowd)])
        return before[self.starts[1:]] - before[self.starts[:-1]]

    def presence(self) -> ClassPresence:
        """Which classes each image has, crowds not counted."""
        return ClassPresence.of_objects(self.starts, self.labels, ~self.iscrowd)


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images that annotations are about.

    Attributes:
        root: the folder that the names are relative to.
        names: ``[M]``, an array of bytes.
        sizes: int32 ``[M, 2]``, width and height as the annotations say; 0, 0 where they do not.
        ids: int64 ``[M]``, the source's own numbers.
    """

    root: Path
    names: np.ndarray
    sizes: np.ndarray
    ids: np.ndarray

    def path(self, image: int) -> str:
        """The file of an image; text, since the parts of a ``Path`` go into a table that then grows in each worker."""
        return os.path.join(self.root, os.fsdecode(self.names[image]))  # noqa: PTH118

    def read(self, image: int, short_side: int | None = None) -> np.ndarray:
        """The image, if it has the size that its annotations were made for.

        Args:
            image: its number.
            short_side: see `read_image`.

        Raises:
            ImageError: if not, or when it cannot be read.
        """
        path = self.path(image)
        pixels = read_image(path, short_side)
        width, height = self.sizes[image].tolist()
        expected = [(width, height)] if short_side is None else reduced_sizes(width, height)
        if width and pixels.shape[1::-1] not in expected:
            raise ImageError(
                path,
                f"the image is {pixels.shape[1]}x{pixels.shape[0]}, but its annotations are for {width}x{height}",
                "size-mismatch",
            )
        return pixels

    def measured(self) -> np.ndarray:
        """The sizes, those that the annotations do not say read off the files: int32 ``[M, 2]``.

        Those of unreadable images stay 0, 0: reading the image says what is wrong with it.
        """
        sizes, unknown = self.sizes.copy(), np.flatnonzero(self.sizes[:, 0] == 0)
        sizes[unknown] = image_sizes(map(self.path, unknown.tolist()))
        return sizes

    def missing(self) -> list[str]:
        """Names of the images that are not there; folders are listed, files not touched."""
        return missing(self.root, map(os.fsdecode, self.names))

    def check(self, annotations: Path) -> None:
        """Look whether each image is there.

        Raises:
            FileNotFoundError: if not: how many, and the first five.
        """
        check_there(self.root, [os.fsdecode(name) for name in self.names], str(annotations))


def confined(name: str) -> bool:
    """Whether a path, as it is written, stays in the folder it is relative to."""
    flat = os.path.normpath(name.replace("\\", "/"))
    return not (os.path.isabs(flat) or flat.split("/")[0] == ".." or flat[1:2] == ":")  # noqa: PTH117


class ObjectSource:
    """Images with their objects: a source of detection or instance segmentation.

    Args:
        images: the images.
        objects: their objects.
        with_masks: give masks too.
        skip_empty: leave out images without objects other than crowds.

    Attributes:
        short_side: the length that is enough for what follows (see `read_image`); None: all pixels. Without effect
            where masks are given. Boxes and areas are those of the image that is given.
    """

    short_side: int | None = None

    def __init__(
        self, images: ImageTable, objects: Objects, with_masks: bool = False, skip_empty: bool = False
    ) -> None:
        self.images, self.objects, self.with_masks = images, objects, with_masks
        self.chosen = np.flatnonzero(objects.real_counts()) if skip_empty else np.arange(len(images.names))

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def sizes(self) -> np.ndarray:
        """Width and height of each image: ``[N, 2]``."""
        return self.images.sizes[self.chosen]

    def path(self, index: int) -> str:
        """The file of an image."""
        return self.images.path(int(self.chosen[index]))

    def presence(self) -> ClassPresence:
        """Which classes each image has, crowds not counted."""
        return self.objects.presence().select(self.chosen)

    def files(self) -> list[str]:
        """The path of each image."""
        return [self.images.path(image) for image in self.chosen.tolist()]

    def __getitem__(self, index: int) -> Sample:
        image = int(self.chosen[index])
        pixels = self.images.read(image, None if self.with_masks else self.short_side)
        sample: Sample = {
            "image": pixels,
            "path": self.images.path(image),
            "image_id": int(self.images.ids[image]),
        }
        sample |= self.objects.of(image)
        size, full = pixels.shape[1::-1], tuple(self.images.sizes[image].tolist())
        if full[0] and size != full:
            scale = np.divide(size, full)
            sample["boxes"] *= np.tile(scale, 2).astype(np.float32)
            sample["area"] *= np.float32(scale.prod())
        if self.with_masks:
            sample["masks"] = self.objects.masks_of(image, *pixels.shape[:2])
        return sample


class SemanticSource:
    """Images with the masks of their objects painted into one: 0 = background, then the classes from 1 on.

    Where objects overlap, the one of smaller area is seen, whatever their order; a crowd lies below all objects.

    Args:
        images: the images.
        objects: their objects, with masks.
    """

    def __init__(self, images: ImageTable, objects: Objects) -> None:
        self.images, self.objects = images, objects

    def __len__(self) -> int:
        return len(self.images.names)

    def presence(self) -> ClassPresence:
        """Which classes each image has, without the background."""
        found = self.objects.presence()
        return found._replace(classes=found.classes + 1)

    def files(self) -> list[str]:
        """The path of each image."""
        return [self.images.path(image) for image in range(len(self))]

    def __getitem__(self, index: int) -> Sample:
        pixels = self.images.read(index)
        masks = self.objects.masks_of(index, *pixels.shape[:2])
        found = self.objects.of(index)
        semantic = np.zeros(pixels.shape[:2], np.uint8)
        for place in np.lexsort((-found["area"], ~found["iscrowd"])):
            semantic[masks[place] != 0] = found["labels"][place] + 1
        return {"image": pixels, "mask": semantic, "path": self.images.path(index)}
