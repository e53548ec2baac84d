"""The stages of R-CNN and SPP-net after the network's training: features, SVMs, box regression."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ..datamodules.base import VisionDataModule
from ..datamodules.loading.collate import collate_objects
from ..datamodules.loading.fingerprint import fingerprint
from ..datamodules.loading.loader import prepare_worker
from ..models.detection import SVMDetector
from ..models.detection.two_stage.proposal_detector import HOW_TO_STORE
from ..models.detection.two_stage.region_boxes import BoxRegression, select_pairs, train_box_regression
from ..models.detection.two_stage.region_svms import SVMs, train_svms
from .detection import Detection
from .region_store import IMAGES_PER_PART, RegionRecord, RegionStore, StoredRegions

Report = Callable[[str], None]


def has_stages(task: object) -> TypeGuard[Detection]:
    """Whether the model of a task is trained in stages, as a `striate.models.SVMDetector`."""
    return isinstance(task, Detection) and isinstance(task.model, SVMDetector)


class RegionStageTrainer:
    """Trains the SVMs and the box regression of a task's model on the regions of a training set.

    Results of each stage are files in a folder. A new trainer in the same folder continues where an interrupted one was
    stopped, unless network, data or settings have changed.

    Args:
        task: The task, whose model is a `striate.models.SVMDetector` with a trained network.
        data: Its data module, with stored proposals.
        folder: Folder of the files.
        half_precision: Whether features are stored in float16.
        limit: Maximum number of training images. None: all.
        report: Called with a line of text at each stage.
        check: Called between images and classes; may raise to interrupt.
        forward_context: Creates the context of forward passes, such as autocast.

    Attributes:
        results: Duration of each stage in seconds, number of regions, and size on disk in bytes.
    """

    def __init__(
        self,
        task: Detection,
        data: VisionDataModule,
        folder: Path,
        half_precision: bool = False,
        limit: int | None = None,
        report: Report = print,
        check: Callable[[], None] = lambda: None,
        forward_context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        assert isinstance(task.model, SVMDetector)
        self.task, self.model, self.data = task, task.model, data
        self.report, self.check, self.forward_context = report, check, forward_context
        trained_on = data.datasets["train"]
        self.dataset = data.dataset(trained_on.source, training=False, num_classes=data.num_classes)
        self.dataset.proposals = trained_on.proposals
        count = len(self.dataset) if limit is None else min(limit, len(self.dataset))
        self.store = RegionStore(folder, count, self._fingerprint(half_precision, count), half_precision)
        self.results: dict[str, float] = {}

    def run(self) -> None:
        """Run all stages, and put their results into the model.

        Raises:
            OSError: The disk is full.
            ValueError: The training set has no objects or no stored proposals, or features are NaN or infinite.
        """
        if self.store.discarded:
            self.report("Stored features of regions are of another network, other data or settings: removed")
        self.model.reset_stages()
        with self._timed("features"):
            self._store_features()
        regions = self.store.index()
        self.results |= {"regions": regions.region_count(), "disk_bytes": self.store.size}
        norms = regions.mean_norms()
        with self._timed("svms"):
            svms = self._stage("svms", asdict(self.model.svms), lambda: self._train_svms(regions, norms[0]))
        with self._timed("boxes"):
            boxes = self._stage("boxes", asdict(self.model.boxes), lambda: self._train_boxes(regions, norms[1]))
        self.model.set_svms(SVMs(**svms))
        self.model.set_box_regression(BoxRegression(**boxes))

    def _timed(self, name: str) -> "_Timer":
        return _Timer(self.results, f"{name}_seconds")

    # -- features ----------------------------------------------------------------------------------

    def _store_features(self) -> None:
        """Store the features of the parts that are missing."""
        first = self.store.complete_parts
        if first == self.store.parts:
            self.report(f"Stage 1 of 3: the features of {self.store.count:,} images are stored already")
            return
        resumed = f", from image {first * IMAGES_PER_PART:,} on" if first else ""
        self.report(f"Stage 1 of 3: storing the features of the regions of {self.store.count:,} images{resumed}")
        for part, records in self._parts(first):
            self.store.add(part, records)

    def _parts(self, first: int) -> Iterator[tuple[int, list[RegionRecord]]]:
        """The records of each part, from the first missing one on."""
        indices = range(first * IMAGES_PER_PART, self.store.count)
        part, records = first, list[RegionRecord]()
        for batch in self._loader(indices):
            for index, record in self._records(batch):
                while index // IMAGES_PER_PART > part:
                    yield part, records
                    part, records = part + 1, []
                records.append(record)
        while part < self.store.parts:  # unreadable images may leave parts empty
            yield part, records
            part, records = part + 1, []

    def _loader(self, indices: Sequence[int]) -> DataLoader[Any]:
        """Loads training images in order, transformed as in evaluation."""
        return DataLoader(
            Subset(self.dataset, indices),
            batch_size=self.data.eval_batch_size,
            num_workers=self.data.num_workers,
            collate_fn=collate_objects,
            worker_init_fn=prepare_worker,
        )

    def _records(self, batch: Mapping[str, Any]) -> Iterator[tuple[int, RegionRecord]]:
        """The index and the record of each readable image of a batch."""
        self.task.unreadable.add(batch)
        if not len(batch["image"]):
            return
        if "proposals" not in batch:
            raise ValueError(f"proposals: the training images have none; {HOW_TO_STORE}")
        targets = self.task.prepare_training_batch({"target": batch["target"]})["target"]
        for image, target, proposals, index in zip(
            batch["image"], targets, batch["proposals"], batch["index"].tolist(), strict=True
        ):
            self.check()
            yield index, self._record(image, target, proposals[: self.model.proposer.max_proposals])

    def _record(self, image: Tensor, target: Mapping[str, Tensor], proposals: Tensor) -> RegionRecord:
        """The record of an image ``[3, H, W]`` with proposals ``[P, 4]``."""
        visible = (target["boxes"][:, 2:] > target["boxes"][:, :2]).all(1)  # a transform may have removed an object
        objects, labels = target["boxes"][visible], target["labels"][visible]
        with self.forward_context():
            found = self.model.extract(image.to(self.task.device), torch.cat([objects, proposals]))
        features, pooled = (values.float().cpu().numpy() for values in (found.features, found.pooled))
        if not np.isfinite(features).all() or not np.isfinite(pooled).all():
            raise ValueError(
                "features: must be finite, got NaN or infinite ones; lower the learning rate of the network"
            )
        if (
            self.store.dtype == np.float16
            and max(np.abs(features).max(initial=0), np.abs(pooled).max(initial=0)) > 65504
        ):
            raise ValueError("half_precision: must be false, since a feature exceeds the range of float16, got true")
        pairs = select_pairs(objects, labels, proposals, self.model.boxes)
        norms = (float(np.linalg.norm(features, axis=1).sum()), float(np.linalg.norm(pooled, axis=1).sum()))
        rows = (pairs.rows + len(objects)).numpy()
        return RegionRecord(objects, labels, proposals, features, pooled[rows], pairs, norms)

    # -- SVMs and boxes ----------------------------------------------------------------------------

    def _stage(self, name: str, settings: dict[str, Any], train: Callable[[], Any]) -> dict[str, Any]:
        """The result of a stage from its file or, if there is none for these settings, from training."""
        key = json.dumps(settings, sort_keys=True)
        path = self.store.folder / f"{name}.pt"
        if path.is_file():
            stored: dict[str, Any] = torch.load(path, weights_only=True)
            if stored["settings"] == key:
                self.report(f"{name}: trained already")
                return stored["result"]
        result: dict[str, Any] = train()._asdict()
        with self.store.write(path.name) as file:
            torch.save({"settings": key, "result": result}, file)
        return result

    def _train_svms(self, regions: StoredRegions, norm: float) -> SVMs:
        self.report(f"Stage 2 of 3: training {self.model.num_classes} SVMs on {regions.region_count():,} regions")
        svms = train_svms(regions, self.model.num_classes, self.model.svms, norm, lambda _: self.check())
        names = self.task.class_names or [str(label) for label in range(self.model.num_classes)]
        if svms.not_converged:
            classes = ", ".join(names[label] for label in svms.not_converged)
            self.report(f"The SVMs of {classes} have not converged in 10,000 iterations; their scores are approximate")
        return svms

    def _train_boxes(self, regions: StoredRegions, norm: float) -> BoxRegression:
        self.report("Stage 3 of 3: training the box regression")
        model = self.model
        regression = train_box_regression(
            regions.pooled(),
            regions.pairs(),
            model.num_classes,
            model.box_weight.shape[1],
            norm,
            model.boxes,
            lambda _: self.check(),
        )
        if not int(regression.pairs.sum()):
            self.report(f"No proposal has an IoU above {model.boxes.min_iou} with an object: boxes stay as proposed")
        return regression

    # -- what the files belong to ------------------------------------------------------------------

    def _fingerprint(self, half_precision: bool, count: int) -> str:
        """A hash of the network's weights, of the arguments of model and data, and of which images and proposals."""
        digest = hashlib.sha256()
        buffers = set(self.model.stage_buffers)
        for name, tensor in self.model.state_dict().items():
            if name not in buffers:
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        for owner in (self.model, self.data):
            digest.update(repr(_plain_values(owner)).encode())
        digest.update(fingerprint(self.dataset.source).encode())
        files = self.data.proposals or []
        for path in [files] if isinstance(files, str) else files:
            state = Path(path).stat()
            digest.update(repr((state.st_size, state.st_mtime_ns)).encode())
        parts = (half_precision, count, self.data.class_names, asdict(self.model.proposer), asdict(self.model.boxes))
        digest.update(repr((parts, repr(self.data.val_transform), self.task.train_on_difficult)).encode())
        return digest.hexdigest()


class _Timer:
    """Adds the duration of a context to a dictionary, in seconds."""

    def __init__(self, results: dict[str, float], name: str) -> None:
        self.results, self.name = results, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.results[self.name] = round(time.perf_counter() - self.start, 3)


_VOLATILE = {"batch_size", "eval_batch_size", "num_workers", "images", "training", "use_svms", "use_box_regression"} | {
    "score_threshold", "svm_threshold", "nms_iou", "max_detections", "regions_at_once"
}  # fmt: skip
"""Attributes of models and data modules that have no influence on stored features."""


def _plain_values(owner: object) -> dict[str, Any]:
    """The public attributes of an object that are plain values and have an influence on stored features."""
    kinds = (str, int, float, bool, tuple, list, type(None))
    return {
        name: value
        for name, value in sorted(vars(owner).items())
        if isinstance(value, kinds) and not name.startswith("_") and name not in _VOLATILE
    }
