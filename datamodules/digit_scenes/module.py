"""DigitScenes: the data set that is always there. Real digits on real photographs, composed on the fly."""

from typing import Any, Literal, get_args

import numpy as np

from ..annotations.argument_checks import did_you_mean
from ..base import LoaderOptionsExceptBatchSize, Unpack, VisionDataModule
from .compose import CLASS_NAMES, SEMANTIC_CLASS_NAMES, SPLITS, SceneComposer

SceneTask = Literal["classification", "localization", "semantic_segmentation", "detection", "instance_segmentation"]

_ONE_DIGIT = ("classification", "localization")
_LISTS = ("detection", "instance_segmentation")
_SMALLEST = 8.0  # pixels that a readable digit is high


class DigitScenes(VisionDataModule):
    """Handwritten digits on photographs, for each of the five tasks (DESIGN, "Data that is always there").

    The digits are UCI's (scikit-learn's ``load_digits``, 1,797), the photographs scikit-learn's
    ``load_sample_images``; each scene is composed of them, deterministically in (seed, index), and the three splits
    share neither a digit nor a region of a photograph. Nothing is downloaded.

    With the same parameters two tasks see the same scenes: their targets are views of one truth, and agree.

    Args:
        task: which targets the batches hold.
        image_size: side of the square scenes, pixels.
        train_size, val_size, test_size: number of scenes.
        min_digits, max_digits: fewest and most digits of a scene; None: 1 for classification and localization, where
            there is no other choice, and 1 to 4 for the other tasks.
        scale: smallest and largest height of a digit, as a fraction of the scene's side; None: (0.4, 0.8) for one
            digit a scene, (0.2, 0.5) for the other tasks, of at least 8 pixels.
        contrast: least difference in luminance (0 to 127) between a digit and what it covers.
        occlusion: largest fraction of a digit that later digits may cover.
        empty_fraction: part of the scenes, drawn by seed and number, that show a photograph and no digit; not for
            classification and localization.
        batch_size: Training samples per step and device.
        **kwargs: Loader options of `VisionDataModule`: ``eval_batch_size``, ``seed``, ``train_transform``, ….

    Batches: `ClassificationBatch`, `LocalizationBatch`, `SemanticSegmentationBatch` (class 0 is the background, 1 to
    10 the digits), `DetectionBatch`, `InstanceSegmentationBatch` (masks of the visible parts, which are disjoint).

    Raises:
        ValueError: for a parameter out of its range; the message names it and the range.
    """

    def __init__(
        self,
        task: SceneTask = "classification",
        image_size: int = 64,
        train_size: int = 8000,
        val_size: int = 1000,
        test_size: int = 1000,
        min_digits: int | None = None,
        max_digits: int | None = None,
        scale: tuple[float, float] | None = None,
        contrast: float = 60.0,
        occlusion: float = 0.3,
        empty_fraction: float = 0.0,
        batch_size: int = 64,
        **kwargs: Unpack[LoaderOptionsExceptBatchSize],
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        if task not in get_args(SceneTask):
            raise ValueError(
                f"data.init_args.task: {task!r} is not one of {', '.join(get_args(SceneTask))}"
                f"{did_you_mean(str(task), get_args(SceneTask))}"
            )
        self.task, self.image_size = task, image_size
        one = task in _ONE_DIGIT
        self.digits = (min_digits or 1, max_digits or max(min_digits or 1, 1 if one else 4))
        if one and self.digits != (1, 1):
            raise ValueError(
                f"data.init_args.max_digits: {task} is for scenes of one digit, not {self.digits[0]} to "
                f"{self.digits[1]}; leave min_digits and max_digits out, or set task: detection"
            )
        if not 0 <= empty_fraction < 1 or (one and empty_fraction):
            raise ValueError(
                f"data.init_args.empty_fraction: {empty_fraction} is not a part of the scenes, from 0 to below 1"
                + (f", and for {task} each scene has its digit: 0" if one else "")
            )
        if scale is None:
            scale = (0.4, 0.8) if one else (min(max(0.2, _SMALLEST / image_size), 0.5), 0.5)
        self.scale, self.contrast, self.occlusion, self.empty_fraction = scale, contrast, occlusion, empty_fraction
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for split, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"data.init_args.{split}_size: {size} is not a number of scenes; give 1 or more")

    @property
    def class_names(self) -> list[str]:
        """The ten digits; before them, for semantic segmentation, the background."""
        return list(SEMANTIC_CLASS_NAMES if self.task == "semantic_segmentation" else CLASS_NAMES)

    @property
    def variable_size_images(self) -> bool:
        """Whether the task is a detector's."""
        return self.task in _LISTS

    def make_source(self, split: str) -> "SceneSource":
        """The scenes of a split."""
        composer = SceneComposer(
            split,
            size=self.image_size,
            min_digits=self.digits[0],
            max_digits=self.digits[1],
            min_scale=self.scale[0],
            max_scale=self.scale[1],
            contrast=self.contrast,
            max_occlusion=self.occlusion,
            seed=self.seed,
        )
        composer(0)  # reads digits and photographs here, once, for all workers to share
        return SceneSource(composer, self.sizes[split], self.task, self.empty_fraction)


class SceneSource:
    """The first `size` scenes of a composer, seen as one task sees them.

    Args:
        composer: makes the scenes.
        size: how many of them.
        task: one of the five.
        empty_fraction: part of them without digits.
    """

    def __init__(
        self,
        composer: SceneComposer,
        size: int,
        task: SceneTask = "classification",
        empty_fraction: float = 0.0,
    ) -> None:
        self.composer, self.size, self.task, self.empty_fraction = composer, size, task, empty_fraction

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.empty_fraction and self._is_empty(index):
            return self._empty(index)
        scene = self.composer(index)
        if self.task == "classification":
            return {"image": scene.image, "label": int(scene.labels[0])}
        if self.task == "localization":
            return {"image": scene.image, "label": int(scene.labels[0]), "box": scene.boxes[0]}
        if self.task == "semantic_segmentation":
            return {"image": scene.image, "mask": scene.semantic}
        sample = {"image": scene.image, "boxes": scene.boxes, "labels": scene.labels, "image_id": index}
        sample["area"] = scene.masks.sum(axis=(1, 2), dtype=np.float32)
        return sample | ({"masks": scene.masks.view(np.uint8)} if self.task == "instance_segmentation" else {})

    def _is_empty(self, index: int) -> bool:
        # a sequence of its own: which scenes are empty changes nothing in those that are not
        key = (SPLITS.index(self.composer.split), index, 1)
        draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.composer.seed, spawn_key=key)))
        return bool(draw.random() < self.empty_fraction)

    def _empty(self, index: int) -> dict[str, Any]:
        image, _ = self.composer.layers(index)
        size = image.shape[:2]
        if self.task == "semantic_segmentation":
            return {"image": image, "mask": np.zeros(size, np.uint8)}
        sample = {"image": image, "boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}
        masks = {"masks": np.zeros((0, *size), np.uint8)} if self.task == "instance_segmentation" else {}
        return {**sample, **masks, "image_id": index}
