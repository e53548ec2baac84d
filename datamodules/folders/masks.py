"""Folders of images and of semantic masks with the same names."""

from pathlib import Path

from ..annotations.argument_checks import check_class_names
from ..annotations.class_names import is_background
from ..annotations.dataset_layout import layout_error, split_folders
from ..annotations.mask_classes import check_mask_classes
from ..annotations.mask_files import MASK_VALUES, MaskedFiles, check_class_count, class_lookup
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..batches import IGNORE_INDEX
from ..loading.splits import optional_val_fraction, random_split
from .pairs import pair_files


class MaskFolder(VisionDataModule):
    """Images and semantic masks in folders, matched by name.

    Expected layout::

        ROOT/train/images/a.jpg     ROOT/train/masks/a.png
        ROOT/val/images/b.jpg       ROOT/val/masks/b.png       (or val_fraction)
        ROOT/test/images/c.jpg      ROOT/test/masks/c.png      (if there is a test set)

    The folders of the splits may also be named ``training``, ``valid``, ``validation`` or ``testing``, in any case.
    A mask is a gray or palette image with the name of its image, up to the suffix, at the same depth. Its values are
    the classes, or `classes` maps them. A mask is of the image as it is displayed, after its EXIF orientation; a mask
    with an orientation of its own is turned, too.

    Args:
        root: Folder of the splits.
        class_names: Classes in the order of their labels, including the background if it is one.
        classes: Class of each value in the masks, such as ``{0: 0, 128: 1, 200: 255}``, where the class 255 = ignore;
            other values are rejected. For masks of 0 and 255: ``{0: 0, 255: 1}``. None: value k is class k.
        ignore_value: Value of pixels that do not count; None: 255, unless `classes` gives 255 a class.
        image_folder: Name of the images' folder in each split.
        mask_folder: Name of the masks' folder in each split.
        val_fraction: Fraction of the training images held out for validation if there is no ``val``; determined by
            `seed`.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Folders, or masks of images, are missing.
        ValueError: A mask has a value without a class; the message names the file.

    Batches are `SemanticSegmentationBatch`.
    """

    def __init__(
        self,
        root: str,
        class_names: list[str],
        classes: dict[int, int] | None = None,
        ignore_value: int | None = None,
        image_folder: str = "images",
        mask_folder: str = "masks",
        val_fraction: float | None = None,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        val_fraction = optional_val_fraction(val_fraction)
        check_class_names(class_names)
        check_class_count(class_names)
        for value, label in (classes or {}).items():
            if not (0 <= value < MASK_VALUES and (0 <= label < len(class_names) or label == IGNORE_INDEX)):
                raise ValueError(
                    f"classes: must map 0 to {MASK_VALUES - 1} to 0 to {len(class_names) - 1} or {IGNORE_INDEX}, got "
                    f"{value}: {label}"
                )
        if ignore_value is not None and not 0 <= ignore_value < MASK_VALUES:
            raise ValueError(f"ignore_value: must be 0 to {MASK_VALUES - 1}, got {ignore_value}")
        self.root, self.val_fraction, self._names = Path(root).expanduser(), val_fraction, list(class_names)
        self.folders = image_folder, mask_folder
        self.lookup = class_lookup(classes, len(class_names), ignore_value)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, as in the argument."""
        return list(self._names)

    def make_source(self, split: str) -> MaskedFiles:
        """Return the images and masks of a split."""
        folders = split_folders(self.root)
        has_val = "val" in folders
        if split == "val" and not has_val and self.val_fraction is None:
            problem = f"no folder {str(self.root / 'val')!r}; add it, or set val_fraction: 0.1"
            raise layout_error(problem, type(self), self.root)
        held_out = split == "val" and not has_val
        base = "train" if held_out else split
        image_folder, mask_folder = (f"{folders.get(base, base)}/{folder}" for folder in self.folders)
        _, images, masks = pair_files(self.root, image_folder, mask_folder, type(self))
        if base == "train":
            remedy = f"set classes: {{0: 0, {IGNORE_INDEX}: 1}}"
            whole = MaskedFiles(self.root, images, masks, self.lookup, is_background(self._names[0]))
            check_mask_classes(whole, self._names, remedy)
        if self.val_fraction is not None and not has_val and split != "test":
            mask = random_split(len(images), self.val_fraction, self.seed)
            selected = mask if held_out else ~mask
            images, masks = images[selected], masks[selected]
        return MaskedFiles(self.root, images, masks, self.lookup, is_background(self._names[0]))
