"""Folders of images and of masks whose pixels name their object, as microscopy has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, Fault, record_error
from ..annotations.argument_checks import did_you_mean
from ..annotations.dataset_layout import encode_paths, layout_error
from ..annotations.mask_files import files_by_name
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..batches import IGNORE_INDEX
from ..images.read import IMAGE_SUFFIXES
from ..loading.splits import check_val_fraction, random_split
from .instance_ids import IdClasses, IdFiles, classes_by_number, read_id_classes

Scale = Literal["full", "image", "percentile"]


class InstanceMasks(VisionDataModule):
    """Images and instance masks in folders, matched by name: 0 is background, each other value an object.

    Expected layout::

        ROOT/train/images/a.tif     ROOT/train/masks/a.tif
        ROOT/val/images/b.tif       ROOT/val/masks/b.tif       (or val_fraction)
        ROOT/test/images/c.tif      ROOT/test/masks/c.tif      (where there is a test set)

    A mask is a gray PNG or TIFF of 8, 16 or 32 bits, as large as its image. An object is what has pixels of its value,
    be they connected or not; its box is read off these.

    All objects are of one class, unless `divisor` or `class_file` says otherwise. Cityscapes is read with
    ``image_folder: "leftImg8bit/{split}"``, ``mask_folder: "gtFine/{split}"``, ``image_ending: _leftImg8bit``,
    ``mask_ending: _gtFine_instanceIds``, ``divisor: 1000`` and `classes`; Cellpose's data with both folders
    ``"{split}"``, ``image_ending: _img`` and ``mask_ending: _masks``.

    Images may be PNG, TIFF, or what else `read_image` reads. Images here have 8 bits; what becomes of 16 is yours to
    say, in `scale_16bit`.

    Args:
        root: the folder of all files.
        class_names: the classes in order. None: ``object``, or, with `class_file`, the names or numbers in that of the
            training set.
        divisor: the class of an object is ``value // divisor``, counted from 1; below `divisor` all is background.
        classes: with `divisor`, the class of each ``value // divisor``, from 0; 255: it is no object. One that is not
            among them is refused.
        class_file: a table, ``.csv`` or ``.parquet``, below `root`, ``{split}`` in it standing for the split, of
            columns ``id`` and ``label``; and ``path``, the image's below its folder, where values name other objects
            in each image. A value that is not in it is refused.
        scale_16bit: what makes 8 bits of gray images of more. None: they are refused. ``full``: 0 to 65535 become 0 to
            255. ``image``: the least and the greatest value of each image do. ``percentile``: its 1st and 99.8th
            percentile. ``[low, high]``: these two values do, in all images; ``[0, 4095]`` for a camera of 12 bits.
        image_folder, mask_folder: below `root`, ``{split}`` standing for train, val or test.
        image_ending, mask_ending: what the names of the two end in, before their suffix, besides what they share.
        val_fraction: part of the training images held out for validation where there is no ``val``; fixed by `seed`.
        min_visibility: part of a box's area that a step of augmentation must leave, or its object is removed.
        group_by_aspect: make training batches of images of like shape, so that less is padded.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when folders, or masks of images, are not there.
        ValueError: for a value that stands for no class, or an image of 16 bits without `scale_16bit`; the message
            names the file.

    Batches are `InstanceSegmentationBatch`. An ``image_id`` is the image's place among the names of its folder, sorted.
    """

    def __init__(
        self,
        root: str,
        class_names: list[str] | None = None,
        divisor: int | None = None,
        classes: dict[int, int] | None = None,
        class_file: str | None = None,
        scale_16bit: Scale | list[int] | None = None,
        image_folder: str = "{split}/images",
        mask_folder: str = "{split}/masks",
        image_ending: str = "",
        mask_ending: str = "",
        val_fraction: float | None = None,
        min_visibility: float = 0.0,
        group_by_aspect: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_val_fraction(val_fraction)
        for name, folder in (("image_folder", image_folder), ("mask_folder", mask_folder)):
            if "{split}" not in folder:
                raise ValueError(f"data.init_args.{name}: {folder!r} has no {{split}} in it, such as {{split}}/images")
        _check_classes(class_names, divisor, classes, class_file)
        self.scale = checked_scale(scale_16bit)
        self.root, self.val_fraction, self.min_visibility = Path(root).expanduser(), val_fraction, min_visibility
        self.group_by_aspect = group_by_aspect
        self.folders, self.endings = (image_folder, mask_folder), (image_ending, mask_ending)
        self.divisor, self.classes, self.class_file = divisor, classes, class_file
        self._names = ["object"] if class_names is None and class_file is None else class_names

    @property
    def class_names(self) -> list[str]:
        """Those given, or what the training set's `class_file` names."""
        if self._names is None:
            self._names = read_id_classes(self._class_file("train"), None, None)[1]
        return list(self._names)

    @property
    def variable_size_images(self) -> bool:
        """True: images differ in size."""
        return True

    def make_source(self, split: str) -> IdFiles:
        """The images of a split."""
        has_val = (self.root / self.folders[0].replace("{split}", "val")).is_dir()
        if split == "test" or (split == "val" and has_val):
            return self._open(split)
        if split == "val" and self.val_fraction is None:
            folder = self.root / self.folders[0].replace("{split}", "val")
            raise self._layout_error(f"no folder {str(folder)!r}, and no val_fraction")
        source = self._open("train")
        if not has_val and self.val_fraction is not None:
            held = random_split(len(source), self.val_fraction, self.seed)
            source.chosen = np.flatnonzero(held if split == "val" else ~held)
        return source

    def _open(self, split: str) -> IdFiles:
        image_folder, mask_folder = (folder.replace("{split}", split) for folder in self.folders)
        for folder in (image_folder, mask_folder):
            if not (self.root / folder).is_dir():
                raise layout_error(f"no folder {str(self.root / folder)!r}", type(self), self.root, AbsentSplitError)
        images = files_by_name(self.root, image_folder, self.endings[0])
        masks = files_by_name(self.root, mask_folder, self.endings[1])
        if image_folder == mask_folder and self.endings[1]:
            images = {name: file for name, file in images.items() if file not in set(masks.values())}
        if not images:
            raise ValueError(
                f"{self.root / image_folder}: no images in it; looked for {self.endings[0]}"
                f"{f', {self.endings[0]}'.join(IMAGE_SUFFIXES)}"
            )
        absent = [name for name in images if name not in masks]
        if absent:
            paths = [str(self.root / images[name]) for name in absent]
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            record_error(
                Fault(
                    "missing-annotation", self.root / mask_folder, paths, "path", "no mask of its name", images=paths
                ),
                f"{self.root / mask_folder}: no mask for {len(absent)} of {len(images)} images of {image_folder}: "
                f"{', '.join(name + self.endings[1] for name in absent[:3])}{more}",
            )
            images = {name: file for name, file in images.items() if name in masks}
        classes: IdClasses
        if self.class_file is not None:
            classes = read_id_classes(self._class_file(split), self.class_names, list(images))[0]
        else:
            classes = classes_by_number(self.divisor, self.classes, len(self.class_names))
        return IdFiles(
            self.root, encode_paths(images.values()), encode_paths(masks[name] for name in images), classes, self.scale
        )

    def _class_file(self, split: str) -> Path:
        file = self.root / (self.class_file or "").replace("{split}", split)
        if not file.is_file():
            raise FileNotFoundError(f"data.init_args.class_file: no file {str(file)!r}")
        return file

    def _layout_error(self, problem: str) -> FileNotFoundError:
        return layout_error(problem, type(self), self.root)


def _check_classes(
    names: Sequence[str] | None, divisor: int | None, classes: dict[int, int] | None, class_file: str | None
) -> None:
    if divisor is not None and class_file is not None:
        raise ValueError(
            f"data.init_args.divisor: {divisor}, and class_file: {class_file!r}; give one, to say an object's class"
        )
    if divisor is not None and divisor < 1:
        raise ValueError(f"data.init_args.divisor: {divisor} is not 1 or more; Cityscapes has 1000")
    if divisor is not None and names is None:
        raise ValueError(f"data.init_args.divisor: {divisor} needs class_names, those of value // {divisor}")
    if classes is not None and divisor is None:
        raise ValueError("data.init_args.classes needs divisor: it is the class of each value // divisor")
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ValueError(f"data.init_args.class_names: {list(names)}; give one or more, each once")
    if names is not None and len(names) > 1 and divisor is None and class_file is None:
        raise ValueError(
            f"data.init_args.class_names: {len(names)} classes; which an object is of, divisor or class_file must say"
        )
    for number, label in (classes or {}).items():
        if number < 0 or not (0 <= label < len(names or ()) or label == IGNORE_INDEX):
            raise ValueError(
                f"data.init_args.classes: {number}: {label}; numbers are 0 or more, classes 0 to "
                f"{len(names or ()) - 1}, or {IGNORE_INDEX} = no object"
            )


def checked_scale(scale: str | Sequence[int] | None) -> str | tuple[int, int] | None:
    """`InstanceMasks`' ``scale_16bit``, if it is one.

    Raises:
        ValueError: if not.
    """
    if scale is None or (isinstance(scale, str) and scale in get_args(Scale)):
        return scale
    if not isinstance(scale, str) and len(scale) == 2 and 0 <= scale[0] < scale[1]:
        return int(scale[0]), int(scale[1])
    raise ValueError(
        f"data.init_args.scale_16bit: {scale!r} is not one of {', '.join(get_args(Scale))}, null, or [low, high] with "
        f"0 <= low < high{did_you_mean(str(scale), get_args(Scale))}"
    )
