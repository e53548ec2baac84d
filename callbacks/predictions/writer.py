"""Writing predictions: a CSV of every image, and the images with what was seen in them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from ...datamodules.images.read import ImageError, read_image
from ...tasks.base import gather
from ..drawing.canvas import NEUTRAL, captions, class_name, panel
from ..drawing.overlays import SHOWN, hidden_note, target_panel
from ..tracking.logging import run_folder
from .detection import COLUMNS, DetectionWriter, file_size
from .masks import MaskWriter


class PredictionWriter(BasePredictionWriter):
    """Writes ``predictions.csv`` and annotated pictures; for segmentation also masks, for detection COCO's files.

    A row of ``predictions.csv``: path, label, score, then the further best classes; for masks path, width and height,
    the mask's file, and how many pixels each class has (`semantic_predictions`). For detection a row is an object:
    path, label, score, x1, y1, x2, y2; and ``detections.json`` and ``images.json`` are written
    (`detection_predictions`).

    Localization adds ``x1, y1, x2, y2`` behind the score, in pixels of the image as it is in its file; and behind the
    further scores, where each class has a box of its own (``x1_2``, …).

    Of a detector's objects the pictures show those from 50 % on; where the task has a ``score_threshold`` above 0, all
    that it leaves, which are those of the tables.

    Each batch is written when it is done, so that an interrupted run keeps what it has. Under DDP each rank writes
    its share, and the first joins them at the end.

    Args:
        pictures: draw the annotated pictures.
        side: the longer one of a picture, pixels; strips may be longer, so that they can be read.
    """

    def __init__(self, pictures: bool = True, side: int = 448) -> None:
        super().__init__(write_interval="batch")
        self.pictures, self.side = pictures, side
        self._count = 0

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the file of this rank."""
        self._folder = run_folder(trainer)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._count = 0
        self._header_written = False
        dataset = getattr(trainer.predict_dataloaders, "dataset", None)
        self._masks = MaskWriter(self._folder, dataset)
        self._objects = DetectionWriter(self._folder, trainer.global_rank, dataset)
        self._path(trainer, trainer.global_rank).unlink(missing_ok=True)

    def _path(self, trainer: pl.Trainer, rank: int) -> Path:
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
        """Append the rows of a batch, and draw its pictures."""
        if not prediction:
            return
        with self._path(trainer, trainer.global_rank).open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if not self._header_written:
                writer.writerow(self._header(prediction[0], pl_module))
                self._header_written = True
            for place, one in enumerate(prediction):
                path, index = batch["path"][place], int(batch["index"][place])
                if "boxes" in one:
                    writer.writerows(self._objects.write(path, index, file_size(batch, place), one, pl_module))
                else:
                    writer.writerow(self._row(path, index, one, pl_module))
                self._count += 1
                if self.pictures:
                    self._draw(path, index, one, pl_module)

    def _header(self, prediction: dict[str, Any], task: pl.LightningModule) -> list[str]:
        if "mask" in prediction:
            return self._masks.header(task)
        if "boxes" in prediction:
            return list(COLUMNS)
        return _header(prediction)

    def _row(self, path: str, index: int, prediction: dict[str, Any], task: pl.LightningModule) -> list[Any]:
        if "mask" in prediction:
            return self._masks.write(path, index, prediction["mask"], task)
        return [path, *_row(prediction, getattr(task, "class_names", []))]

    def _draw(self, path: str, index: int, prediction: dict[str, Any], task: pl.LightningModule) -> None:
        names = getattr(task, "class_names", [])
        try:
            image = read_image(path)
        except ImageError:
            return  # it was readable a moment ago; its row is written, and that is what counts
        target = self._folder / "pictures" / f"{index:05d}_{Path(path).stem}.png"
        target.parent.mkdir(exist_ok=True)
        if prediction.keys() & {"mask", "box", "boxes"}:
            shown_from = _shown_from(task)
            note = Path(path).name + hidden_note(prediction, shown_from)
            drawn = target_panel(image, prediction, names, note, self.side, shown_from, square=False)
        else:
            lines = [*captions(prediction, {}, names), (Path(path).name, NEUTRAL)]
            drawn = panel(image, lines, side=self.side, square=False)
        Image.fromarray(drawn).save(target)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the ranks' files, and say how many images there were and how many could not be read.

        Raises:
            ValueError: none could.
        """
        unreadable: dict[str, str] = gather(dict(getattr(pl_module, "unreadable", {})), trainer.world_size)
        count = self._count
        if trainer.world_size > 1:
            trainer.strategy.barrier()
            count = int(trainer.strategy.reduce(torch.tensor(count, device=pl_module.device), reduce_op="sum"))
            if trainer.is_global_zero:
                self._join(trainer)
        if unreadable and not count:
            path, reason = next(iter(unreadable.items()))
            raise ValueError(
                f"nothing predicted: {len(unreadable)} file(s) could not be read, the first: {path}: {reason}"
            )
        if trainer.is_global_zero:
            self._objects.join(pl_module)
        written = ("detections.json", "masks", "pictures")
        beside = [name for name in written if (self._folder / name).exists()]
        where = f": {self._folder / 'predictions.csv'}" + (f", {', '.join(beside)} beside it" if beside else "")
        rank_zero_info(f"\n{count} image(s) predicted{where if count else ''}")
        for path, reason in list(unreadable.items())[:20]:
            rank_zero_info(f"  not read: {path}: {reason}")
        if unreadable:
            rank_zero_info(f"{len(unreadable)} image(s) could not be read and were skipped.")

    def _join(self, trainer: pl.Trainer) -> None:
        header: list[str] = []
        rows: list[list[str]] = []
        for rank in range(trainer.world_size):
            if (path := self._path(trainer, rank)).is_file():
                with path.open(newline="", encoding="utf-8") as file:
                    header, *found = list(csv.reader(file))  # a rank without images has no file
                rows += found
                path.unlink()
        if not header:
            return
        rows.sort(key=lambda row: row[0])  # an image's rows stay in their order
        with (self._folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)


def _shown_from(task: pl.LightningModule) -> float:
    """The least score that is drawn: where the user has set a threshold, all that passes it."""
    threshold: Any = getattr(task, "score_threshold", 0.0)
    return 0.0 if threshold > 0 else SHOWN


_CORNERS = ("x1", "y1", "x2", "y2")


def _header(prediction: Mapping[str, Any]) -> list[str]:
    """The names of the columns, as many as a prediction has."""
    columns = ["path", "label", "score", *(_CORNERS if "box" in prediction else ())]
    for rank in range(2, len(prediction["top_labels"]) + 1):
        further = ("label", "score", *(_CORNERS if "top_boxes" in prediction else ()))
        columns += [f"{name}_{rank}" for name in further]
    return columns


def _row(prediction: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The cells of a prediction, behind its path."""
    boxes = prediction.get("top_boxes", [prediction["box"]] if "box" in prediction else [])
    cells: list[str] = []
    for place, (label, score) in enumerate(zip(prediction["top_labels"], prediction["top_scores"], strict=True)):
        cells += [class_name(label, names), f"{score:.6f}"]
        cells += [f"{side:.2f}" for side in boxes[place].tolist()] if place < len(boxes) else []
    return cells
