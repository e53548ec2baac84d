"""Pascal VOC's objects with their masks, from VOC or SBD."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations.absence import absence_by_reading
from ..annotations.annotation_errors import AnnotationErrors, DataError, Fault
from ..annotations.dataset_layout import check_files_exist, encode_paths
from ..annotations.mask_files import check_class_count, read_mask
from ..annotations.objects import image_numbers
from ..base import ObjectDataModule, ObjectOptions, Unpack
from ..batches import IGNORE_INDEX
from ..images.bit_depth import ReadOptions
from ..images.read import ImageError, read_image
from ..loading.targets import boxes_of_masks
from .detection import VOC_CLASSES
from .image_sets import ImageSets, SegmentationYear
from .sbd import read_instance_mat


class VOCInstances(ObjectDataModule):
    """Objects of Pascal VOC with their masks.

    Expected layout::

        ROOT/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt    (or ROOT/VOC2012/…; other years in the same way)
        ROOT/VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg …
        ROOT/VOCdevkit/VOC2012/SegmentationClass/2007_000032.png …
        ROOT/VOCdevkit/VOC2012/SegmentationObject/2007_000032.png …
        ROOT/benchmark_RELEASE/dataset/train.txt, val.txt          (SBD, for sets that need it; or ROOT/sbd/…,
        ROOT/benchmark_RELEASE/dataset/inst/2008_000002.mat …          as torchvision saves it; or the argument sbd)
        ROOT/benchmark_RELEASE/dataset/img/2008_000002.jpg …       (or VOC 2012's JPEGImages)

    VOC numbers the pixels of its objects in ``SegmentationObject``; the class of an object is that of most of its
    pixels in ``SegmentationClass``. The border around objects, 255, belongs to none of them. SBD's files have the
    classes beside the objects. Boxes are those of the masks. No object is difficult or a crowd.

    Image sets are those of `VOCSegmentation`, and ``sds_train`` and ``sds_val``: all of SBD, split by VOC 2012's
    ``ImageSets/Main`` train and val (5,623 and 5,732 images), on which SDS and FCIS were trained and measured.

    Masks are read with their sample. An object that cannot be used is left out with a warning, or stops the run if
    `strict`: one without a class, or one that SBD lists without a pixel.

    Args:
        root: Folder that contains ``VOCdevkit``, or ``VOCdevkit`` itself, or the folder of a data set of your own,
            which has ``ImageSets``, ``JPEGImages``, … itself.
        year: Year of the image sets that are named without one.
        train: Training image sets, one or several.
        val: Validation image sets.
        test: Test image sets; None: VOC 2007's own test set; otherwise val.
        sbd: Folder of SBD, below `root` or absolute; None: searched for in the folders above.
        class_names: Classes of another dataset in this layout, without the background; None: VOC's twenty.
        **kwargs: ``min_visibility`` and ``group_by_aspect`` of `ObjectDataModule`, and the loader options of
            `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Image sets, images or masks are missing; the message shows the expected layout.
        ValueError: A class or an object is unknown; the message names the file.

    Batches are `InstanceSegmentationBatch`. An ``image_id`` is the number in the file name (2008000008 for
    ``2008_000008``).
    """

    def __init__(
        self,
        root: str,
        year: SegmentationYear = "2012",
        train: list[str] | str = "train",
        val: list[str] | str = "val",
        test: list[str] | str | None = None,
        sbd: str | None = None,
        class_names: list[str] | None = None,
        **kwargs: Unpack[ObjectOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser()
        self.sets = ImageSets(self.root, year, {"train": train, "val": val, "test": test}, sbd, type(self), "inst")
        self._names = list(VOC_CLASSES if class_names is None else class_names)
        check_class_count(self._names)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: VOC's twenty in alphabetical order, or those of the argument."""
        return list(self._names)

    def make_source(self, split: str) -> "InstanceFiles":
        """Return the images of a split with their objects."""
        members = self.sets.members(split)
        images = [str(self.sets.image(member)) for member in members]
        objects = [
            str(member.folder / ("inst" if member.is_sbd else "SegmentationObject") / member.stem)
            + (".mat" if member.is_sbd else ".png")
            for member in members
        ]
        classes = [str(member.folder / "SegmentationClass" / f"{member.stem}.png") for member in members]
        asked_by = f"{split}: {' and '.join(self.sets.sets[split])}"
        check_files_exist(Path(), images, asked_by)
        check_files_exist(Path(), objects, asked_by, "masks of objects")
        of_voc = [path for path, member in zip(classes, members, strict=True) if not member.is_sbd]
        check_files_exist(Path(), of_voc, asked_by, "masks of classes")
        ids = image_numbers([member.stem for member in members])
        return InstanceFiles(images, objects, classes, ids, len(self._names), self.strict)


class InstanceFiles:
    """Images with the masks of their objects: VOC's two PNG files, or one MATLAB file of SBD.

    Args:
        images: Image files.
        objects: Mask of each image's objects.
        classes: Mask of each image's classes; not read where `objects` is a file of SBD, which has the classes.
        ids: Number of each image.
        num_classes: Number of classes, without the background.
        strict: Whether to stop at an object that cannot be used.

    Shape:
        - ids: ``[N]`` int64.

    Attributes:
        options: How image files are read, see `ReadOptions`.
    """

    options = ReadOptions()

    def __init__(
        self, images: list[str], objects: list[str], classes: list[str], ids: np.ndarray, num_classes: int, strict: bool
    ) -> None:
        self.images, self.objects, self.classes = map(encode_paths, (images, objects, classes))
        self.ids, self.num_classes, self.strict = ids, num_classes, strict  # ids [N]

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> str:
        """Return the file of the image with this index."""
        return os.fsdecode(self.images[index])

    def absence(self, training: bool = False) -> Fault | None:
        """Return why no image has an object; None: one has."""
        return absence_by_reading(
            self, Path(os.fsdecode(self.objects[0])).parent, lambda sample: len(sample["labels"]) > 0
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, mask_path = (Path(os.fsdecode(paths[index])) for paths in (self.images, self.objects))
        image = read_image(path, options=self.options)
        errors = AnnotationErrors(mask_path, self.strict)
        if mask_path.suffix == ".mat":
            plane, numbers, labels = self._of_sbd(mask_path, errors)
        else:
            plane, numbers, labels = self._of_voc(mask_path, Path(os.fsdecode(self.classes[index])), errors)
        errors.warn()
        if image.shape[:2] != plane.shape:
            raise ImageError.size_mismatch(
                path, image.shape[1::-1], f"its mask {str(mask_path)!r} is", plane.shape[::-1]
            )
        masks = (plane == numbers[:, None, None]).astype(np.uint8)  # [N, H, W]
        return {
            "image": image,
            "path": str(path),
            "image_id": int(self.ids[index]),
            "boxes": boxes_of_masks(masks),
            "labels": labels - 1,
            "masks": masks,
        }

    def _of_voc(
        self, path: Path, class_path: Path, errors: AnnotationErrors
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read VOC's masks.

        Returns:
            The mask of objects ``[H, W]``; the values ``[N]`` in it of the usable objects, and their classes ``[N]``, 1
            to K.
        """
        plane, classes = read_mask(path), read_mask(class_path)
        if plane.shape != classes.shape:
            sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (plane, classes)]
            raise ImageError(path, f"the mask is {sizes[0]}, but the classes in {str(class_path)!r} are {sizes[1]}")
        for file, values in ((path, plane), (class_path, classes)):
            if values.dtype != np.uint8:
                raise ImageError(file, "VOC's masks must have 8 bits per pixel, got 16")
        pairs = plane.astype(np.int64).ravel() * 256 + classes.ravel()
        votes = np.bincount(pairs, minlength=65536).reshape(256, 256)  # [object, class], pixels
        votes[:, IGNORE_INDEX] = 0
        if (voted := np.flatnonzero(votes.any(axis=0))).size and voted[-1] > self.num_classes:
            remedy = f"values are 0 = background, 1 to {self.num_classes}, and {IGNORE_INDEX} = ignore"
            raise DataError.of(
                Fault("label-outside", class_path, [class_path], "path", f"the value {voted[-1]}", remedy)
            )
        numbers = np.unique(plane)
        numbers = numbers[(numbers > 0) & (numbers < IGNORE_INDEX)]
        labels = votes[numbers].argmax(axis=1)
        errors.add("bad-mask", numbers[labels == 0].tolist(), "object", "all of its pixels are background")
        return plane, numbers[labels > 0], labels[labels > 0]

    def _of_sbd(self, path: Path, errors: AnnotationErrors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read SBD's mask of objects ``[H, W]``, the usable objects in it ``[N]`` and their classes ``[N]``, 1 to K."""
        plane, labels = read_instance_mat(path)
        numbers = np.arange(1, len(labels) + 1)
        if (wrong := (labels < 1) | (labels > self.num_classes)).any():
            first = int(wrong.argmax())
            remedy = f"classes are 1 to {self.num_classes}"
            raise DataError.of(Fault("label-outside", path, [first + 1], "object", str(labels[first]), remedy))
        has_pixels = np.bincount(plane.ravel(), minlength=max(256, len(labels) + 1)) > 0
        if (unlisted := np.flatnonzero(has_pixels[len(labels) + 1 : IGNORE_INDEX])).size:
            raise ValueError(
                f"{path}: pixels of object {len(labels) + 1 + unlisted[0]}, but GTinst.Categories has {len(labels)} "
                "objects"
            )
        present = has_pixels[numbers]
        errors.add("bad-mask", numbers[~present].tolist(), "object", "it has no pixel")
        return plane, numbers[present], labels[present]
