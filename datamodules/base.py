"""Base of the data modules: transforms, loaders, workers, and the images for ``predict``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, get_args, runtime_checkable

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from .annotations.absence import reject_absence, warn_of_absence, warn_of_absent_classes
from .annotations.argument_checks import check_choice
from .annotations.skipped_files import report_skipped
from .augmentations.multi_image import Mix
from .augmentations.pipeline import check_min_visibility
from .augmentations.resizing import sufficient_short_side
from .images.bit_depth import ReadOptions, Scale
from .images.listing import find_images, list_folder
from .loading.collate import collate, collate_objects, collate_whole
from .loading.dataset import TransformedDataset
from .loading.epoch_sampling import (
    ClassBalancedSampling,
    EpochSampling,
    RepeatFactor,
    RepeatFactorSampling,
    Sampling,
    SamplingName,
    aspect_groups,
)
from .loading.image_files import ImageFiles
from .loading.loader import ResumableLoader, default_workers, make_loader, prepare_worker
from .loading.options import LoaderOptions as LoaderOptions
from .loading.options import LoaderOptionsExceptBatchSize as LoaderOptionsExceptBatchSize
from .loading.options import ObjectOptions as ObjectOptions
from .loading.options import Transforms
from .loading.options import Unpack as Unpack
from .loading.sources import (
    HasAbsence,
    HasLabels,
    HasReadOptions,
    HasShortSide,
    Sample,
    Source,
    class_presence,
    present_classes,
    source_sizes,
)
from .proposals.attach import SampleProposals, open_for_prediction, open_proposals

STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
"""The splits that each stage needs."""


@runtime_checkable
class PreparesTrainingBatches(Protocol):
    """A task that changes training batches on the CPU, before they are moved to the device."""

    def prepare_training_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch that the task trains on."""
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
        val_transform: Albumentations transforms for validation, test and prediction. They remove no object from the
            evaluation: one of which nothing is left is missed.
        seed: Seed of the order, the augmentation and the splits.
        images: A file, folder or glob pattern for ``predict``.
        strict: Whether to stop at an unreadable image, instead of counting and skipping it.
        sampling: Sampling of the training set. ``uniform``: each sample once per epoch. ``class_balanced``: the same
            number of samples per epoch, but each class equally often, so samples of rare classes repeat, augmented
            anew each time. ``repeat_factor``: each sample at least once, samples of rare classes more often, by
            LVIS's rule and threshold; pass a `RepeatFactor` for another threshold.
        scale_16bit: How images with more than 8 bits are scaled to 8. None: they are rejected. ``full``: from 0 to the
            highest value of their bits, 65535 for 16. ``image``: from the lowest to the highest value of each image.
            ``percentile``: from the 1st to the 99.8th percentile of each image. ``[low, high]``: from `low` to `high`
            in all images, such as ``[0, 4095]`` for a camera of 12 bits or ``[-1000, 400]`` for CT.
        page: Page or frame to read of TIFF, GIF, WebP and APNG files with several, from 0. None: they are rejected.

    Attributes:
        checks_targets: Whether labels and masks are compared with the classes when a sample is read, so that no other
            code has to do it on a device.
        group_by_aspect: Whether training batches consist of images with similar aspect ratios, to reduce padding.
        proposals: File of stored proposals, for data modules that have such an argument.

    Raises:
        ValueError: An argument is out of its range.
    """

    _min_visibility: float = 0.0
    group_by_aspect: bool = False
    proposals: str | list[str] | None = None
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
        scale_16bit: Scale | list[float] | None = None,
        page: int | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size is not None and size < 1:
                raise ValueError(f"{name}: must be >= 1, got {size}")
        if seed < 0:
            raise ValueError(f"seed: must be >= 0, got {seed}")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers: must be >= 0, or null (automatic), got {num_workers}")
        if not isinstance(sampling, RepeatFactor):
            check_choice("sampling", sampling, get_args(SamplingName))
        if mixing := [type(step).__name__ for step in val_transform or () if isinstance(step, Mix)]:
            raise ValueError(
                f"val_transform: must not mix samples, since evaluation counts each once, got {mixing[0]}; move it to "
                "train_transform"
            )
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = default_workers() if num_workers is None else num_workers
        self.train_transform, self.val_transform = train_transform, val_transform
        self.seed, self.images, self.strict, self.sampling = seed, images, strict, sampling
        self.scale_16bit, self.page = scale_16bit, page
        self.read_options = ReadOptions.of(scale_16bit, page)
        self.datasets: dict[str, TransformedDataset] = {}
        self._opened: set[str] = set()
        self._train_loader: ResumableLoader | None = None
        self._resume: dict[str, int] | None = None

    @property
    def min_visibility(self) -> float:
        """Fraction of a box's area that a transform must leave in training; otherwise its object is removed."""
        return self._min_visibility

    @min_visibility.setter
    def min_visibility(self, value: float) -> None:
        self._min_visibility = check_min_visibility(value)

    # -- supplied by a subclass --------------------------------------------------------------------

    def make_source(self, split: str) -> Source | None:
        """Return the raw samples of ``train``, ``val`` or ``test``; None if the data has no such split."""
        raise NotImplementedError(f"{type(self).__name__}: implement make_source({split!r}), which returns the samples")

    def open_source(self, split: str) -> Source | None:
        """Return what `make_source` returns, with the options for reading image files (``scale_16bit``, ``page``)."""
        source = self.make_source(split)
        if isinstance(source, HasReadOptions):
            source.options = self.read_options
        return source

    def present_classes(self, source: Source) -> set[int] | None:
        """Return the classes that a training set has; None: they are not known without reading its samples."""
        return present_classes(source)

    def absence_without_difficult(self) -> str | None:
        """Return why there is nothing to train on without difficult objects; None: there is, or it is not known."""
        source = self.datasets["train"].source if "train" in self.datasets else None
        fault = source.absence() if isinstance(source, HasAbsence) else None
        return None if fault is None else str(fault)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes ``0 … K-1``."""
        raise NotImplementedError(f"{type(self).__name__}: implement class_names")

    @property
    def num_classes(self) -> int:
        """Number of classes K, the length of `class_names`."""
        return len(self.class_names)

    @property
    def variable_size_images(self) -> bool:
        """Whether a batch is a list of images that may differ in size, as for detectors, or a single tensor."""
        return False

    # -- Lightning's hooks -------------------------------------------------------------------------

    def setup(self, stage: str = "fit") -> None:
        """Open the splits that `stage` (fit, validate, test, predict) needs.

        A trainer calls it. Without a trainer the loaders call it themselves.

        Raises:
            DataError: No training sample has anything to learn from; the message says why.
        """
        for split in STAGE_SPLITS.get(stage, ()):
            if split not in self.datasets and (source := self.open_source(split)) is not None:
                if split == "train":
                    reject_absence(source)
                    unit = "image" if isinstance(source, HasLabels) else "object"
                    if (present := self.present_classes(source)) is not None:
                        missing = f"training {unit} in {type(self).__name__}"
                        warn_of_absent_classes(present, self.class_names, missing)
                else:
                    warn_of_absence(source, split)
                self.datasets[split] = self.dataset(source, split == "train", self.num_classes)
                self.datasets[split].proposals = self.open_proposals(source, split)
            self._opened.add(split)

    def dataset(self, source: Source, training: bool, num_classes: int | None = None) -> TransformedDataset:
        """Wrap a source with the transform of training or evaluation."""
        steps = self.train_transform if training else self.val_transform
        if isinstance(source, HasShortSide):
            source.short_side = sufficient_short_side(steps)
        if isinstance(source, HasReadOptions):
            source.options = self.read_options
        return TransformedDataset(
            source,
            list(steps) if steps else None,
            seed=self.seed,
            replace_unreadable=training,
            strict=self.strict,
            num_classes=num_classes,
            min_visibility=self.min_visibility,
            transform_name="train_transform" if training else "val_transform",
            keep_objects=not training,
        )

    def open_proposals(self, source: Source, split: str) -> SampleProposals | None:
        """Return the stored proposals of a split; None without ``proposals``.

        Raises:
            DataError: The file cannot be used, or belongs to another data set.
            ValueError: The task is neither detection nor instance segmentation.
        """
        if self.proposals is None:
            return None
        if not self.variable_size_images:
            raise ValueError(
                f"proposals: must be null but for detection and instance segmentation, got {self.proposals!r}; omit it"
            )
        return open_proposals(self.proposals, source, split, type(self).__name__)

    def train_dataloader(self) -> ResumableLoader:
        """Return the training loader: shuffled, augmented, with the same number of steps on each rank."""
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
        """Return the position of the training loader, which is part of each checkpoint.

        Lightning (2.6) restores the state of a loader too, but not if the loader exists already, as it does when a
        schedule asks for the number of steps; the state of the data module is restored early enough.
        """
        return {} if self._train_loader is None else {"train": self._train_loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the position where the training loader will continue."""
        self._resume = state_dict.get("train")

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        """Return the validation loader: in order, each sample once over all ranks; empty without a validation split."""
        self._open("val")
        return self._loader("val", self.eval_batch_size) if "val" in self.datasets else []

    def test_dataloader(self) -> ResumableLoader:
        """Return the test loader: in order, each sample once over all ranks."""
        return self._loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader:
        """Return the loader of the images that `images` names, after `val_transform`; batches are `PredictBatch`."""
        if self.images is None:
            raise ValueError("images: predict needs a file, a folder or a glob pattern, got null; set --data.images")
        if (folder := Path(self.images).expanduser()).is_dir():
            report_skipped([list_folder(folder)])
        files = ImageFiles(find_images(self.images))
        dataset = self.dataset(files, training=False)
        dataset.proposals = None if self.proposals is None else open_for_prediction(self.proposals, files)
        return DataLoader(
            dataset,
            batch_size=self.eval_batch_size,
            num_workers=self.num_workers,
            collate_fn=self._collate(training=False),
            worker_init_fn=prepare_worker,
        )

    def _collate(self, training: bool) -> Callable[[Sequence[Sample]], dict[str, Any]]:
        if self.variable_size_images:
            return collate_objects
        return collate if training else collate_whole

    def _open(self, split: str) -> None:
        """Open a split whose loader is requested before `setup`, as in a training loop without a trainer."""
        if split not in self._opened | self.datasets.keys():
            if self.trainer is None:
                self.prepare_data()
            self.setup({"train": "fit", "val": "validate"}.get(split, split))

    def _loader(self, split: str, batch_size: int) -> ResumableLoader:
        self._open(split)
        if split not in self.datasets:
            raise ValueError(f"{type(self).__name__} has no {split} split; add its data")
        training = split == "train"
        # augmentation of whole batches, such as MixUp, is left to on_before_batch_transfer
        return make_loader(
            self.datasets[split],
            batch_size,
            self.num_workers,
            training=training,
            seed=self.seed,
            collate_fn=self._collate(training),
            pin_memory=torch.cuda.is_available(),
            sampling=self._epoch_sampling() if training else None,
            groups=self._groups() if training and self.group_by_aspect else None,
            overfit=self.trainer is not None and self.trainer.overfit_batches > 0,  # type: ignore[attr-defined]
        )

    def _epoch_sampling(self) -> EpochSampling | None:
        if self.sampling == "uniform":
            return None
        source = self.datasets["train"].source
        if self.sampling == "class_balanced":
            return ClassBalancedSampling(class_presence(source, self.sampling))
        repeat_factor = self.sampling if isinstance(self.sampling, RepeatFactor) else RepeatFactor()
        return RepeatFactorSampling(class_presence(source, "repeat_factor"), repeat_factor.threshold)

    def _groups(self) -> np.ndarray:
        """Return the aspect group of each training image: ``[N]`` int64."""
        if not self.variable_size_images:
            raise ValueError("group_by_aspect: must be false, since the images of a batch have one size here, got true")
        return aspect_groups(source_sizes(self.datasets["train"].source))


class ObjectDataModule(VisionDataModule):
    """Base of the data modules for detection and instance segmentation.

    Args:
        min_visibility: Minimum fraction of a box's area that each transform must keep in training; objects that lose
            more are removed. Evaluation counts every object.
        group_by_aspect: Whether training batches have images of similar aspect ratio, which reduces padding.
        proposals: File of stored proposals: written by ``striate data proposals``, MATLAB's of R-CNN's author, COCO's
            JSON of results, or ``.npz``; several, if each split has one. Every sample gets its own, for detectors that
            need some (docs/regions.md).
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….
    """

    def __init__(
        self,
        min_visibility: float = 0.0,
        group_by_aspect: bool = False,
        proposals: str | list[str] | None = None,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.min_visibility, self.group_by_aspect, self.proposals = min_visibility, group_by_aspect, proposals

    @property
    def variable_size_images(self) -> bool:
        """Whether a batch is a list of images; True, since they differ in size."""
        return True
