"""COCO's format for classification with localization: images with one object of interest."""

from typing import get_args

from ..annotations.argument_checks import check_choice, class_indices
from ..annotations.objects import ObjectSource
from ..annotations.one_box import BoxSource, ObjectRule, one_object_per_image, require_images
from ..base import LoaderOptions, Unpack, VisionDataModule
from .detection import CocoDetection
from .options import BoxFormat, Crowds


class CocoLocalization(VisionDataModule):
    """Images in COCO's format with one object of interest, or the largest of several, for localization.

    Expected layout::

        ROOT/annotations/instances_train2017.json    (train_annotations)
        ROOT/train2017/000000000009.jpg …            (train_images)
        ROOT/annotations/instances_val2017.json      (val_annotations)
        ROOT/val2017/000000000139.jpg …              (val_images)

    Crowds do not count. Boxes that cannot be used do not count either; they are left out with one warning, or stop the
    run if `strict`. Everything is read as by `CocoDetection`.

    Args:
        root: Folder of all files.
        objects: ``one``: images with exactly one object of the classes of interest, and any others.
            ``largest``: images with any such object, and of each image the object with the largest box, the first on
            ties.
        classes: Names of the categories of interest, in the order of their labels; None: all, by their ids.
        train_annotations: Training annotations, below `root` or absolute.
        train_images: Folder of the training images.
        val_annotations: Validation annotations.
        val_images: Folder of the validation images.
        test_annotations: Test annotations; None: the test split is val.
        test_images: Folder of the test images.
        min_visibility: Minimum fraction of the box that each transform must keep; the augmentation is sampled again
            otherwise.
        crowds: ``ignore``: objects with ``iscrowd`` do not count. ``objects``: they count like all others.
        box_format: ``xywh``: x, y, width, height. ``xyxy``: two corners. ``auto``: the former; the run stops if boxes
            look like two corners.
        merge_similar_classes: Whether categories whose names differ only in case, blanks or Unicode form are one
            class; otherwise they stop the run.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files or images are missing; the message shows the expected layout.
        ValueError: A file is not in COCO's format, does not have a class, or a split has no image left.

    Batches are `LocalizationBatch`.
    """

    def __init__(
        self,
        root: str,
        objects: ObjectRule = "one",
        classes: list[str] | None = None,
        train_annotations: str = "annotations/instances_train2017.json",
        train_images: str = "train2017",
        val_annotations: str = "annotations/instances_val2017.json",
        val_images: str = "val2017",
        test_annotations: str | None = None,
        test_images: str | None = None,
        min_visibility: float = 0.0,
        crowds: Crowds = "ignore",
        box_format: BoxFormat = "auto",
        merge_similar_classes: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_choice("objects", objects, get_args(ObjectRule))
        files = (train_annotations, train_images, val_annotations, val_images, test_annotations, test_images)
        self._reader = CocoDetection(
            root,
            "detection",
            *files,
            crowds=crowds,
            box_format=box_format,
            merge_similar_classes=merge_similar_classes,
            num_workers=0,
            strict=self.strict,
        )
        self._reader.reported_as = type(self)
        self.objects, self.min_visibility = objects, min_visibility
        self._classes = None if classes is None else list(classes)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes of interest."""
        return self._reader.class_names if self._classes is None else list(self._classes)

    @property
    def category_ids(self) -> list[int]:
        """COCO's category id of each class of interest."""
        ids = self._reader.category_ids
        return [ids[index] for index in self._indices()]

    def make_source(self, split: str) -> BoxSource:
        """Return the images of a split with their one object."""
        source = self._reader.make_source(split)
        assert isinstance(source, ObjectSource)  # its task is detection
        indices = self._indices()
        where = f"{split}_annotations: {self._reader.files[split][0]}"
        return require_images(
            one_object_per_image(source, indices, self.objects), where, self.objects, self.class_names
        )

    def _indices(self) -> list[int]:
        """Return the index of each class of interest among all categories."""
        names = self._reader.class_names
        return list(range(len(names))) if self._classes is None else class_indices(self._classes, names)
