"""ImageNet's classification-and-localization task (ILSVRC CLS-LOC), as its archives or Kaggle's unpack."""

import os
from array import array
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, AnnotationErrors
from ..annotations.argument_checks import check_choice
from ..annotations.dataset_layout import image_names, images_by_class, layout_error, subfolders
from ..annotations.objects import usable_boxes
from ..annotations.one_box import BoxSource, choose_objects, warn_of_absent
from ..base import LoaderOptionsExceptBatchSize, Unpack, VisionDataModule
from ..voc.xml import corners_of, image_size, read_xml
from .classification import Synsets, check_class_folders, read_synset_mapping, read_synsets

ImageNetChoice = Literal["first", "largest", "one"]


class ImageNetLocalization(VisionDataModule):
    """ILSVRC2012's classification with localization: 1,000 classes, one of them an image, and boxes of its objects.

    Expected layout, Kaggle's or that of the publisher's archives::

        ROOT/LOC_synset_mapping.txt    (or the devkit, as below)
        ROOT/ILSVRC/Data/CLS-LOC/{train/nXXXXXXXX/*.JPEG,val/*.JPEG}
        ROOT/ILSVRC/Annotations/CLS-LOC/{train/nXXXXXXXX/*.xml,val/*.xml}

        ROOT/ILSVRC2012_devkit_t12/data/meta.mat
        ROOT/train/nXXXXXXXX/*.JPEG
        ROOT/val/*.JPEG    (or sorted, ROOT/val/nXXXXXXXX/*.JPEG)
        ROOT/bbox/train/nXXXXXXXX/*.xml    (ILSVRC2012_bbox_train_v2.tar.gz, unpacked there)
        ROOT/bbox/val/*.xml    (ILSVRC2012_bbox_val_v3.tgz, unpacked in ROOT/bbox)

    Classes are those of `ImageNet`: WordNet numbers sorted, named by their first synonym. A training image's class is
    its folder's; a validation image's is its folder's, or, where they are not sorted, that of its first object.
    Less than half of the training images have boxes: those without are left out, with one warning that counts them.
    The true boxes of the test images are not public: the test split here is the validation set.

    The boxes are taken to count pixels from 0 and to name the first and the last inside (published ones begin at 0 and
    end at 499): ``xmin, ymin, xmax, ymax`` becomes ``xmin, ymin, xmax + 1, ymax + 1``, clipped to the image. They were
    drawn in images of the size that each file says, which is not always that of the image; the box is then scaled to
    it. A box that cannot be used (some are inverted, or outside) is left out with one warning that counts them, or
    stops the run when `strict`.

    Args:
        root: the data set's folder.
        objects: of several objects of the image's class: the ``largest`` box, the ``first`` in the file; ``one``: only
            images with exactly one.
        min_visibility: part of the box's area that a step of augmentation must leave; it is drawn again otherwise.
        batch_size: Training samples per step and device.
        **kwargs: Loader options of `VisionDataModule`: ``eval_batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when files are not there; the message shows the expected trees and what was found.
        ValueError: for class folders that are not known or that are missing, malformed XML (file and line), or a split
            without a box.

    Reference: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015, section 3.2.

    Batches are `LocalizationBatch`.
    """

    def __init__(
        self,
        root: str,
        objects: ImageNetChoice = "largest",
        min_visibility: float = 0.0,
        batch_size: int = 64,
        **kwargs: Unpack[LoaderOptionsExceptBatchSize],
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        check_choice("objects", objects, get_args(ImageNetChoice))
        self.root, self.objects, self.min_visibility = Path(root).expanduser(), objects, min_visibility
        self._known: Synsets | None = None

    @property
    def synsets(self) -> Synsets:
        """The classes."""
        if self._known is None:
            mapping = self.root / "LOC_synset_mapping.txt"
            devkit = self.root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat"
            if not mapping.is_file() and not devkit.is_file():
                raise self._missing(f"data.init_args.root: neither {str(mapping)!r} nor {str(devkit)!r} is there")
            self._known = read_synset_mapping(mapping) if mapping.is_file() else read_synsets(devkit)
        return self._known

    @property
    def class_names(self) -> list[str]:
        """The first synonym of each class, made unique."""
        return list(self.synsets.names)

    def make_source(self, split: str) -> BoxSource:
        """The images of a split that have a box; ``test`` is ``val``."""
        part = "train" if split == "train" else "val"
        kaggle = self.root / "ILSVRC"
        pair = (
            (kaggle / "Data/CLS-LOC", kaggle / "Annotations/CLS-LOC")
            if kaggle.is_dir()
            else (self.root, self.root / "bbox")
        )
        folder, annotations = (place / part for place in pair)
        for place in (folder, annotations):
            if not place.is_dir():
                raise self._missing(f"no folder {str(place)!r}")
        paths, labels = self._images(folder, part)
        boxes = read_boxes(annotations, paths, labels, self.synsets.wnids)
        warn_of_absent(annotations, boxes.without, len(paths), "no box of their class is published for them")
        if not len(boxes.of_image):
            raise ValueError(f"{annotations}: no box for any of the {len(paths)} images of {str(folder)!r}")
        errors = AnnotationErrors(annotations, self.strict)
        names = np.array([os.fsdecode(path) for path in paths[boxes.of_image]])
        usable = np.flatnonzero(usable_boxes(boxes.corners, boxes.sizes[boxes.of_image], names, errors, "image"))
        errors.warn()
        chosen = usable[choose_objects(boxes.of_image[usable], boxes.corners[usable], self.objects)]
        own = boxes.of_image[chosen]
        corners = boxes.corners[chosen].astype(np.float32)
        return BoxSource(paths[own], boxes.labels[own], corners, folder, boxes.sizes[own], rescale=True)

    def _images(self, folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
        """The image files, and the class of each folder's; -1 where they are in none."""
        found = subfolders(folder)
        if part == "train" or found:
            check_class_folders(folder, found, self.synsets.wnids)
            files = images_by_class(folder, self.synsets.wnids)
            return np.concatenate(files), np.repeat(np.arange(len(files)), [len(own) for own in files])
        names = image_names(folder)
        if not names:
            raise self._missing(f"no images in {str(folder)!r}")
        return np.array([os.fsencode(name) for name in names], np.bytes_), np.full(len(names), -1)

    def _missing(self, problem: str) -> FileNotFoundError:
        return layout_error(problem, type(self), self.root, AbsentSplitError)


class Boxes(NamedTuple):
    """The boxes of N images, M in all.

    Attributes:
        sizes: width and height of the images that they were drawn in, ``[N, 2]`` int32.
        labels: class of each image, -1 where it is not known, ``[N]`` int64.
        of_image: the image of each box, ``[M]`` int64.
        corners: x1, y1, x2, y2 in pixels, ``[M, 4]`` float64.
        without: names of the images without a box.
    """

    sizes: np.ndarray
    labels: np.ndarray
    of_image: np.ndarray
    corners: np.ndarray
    without: list[str]


def read_boxes(folder: Path, paths: np.ndarray, labels: np.ndarray, wnids: list[str]) -> Boxes:
    """The boxes of images, those of other classes than the image's passed over.

    Args:
        folder: of the annotation files. One is named as its image, and lies in a folder of its class or in none.
        paths: the images.
        labels: class of each; -1: that of the first object in its file.
        wnids: the classes' WordNet numbers.
    """
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    sizes, labels = np.zeros((len(paths), 2), np.int32), labels.astype(np.int64)
    of_image, corners = array("q"), array("d")
    listed: dict[str, set[str]] = {}
    without: list[str] = []
    flat = {name for name in os.listdir(folder) if name.endswith(".xml")}  # noqa: PTH208 - names alone
    for image, path in enumerate(map(os.fsdecode, paths)):
        own, _, name = path.rpartition("/")
        file = f"{name.rpartition('.')[0]}.xml"
        if file not in flat:
            if own not in listed:
                listed[own] = set(os.listdir(folder / own)) if (folder / own).is_dir() else set()  # noqa: PTH208
            if not own or file not in listed[own]:
                without.append(path)
                continue
        place = folder / file if file in flat else folder / own / file
        tree = read_xml(place)
        sizes[image] = image_size(place, tree)
        before = len(of_image)
        for number, item in enumerate(tree.iterfind("object"), start=1):
            label = label_of.get((item.findtext("name") or "").strip(), -1)
            if labels[image] < 0:
                labels[image] = label
            if label >= 0 and label == labels[image]:
                corners.extend(corners_of(place, number, item))
                of_image.append(image)
        if len(of_image) == before:
            without.append(path)
    boxes = np.array(corners, np.float64).reshape(-1, 4)
    boxes[:, 2:] += 1  # see ImageNetLocalization
    return Boxes(sizes, labels, np.array(of_image, np.int64), boxes, without)
