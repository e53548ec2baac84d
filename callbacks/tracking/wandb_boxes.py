"""Boxes that W&B draws itself, over their image, to be filtered by class and score in the browser."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from ..drawing.canvas import class_name, fitted

SIDE = 640
"""Longer side of the images that are sent, at most; pixels."""

SURE = 0.05
"""Less sure objects are not sent; W&B lets one choose among the others."""

PAD = 128
"""Gray beside images that are smaller than others of their list."""

MOST = 100
"""Objects of an image that are sent at most, the surest."""


class Sample(NamedTuple):
    """An image with truth and prediction.

    Attributes:
        image: RGB uint8 ``[H, W, 3]``.
        truth: as `overlays.drawable` gives it.
        said: the prediction, likewise.
        number: of the sample in its data set.
    """

    image: np.ndarray
    truth: Mapping[str, np.ndarray]
    said: Mapping[str, np.ndarray]
    number: int


def log_boxes(trainer: pl.Trainer, samples: Sequence[Sample], names: Sequence[str], key: str) -> None:
    """Show samples that have boxes on W&B, truth and prediction to be switched on and off; on the first rank only."""
    shown = [one for one in samples if one.said.keys() & {"box", "boxes"}]
    for logger in trainer.loggers:
        if shown and isinstance(logger, WandbLogger):
            import wandb

            small = [one.image if max(one.image.shape) <= SIDE else fitted(one.image, SIDE) for one in shown]
            padded = alike(small)
            images = [
                _image(wandb, one, names, image, _seen_size(one, inner, image))
                for one, inner, image in zip(shown, small, padded, strict=True)
            ]
            logger.log_metrics({key: images})  # type: ignore[dict-item]  # W&B's media are logged as figures are


def alike(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Images of one size, which W&B wants of a list: the smaller ones padded with gray, on the right and below.

    Shape:
        - images: each ``[H_i, W_i, 3]`` uint8.
        - Output: each ``[H, W, 3]`` uint8, the largest of the heights and of the widths.
    """
    height, width = (max(image.shape[side] for image in images) for side in (0, 1))
    canvases = [np.full((height, width, 3), PAD, np.uint8) for _ in images]
    for canvas, image in zip(canvases, images, strict=True):
        canvas[: image.shape[0], : image.shape[1]] = image
    return canvases


def _seen_size(sample: Sample, inner: np.ndarray, padded: np.ndarray) -> tuple[float, float]:
    """Width and height of the padded image, in pixels of the sample's own: what its boxes are parts of."""
    height, width = (sample.image.shape[side] * padded.shape[side] / inner.shape[side] for side in (0, 1))
    return width, height


def _image(wandb: Any, sample: Sample, names: Sequence[str], image: np.ndarray, size: tuple[float, float]) -> Any:
    objects = {"ground_truth": box_data(sample.truth, names, size), "predictions": box_data(sample.said, names, size)}
    used = {int(one["class_id"]) for boxes in objects.values() for one in boxes}
    labels = {k: class_name(k, names) for k in used | set(range(len(names)))}
    boxes = {name: {"box_data": data, "class_labels": labels} for name, data in objects.items()}
    return wandb.Image(image, boxes=boxes, caption=f"sample {sample.number}")


def box_data(target: Mapping[str, np.ndarray], names: Sequence[str], size: tuple[float, float]) -> list[dict[str, Any]]:
    """Objects as W&B takes them, the surest first: place as parts of the sides, class, caption, score.

    Args:
        target: ``boxes`` and ``labels``, or ``box`` and ``label``; perhaps ``scores`` or ``score``, ``iscrowd`` and
            ``difficult``.
        names: of the classes.
        size: width and height of the image, pixels.
    """
    one = "box" in target
    boxes = np.asarray(target["box" if one else "boxes"], np.float64).reshape(-1, 4)
    labels = np.asarray(target["label" if one else "labels"]).reshape(-1)
    scores = target.get("score" if one else "scores")
    flags = {flag: np.asarray(target[flag]).reshape(-1) for flag in ("iscrowd", "difficult") if flag in target}
    values = None if scores is None else np.asarray(scores, np.float64).reshape(-1)
    order = np.arange(len(boxes)) if values is None else np.argsort(-values, kind="stable")
    data = []
    for place in order[:MOST].tolist():
        if values is not None and values[place] < SURE and not one:
            break
        caption = class_name(int(labels[place]), names)
        caption += "".join(f" ({flag.removeprefix('is')})" for flag, marks in flags.items() if marks[place])
        caption += "" if values is None else f" {100 * values[place]:.0f}%"
        sides = (boxes[place] / np.tile(size, 2)).tolist()
        entry: dict[str, Any] = {
            "position": dict(zip(("minX", "minY", "maxX", "maxY"), sides, strict=True)),
            "class_id": int(labels[place]),
            "box_caption": caption,
        }
        if values is not None:
            entry["scores"] = {"score": float(values[place])}
        data.append(entry)
    return data
