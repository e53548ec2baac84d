"""Interactive boxes on W&B, which the browser draws over the image and filters by class and score."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from ..drawing.canvas import class_name, fit_square

MAX_SIDE = 640
"""Maximum length of the longer side of uploaded images, in pixels."""

MIN_SCORE = 0.05
"""Minimum score of uploaded objects; W&B lets the user filter the rest."""

PADDING = 128
"""Gray level of the padding beside images that are smaller than others of their list."""

MAX_OBJECTS = 100
"""Maximum number of objects uploaded per image, those of highest score."""


class Sample(NamedTuple):
    """An image with ground truth and prediction.

    Attributes:
        image: RGB uint8 ``[H, W, 3]``.
        ground_truth: Fields as returned by `overlays.drawable_fields`.
        prediction: The same fields of the prediction.
        number: Index of the sample in its data set.
    """

    image: np.ndarray
    ground_truth: Mapping[str, np.ndarray]
    prediction: Mapping[str, np.ndarray]
    number: int


def log_boxes(trainer: pl.Trainer, samples: Sequence[Sample], names: Sequence[str], key: str) -> None:
    """Log the samples that have boxes on W&B, with ground truth and prediction as layers; on the first rank only."""
    with_boxes = [sample for sample in samples if sample.prediction.keys() & {"box", "boxes"}]
    for logger in trainer.loggers:
        if with_boxes and isinstance(logger, WandbLogger):
            import wandb

            resized = [
                sample.image if max(sample.image.shape) <= MAX_SIDE else fit_square(sample.image, MAX_SIDE)
                for sample in with_boxes
            ]
            images = [
                _wandb_image(wandb, sample, names, padded, inner)
                for sample, inner, padded in zip(with_boxes, resized, pad_to_one_size(resized), strict=True)
            ]
            logger.log_metrics({key: images})  # type: ignore[dict-item]  # W&B logs media the way it logs metrics


def pad_to_one_size(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pad images with gray on the right and below to one size, which W&B requires within a list.

    Shape:
        - images: each ``[H_i, W_i, 3]`` uint8.
        - Output: each ``[H, W, 3]`` uint8, the largest height and the largest width.
    """
    height, width = (max(image.shape[side] for image in images) for side in (0, 1))
    canvases = [np.full((height, width, 3), PADDING, np.uint8) for _ in images]
    for canvas, image in zip(canvases, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    return canvases


def _wandb_image(wandb: Any, sample: Sample, names: Sequence[str], padded: np.ndarray, inner: np.ndarray) -> Any:
    """W&B's image of a sample, from its padded ``[H, W, 3]`` and its resized image ``[h, w, 3]``."""
    # boxes are in the sample's own pixels, and W&B wants fractions of the padded image
    height, width = (sample.image.shape[side] * padded.shape[side] / inner.shape[side] for side in (0, 1))
    layers = {
        name: box_data(target, names, (width, height))
        for name, target in (("ground_truth", sample.ground_truth), ("predictions", sample.prediction))
    }
    used = {int(entry["class_id"]) for entries in layers.values() for entry in entries}
    labels = {k: class_name(k, names) for k in used | set(range(len(names)))}
    boxes = {name: {"box_data": entries, "class_labels": labels} for name, entries in layers.items()}
    return wandb.Image(padded, boxes=boxes, caption=f"sample {sample.number}")


def box_data(target: Mapping[str, np.ndarray], names: Sequence[str], size: tuple[float, float]) -> list[dict[str, Any]]:
    """Objects in W&B's format, by descending score: position as fractions of the sides, class, caption, score.

    Args:
        target: ``boxes`` and ``labels``, or ``box`` and ``label``; optionally ``scores`` or ``score``, ``iscrowd`` and
            ``difficult``.
        names: Class names.
        size: Width and height of the image, in pixels.
    """
    single = "box" in target
    boxes = np.asarray(target["box" if single else "boxes"], np.float64).reshape(-1, 4)
    labels = np.asarray(target["label" if single else "labels"]).reshape(-1)
    scores = target.get("score" if single else "scores")
    flags = {flag: np.asarray(target[flag]).reshape(-1) for flag in ("iscrowd", "difficult") if flag in target}
    values = None if scores is None else np.asarray(scores, np.float64).reshape(-1)
    order = np.arange(len(boxes)) if values is None else np.argsort(-values, kind="stable")
    entries = []
    for index in order[:MAX_OBJECTS].tolist():
        if values is not None and values[index] < MIN_SCORE and not single:
            break
        caption = class_name(int(labels[index]), names)
        caption += "".join(f" ({flag.removeprefix('is')})" for flag, marks in flags.items() if marks[index])
        caption += "" if values is None else f" {100 * values[index]:.0f}%"
        sides = (boxes[index] / np.tile(size, 2)).tolist()
        entry: dict[str, Any] = {
            "position": dict(zip(("minX", "minY", "maxX", "maxY"), sides, strict=True)),
            "class_id": int(labels[index]),
            "box_caption": caption,
        }
        if values is not None:
            entry["scores"] = {"score": float(values[index])}
        entries.append(entry)
    return entries
