"""DigitScenes: a data set without a download. Real digits on real photographs, composed on the fly."""

from typing import Any, Literal, get_args

import numpy as np

from ..annotations.argument_checks import check_choice
from ..base import LoaderOptionsExceptBatchSize, Unpack, VisionDataModule
from .compose import SEMANTIC_CLASS_NAMES, SceneComposer
from .sources import CLASS_NAMES, SPLITS

SceneTask = Literal["classification", "localization", "semantic_segmentation", "detection", "instance_segmentation"]

_ONE_DIGIT = ("classification", "localization")
_VARIABLE_SIZE = ("detection", "instance_segmentation")
_MIN_HEIGHT = 8.0  # of a readable digit, in pixels


class DigitScenes(VisionDataModule):
    """Handwritten digits on photographs, for each of the five tasks.

    The digits are UCI's (scikit-learn's ``load_digits``, 1,797), the photographs scikit-learn's
    ``load_sample_images``. Scenes are composed of them, deterministically in (seed, index), and the three splits share
    neither a digit nor a region of a photograph. Nothing is downloaded.

    With equal parameters, all tasks use the same scenes, and their targets are consistent.

    Args:
        task: Task that determines the targets of a batch.
        image_size: Side of the square scenes, in pixels.
        train_size: Number of training scenes.
        val_size: Number of validation scenes.
        test_size: Number of test scenes.
        min_digits: Minimum number of digits in a scene; None: 1.
        max_digits: Maximum number of digits in a scene; None: 1 for classification and localization, which allow no
            other number, and 4 for the other tasks.
        scale: Minimum and maximum height of a digit, as a fraction of the scene's side; None: (0.4, 0.8) for one digit
            per scene, (0.2, 0.5) for the other tasks, at least 8 pixels.
        contrast: Minimum difference in luminance (0 to 127) between a digit and what it covers.
        occlusion: Maximum fraction of a digit that later digits may cover.
        empty_fraction: Fraction of the scenes, drawn by seed and index, that show a photograph without digits; not for
            classification and localization.
        proposals: File of stored proposals of these scenes, for detection and instance segmentation; see
            `ObjectDataModule`.
        batch_size: Training samples per step and device.
        **kwargs: Loader options of `VisionDataModule`: ``eval_batch_size``, ``seed``, ``train_transform``, ….

    Batches: `ClassificationBatch`, `LocalizationBatch`, `SemanticSegmentationBatch` (class 0 is the background, 1 to
    10 the digits), `DetectionBatch`, `InstanceSegmentationBatch` (masks of the visible parts, which are disjoint).

    Raises:
        ValueError: A parameter is out of its range.
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
        proposals: str | list[str] | None = None,
        batch_size: int = 64,
        **kwargs: Unpack[LoaderOptionsExceptBatchSize],
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        check_choice("task", task, get_args(SceneTask))
        self.task, self.image_size = task, image_size
        one = task in _ONE_DIGIT
        self.digits = (min_digits or 1, max_digits or max(min_digits or 1, 1 if one else 4))
        if one and self.digits != (1, 1):
            raise ValueError(
                f"max_digits: must be 1 for {task}, got {self.digits[0]} to {self.digits[1]}; omit min_digits and "
                "max_digits, or set task: detection"
            )
        if not 0 <= empty_fraction < 1 or (one and empty_fraction):
            raise ValueError(f"empty_fraction: must be {f'0 for {task}' if one else 'in [0, 1)'}, got {empty_fraction}")
        if scale is None:
            scale = (0.4, 0.8) if one else (min(max(0.2, _MIN_HEIGHT / image_size), 0.5), 0.5)
        self.scale, self.contrast, self.occlusion, self.empty_fraction = scale, contrast, occlusion, empty_fraction
        self.proposals = proposals
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for split, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"{split}_size: must be >= 1, got {size}")

    @property
    def class_names(self) -> list[str]:
        """The ten digits, preceded by the background for semantic segmentation."""
        return list(SEMANTIC_CLASS_NAMES if self.task == "semantic_segmentation" else CLASS_NAMES)

    @property
    def variable_size_images(self) -> bool:
        """Whether the task is detection or instance segmentation."""
        return self.task in _VARIABLE_SIZE

    def make_source(self, split: str) -> "SceneSource":
        """Return the source of a split's scenes."""
        composer = SceneComposer(
            split,
            image_size=self.image_size,
            min_digits=self.digits[0],
            max_digits=self.digits[1],
            scale=self.scale,
            contrast=self.contrast,
            occlusion=self.occlusion,
            seed=self.seed,
        )
        composer(0)  # load digits and photographs now, once, for all workers
        return SceneSource(composer, self.sizes[split], self.task, self.empty_fraction)


class SceneSource:
    """The first `size` scenes of a composer, with the targets of one task.

    Args:
        composer: Composes the scenes.
        size: Number of scenes.
        task: One of the five tasks.
        empty_fraction: Fraction of scenes without digits.
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
        # a separate random sequence, so that the choice of empty scenes does not change the others
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
