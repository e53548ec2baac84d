"""Pascal VOC's objects with their masks, VOC's own or SBD's."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors, DataError, Fault
from ..annotations.dataset_layout import check_there, encode_paths
from ..annotations.mask_files import read_mask
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..batches import IGNORE_INDEX
from ..images.read import ImageError, read_image
from ..loading.targets import boxes_of_masks
from .detection import VOC_CLASSES, image_numbers
from .image_sets import ImageSets, SegmentationYear
from .sbd import read_instance_mat


class VOCInstances(VisionDataModule):
    """The objects of Pascal VOC's images with their masks.

    Expected layout::

        ROOT/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt    (or ROOT/VOC2012/…; other years likewise)
        ROOT/VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg …
        ROOT/VOCdevkit/VOC2012/SegmentationClass/2007_000032.png …
        ROOT/VOCdevkit/VOC2012/SegmentationObject/2007_000032.png …
        ROOT/benchmark_RELEASE/dataset/train.txt, val.txt          (SBD, where it is asked for; or ROOT/sbd/…,
        ROOT/benchmark_RELEASE/dataset/inst/2008_000002.mat …          as torchvision leaves it; or the argument sbd)
        ROOT/benchmark_RELEASE/dataset/img/2008_000002.jpg …       (or VOC 2012's JPEGImages)

    VOC numbers the pixels of its objects in ``SegmentationObject``; the class of an object is the one that most of its
    pixels have in ``SegmentationClass``. The border drawn around objects, 255, belongs to none. SBD's files have the
    classes beside the objects. Boxes are those of the masks. No object is difficult or a crowd.

    Image sets are those of `VOCSegmentation`, and ``sds_train`` and ``sds_val``: all of SBD, parted by VOC 2012's
    ``ImageSets/Main`` train and val (5,623 and 5,732 images), on which SDS and FCIS trained and were measured.

    Masks are read with their sample. An object that cannot be used is left out with a warning, or stops the run when
    `strict`: one without a class, or that SBD lists but gives no pixel.

    Args:
        root: the folder of ``VOCdevkit``, or ``VOCdevkit`` itself.
        year: of the image sets that are named without one.
        train, val, test: image sets, one or several. None for test: VOC 2007's own test set; otherwise that of val.
        sbd: SBD's folder, below `root` or absolute; None: looked for in the places above.
        class_names: of another data set in this layout, without the background; None: VOC's twenty.
        min_visibility: part of a box's area that a step of augmentation must leave, or its object is removed.
        group_by_aspect: make training batches of images of like shape, so that less is padded.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when lists, images or masks are not there; the message shows that tree and what was found.
        ValueError: for a class or an object that is not known; the message names the file.

    Batches are `InstanceSegmentationBatch`. An ``image_id`` is the number in the file's name: 2008000008 of
    ``2008_000008``.
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
        min_visibility: float = 0.0,
        group_by_aspect: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.min_visibility = Path(root).expanduser(), min_visibility
        self.group_by_aspect = group_by_aspect
        self.sets = ImageSets(self.root, year, {"train": train, "val": val, "test": test}, sbd, type(self), "inst")
        self._names = list(VOC_CLASSES if class_names is None else class_names)
        if not 0 < len(self._names) < IGNORE_INDEX:
            raise ValueError(f"data.init_args.class_names: {len(self._names)} classes; give 1 to {IGNORE_INDEX - 1}")

    @property
    def class_names(self) -> list[str]:
        """The twenty classes in alphabetical order, or those given."""
        return list(self._names)

    @property
    def variable_size_images(self) -> bool:
        """True: images differ in size."""
        return True

    def make_source(self, split: str) -> "InstanceFiles":
        """The images of a split."""
        members = self.sets.members(split)
        images = [str(self.sets.image(member)) for member in members]
        objects = [
            str(member.folder / ("inst" if member.is_sbd else "SegmentationObject") / member.stem)
            + (".mat" if member.is_sbd else ".png")
            for member in members
        ]
        classes = [str(member.folder / "SegmentationClass" / f"{member.stem}.png") for member in members]
        asked_by = f"data.init_args.{split}: {' and '.join(self.sets.sets[split])}"
        check_there(Path(), images, asked_by)
        check_there(Path(), objects, asked_by, "masks of objects")
        own = [path for path, member in zip(classes, members, strict=True) if not member.is_sbd]
        check_there(Path(), own, asked_by, "masks of classes")
        ids = image_numbers([member.stem for member in members])
        return InstanceFiles(images, objects, classes, ids, len(self._names), self.strict)


class InstanceFiles:
    """Images with their objects' masks in files: VOC's two PNG files, or one MATLAB file of SBD's.

    Args:
        images, objects, classes: the files, ``[N]``; an entry of `classes` is not looked at where SBD's file says them.
        ids: number of each image, ``[N]`` int64.
        num_classes: without the background.
        strict: stop at an object that cannot be used.
    """

    def __init__(
        self, images: list[str], objects: list[str], classes: list[str], ids: np.ndarray, num_classes: int, strict: bool
    ) -> None:
        self.images, self.objects, self.classes = map(encode_paths, (images, objects, classes))
        self.ids, self.num_classes, self.strict = ids, num_classes, strict

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> str:
        """The file of an image."""
        return os.fsdecode(self.images[index])

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, mask_path = (Path(os.fsdecode(paths[index])) for paths in (self.images, self.objects))
        image = read_image(path)
        errors = AnnotationErrors(mask_path, self.strict)
        if mask_path.suffix == ".mat":
            plane, numbers, labels = self._of_sbd(mask_path, errors)
        else:
            plane, numbers, labels = self._of_voc(mask_path, Path(os.fsdecode(self.classes[index])), errors)
        errors.warn()
        if image.shape[:2] != plane.shape:
            raise ImageError(
                path, f"the image is {_size(image)}, but its mask {str(mask_path)!r} is {_size(plane)}", "size-mismatch"
            )
        masks = (plane == numbers[:, None, None]).astype(np.uint8)
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
        """The plane of objects, and of those that can be used the numbers in it and the classes, 1 to K."""
        plane, classes = read_mask(path), read_mask(class_path)
        if plane.shape != classes.shape:
            raise ImageError(path, f"it is {_size(plane)}, but the classes in {str(class_path)!r} are {_size(classes)}")
        for file, values in ((path, plane), (class_path, classes)):
            if values.dtype != np.uint8:
                raise ImageError(file, "it has 16 bits a pixel; VOC's masks have 8")
        pairs = plane.astype(np.int64).ravel() * 256 + classes.ravel()
        votes = np.bincount(pairs, minlength=65536).reshape(256, 256)  # [object, class], pixels
        votes[:, IGNORE_INDEX] = 0
        if (beyond := np.flatnonzero(votes.any(axis=0))).size and beyond[-1] > self.num_classes:
            found = f"the value {beyond[-1]}"
            remedy = f"values are 0 = background, 1 to {self.num_classes}, and {IGNORE_INDEX} = ignore"
            raise DataError.of(Fault("label-outside", class_path, [class_path], "path", found, remedy))
        numbers = np.unique(plane)
        numbers = numbers[(numbers > 0) & (numbers < IGNORE_INDEX)]
        labels = votes[numbers].argmax(axis=1)
        errors.add("bad-mask", numbers[labels == 0].tolist(), "object", "its pixels have no class, but background")
        return plane, numbers[labels > 0], labels[labels > 0]

    def _of_sbd(self, path: Path, errors: AnnotationErrors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same of SBD."""
        plane, labels = read_instance_mat(path)
        numbers = np.arange(1, len(labels) + 1)
        if (wrong := (labels < 1) | (labels > self.num_classes)).any():
            first = int(wrong.argmax())
            found, remedy = str(labels[first]), f"classes are 1 to {self.num_classes}"
            raise DataError.of(Fault("label-outside", path, [first + 1], "object", found, remedy))
        seen = np.bincount(plane.ravel(), minlength=max(256, len(labels) + 1)) > 0
        if (more := np.flatnonzero(seen[len(labels) + 1 : IGNORE_INDEX])).size:
            raise ValueError(
                f"{path}: pixels of object {len(labels) + 1 + more[0]}, but GTinst.Categories has {len(labels)} objects"
            )
        present = seen[numbers]
        errors.add("bad-mask", numbers[~present].tolist(), "object", "it has no pixel")
        return plane, numbers[present], labels[present]


def _size(plane: np.ndarray) -> str:
    return f"{plane.shape[1]}x{plane.shape[0]}"
