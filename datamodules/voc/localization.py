"""Pascal VOC for classification with localization: images with one object of interest."""

from typing import get_args

from ..annotations.argument_checks import check_choice, class_indices
from ..annotations.one_box import BoxSource, Choice, one_object_each, require_images
from ..base import LoaderOptions, Unpack, VisionDataModule
from .detection import VOCDetection, Year


class VOCLocalization(VisionDataModule):
    """Pascal VOC's images with one object of interest, or the largest of several, for localization.

    Expected layout::

        ROOT/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt    (or ROOT/VOC2007/…; VOC2012 likewise)
        ROOT/VOCdevkit/VOC2007/Annotations/000005.xml …
        ROOT/VOCdevkit/VOC2007/JPEGImages/000005.jpg …

    Difficult objects do not count. Nor do boxes that cannot be used, which are left out with one warning, or stop the
    run when `strict`; all is read as `VOCDetection` reads it.

    Args:
        root: the folder of ``VOCdevkit``, or ``VOCdevkit`` itself.
        year: ``2007``, ``2012`` or ``07+12``, with the image sets of `VOCDetection`.
        objects: ``one``: images with exactly one object of the classes of interest, whatever else they show.
            ``largest``: images with any, and of each the one whose box is largest, the first of equals.
        classes: those of interest, in the order of their labels; None: all.
        train, val, test: image sets of one's own choice, ``YEAR_NAME`` each.
        class_names: all classes of another data set in this layout; None: VOC's twenty.
        min_visibility: part of the box's area that a step of augmentation must leave; it is drawn again otherwise.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when files or images are not there; the message shows that tree and what was found.
        ValueError: for malformed XML (file and line), a class that is not known, or a split of which no image is left.

    Batches are `LocalizationBatch`.
    """

    def __init__(
        self,
        root: str,
        year: Year = "07+12",
        objects: Choice = "one",
        classes: list[str] | None = None,
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
        class_names: list[str] | None = None,
        min_visibility: float = 0.0,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_choice("objects", objects, get_args(Choice))
        self._reader = VOCDetection(root, year, train, val, test, class_names, num_workers=0, strict=self.strict)
        self._reader.reported_as = type(self)
        self.objects, self.min_visibility = objects, min_visibility
        known = self._reader.class_names
        self._names = known if classes is None else list(classes)
        self._wanted = class_indices(self._names, known)

    @property
    def class_names(self) -> list[str]:
        """The classes of interest."""
        return list(self._names)

    def make_source(self, split: str) -> BoxSource:
        """The images of a split that have their one object."""
        source = one_object_each(self._reader.make_source(split), self._wanted, self.objects)
        return require_images(source, f"data.init_args.{split}: {self._reader.sets[split]}", self.objects, self._names)
