"""Samples on W&B: each image is stored once, and boxes and masks are layers that the browser draws over it."""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger

from ...tasks.interfaces import RunLengths
from ...tasks.metrics.segmentation import IGNORE_INDEX
from ..compat import GROUND_TRUTH, logged_step, wandb_image
from ..drawing.canvas import class_name, fit_square
from ..drawing.overlays import MIN_SCORE as MIN_MASK_SCORE
from ..drawing.regions import scaled_windows
from .logging import log_media, wandb_table
from .sample_scores import worst_first

MAX_SIDE = 640
"""Maximum length of the longer side of uploaded images, in pixels."""

MIN_SCORE = 0.05
"""Minimum score of uploaded boxes; W&B lets the user filter the rest."""

PADDING = 128
"""Gray level of the padding beside images that are smaller than others of their list."""

MAX_SAMPLES, MAX_BYTES = 64, 32_000_000
"""Maximum number of samples that are uploaded at a time, and of bytes of their pixels, not compressed."""

MAX_OBJECTS = 100
"""Maximum number of objects uploaded per image, those of highest score."""


class Sample(NamedTuple):
    """An image with ground truth and prediction.

    Attributes:
        image: RGB uint8 ``[H, W, 3]``.
        ground_truth: Fields as returned by `overlays.drawable_fields`.
        prediction: The same fields of the prediction.
        number: Index of the sample in its data set.
        caption: Text below the image.
        score: Name and value of its score (`sample_score`); None: not computed.
    """

    image: np.ndarray
    ground_truth: Mapping[str, Any]
    prediction: Mapping[str, Any]
    number: int
    caption: str = ""
    score: tuple[str, float] | None = None


class WandbSamples:
    """Logs samples on W&B, and remembers which images each run has, so that later steps refer to their files."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, str], Any] = {}

    def log(self, trainer: pl.Trainer, samples: Sequence[Sample], names: Sequence[str], key: str) -> None:
        """Log samples under one key, on every W&B logger; call this on the first rank only."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                run = str(logger.experiment.id)
                log_media(logger, key, partial(self._images, run, samples, names), logged_step(trainer))

    def _images(self, run: str, samples: Sequence[Sample], names: Sequence[str]) -> list[Any]:
        shown = within_caps(list(map(resized_image, samples)))
        padded = pad_to_one_size(shown)
        return [
            self._image(run, sample, names, canvas, image)
            for sample, canvas, image in zip(samples[: len(shown)], padded, shown, strict=True)
        ]

    def _image(self, run: str, sample: Sample, names: Sequence[str], padded: np.ndarray, inner: np.ndarray) -> Any:
        """W&B's image of a sample, from its padded ``[H, W, 3]`` and its resized image ``[h, w, 3]``."""
        digest = hashlib.sha256(repr(padded.shape).encode() + padded.tobytes())
        for field, values in sorted(sample.ground_truth.items()):
            array = values.edges.numpy() if isinstance(values, RunLengths) else values
            digest.update(field.encode() + np.ascontiguousarray(array).tobytes())
        stored = (run, digest.hexdigest())
        layers = _layers(sample, names, padded, inner)
        first = self._logged.get(stored)
        image = wandb_image(padded, first, caption=sample.caption, **layers)
        if first is None or not first.is_bound():
            self._logged[stored] = image
        return image


def resized_image(sample: Sample) -> np.ndarray:
    """The image of a sample, ``[H, W, 3]`` uint8, with no side longer than `MAX_SIDE`."""
    return sample.image if max(sample.image.shape) <= MAX_SIDE else fit_square(sample.image, MAX_SIDE)


def within_caps(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The first of some images that are at most `MAX_SAMPLES` and `MAX_BYTES`; one line says what is left out.

    Shape:
        - images: each ``[H_i, W_i, 3]`` uint8.
        - Output: the first of them.
    """
    sizes = np.cumsum([image.nbytes for image in images])
    count = min(MAX_SAMPLES, int((sizes <= MAX_BYTES).sum()))
    if count < len(images):
        warnings.warn(
            f"W&B: {len(images) - count} of {len(images)} samples not uploaded (at most {MAX_SAMPLES}, and "
            f"{MAX_BYTES // 1_000_000} MB of pixels); lower the callback Pictures' count",
            stacklevel=2,
        )
    return list(images[:count])


def log_samples_table(trainer: pl.Trainer, samples: Sequence[Sample], names: Sequence[str], key: str) -> None:
    """Log one row per sample on every W&B logger, the worst first: image with layers, score, and classes."""
    for logger in trainer.loggers:
        if samples and isinstance(logger, WandbLogger):
            log_media(logger, key, lambda: samples_table(samples, names), logged_step(trainer))


def samples_table(samples: Sequence[Sample], names: Sequence[str]) -> Any:
    """The table of `log_samples_table`, for samples that have a score of the same name."""
    import wandb

    name = samples[0].score[0] if samples[0].score else "score"
    scores = [math.nan if sample.score is None else sample.score[1] for sample in samples]
    images = within_caps(list(map(resized_image, samples)))
    rows = []
    for index in worst_first(name, scores[: len(images)]):
        sample, image = samples[index], images[index]
        layers = _layers(sample, names, image, image)
        sets = [layer["class_labels"] for kind in layers.values() for layer in (kind or {}).values()]
        labels = {k: label for known in sets for k, label in known.items()}
        classes = [{"id": k, "name": label} for k, label in sorted(labels.items())] or None
        cell = wandb.Image(image, classes=classes, **layers)
        score = None if math.isnan(scores[index]) else round(scores[index], 4)
        rows.append(
            [cell, sample.number, score, contents(sample.ground_truth, names), contents(sample.prediction, names)]
        )
    return wandb_table(["image", "sample", name, "ground truth", "prediction"], rows)


def contents(target: Mapping[str, Any], names: Sequence[str]) -> str:
    """The classes of a target or prediction, such as ``2 cat, 1 dog``; of masks of classes, those that occur."""
    if "labels" in target:
        labels = np.asarray(target["labels"])
        if "scores" in target:
            labels = labels[np.asarray(target["scores"]) >= MIN_MASK_SCORE]
        counts = zip(*np.unique(labels, return_counts=True), strict=True)
        return ", ".join(f"{count} {class_name(int(k), names)}" for k, count in counts)
    present = np.unique(target["mask"]) if "mask" in target else np.atleast_1d(np.asarray(target.get("label", [])))
    return ", ".join(class_name(int(k), names) for k in present if k != IGNORE_INDEX)


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


def _layers(sample: Sample, names: Sequence[str], padded: np.ndarray, inner: np.ndarray) -> dict[str, Any]:
    """The layers of boxes and masks of a sample, for its padded ``[H, W, 3]`` and resized image ``[h, w, 3]``."""
    # boxes are in the sample's own pixels, and W&B wants fractions of the padded image
    height, width = (sample.image.shape[side] * padded.shape[side] / inner.shape[side] for side in (0, 1))
    boxes: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    for name, target in ((GROUND_TRUTH, sample.ground_truth), ("predictions", sample.prediction)):
        if target.keys() & {"box", "boxes"}:
            entries = box_data(target, names, (width, height))
            labels = {k: class_name(k, names) for k in {int(e["class_id"]) for e in entries} | set(range(len(names)))}
            boxes[name] = {"box_data": entries, "class_labels": labels}
        mask = mask_data(target, names, padded.shape, inner.shape)
        if mask is not None:
            masks[name] = mask
    return {"boxes": boxes or None, "masks": masks or None}


def mask_data(
    target: Mapping[str, Any], names: Sequence[str], size: Sequence[int], inner: Sequence[int]
) -> dict[str, Any] | None:
    """A mask of classes in W&B's format; None if the target has no masks, or more classes than a mask can hold.

    The masks of objects are merged, with smaller objects above larger ones: class k becomes k + 1, and 0 means no
    object.

    Args:
        target: ``mask``, or ``masks`` and ``labels``, optionally with ``scores``.
        names: Class names.
        size: Height and width of the padded image, which the mask gets, in pixels.
        inner: Height and width of the image in it.

    Shape:
        - target: ``mask`` ``[H, W]``, ``labels`` ``[N]``; ``masks`` are N run lengths.
    """
    if "mask" in target:
        merged, shift, outside = np.asarray(target["mask"], np.uint8), 0, IGNORE_INDEX
        labels = {IGNORE_INDEX: "ignored"}
    elif "masks" in target and len(names) < IGNORE_INDEX:
        merged, shift, outside = _merge(target, inner), 1, 0
        labels = {0: "no object"}
    else:
        return None
    labels |= {k + shift: class_name(k, names) for k in range(len(names))}
    canvas = np.full(tuple(size[:2]), outside, np.uint8)
    canvas[: inner[0], : inner[1]] = cv2.resize(merged, (inner[1], inner[0]), interpolation=cv2.INTER_NEAREST)
    return {"mask_data": canvas, "class_labels": labels}


def _merge(target: Mapping[str, Any], size: Sequence[int]) -> np.ndarray:
    """The class plus 1 of each pixel ``[h, w]`` of the resized image, from the masks of objects of sufficient score."""
    masks, labels = target["masks"], np.asarray(target["labels"])
    scores = np.asarray(target["scores"]) if "scores" in target else np.ones(len(labels))
    merged = np.zeros(tuple(size[:2]), np.uint8)
    order = np.argsort(-masks.area().numpy(), kind="stable")
    order = order[scores[order] >= MIN_MASK_SCORE]
    for index, (region, x, y) in zip(
        order.tolist(), scaled_windows(masks[torch.from_numpy(order)], size[:2]), strict=True
    ):
        merged[y : y + region.shape[0], x : x + region.shape[1]][region] = labels[index] + 1
    return merged


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
