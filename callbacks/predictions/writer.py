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
from ...datamodules.images.read import ImageError, read_image
from ...datamodules.loading.sources import HasFiles
from ...tasks import Task
from ..tracking.logging import run_folder
from .base import BoxWriter, TaskWriter, file_size
from .detection import DetectionWriter
from .masks import MaskWriter

WRITERS: dict[str, Any] = {
    "classification": TaskWriter,
    "localization": BoxWriter,
    "semantic_segmentation": MaskWriter,
    "detection": DetectionWriter,
}
"""`Task.kind` -> writer of its predictions."""


class PredictionWriter(BasePredictionWriter):
    """Writes ``predictions.csv`` and annotated plots; masks too for segmentation, and COCO's files for detection.

    The task's kind selects the writer, which defines the columns: `TaskWriter` for classification, `BoxWriter` for
    localization, `MaskWriter` for semantic segmentation, `DetectionWriter` for detection.

    Each batch is written when it is done, so that an interrupted run keeps its results. Under DDP each rank writes its
    share, and the first rank merges them at the end.

    Args:
        pictures: Draw annotated plots.
        side: Longer side of a plot in pixels; strips may be longer, to remain legible.
    """

    def __init__(self, pictures: bool = True, side: int = 448) -> None:
        super().__init__(write_interval="batch")
        self.pictures, self.side = pictures, side
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
        self._header_written = False
        paths = image_paths(trainer.predict_dataloaders)
        self._writer: TaskWriter = WRITERS[pl_module.kind](pl_module, self._folder, trainer.global_rank, paths)
        self._table(trainer, trainer.global_rank).unlink(missing_ok=True)

    def _table(self, trainer: pl.Trainer, rank: int) -> Path:
        return self._folder / ("predictions.csv" if trainer.world_size == 1 else f"predictions.rank{rank}.csv")

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
        with self._table(trainer, trainer.global_rank).open("a", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            if not self._header_written:
                table.writerow(self._writer.header(prediction[0]))
                self._header_written = True
            for position, fields in enumerate(prediction):
                path, index = batch["path"][position], int(batch["index"][position])
                table.writerows(self._writer.rows(path, index, fields, file_size(batch, position)))
                self._count += 1
                if self.pictures:
                    self._draw(path, index, fields)

    def _draw(self, path: str, index: int, prediction: dict[str, Any]) -> None:
        try:
            image = read_image(path)
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
                self._join(trainer)
        if unreadable and not count:
            path, reason = next(iter(unreadable.items()))
            raise ValueError(
                f"images: must have a readable image, got {len(unreadable)} unreadable file(s), the first: {path}: "
                f"{reason}"
            )
        if trainer.is_global_zero:
            self._writer.join()
        others = [name for name in ("detections.json", "masks", "pictures") if (self._folder / name).exists()]
        files = f": {self._folder / 'predictions.csv'}" + (f", with {', '.join(others)} beside it" if others else "")
        rank_zero_info(f"\nPredicted {count} image(s){files if count else ''}")
        for path, reason in list(unreadable.items())[:20]:
            rank_zero_info(f"  unreadable: {path}: {reason}")
        if unreadable:
            rank_zero_info(f"Skipped {len(unreadable)} image(s) that could not be read.")

    def _join(self, trainer: pl.Trainer) -> None:
        header: list[str] = []
        rows: list[list[str]] = []
        for rank in range(trainer.world_size):
            path = self._table(trainer, rank)
            if path.is_file():  # a rank without images has no file
                with path.open(newline="", encoding="utf-8") as file:
                    header, *rank_rows = list(csv.reader(file))
                rows += rank_rows
                path.unlink()
        if not header:
            return
        rows.sort(key=lambda row: row[0])  # stable, so that the rows of an image stay in order
        with (self._folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)


def image_paths(loader: Any) -> list[str] | None:
    """Files of the images that a loader reads for prediction; None if its data set does not know them."""
    dataset = loader.dataset if isinstance(loader, DataLoader) else None
    source = dataset.source if isinstance(dataset, TransformedDataset) else None
    return source.files() if isinstance(source, HasFiles) else None
