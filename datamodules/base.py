"""What every data module shares: transforms, loaders, workers, and the images given to ``predict``."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypedDict, get_args, runtime_checkable

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from .annotations.argument_checks import did_you_mean
from .augmentations.mixing import Mix, Step
from .augmentations.resizing import enough_short_side
from .images.read import find_images, read_image
from .images.sizes import source_sizes
from .loading.loader import (
    ResumableLoader,
    Source,
    TransformedDataset,
    collate,
    collate_whole,
    make_loader,
    prepare_worker,
)
from .loading.sampling import (
    BalancedDraw,
    Draw,
    Presence,
    RepeatFactor,
    RepeatFactorDraw,
    Sampling,
    SamplingName,
    aspect_groups,
)
from .loading.targets import Sample, checked_visibility, collate_objects

if TYPE_CHECKING:
    from typing import Unpack as Unpack
else:

    class Unpack:
        """`typing.Unpack` to editors and type checkers, `Any` at run time.

        jsonargparse 4.53 takes an unpacked TypedDict's keys without defaults; behind ``**kwargs: Any`` it finds the
        base's parameters, with their defaults and descriptions.
        """

        def __class_getitem__(cls, options: type) -> Any:
            return Any


Transforms = Sequence[Step]


class LoaderOptionsExceptBatchSize(TypedDict, total=False):
    """`LoaderOptions` of a data module that states its own default of ``batch_size``."""

    eval_batch_size: int | None
    num_workers: int | None
    train_transform: Transforms | None
    val_transform: Transforms | None
    seed: int
    images: str | None
    strict: bool
    sampling: Sampling


class LoaderOptions(LoaderOptionsExceptBatchSize, total=False):
    """Names and types of the keyword arguments that every data module passes on to `VisionDataModule`.

    Defaults and descriptions are `VisionDataModule`'s. A constructor takes ``**kwargs: Unpack[LoaderOptions]``, so
    editors and type checkers know the names, and calls ``super().__init__(**kwargs)``.
    """

    batch_size: int


@runtime_checkable
class PreparesTrainingBatches(Protocol):
    """A task that changes training batches on the CPU, before they are moved to the device."""

    def prepare_training_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch to train on."""
        ...


class VisionDataModule(pl.LightningDataModule):
    """Base of the data modules: a subclass supplies `make_source` and `class_names`.

    Args:
        batch_size: Training samples per step and device.
        eval_batch_size: Samples per step and device in validation, test and prediction; None: `batch_size`.
        num_workers: Loader processes per device; None: as many as the machine's cores allow, at most 8. The batches
            do not depend on it.
        train_transform: Albumentations transforms for training, in order. They may include transforms that mix
            samples (`Mosaic`, `CopyPaste`).
        val_transform: Albumentations transforms for validation, test and prediction.
        seed: Seed of the order, the augmentation and the splits.
        images: A file, folder or glob pattern for ``predict``.
        strict: Whether to stop at an unreadable image, instead of counting and skipping it.
        sampling: Sampling of the training set. ``uniform``: each sample once per epoch. ``class_balanced``: the same
            number of samples per epoch, but each class equally often, so samples of rare classes repeat, augmented
            anew each time. ``repeat_factor``: each sample at least once, samples of rare classes more often, by
            LVIS's rule and threshold; pass a `RepeatFactor` for another threshold.

    Attributes:
        checks_targets: whether labels and masks are compared with the classes where a sample is read, so that nobody
            need do it again on a device.
        group_by_aspect: make training batches of images of like shape, so that less is padded.
    """

    _min_visibility: float = 0.0
    group_by_aspect: bool = False
    checks_targets: ClassVar[bool] = True

    def __init__(
        self,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int | None = None,
        train_transform: Transforms | None = None,
        val_transform: Transforms | None = None,
        seed: int = 0,
        images: str | None = None,
        strict: bool = False,
        sampling: Sampling = "uniform",
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"data.init_args.{name}: {value} is not a number of samples; give 1 or more")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"data.init_args.num_workers: {num_workers}; give 0 (none), more, or null (automatic)")
        names = get_args(SamplingName)
        if not isinstance(sampling, RepeatFactor) and sampling not in names:
            raise ValueError(
                f"data.init_args.sampling: {sampling!r} is not one of {', '.join(names)}"
                f"{did_you_mean(str(sampling), names)}"
            )
        if mixing := [type(step).__name__ for step in val_transform or () if isinstance(step, Mix)]:
            raise ValueError(
                f"data.init_args.val_transform: {mixing[0]} makes one sample of several, but evaluation counts each "
                "sample once; move it to train_transform"
            )
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = automatic_workers() if num_workers is None else num_workers
        self.train_transform, self.val_transform = train_transform, val_transform
        self.seed, self.images, self.strict, self.sampling = seed, images, strict, sampling
        self.datasets: dict[str, TransformedDataset] = {}
        self._train_loader: ResumableLoader | None = None
        self._resume: dict[str, int] | None = None

    @property
    def min_visibility(self) -> float:
        """Part of a box's area that a step of augmentation must leave, or its object is removed."""
        return self._min_visibility

    @min_visibility.setter
    def min_visibility(self, value: float) -> None:
        self._min_visibility = checked_visibility(value)

    # -- what a subclass supplies ------------------------------------------------------------------

    def make_source(self, split: str) -> Source | None:
        """The raw samples of ``train``, ``val`` or ``test``; None where the data has no such split."""
        raise NotImplementedError(f"{type(self).__name__} must say where the samples of {split!r} come from")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes ``0 … K-1``."""
        raise NotImplementedError(f"{type(self).__name__} must name its classes")

    @property
    def lists_images(self) -> bool:
        """Whether a batch is a list of images that may differ in size, as detectors take it, or one tensor."""
        return False

    # -- Lightning's hooks -------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Open the splits that `stage` (fit, validate, test, predict) needs."""
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ()):
            if split not in self.datasets and (source := self.make_source(split)) is not None:
                self.datasets[split] = self.dataset(source, split == "train", len(self.class_names))

    def dataset(self, source: Source, training: bool, num_classes: int | None = None) -> TransformedDataset:
        """`source` behind the transform of training or of evaluation."""
        steps = self.train_transform if training else self.val_transform
        if hasattr(source, "short_side"):
            source.short_side = enough_short_side(steps)
        return TransformedDataset(
            source,
            list(steps) if steps else None,
            seed=self.seed,
            replace_unreadable=training,
            strict=self.strict,
            num_classes=num_classes,
            min_visibility=self.min_visibility,
        )

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled, augmented, the same number of steps on each rank."""
        self._train_loader = self._loader("train", self.batch_size)
        if self._resume is not None:
            self._train_loader.load_state_dict(self._resume)
            self._resume = None
        return self._train_loader

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Let the task prepare a training batch on the CPU (`PreparesTrainingBatches`)."""
        task = self.trainer.lightning_module if self.trainer and self.trainer.training else None
        return task.prepare_training_batch(batch) if isinstance(task, PreparesTrainingBatches) else batch

    def state_dict(self) -> dict[str, Any]:
        """How far the training loader has come; part of each checkpoint.

        Lightning restores a loader's own state too, but not when the loader was made before, as it is when a
        schedule asks for the number of steps (2.6); what the data module holds is restored in time.
        """
        return {} if self._train_loader is None else {"train": self._train_loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember where the training loader is to continue."""
        self._resume = state_dict.get("train")

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        """In order, each sample once over all ranks; empty where the data has no validation split."""
        return self._loader("val", self.eval_batch_size) if "val" in self.datasets else []

    def test_dataloader(self) -> ResumableLoader:
        """In order, each sample once over all ranks."""
        return self._loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader:
        """The images that `images` names, after `val_transform`; batches are `PredictBatch`."""
        if self.images is None:
            raise ValueError(
                "predict needs images, a file, a folder or a glob pattern: set the data module's argument `images` "
                "(--data.images)"
            )
        dataset = self.dataset(ImageFiles(find_images(self.images)), training=False)
        return DataLoader(
            dataset,
            batch_size=self.eval_batch_size,
            num_workers=self.num_workers,
            collate_fn=self._collate(training=False),
            worker_init_fn=prepare_worker,
        )

    def _collate(self, training: bool) -> Callable[[Sequence[Sample]], dict[str, Any]]:
        if self.lists_images:
            return collate_objects
        return collate if training else collate_whole

    def _loader(self, split: str, batch_size: int) -> ResumableLoader:
        if split not in self.datasets:
            raise ValueError(f"{type(self).__name__} has no {split} split here")
        training = split == "train"
        # cutting and mixing batches is training's affair; on_before_batch_transfer is free for it
        return make_loader(
            self.datasets[split],
            batch_size,
            self.num_workers,
            training=training,
            seed=self.seed,
            collate_fn=self._collate(training),
            pin_memory=torch.cuda.is_available(),
            draw=self._draw() if training else None,
            groups=self._groups() if training and self.group_by_aspect else None,
            same=getattr(self.trainer, "overfit_batches", 0) > 0,
        )

    def _draw(self) -> Draw | None:
        if self.sampling == "uniform":
            return None
        if self.sampling == "class_balanced":
            return BalancedDraw(self._presence())
        given = self.sampling if isinstance(self.sampling, RepeatFactor) else RepeatFactor()
        return RepeatFactorDraw(self._presence(), given.threshold)

    def _presence(self) -> Presence:
        """Which classes each training sample has: a source says it in ``presence()``, or in an array ``labels``."""
        source = self.datasets["train"].source
        if (presence := getattr(source, "presence", None)) is not None:
            return presence()
        if (labels := getattr(source, "labels", None)) is not None:
            return Presence.of_labels(labels)
        name = self.sampling if isinstance(self.sampling, str) else type(self.sampling).__name__
        raise ValueError(
            f"data.init_args.sampling: {name} needs the class of each sample beforehand, and {type(source).__name__} "
            f"of {type(self).__name__} has neither an array `labels` nor a method `presence`; set sampling: uniform"
        )

    def _groups(self) -> np.ndarray:
        if not self.lists_images:
            raise ValueError(
                "data.init_args.group_by_aspect: the images of a batch have one size here, there is nothing to group; "
                "set group_by_aspect: false"
            )
        return aspect_groups(source_sizes(self.datasets["train"].source))


class ImageFiles:
    """Images by path, without truth: the source behind ``predict``.

    Args:
        paths: the files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = read_image(self.paths[index])
        height, width = image.shape[:2]
        corners = np.array([(0, 0), (width, 0), (0, height)], np.float32)
        size = np.array([height, width])
        return {"image": image, "path": str(self.paths[index]), "file_size": size, "corners": corners}


def automatic_workers() -> int:
    """Loader processes for one device: its share of the usable cores less one for the training itself, 1 to 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or 1)
    return max(1, min(8, cores // ranks - 1))
