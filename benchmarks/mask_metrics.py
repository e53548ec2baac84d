"""COCO evaluation of 1,000 images with 100 masks each, compared with torchmetrics and its two backends.

Images have 640 x 480 pixels, 100 objects and 100 detections of 80 classes, ellipses and rectangles of 12 to 240 pixels.
Half of the detections are close to an object. The masks come from a few images, in turn, since all of them would take
61 GB; classes and scores are drawn for each image. Each side runs in a new process, and gets the ground truth as bool
``[N, 480, 640]`` in batches of 4 images. Detections are given in two ways: as the models of either side return them,
run lengths (`RunLengths`) for striate and bool masks for torchmetrics, and as the same bool masks for both.

The measurements are the seconds from the first update to the metrics, and the memory on top of imports and masks. The
metrics must agree.
"""

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.benchmarks.detection_metrics import NAMES, THEIRS
from striate.benchmarks.harness import (
    Goal,
    Row,
    interleave,
    measure_child,
    median_ratio,
    run_fresh,
)

IMAGES, MASKS, CLASSES, BATCH, HEIGHT, WIDTH = 1000, 100, 80, 4, 480, 640
POOL = 8  # images with masks of their own
TOLERANCE = 1e-3  # torchmetrics' IoU and recall thresholds are float32
THIRD = Goal(1 / 3, at_least=False)
PEERS = {
    "torchmetrics": ("torchmetrics", Goal(1 / 20, at_least=False)),
    "faster": ("torchmetrics with faster_coco_eval", Goal(1 / 4, at_least=False)),
}
"""Side -> its name, and the goal for the time."""

Batch = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def make_pool(count: int, run_lengths: bool) -> list[tuple[Any, Tensor, Tensor]]:
    """Draw masks of detections and objects, ``[100, H, W]`` each, and the object that each detection is close to."""
    from striate.models import RunLengths

    rng = np.random.default_rng(0)
    pool = []
    for _ in range(count):
        sides = np.minimum(np.exp(rng.uniform(2.5, 5.5, (MASKS, 2))), (WIDTH, HEIGHT))
        corners = rng.uniform(0, 1, (MASKS, 2)) * ((WIDTH, HEIGHT) - sides)
        boxes, kinds = np.concatenate([corners, corners + sides], 1), rng.integers(1, 3, MASKS)
        near = np.where(np.arange(MASKS) % 2, rng.integers(0, MASKS, MASKS), -1)
        moved = boxes[near] + rng.normal(0, 0.06, (MASKS, 4)) * np.tile(sides[near], 2)
        random = boxes[rng.permutation(MASKS)] + rng.normal(0, 30, (MASKS, 1))
        detected = _masks(np.where(near[:, None] >= 0, moved, random), np.where(near >= 0, kinds[near], kinds))
        masks = RunLengths.from_dense(detected) if run_lengths else detected
        pool.append((masks, _masks(boxes, kinds), torch.from_numpy(near)))
    return pool


def _masks(boxes: np.ndarray, kinds: np.ndarray) -> Tensor:
    """Draw an ellipse (kind 1) or a rectangle (2) in each box ``[M, 4]``: bool ``[M, H, W]``."""
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), bool)
    x, y = np.arange(WIDTH) + 0.5, np.arange(HEIGHT)[:, None] + 0.5
    for mask, (x1, y1, x2, y2), kind in zip(masks, boxes, kinds, strict=True):
        across, down = (2 * x - x1 - x2) / max(x2 - x1, 1), (2 * y - y1 - y2) / max(y2 - y1, 1)
        mask[:] = across**2 + down**2 < 1 if kind == 1 else (abs(across) < 1) & (abs(down) < 1)
    return torch.from_numpy(masks)


def make_batches(pool: list[tuple[Any, Tensor, Tensor]], images: int) -> Iterator[Batch]:
    """Yield batches of detections and targets, with masks ``[100, H, W]`` of the pool."""
    rng = np.random.default_rng(1)
    for first in range(0, images, BATCH):
        detections, targets = [], []
        for number in range(first, min(first + BATCH, images)):
            masks, objects, near = pool[number % len(pool)]
            labels = torch.from_numpy(rng.integers(0, CLASSES, MASKS))
            predicted = torch.where(near >= 0, labels[near], torch.from_numpy(rng.integers(0, CLASSES, MASKS)))
            scores = torch.from_numpy(rng.beta(2, 3, MASKS).astype(np.float32))
            boxes = torch.tensor([0.0, 0, WIDTH, HEIGHT]).expand(MASKS, 4)  # not compared
            detections.append({"boxes": boxes, "scores": scores, "labels": predicted, "masks": masks})
            crowds = torch.from_numpy(rng.random(MASKS) < 0.01)
            targets.append({"boxes": boxes, "labels": labels, "masks": objects, "iscrowd": crowds})
        yield detections, targets


def ours(batches: Iterator[Batch]) -> list[float]:
    """Compute striate's metrics, in the order of `NAMES`."""
    from striate.tasks.metrics import COCOInstances

    metric = COCOInstances(CLASSES)
    for detections, targets in batches:
        metric.update(detections, targets)
    values = metric.compute()
    return [float(values[name]) for name in NAMES]


def torchmetrics(batches: Iterator[Batch], backend: str) -> list[float]:
    """Compute torchmetrics' metrics, in the order of `NAMES`."""
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(iou_type="segm", backend=backend)  # type: ignore[arg-type]
    for detections, targets in batches:
        metric.update(detections, targets)
    values = metric.compute()
    return [float(values[name]) for name in THEIRS]


SIDES: dict[str, Callable[[Iterator[Batch]], list[float]]] = {
    "ours": ours,
    "dense": ours,
    "torchmetrics": partial(torchmetrics, backend="pycocotools"),
    "faster": partial(torchmetrics, backend="faster_coco_eval"),
}


def child() -> None:
    """Entry point of the new process: evaluate, and print metrics and measurements as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("images", type=int)
    options = parser.parse_args()
    side = SIDES[options.side]
    pool = make_pool(min(POOL, options.images), options.side == "ours")
    side(make_batches(pool[:1], BATCH))  # exclude imports and one-time initialization from the measurement
    measure_child(lambda: dict(zip(NAMES, side(make_batches(pool, options.images)), strict=True)))


def run(images: int = IMAGES, repetitions: int = 1) -> Iterator[Row]:
    """Measure the sides in turn, each in a new process; one repetition, since the slowest side takes minutes.

    Raises:
        RuntimeError: If the metrics of two sides differ.
    """
    missing = [package for package in ("pycocotools", "faster_coco_eval") if not importlib.util.find_spec(package)]
    for package in missing:
        sys.stderr.write(
            f"skipped a peer: {package} is not installed; run pip install {package} (striate itself does not need it)\n"
        )
    packages = {"torchmetrics": "pycocotools", "faster": "faster_coco_eval"}
    peers = [side for side in PEERS if packages[side] not in missing]
    sides = {
        side: partial(run_fresh, "striate.benchmarks.mask_metrics", side, str(images))
        for side in ("ours", "dense", *peers)
    }
    measured = interleave(sides, repetitions, warm_up=0)
    for side in sides:
        for key in NAMES:
            if abs(measured["ours"][0][key] - measured[side][0][key]) > (TOLERANCE if side in peers else 0):
                values = f"{measured['ours'][0][key]} (striate) and {measured[side][0][key]} ({side})"
                raise RuntimeError(f"{key}: sides differ, got {values}")
    lines = (("time", "seconds", "s"), ("CPU time", "cpu", "s"), ("memory on top of the masks", "rise", "MB"))
    for side in peers:
        name, goal = PEERS[side]
        for mine, how in (("ours", "masks as the models return them"), ("dense", "the same bool masks")):
            for label, field, unit in lines:
                pairs = [[result[field] for result in measured[one]] for one in (mine, side)]
                here, there = (f"{statistics.median(values):.3g} {unit}" for values in pairs)
                bound = {"seconds": goal, "cpu": None, "rise": THIRD}[field]
                what = f"COCO evaluation of {images:,} images with {MASKS} masks each, {how}: {label}; peer: {name}"
                yield Row(what, here, there, median_ratio(*pairs), bound)


if __name__ == "__main__":
    child()
