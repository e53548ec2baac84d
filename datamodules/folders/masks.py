"""Folders of images and folders of masks with the same names."""

from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, Fault, record_error
from ..annotations.dataset_layout import encode_paths, layout_error
from ..annotations.mask_files import MaskedFiles, class_lookup, files_by_name
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..batches import IGNORE_INDEX
from ..images.read import IMAGE_SUFFIXES
from ..loading.splits import check_val_fraction, random_split


class MaskFolder(VisionDataModule):
    """Images and semantic masks in folders, matched by name.

    Expected layout::

        ROOT/train/images/a.jpg     ROOT/train/masks/a.png
        ROOT/val/images/b.jpg       ROOT/val/masks/b.png       (or val_fraction)
        ROOT/test/images/c.jpg      ROOT/test/masks/c.png      (where there is a test set)

    A mask is a gray (index) or palette image of the same name but for its suffix, at the same depth. Its values are
    the classes, or `classes` says which class each value is.

    Args:
        root: the folder of the splits.
        class_names: the classes in order, the background too if it is one.
        classes: class of each value that the masks have, such as ``{0: 0, 128: 1, 200: 255}``, where 255 = ignore; a
            value that is not among them is refused. None: value k is class k.
        ignore_value: value of pixels that do not count.
        image_folder, mask_folder: names of the two folders in each split.
        val_fraction: part of the training images held out for validation where there is no ``val``; fixed by `seed`.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when folders, or masks of images, are not there.
        ValueError: for a value that stands for no class; the message names the file.

    Batches are `SemanticSegmentationBatch`.
    """

    def __init__(
        self,
        root: str,
        class_names: list[str],
        classes: dict[int, int] | None = None,
        ignore_value: int = IGNORE_INDEX,
        image_folder: str = "images",
        mask_folder: str = "masks",
        val_fraction: float | None = None,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_val_fraction(val_fraction)
        if not 0 < len(class_names) < IGNORE_INDEX:
            raise ValueError(f"data.init_args.class_names: {len(class_names)} classes; give 1 to {IGNORE_INDEX - 1}")
        for value, label in (classes or {}).items():
            if not (0 <= value < 65536 and (0 <= label < len(class_names) or label == IGNORE_INDEX)):
                raise ValueError(
                    f"data.init_args.classes: {value}: {label}; values are 0 to 65535, classes 0 to "
                    f"{len(class_names) - 1}, or {IGNORE_INDEX} = ignore"
                )
        if not 0 <= ignore_value < 65536:
            raise ValueError(f"data.init_args.ignore_value: {ignore_value} is not 0 to 65535")
        self.root, self.val_fraction, self._names = Path(root).expanduser(), val_fraction, list(class_names)
        self.folders = image_folder, mask_folder
        self.lookup = class_lookup(classes, len(class_names), ignore_value)

    @property
    def class_names(self) -> list[str]:
        """Those given."""
        return list(self._names)

    def make_source(self, split: str) -> MaskedFiles:
        """The images of a split."""
        has_val = (self.root / "val").is_dir()
        if split == "test" or (split == "val" and has_val):
            return MaskedFiles(self.root, *self._pairs(split), self.lookup)
        pairs = self._pairs("train")
        if not has_val and self.val_fraction is not None:
            held = random_split(len(pairs[0]), self.val_fraction, self.seed)
            keep = held if split == "val" else ~held
            pairs = pairs[0][keep], pairs[1][keep]
        elif split == "val":
            raise self._layout_error(f"no folder {str(self.root / 'val')!r}, and no val_fraction")
        return MaskedFiles(self.root, *pairs, self.lookup)

    def _pairs(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        image_folder, mask_folder = (f"{split}/{folder}" for folder in self.folders)
        for folder in (image_folder, mask_folder):
            if not (self.root / folder).is_dir():
                raise layout_error(f"no folder {str(self.root / folder)!r}", type(self), self.root, AbsentSplitError)
        images, masks = self._files(image_folder), self._files(mask_folder)
        if not images:
            raise ValueError(f"{self.root / image_folder}: no images in it; looked for {', '.join(IMAGE_SUFFIXES)}")
        absent = [name for name in images if name not in masks]
        if absent:
            paths = [str(self.root / images[name]) for name in absent]
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            record_error(
                Fault(
                    "missing-annotation", self.root / mask_folder, paths, "path", "no mask of its name", images=paths
                ),
                f"{self.root / mask_folder}: no mask for {len(absent)} of {len(images)} images of {image_folder}: "
                f"{', '.join(absent[:3])}{more}",
            )
            images = {name: path for name, path in images.items() if name in masks}
        return encode_paths(images.values()), encode_paths(masks[name] for name in images)

    def _files(self, folder: str) -> dict[str, str]:
        """Path below the root of each image below a folder, by its path there without suffix, sorted.

        Raises:
            ValueError: for two files of the same name but for their suffix.
        """
        return files_by_name(self.root, folder)

    def _layout_error(self, problem: str) -> FileNotFoundError:
        return layout_error(problem, type(self), self.root)
