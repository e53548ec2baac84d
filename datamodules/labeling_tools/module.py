"""Base of the data modules that read files of labeling tools."""

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, DataError
from ..annotations.argument_checks import check_choice, check_class_names
from ..annotations.objects import ObjectSource, SemanticSource
from ..base import ObjectDataModule, ObjectOptions, Unpack
from ..loading.splits import optional_val_fraction, random_split
from .drawings import Drawings

ToolTask = Literal["detection", "instance_segmentation", "semantic_segmentation"]


class LabelingToolOptions(ObjectOptions, total=False):
    """`ObjectOptions` and the options of `LabelingToolDataModule`, for a constructor's ``**kwargs``."""

    class_names: list[str] | None
    val_fraction: float | None


class LabelingToolDataModule(ObjectDataModule):
    """Base of the data modules that read files of labeling tools; a subclass supplies `read_drawings`.

    Args:
        root: The files.
        task: ``detection``; ``instance_segmentation``: with masks; ``semantic_segmentation``: the masks of an image
            merged into one, with class 0 as background, and small objects on top of large ones.
        class_names: Names of the classes; None: those of the training set, sorted.
        val_fraction: Fraction of the images to hold out for validation, drawn with `seed`, where the files have no
            validation set of their own.
        **kwargs: ``min_visibility`` and ``group_by_aspect`` of `ObjectDataModule`, and the loader options of
            `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….
    """

    def __init__(
        self,
        root: str,
        task: ToolTask = "detection",
        class_names: list[str] | None = None,
        val_fraction: float | None = None,
        **kwargs: Unpack[ObjectOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_choice("task", task, get_args(ToolTask))
        check_class_names(class_names)
        val_fraction = optional_val_fraction(val_fraction)
        self.root, self.task, self.val_fraction = Path(root).expanduser(), task, val_fraction
        self._names = class_names
        self._drawings: dict[str, Drawings | None] = {}

    def read_drawings(self, split: str) -> Drawings | None:
        """Return the images and objects of a split's own files; None if it has none."""
        raise NotImplementedError(f"{type(self).__name__}: implement read_drawings")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, preceded by the background for semantic segmentation."""
        names = list(self._names) if self._names is not None else self._of("train").labels()
        if not names:
            raise DataError(
                f"{self.root}: no object has a label, so there are no classes; set class_names, or annotate"
            )
        return ["background", *names] if self.task == "semantic_segmentation" else names

    @property
    def variable_size_images(self) -> bool:
        """Whether a batch is a list of images; False for semantic segmentation."""
        return self.task != "semantic_segmentation"

    def make_source(self, split: str) -> ObjectSource | SemanticSource:
        """Return the images of a split with their objects, or with one semantic mask each.

        Raises:
            AbsentSplitError: There are no files of this split, and none are held out for it.
        """
        drawings = self._read(split)
        if split in ("train", "val") and self._read("val") is None and self.val_fraction is not None:
            whole = self._of("train")
            held_out = random_split(len(whole.names), self.val_fraction, self.seed)
            drawings = whole.select(np.flatnonzero(held_out if split == "val" else ~held_out).tolist())
        if drawings is None:
            advice = "; set val_fraction: 0.1 to hold out a part of the images" if split == "val" else ""
            raise AbsentSplitError(f"{self.root}: no files of {split}{advice}")
        images = drawings.table()
        images.check(self.root)
        names = self.class_names[1:] if self.task == "semantic_segmentation" else self.class_names
        with_masks = self.task != "detection"
        objects = drawings.usable_objects(names, with_masks, self.strict)
        if self.task == "semantic_segmentation":
            return SemanticSource(images, objects)
        return ObjectSource(images, objects, with_masks)

    def _read(self, split: str) -> Drawings | None:
        if split not in self._drawings:
            self._drawings[split] = self.read_drawings(split)
        return self._drawings[split]

    def _of(self, split: str) -> Drawings:
        drawings = self._read(split)
        assert drawings is not None  # the training set
        return drawings
