"""ImageNet for classification with localization (ILSVRC CLS-LOC), in the publisher's layout or Kaggle's."""

import os
from array import array
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, AnnotationErrors, MissingFileError
from ..annotations.argument_checks import check_choice
from ..annotations.dataset_layout import encode_paths, image_names, images_by_class, layout_error, subfolders
from ..annotations.objects import usable_boxes
from ..annotations.one_box import BoxSource, select_objects, warn_about_missing_boxes
from ..base import LoaderOptionsExceptBatchSize, Unpack, VisionDataModule
from ..voc.xml import corners_of, image_size, read_xml
from .classification import Synsets, check_class_folders, read_synset_mapping, read_synsets

ImageNetObjectRule = Literal["first", "largest", "one"]


class ImageNetLocalization(VisionDataModule):
    """ILSVRC2012 for classification with localization: one of 1,000 classes per image, and boxes of its objects.

    Expected layout, Kaggle's or that of the publisher's archives::

        ROOT/LOC_synset_mapping.txt    (or the devkit, as below)
        ROOT/ILSVRC/Data/CLS-LOC/{train/nXXXXXXXX/*.JPEG,val/*.JPEG}
        ROOT/ILSVRC/Annotations/CLS-LOC/{train/nXXXXXXXX/*.xml,val/*.xml}

        ROOT/ILSVRC2012_devkit_t12/data/meta.mat
        ROOT/train/nXXXXXXXX/*.JPEG
        ROOT/val/*.JPEG    (or sorted, ROOT/val/nXXXXXXXX/*.JPEG)
        ROOT/bbox/train/nXXXXXXXX/*.xml    (ILSVRC2012_bbox_train_v2.tar.gz, unpacked there)
        ROOT/bbox/val/*.xml    (ILSVRC2012_bbox_val_v3.tgz, unpacked in ROOT/bbox)

    Classes are those of `ImageNet`: sorted WordNet ids, named by their first synonym. The class of a training image is
    its folder's; that of a validation image is its folder's or, where images are not sorted, that of its first object.
    Fewer than half of the training images have boxes; the others are left out with one warning that counts them. The
    boxes of the test images are not public, so the test split here is the validation set.

    Boxes are taken to count pixels from 0 and to include the last pixel (published ones start at 0 and end at 499):
    ``xmin, ymin, xmax, ymax`` becomes ``xmin, ymin, xmax + 1, ymax + 1``, clipped to the image. Each file states the
    size of the image in which its boxes were drawn; where the image has another size, its box is scaled. A box that
    cannot be used (some are inverted, or outside) is left out with one warning that counts them, or stops the run if
    `strict`.

    Args:
        root: Folder of the dataset.
        objects: Object to use if an image has several of its class: the ``largest`` box, or the ``first`` in the file;
            ``one``: only images with exactly one.
        min_visibility: Minimum fraction of the box that each transform must keep; the augmentation is sampled again
            otherwise.
        batch_size: Training samples per step and device.
        **kwargs: Loader options of `VisionDataModule`: ``eval_batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files are missing; the message shows the expected layouts.
        ValueError: The class folders are not those of the classes, an XML file is malformed (with file and line), or a
            split has no box.

    Reference: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015, section 3.2.

    Batches are `LocalizationBatch`.
    """

    def __init__(
        self,
        root: str,
        objects: ImageNetObjectRule = "largest",
        min_visibility: float = 0.0,
        batch_size: int = 64,
        **kwargs: Unpack[LoaderOptionsExceptBatchSize],
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        check_choice("objects", objects, get_args(ImageNetObjectRule))
        self.root, self.objects, self.min_visibility = Path(root).expanduser(), objects, min_visibility
        self._synsets: Synsets | None = None

    @property
    def synsets(self) -> Synsets:
        """Classes, read from Kaggle's mapping or from the devkit."""
        if self._synsets is None:
            mapping = self.root / "LOC_synset_mapping.txt"
            devkit = self.root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat"
            if not mapping.is_file() and not devkit.is_file():
                raise self._layout_error(f"root: neither {str(mapping)!r} nor {str(devkit)!r} exists")
            self._synsets = read_synset_mapping(mapping) if mapping.is_file() else read_synsets(devkit)
        return self._synsets

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: the first synonym of each, made unique."""
        return list(self.synsets.names)

    def make_source(self, split: str) -> BoxSource:
        """Return the images of a split that have a box; ``test`` is ``val``."""
        part = "train" if split == "train" else "val"
        folder, annotations = self.root / part, self.root / "bbox" / part
        if (kaggle := self.root / "ILSVRC").is_dir():
            folder, annotations = kaggle / "Data/CLS-LOC" / part, kaggle / "Annotations/CLS-LOC" / part
        for needed in (folder, annotations):
            if not needed.is_dir():
                raise self._layout_error(f"no folder {str(needed)!r}")
        paths, labels = self._images(folder, part)
        boxes = read_boxes(annotations, paths, labels, self.synsets.wnids)
        warn_about_missing_boxes(annotations, boxes.without, len(paths), "no box of their class is published for them")
        if not len(boxes.image_of):
            raise ValueError(f"{annotations}: no box for any of the {len(paths)} images of {str(folder)!r}")
        errors = AnnotationErrors(annotations, self.strict)
        names = np.array([os.fsdecode(path) for path in paths[boxes.image_of]])
        usable = np.flatnonzero(usable_boxes(boxes.corners, boxes.sizes[boxes.image_of], names, errors, "image"))
        errors.warn()
        selected = usable[select_objects(boxes.image_of[usable], boxes.corners[usable], self.objects)]
        kept = boxes.image_of[selected]
        corners = boxes.corners[selected].astype(np.float32)
        return BoxSource(paths[kept], boxes.labels[kept], corners, folder, boxes.sizes[kept], rescale=True)

    def _images(self, folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the image files ``[N]``, and the classes ``[N]`` of their folders, -1 for images in none."""
        class_folders = subfolders(folder)
        if part == "train" or class_folders:
            check_class_folders(folder, class_folders, self.synsets.wnids)
            files = images_by_class(folder, self.synsets.wnids)
            return np.concatenate(files), np.repeat(np.arange(len(files)), list(map(len, files)))
        names = image_names(folder)
        if not names:
            raise self._layout_error(f"no images in {str(folder)!r}")
        return encode_paths(names), np.full(len(names), -1)

    def _layout_error(self, problem: str) -> MissingFileError:
        return layout_error(problem, type(self), self.root, AbsentSplitError)


class Boxes(NamedTuple):
    """Boxes of N images, M in all.

    Attributes:
        sizes: Width and height of the images in which they were drawn, ``[N, 2]`` int32.
        labels: Class of each image, -1: unknown, ``[N]`` int64.
        image_of: Index of each box's image, ``[M]`` int64.
        corners: x1, y1, x2, y2 in pixels, ``[M, 4]`` float64.
        without: Names of the images without a box.
    """

    sizes: np.ndarray
    labels: np.ndarray
    image_of: np.ndarray
    corners: np.ndarray
    without: list[str]


def read_boxes(folder: Path, paths: np.ndarray, labels: np.ndarray, wnids: list[str]) -> Boxes:
    """Read the boxes of images; objects of other classes than the image's are skipped.

    Args:
        folder: Folder of the annotation files, each named like its image and in a folder of its class or in none.
        paths: Image files, encoded by `encode_paths`.
        labels: Class of each image; -1: that of the first object in its file.
        wnids: WordNet ids of the classes.

    Shape:
        - paths, labels: ``[N]``.
    """
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    sizes, labels = np.zeros((len(paths), 2), np.int32), labels.astype(np.int64)
    image_of, corners = array("q"), array("d")
    listed: dict[str, set[str]] = {}
    without: list[str] = []
    flat = {name for name in os.listdir(folder) if name.endswith(".xml")}  # noqa: PTH208 - names alone
    for image, path in enumerate(map(os.fsdecode, paths)):
        class_folder, _, name = path.rpartition("/")
        stem = f"{name.rpartition('.')[0]}.xml"
        if stem not in flat:
            if class_folder not in listed:
                inner = folder / class_folder
                listed[class_folder] = set(os.listdir(inner)) if inner.is_dir() else set()  # noqa: PTH208
            if not class_folder or stem not in listed[class_folder]:
                without.append(path)
                continue
        file = folder / stem if stem in flat else folder / class_folder / stem
        tree = read_xml(file)
        sizes[image] = image_size(file, tree)
        before = len(image_of)
        for number, item in enumerate(tree.iterfind("object"), start=1):
            label = label_of.get((item.findtext("name") or "").strip(), -1)
            if labels[image] < 0:
                labels[image] = label
            if label >= 0 and label == labels[image]:
                corners.extend(corners_of(file, number, item))
                image_of.append(image)
        if len(image_of) == before:
            without.append(path)
    boxes = np.array(corners, np.float64).reshape(-1, 4)
    boxes[:, 2:] += 1  # see ImageNetLocalization
    return Boxes(sizes, labels, np.array(image_of, np.int64), boxes, without)
