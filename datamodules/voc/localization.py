"""Pascal VOC for classification with localization: images with one object of interest."""

from functools import cached_property
from typing import get_args

from ..annotations.argument_checks import check_choice, class_indices
from ..annotations.one_box import BoxSource, ObjectRule, one_object_per_image, require_images
from ..base import LoaderOptions, Unpack, VisionDataModule
from .detection import ClassNames, VOCDetection
from .layout import Year


class VOCLocalization(VisionDataModule):
    """Images of Pascal VOC with one object of interest, or the largest of several, for localization.

    Expected layout::

        ROOT/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt    (or ROOT/VOC2007/…; VOC2012 in the same way)
        ROOT/VOCdevkit/VOC2007/Annotations/000005.xml …
        ROOT/VOCdevkit/VOC2007/JPEGImages/000005.jpg …

    or a data set of your own, as in `VOCDetection`.

    Difficult objects do not count. Boxes that cannot be used do not count either; they are left out with one warning,
    or stop the run if `strict`. Everything is read as by `VOCDetection`.

    Args:
        root: Folder that contains ``VOCdevkit``, or ``VOCdevkit`` itself, or the folder of a data set of your own.
        year: ``2007``, ``2012`` or ``07+12``, with the image sets of `VOCDetection`; None: as there.
        objects: ``one``: images with exactly one object of the classes of interest, and any others.
            ``largest``: images with any such object, and of each image the object with the largest box, the first on
            ties.
        classes: Classes of interest, in the order of their labels; None: all.
        train: Training image sets, as in `VOCDetection`; None: those of `year`.
        val: Validation image sets, in the same form.
        test: Test image sets, in the same form.
        class_names: All classes, or ``auto``, as in `VOCDetection`.
        val_fraction: Fraction of the training images held out for validation if there is no image set for it,
            determined by `seed`.
        merge_similar_classes: Whether names that differ only in case, blanks or Unicode form are one class, as in
            `VOCDetection`.
        min_visibility: Minimum fraction of the box that each transform must keep; the augmentation is sampled again
            otherwise.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files or images are missing; the message shows the expected layout.
        ValueError: An XML file is malformed (with file and line), a class is unknown, or a split has no image left.

    Batches are `LocalizationBatch`.
    """

    def __init__(
        self,
        root: str,
        year: Year | None = None,
        objects: ObjectRule = "one",
        classes: list[str] | None = None,
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
        class_names: ClassNames = None,
        min_visibility: float = 0.0,
        val_fraction: float | None = None,
        merge_similar_classes: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_choice("objects", objects, get_args(ObjectRule))
        self._reader = VOCDetection(
            root,
            year,
            train,
            val,
            test,
            class_names,
            val_fraction=val_fraction,
            merge_similar_classes=merge_similar_classes,
            num_workers=0,
            strict=self.strict,
            seed=self.seed,
        )
        self._reader.reported_as = type(self)
        self.root, self.layout = self._reader.root, self._reader.layout
        self.val_fraction = self._reader.val_fraction
        self.objects, self.min_visibility, self.classes = objects, min_visibility, classes

        if isinstance(class_names, list) or classes == []:
            class_indices(self.class_names, class_names if isinstance(class_names, list) else [])

    @cached_property
    def _labels(self) -> list[int]:
        return class_indices(self.class_names, self._reader.class_names)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes of interest."""
        return self._reader.class_names if self.classes is None else list(self.classes)

    def make_source(self, split: str) -> BoxSource:
        """Return the images of a split with their one object."""
        source = one_object_per_image(self._reader.make_source(split), self._labels, self.objects)
        held_out = split == "val" and self.val_fraction is not None
        names = [image_set.name for image_set in self.layout.image_sets("train" if held_out else split)]
        return require_images(source, f"{split}: {names}", self.objects, self.class_names)
