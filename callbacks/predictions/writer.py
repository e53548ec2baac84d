"""The callback that writes predictions: a table of all images, files for evaluation, and plots."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader

from ...datamodules import TransformedDataset
from ...datamodules.images.bit_depth import ReadOptions
from ...datamodules.images.read import ImageError, read_image
from ...datamodules.loading.sources import HasFiles
from ...tasks import Task
from ..drawing.overlays import check_drawing
from ..tracking.logging import run_folder
from .base import BoxWriter, OverlayWriter, TaskWriter, file_size
from .detection import DetectionWriter
from .instances import InstanceWriter
from .masks import MaskWriter

WRITERS: dict[str, Any] = {
    "classification": TaskWriter,
    "localization": BoxWriter,
    "semantic_segmentation": MaskWriter,
    "detection": DetectionWriter,
    "instance_segmentation": InstanceWriter,
}
"""`Task.kind` -> writer of its predictions."""

TABLES = ("predictions", "counts")
"""Names of the tables, without their suffix."""


class PredictionWriter(BasePredictionWriter):
    """Writes ``predictions.csv`` and annotated plots; masks too for segmentation, and for detection more files.

    Detection: ``predictions.csv`` has one row per object, ``counts.csv`` one row per image with the number of objects
    of each class. Both have the objects that plots show; COCO's ``detections.json`` has all.

    The task's kind selects the writer, which defines the columns: `TaskWriter` for classification, `BoxWriter` for
    localization, `MaskWriter` for semantic segmentation, `DetectionWriter` for detection, `InstanceWriter` for instance
    segmentation.

    Each batch is written when it is done, so that an interrupted run keeps its results. Under DDP each rank writes its
    share, and the first rank merges them at the end.

    Args:
        pictures: Draw annotated plots.
        side: Longer side of a plot in pixels; strips may be longer, to remain legible. None: 448, and up to 896 for an
            image with many small objects.
        score_threshold: Minimum score of the objects in the tables and plots; None: all that the task predicts if its
            own ``score_threshold`` is above 0, else 0.5. If no object of an image has it, the plot shows the best three
            in paler colors.
        labels: Write class and score at each box.
        samples: Indices of the images that get a plot, in the order of the images; None: all.

    Raises:
        ValueError: `side` is below 32, `score_threshold` not in [0, 1], or an index negative.
    """

    def __init__(
        self,
        pictures: bool = True,
        side: int | None = None,
        score_threshold: float | None = None,
        labels: bool = True,
        samples: Sequence[int] | None = None,
    ) -> None:
        super().__init__(write_interval="batch")
        check_drawing(side, score_threshold, samples)
        self.pictures, self.side, self.score_threshold, self.labels = pictures, side, score_threshold, labels
        self.samples = None if samples is None else set(samples)
        self._count = 0

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Select the writer and start the table of this rank.

        Raises:
            TypeError: There is no writer for the task.
        """
        if not isinstance(pl_module, Task) or pl_module.kind not in WRITERS:
            raise TypeError(
                f"PredictionWriter: must be used with a task whose kind is one of {', '.join(WRITERS)}, got "
                f"{type(pl_module).__name__}; set its attribute kind, or remove the callback"
            )
        self._folder = run_folder(trainer)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._count = 0
        self._started: set[str] = set()  # tables with a header
        paths = image_paths(trainer.predict_dataloaders)
        self._writer: TaskWriter = WRITERS[pl_module.kind](pl_module, self._folder, trainer.global_rank, paths)
        if self.score_threshold is not None:
            self._writer.min_score = self.score_threshold
        if isinstance(self._writer, OverlayWriter):
            self._writer.labels = self.labels
        for name in TABLES:
            self._table(trainer, name, trainer.global_rank).unlink(missing_ok=True)

    def _table(self, trainer: pl.Trainer, name: str, rank: int) -> Path:
        return self._folder / (f"{name}.csv" if trainer.world_size == 1 else f"{name}.rank{rank}.csv")

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the rows of a batch, and draw its plots."""
        if not prediction:
            return
        rows: list[tuple[int, list[Any]]] = []
        counts: list[tuple[int, list[Any]]] = []
        for position, fields in enumerate(prediction):
            path, index = batch["path"][position], int(batch["index"][position])
            rows += [(index, row) for row in self._writer.rows(path, index, fields, file_size(batch, position))]
            counts.append((index, self._writer.counts(path, fields)))
            self._count += 1
            if self.pictures and (self.samples is None or index in self.samples):
                self._draw(trainer, path, index, fields)
        self._append(trainer, "predictions", self._writer.header(prediction[0]), rows)
        if header := self._writer.count_header():
            self._append(trainer, "counts", header, counts)

    def _append(self, trainer: pl.Trainer, name: str, header: list[str], rows: list[tuple[int, list[Any]]]) -> None:
        """Append rows to a table of this rank; one of several ranks begins its rows with the index of the image."""
        with self._table(trainer, name, trainer.global_rank).open("a", newline="", encoding="utf-8") as file:
            table, alone = csv.writer(file), trainer.world_size == 1
            if name not in self._started:
                table.writerow(header if alone else ["index", *header])
                self._started.add(name)
            table.writerows(row if alone else [index, *row] for index, row in rows)

    def _draw(self, trainer: pl.Trainer, path: str, index: int, prediction: dict[str, Any]) -> None:
        try:
            data = getattr(trainer, "datamodule", None)  # loaders alone may have been passed
            image = read_image(path, options=getattr(data, "read_options", ReadOptions()))
        except ImageError:
            return  # the file has changed since it was predicted; its row is written
        target = self._folder / "pictures" / f"{index:05d}_{Path(path).stem}.png"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(self._writer.draw(image, Path(path).name, prediction, self.side)).save(target)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Merge the files of all ranks, and log the number of images and of unreadable files.

        Raises:
            ValueError: No file could be read.
        """
        assert isinstance(pl_module, Task)
        unreadable = pl_module.unreadable.gather(trainer.world_size)
        count = self._count
        if trainer.world_size > 1:
            trainer.strategy.barrier()
            count = int(trainer.strategy.reduce(torch.tensor(count, device=pl_module.device), reduce_op="sum"))
            if trainer.is_global_zero:
                for name in TABLES:
                    self._join(trainer, name)
        if unreadable and not count:
            path, reason = next(iter(unreadable.items()))
            raise ValueError(
                f"images: must have a readable image, got {len(unreadable)} unreadable file(s), the first: {path}: "
                f"{reason}"
            )
        if trainer.is_global_zero:
            self._writer.join()
        beside = ("counts.csv", "detections.json", "instances", "instances.csv", "masks", "pictures")
        others = [name for name in beside if (self._folder / name).exists()]
        files = f": {self._folder / 'predictions.csv'}" + (f", with {', '.join(others)} beside it" if others else "")
        rank_zero_info(f"\nPredicted {count} image(s){files if count else ''}")
        for path, reason in list(unreadable.items())[:20]:
            rank_zero_info(f"  unreadable: {path}: {reason}")
        if unreadable:
            rank_zero_info(f"Skipped {len(unreadable)} image(s) that could not be read.")

    def _join(self, trainer: pl.Trainer, name: str) -> None:
        """Merge a table of all ranks into one, in the order of the images, as a single process writes it."""
        header: list[str] = []
        rows: list[list[str]] = []
        for rank in range(trainer.world_size):
            path = self._table(trainer, name, rank)
            if path.is_file():  # a rank without images has no file
                with path.open(newline="", encoding="utf-8") as file:
                    header, *rank_rows = list(csv.reader(file))
                rows += rank_rows
                path.unlink()
        if not header:
            return
        rows.sort(key=lambda row: int(row[0]))  # stable, so that the rows of an image stay in order
        with (self._folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(row[1:] for row in [header, *rows])


def image_paths(loader: Any) -> list[str] | None:
    """Files of the images that a loader reads for prediction; None if its data set does not know them."""
    dataset = loader.dataset if isinstance(loader, DataLoader) else None
    source = dataset.source if isinstance(dataset, TransformedDataset) else None
    return source.files() if isinstance(source, HasFiles) else None
