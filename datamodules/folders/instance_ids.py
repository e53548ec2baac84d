"""Masks whose pixels name their object: from numbers to objects and their classes; images of 16 bits to 8."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from ..annotations.mask_files import gray_levels, read_ids
from ..batches import IGNORE_INDEX
from ..images.read import ImageError, read_image
from ..loading.sources import Sample
from ..tables.columns import read_columns
from ..tables.labels import Table, names_of, numbers_of

_PNG_START = b"\x89PNG\r\n\x1a\n"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE = 258  # TIFF's tag
_PERCENTILES = (1, 99.8)
_COUNTABLE = 2**22  # values up to which a table of all is quicker than to sort the pixels


class IdClasses(Protocol):
    """Which class an object of an image is of."""

    def __call__(self, ids: np.ndarray, image: int, mask: Path) -> np.ndarray:
        """Class of each of an image's values, -1 = no object: int64 ``[N]`` to int64 ``[N]``.

        Raises:
            ValueError: for a value that stands for no class; `mask` is the file to name.
        """


class ClassesByNumber:
    """Classes that the values of all masks have in common.

    Args:
        divisor: what a value is divided by.
        labels: class of each whole part, -1 = no object; one that is not there is refused.
    """

    def __init__(self, divisor: int, labels: Mapping[int, int]) -> None:
        self.divisor, self.labels = divisor, dict(labels)

    def __call__(self, ids: np.ndarray, image: int, mask: Path) -> np.ndarray:
        """See `IdClasses`."""
        parts, where = np.unique(ids // self.divisor, return_inverse=True)
        if unknown := [part for part in parts.tolist() if part not in self.labels]:
            first = int(ids[ids // self.divisor == unknown[0]][0])
            known = sorted(self.labels)
            raise ValueError(
                f"{mask}: the value {first} is of class {first} // {self.divisor} = {unknown[0]}, which is not known; "
                f"known are {', '.join(map(str, known[:8]))}{', …' if len(known) > 8 else ''}"
            )
        return np.array([self.labels[part] for part in parts.tolist()], np.int64)[where]


class OneClass:
    """Every value is an object of class 0."""

    def __call__(self, ids: np.ndarray, image: int, mask: Path) -> np.ndarray:
        """See `IdClasses`."""
        return np.zeros(len(ids), np.int64)


class ClassesInTable:
    """Classes that a table says.

    Args:
        file: the table, to name.
        ids: the values, ascending in each image.
        labels: their classes.
        starts: where each image's begin; None: they are the same in all images.
    """

    def __init__(self, file: Path, ids: np.ndarray, labels: np.ndarray, starts: np.ndarray | None) -> None:
        self.file, self.ids, self.labels, self.starts = file, ids, labels, starts

    def __call__(self, ids: np.ndarray, image: int, mask: Path) -> np.ndarray:
        """See `IdClasses`."""
        own = slice(None) if self.starts is None else slice(self.starts[image], self.starts[image + 1])
        known, labels = self.ids[own], self.labels[own]
        places = np.searchsorted(known, ids)
        found = np.zeros(len(ids), np.bool_)
        found[places < len(known)] = known[places[places < len(known)]] == ids[places < len(known)]
        if not found.all():
            raise ValueError(
                f"{mask}: the value {ids[~found][0]}"
                + (f" (and {(~found).sum() - 1} more)" if (~found).sum() > 1 else "")
                + f" has no class in {str(self.file)!r}"
            )
        return labels[places].astype(np.int64)


def classes_by_number(divisor: int | None, classes: Mapping[int, int] | None, num_classes: int) -> IdClasses:
    """The classes that `InstanceMasks`' ``divisor`` and ``classes`` mean."""
    if divisor is None:
        return OneClass()
    if classes is None:
        return ClassesByNumber(divisor, {0: -1} | {label + 1: label for label in range(num_classes)})
    return ClassesByNumber(divisor, {0: -1} | {part: -1 if k == IGNORE_INDEX else k for part, k in classes.items()})


def read_id_classes(
    file: Path, class_names: Sequence[str] | None, images: Sequence[str] | None
) -> tuple[ClassesInTable, list[str]]:
    """Classes from a table of columns ``id`` and ``label``, and perhaps ``path``.

    Args:
        file: the table.
        class_names: the classes; None: what the table's labels imply.
        images: names of the images, without suffix, that paths are looked up in; None: they are not looked at.

    Returns:
        The classes of the values, and the names.

    Raises:
        ValueError: for an id that is no whole number above 0 or is there twice, a label that is no class, a path that
            is no image; the message names the line.
    """
    columns = read_columns(file, {"the value in a mask": "id", "its class": "label"}, ("path",))
    numbers, empty = columns.numbers("id")
    if (wrong := empty | ~((numbers >= 1) & (numbers % 1 == 0))).any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{columns.where(row)}: id is {columns.values['id'][row]!r}, and must be a whole number above 0"
        )
    for row, label in enumerate(columns.values["label"]):
        if label == "" or isinstance(label, bool) or not isinstance(label, str | int):
            raise ValueError(f"{columns.where(row)}: label is {label!r}, not text or a whole number")
    table = Table(file, [], columns.values["label"], columns.lines, columns.unit)
    names = list(class_names) if class_names is not None else names_of(table)
    labels, ids = numbers_of(table, names).astype(np.int32), numbers.astype(np.int64)
    starts, of_image = None, np.zeros(len(ids), np.int64)
    if "path" in columns.values and images is not None:
        place_of = {name: place for place, name in enumerate(images)}
        for row, path in enumerate(columns.values["path"]):
            place = place_of.get(path, place_of.get(os.path.splitext(str(path))[0], -1))  # noqa: PTH122
            if place < 0:
                raise ValueError(f"{columns.where(row)}: {path!r} is none of the {len(images)} images")
            of_image[row] = place
    order = np.lexsort((ids, of_image))
    ids, labels, of_image = ids[order], labels[order], of_image[order]
    if "path" in columns.values:
        if images is None:
            return ClassesInTable(file, ids, labels, None), names
        starts = np.searchsorted(of_image, np.arange(len(images) + 1))
    if (twice := (np.diff(ids) == 0) & (np.diff(of_image) == 0)).any():
        row = int(order[int(np.argmax(twice)) + 1])
        raise ValueError(f"{columns.where(row)}: the id {numbers[row]:g} is there more than once")
    return ClassesInTable(file, ids, labels, starts), names


def split_ids(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a mask other than 0, and the mask with each value's place among them, from 1, in its stead.

    Shape:
        - ids: ``[H, W]`` of whole numbers, none negative.
        - Output: ``[N]`` int64, ascending; ``[H, W]`` int32.
    """
    if ids.max(initial=0) < _COUNTABLE:
        present = np.flatnonzero(np.bincount(ids.ravel()))
        values = present[present > 0]
        places = np.zeros(ids.max(initial=0) + 1, np.int32)
        places[values] = np.arange(1, len(values) + 1)
        return values, places[ids]
    values, inverse = np.unique(ids, return_inverse=True)
    skipped = int(values[0] == 0)
    return values[skipped:].astype(np.int64), (inverse.reshape(ids.shape) + (1 - skipped)).astype(np.int32)


def masks_of_places(places: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The masks of some objects, and their boxes.

    Args:
        places: see `split_ids`.
        which: their places, from 1.

    Shape:
        - which: ``[N]``.
        - Output: ``[N, H, W]`` uint8, 0 or 1; ``[N, 4]`` float32, x1, y1, x2, y2.
    """
    from scipy.ndimage import find_objects

    found = find_objects(places)
    masks, boxes = np.zeros((len(which), *places.shape), np.uint8), np.zeros((len(which), 4), np.float32)
    for mask, box, place in zip(masks, boxes, which.tolist(), strict=True):
        rows, columns = found[place - 1]
        mask[rows, columns] = places[rows, columns] == place
        box[...] = columns.start, rows.start, columns.stop, rows.stop
    return masks, boxes


def read_gray(path: Path, scale: str | tuple[int, int] | None) -> np.ndarray:
    """An image, one of more than 8 bits made 8 as `scale` says; see `InstanceMasks`.

    Raises:
        ImageError: when it cannot be read, or is a stack of several.
        ValueError: when it has more than 8 bits, and `scale` does not say what to do.
    """
    values = None
    try:
        with path.open("rb") as file:
            start = file.read(26)
        is_png, is_tiff = start.startswith(_PNG_START), start.startswith(_TIFF_STARTS)
        if not is_tiff and not (is_png and start[24:25] == b"\x10"):
            return read_image(path)
        with path.open("rb") as file, Image.open(file) as opened:  # not by its name: see images.py
            if (pages := getattr(opened, "n_frames", 1)) > 1:
                raise ImageError(path, f"{pages} images in one file; save each in its own")
            bits: tuple[int, ...] = getattr(opened, "tag_v2", {}).get(_BITS_PER_SAMPLE, (1,)) if is_tiff else (16,)
            if max(bits) <= 8 or opened.mode == "F":  # the latter is refused there
                return read_image(path)
            is_gray = opened.mode.startswith("I")
            if is_gray and scale is not None:  # Pillow turns a TIFF as it should be by itself
                values = gray_levels(ImageOps.exif_transpose(opened) if is_png else opened)
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(path, error.strerror or str(error).strip() or type(error).__name__) from error
    except Exception as error:  # as in images.py
        raise ImageError(path, f"not a readable image ({str(error).strip() or type(error).__name__})") from error
    if scale is None or not (is_gray or scale == "full"):
        kind = "gray" if is_gray else "colours"
        choice = "full, image, percentile or [low, high]" if is_gray else "full, or save it with 8"
        raise ValueError(
            f"{path}: {kind} of {max(bits)} bits, and images here have 8; say in data.init_args.scale_16bit how to "
            f"make them: {choice}"
        )
    if values is None:
        return read_image(path)
    return np.repeat(scaled(values, scale)[..., None], 3, axis=2)


def scaled(values: np.ndarray, scale: str | tuple[int, int]) -> np.ndarray:
    """Gray levels of 16 bits or more as 8: see ``scale_16bit`` of `InstanceMasks`.

    Shape:
        - values: ``[H, W]`` of whole numbers.
        - Output: ``[H, W]`` uint8.
    """
    if not isinstance(scale, str):
        low, high = float(scale[0]), float(scale[1])
    elif scale == "full":
        low, high = 0.0, 65535.0
    elif scale == "image":
        low, high = float(values.min()), float(values.max())
    else:
        low, high = np.percentile(values, _PERCENTILES).tolist()
    share = (values.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)


class IdFiles:
    """Images with a mask of instance values each.

    Args:
        root: what the paths are relative to.
        images, masks: arrays of bytes, ``[M]``.
        classes: which class a value is of.
        scale: see `read_gray`.

    Attributes:
        chosen: which of the images are given out.
    """

    def __init__(
        self, root: Path, images: np.ndarray, masks: np.ndarray, classes: IdClasses, scale: str | tuple[int, int] | None
    ) -> None:
        self.root, self.images, self.masks, self.classes, self.scale = root, images, masks, classes, scale
        self.chosen = np.arange(len(images))

    def __len__(self) -> int:
        return len(self.chosen)

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.root / os.fsdecode(self.images[self.chosen[index]])

    def files(self) -> list[str]:
        """The path of each image."""
        return [str(self.path(index)) for index in range(len(self))]

    def __getitem__(self, index: int) -> Sample:
        image = int(self.chosen[index])
        path, mask_path = self.path(index), self.root / os.fsdecode(self.masks[image])
        pixels, ids = read_gray(path, self.scale), read_ids(mask_path)
        if pixels.shape[:2] != ids.shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (pixels.shape, ids.shape)]
            raise ImageError(
                path, f"the image is {sizes[0]}, but its mask {str(mask_path)!r} is {sizes[1]}", "size-mismatch"
            )
        values, places = split_ids(ids)
        labels = self.classes(values, image, mask_path)
        which = np.flatnonzero(labels >= 0)
        masks, boxes = masks_of_places(places, which + 1)
        return {
            "image": pixels,
            "path": str(path),
            "image_id": image,
            "boxes": boxes,
            "labels": labels[which],
            "masks": masks,
        }
