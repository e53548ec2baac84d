"""Folders of images and of instance masks, whose pixel values are object ids, as in microscopy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import MissingFileError
from ..annotations.argument_checks import check_class_names
from ..annotations.dataset_layout import layout_error, split_folders
from ..base import ObjectDataModule, ObjectOptions, Unpack
from ..batches import IGNORE_INDEX
from ..loading.sources import Source
from ..loading.splits import optional_val_fraction, random_split
from .id_classes import ClassesInTable, IdClasses, classes_by_divisor, read_id_classes
from .instance_ids import IdFiles
from .pairs import pair_files


class InstanceMasks(ObjectDataModule):
    """Images and instance masks in folders, matched by name: 0 is background, each other value is an object.

    Expected layout::

        ROOT/train/images/a.tif     ROOT/train/masks/a.tif
        ROOT/val/images/b.tif       ROOT/val/masks/b.tif       (or val_fraction)
        ROOT/test/images/c.tif      ROOT/test/masks/c.tif      (if there is a test set)

    A mask is a gray PNG or TIFF of 8, 16 or 32 bits with the size of its image. An object consists of all pixels with
    its value, connected or not (see `split_components`); its box is the smallest around them. A mask is of the image as
    it is displayed, after its EXIF orientation; a mask with an orientation of its own is turned, too.

    The folders of the splits may also be named ``training``, ``valid``, ``validation`` or ``testing``, in any case.

    All objects have one class, unless `divisor` or `class_file` defines others. To read Cityscapes, set
    ``image_folder: "leftImg8bit/{split}"``, ``mask_folder: "gtFine/{split}"``, ``image_ending: _leftImg8bit``,
    ``mask_ending: _gtFine_instanceIds``, ``divisor: 1000`` and `classes`; for Cellpose's data, set both folders to
    ``"{split}"``, ``image_ending: _img`` and ``mask_ending: _masks``.

    Images may be PNG, TIFF, or anything that `read_image` reads; ``scale_16bit`` defines how more than 8 bits are
    converted.

    Args:
        root: Folder of all files.
        class_names: Classes in the order of their labels. None: ``object``; with `class_file`, the names or numbers in
            that of the training set.
        divisor: The class of an object is ``value // divisor``, counted from 1; values below `divisor` are background.
        classes: With `divisor`, class of each ``value // divisor``, from 0, or 255 = no object; others are rejected.
        split_components: Whether the pixels of a value that do not touch each other are objects of their own, as in
            masks of 0 and 255.
        class_file: Table, ``.csv`` or ``.parquet``, below `root`, with the columns ``id`` and ``label``, and ``path``
            (of the image, below its folder) if the same value is a different object in each image. ``{split}`` in the
            name stands for the split. Values that are not in it are rejected.
        image_folder: Folder of the images below `root`; ``{split}`` stands for train, val or test.
        mask_folder: Folder of the masks, in the same form.
        image_ending: End of the names of images, before their suffix, after the part they share with their mask.
        mask_ending: End of the names of masks, in the same form.
        val_fraction: Fraction of the training images held out for validation if there is no ``val``; determined by
            `seed`.
        **kwargs: ``min_visibility`` and ``group_by_aspect`` of `ObjectDataModule`, and the loader options of
            `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Folders, or masks of images, are missing.
        ValueError: A value has no class, or an image has 16 bits and ``scale_16bit`` is not set; the message names
            the file.

    Batches are `InstanceSegmentationBatch`. An ``image_id`` is the image's position in its folder, sorted by name.
    """

    def __init__(
        self,
        root: str,
        class_names: list[str] | None = None,
        divisor: int | None = None,
        classes: dict[int, int] | None = None,
        class_file: str | None = None,
        split_components: bool = False,
        image_folder: str = "{split}/images",
        mask_folder: str = "{split}/masks",
        image_ending: str = "",
        mask_ending: str = "",
        val_fraction: float | None = None,
        **kwargs: Unpack[ObjectOptions],
    ) -> None:
        super().__init__(**kwargs)
        val_fraction = optional_val_fraction(val_fraction)
        for name, folder in (("image_folder", image_folder), ("mask_folder", mask_folder)):
            if "{split}" not in folder:
                raise ValueError(f"{name}: must contain {{split}}, such as {{split}}/images, got {folder!r}")
        _check_classes(class_names, divisor, classes, class_file)
        self.root, self.val_fraction = Path(root).expanduser(), val_fraction
        self.folders, self.endings = (image_folder, mask_folder), (image_ending, mask_ending)
        self.divisor, self.classes, self.class_file = divisor, classes, class_file
        self.split_components = split_components
        self._names = ["object"] if class_names is None and class_file is None else class_names

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: those of the argument, or of the training set's `class_file`."""
        if self._names is None:
            self._names = read_id_classes(self._class_file("train"), None, None)[1]
        return list(self._names)

    def make_source(self, split: str) -> IdFiles:
        """Return the images of a split with their objects."""
        val_folder = self.root / self._folder(0, "val")
        has_val = val_folder.is_dir()
        if split == "test" or (split == "val" and has_val):
            return self._read_files(split)
        if split == "val" and self.val_fraction is None:
            problem = f"no folder {str(val_folder)!r}; add it, or set val_fraction: 0.1"
            raise layout_error(problem, type(self), self.root)
        source = self._read_files("train")
        if not has_val and self.val_fraction is not None:
            held_out = random_split(len(source), self.val_fraction, self.seed)
            source.selected = np.flatnonzero(held_out if split == "val" else ~held_out)
        return source

    def present_classes(self, source: Source) -> set[int] | None:
        """Return the classes of a training set that its `class_file` lists; None: without one, they are not known."""
        known = source.classes if isinstance(source, IdFiles) else None
        return set(known.labels.tolist()) if isinstance(known, ClassesInTable) else None

    def _read_files(self, split: str) -> IdFiles:
        image_folder, mask_folder = self._folder(0, split), self._folder(1, split)
        names, images, masks = pair_files(self.root, image_folder, mask_folder, type(self), *self.endings)
        classes: IdClasses
        if self.class_file is not None:
            classes = read_id_classes(self._class_file(split), self.class_names, names)[0]
        else:
            classes = classes_by_divisor(self.divisor, self.classes, len(self.class_names))
        source = IdFiles(self.root, images, masks, classes, self.split_components)
        if split == "train":
            source.warn_of_masks()
        return source

    def _folder(self, number: int, split: str) -> str:
        """Return the folder of images (0) or masks (1) of a split, by any usual name of the split."""
        pattern = self.folders[number]
        before = pattern.partition("{split}")[0]
        if not before or before.endswith("/"):
            split = split_folders(self.root / before).get(split, split)
        return pattern.replace("{split}", split)

    def _class_file(self, split: str) -> Path:
        file = self.root / (self.class_file or "").replace("{split}", split)
        if not file.is_file():
            raise MissingFileError(f"class_file: no file {str(file)!r}")
        return file


def _check_classes(
    names: Sequence[str] | None, divisor: int | None, classes: dict[int, int] | None, class_file: str | None
) -> None:
    """Check that the arguments of `InstanceMasks` for classes fit together."""
    if divisor is not None and class_file is not None:
        raise ValueError(f"divisor: must be null if class_file is set, got {divisor} and {class_file!r}; set one")
    if divisor is not None and divisor < 1:
        raise ValueError(f"divisor: must be >= 1, got {divisor}; Cityscapes has 1000")
    if divisor is not None and names is None:
        raise ValueError(f"divisor: needs class_names, those of value // {divisor}, got null")
    if classes is not None and divisor is None:
        raise ValueError("classes: needs divisor, since it maps value // divisor, got null")
    check_class_names(names)
    if names is not None and not names:
        raise ValueError("class_names: must have at least one class, got []")
    if names is not None and len(names) > 1 and divisor is None and class_file is None:
        raise ValueError(
            f"class_names: without divisor or class_file there is one class, got {len(names)}; set one of these"
        )
    for quotient, label in (classes or {}).items():
        if quotient < 0 or not (0 <= label < len(names or ()) or label == IGNORE_INDEX):
            raise ValueError(
                f"classes: must map 0 or more to 0 to {len(names or ()) - 1} or {IGNORE_INDEX} = not an object, got "
                f"{quotient}: {label}"
            )
