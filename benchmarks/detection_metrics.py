"""COCO evaluation of 5,000 images with 500,000 detections, compared with pycocotools and torchmetrics.

Half of the detections are close to an object, half are random; there are 80 classes, 7 objects per image, and
occasional crowds. Each side gets the same float32 tensors in batches of 8 images, in a new process, and computes COCO's
twelve metrics, which must agree. The benchmark measures the seconds from the first update to the metrics, and the
memory of the process on top of imports and data. striate's side is `COCODetection`. The peers are torchmetrics'
``MeanAveragePrecision`` with its default backend and, if installed, with ``faster_coco_eval``; and pycocotools itself,
including the conversion of tensors to the dictionaries that it needs.
"""

import argparse
import contextlib
import importlib.util
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.benchmarks.harness import Goal, Row, interleave, measure_child, median_ratio, run_fresh

IMAGES, DETECTIONS, OBJECTS, CLASSES, BATCH, SIDE = 5000, 100, 7, 80, 8, 600
BY_SIZE = [f"{what}_{size}" for what in ("map", "mar") for size in ("small", "medium", "large")]
NAMES = ["map", "map50", "map75", *BY_SIZE[:3], "mar1", "mar10", "mar100", *BY_SIZE[3:]]
THEIRS = ["map", "map_50", "map_75", *BY_SIZE[:3], "mar_1", "mar_10", "mar_100", *BY_SIZE[3:]]  # torchmetrics' names
SIXTIETH, EIGHTH, THIRD = (Goal(1 / times, at_least=False) for times in (60, 8, 3))
PEERS = {
    "torchmetrics": ("torchmetrics", SIXTIETH, 1e-3),
    "faster": ("torchmetrics with faster_coco_eval", EIGHTH, 1e-3),
    "pycocotools": ("pycocotools", None, 1e-9),
}
"""Per side: its name, the goal for the time, and the tolerance of its metrics.

torchmetrics' metrics differ by 2e-4: its IoU and recall thresholds are float32, so some detections fall on the other
side.
"""

Batches = list[tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]]


def make_batches(images: int = IMAGES) -> Batches:
    """Generate detections and targets, in batches of images."""
    rng = np.random.default_rng(0)
    pairs = [_image(rng) for _ in range(images)]
    parts = (pairs[start : start + BATCH] for start in range(0, images, BATCH))
    return [([detections for detections, _ in part], [target for _, target in part]) for part in parts]


def _image(rng: np.random.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    objects = int(rng.integers(1, 2 * OBJECTS))
    boxes, labels = _boxes(rng, objects), rng.integers(0, CLASSES, objects)
    random_boxes, random_labels = _boxes(rng, DETECTIONS), rng.integers(0, CLASSES, DETECTIONS)
    near = np.arange(DETECTIONS) < DETECTIONS // 2
    index = rng.integers(0, objects, DETECTIONS)
    moved = boxes[index] + rng.normal(0, 0.08, (DETECTIONS, 4)) * np.tile(boxes[index, 2:] - boxes[index, :2], 2)
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
    detected, predicted = np.where(near[:, None], moved, random_boxes), np.where(near, labels[index], random_labels)
    scores = np.where(near, rng.beta(3, 2, DETECTIONS), rng.beta(1, 4, DETECTIONS))
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1) * rng.uniform(0.4, 1, objects)
    target = {"boxes": _float(boxes), "labels": torch.from_numpy(labels), "area": _float(area)}
    target["iscrowd"] = torch.from_numpy(rng.random(objects) < 0.01)
    return {"boxes": _float(detected), "scores": _float(scores), "labels": torch.from_numpy(predicted)}, target


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw boxes ``[count, 4]`` of all sizes."""
    sides = np.exp(rng.uniform(2, 6, (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * (SIDE - sides)
    return np.concatenate((corner, corner + sides), axis=1)


def _float(values: np.ndarray) -> Tensor:
    """Convert an array to a float32 tensor of the same shape ``[...]``, such as ``[N, 4]``."""
    return torch.from_numpy(values.astype(np.float32))


def ours(batches: Batches) -> list[float]:
    """Compute striate's metrics, in the order of `NAMES`."""
    from striate.tasks.metrics import COCODetection

    metric = COCODetection(CLASSES)
    for detections, targets in batches:
        metric.update(detections, targets)
    values = metric.compute()
    return [float(values[name]) for name in NAMES]


def torchmetrics(batches: Batches, backend: str) -> list[float]:
    """Compute torchmetrics' metrics, in the order of `NAMES`."""
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(backend=backend)  # type: ignore[arg-type]
    for detections, targets in batches:
        metric.update(detections, targets)
    values = metric.compute()
    return [float(values[name]) for name in THEIRS]


def pycocotools(batches: Batches) -> list[float]:
    """Compute pycocotools' metrics, in the order of `NAMES`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    image = 0
    for predictions, targets in batches:
        for prediction, target in zip(predictions, targets, strict=True):
            crowds, areas = target["iscrowd"].int().tolist(), target["area"].tolist()
            for fields, crowd, area in zip(_entries(image, target), crowds, areas, strict=True):
                objects.append({**fields, "id": len(objects) + 1, "iscrowd": crowd, "area": area})
            scores = prediction["scores"].tolist()
            entries = zip(_entries(image, prediction), scores, strict=True)
            detections += [{**fields, "score": score} for fields, score in entries]
            image += 1
    ground_truth = COCO()
    ground_truth.dataset = {"images": [{"id": i} for i in range(image)], "annotations": objects, "info": {}}
    ground_truth.dataset["categories"] = [{"id": label} for label in range(CLASSES)]
    with contextlib.redirect_stdout(None):
        ground_truth.createIndex()
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def _entries(image: int, fields: dict[str, Tensor]) -> list[dict[str, Any]]:
    boxes = fields["boxes"].double()
    boxes[:, 2:] -= boxes[:, :2]
    columns = zip(boxes.tolist(), fields["labels"].tolist(), strict=True)
    return [{"image_id": image, "category_id": label, "bbox": box} for box, label in columns]


SIDES: dict[str, Callable[[Batches], list[float]]] = {
    "ours": ours,
    "torchmetrics": partial(torchmetrics, backend="pycocotools"),
    "faster": partial(torchmetrics, backend="faster_coco_eval"),
    "pycocotools": pycocotools,
}


def child() -> None:
    """Entry point of the new process: evaluate, and print metrics and measurements as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("images", type=int)
    options = parser.parse_args()
    side = SIDES[options.side]
    side(make_batches(2 * BATCH))  # exclude imports and one-time initialization from the measurement
    batches = make_batches(options.images)
    measure_child(lambda: dict(zip(NAMES, side(batches), strict=True)))


def run(images: int = IMAGES, repetitions: int = 2) -> Iterator[Row]:
    """Measure the sides alternately, each in a new process.

    Raises:
        RuntimeError: If the metrics of two sides differ.
    """
    peers = [side for side in PEERS if side != "faster" or importlib.util.find_spec("faster_coco_eval")]
    sides = {side: partial(run_fresh, "striate.benchmarks.detection_metrics", side, str(images)) for side in SIDES}
    measured = interleave({side: sides[side] for side in ("ours", *peers)}, repetitions, warm_up=0)
    mine = measured["ours"]
    for side in peers:
        name, goal, tolerance = PEERS[side]
        theirs = measured[side]
        for key in NAMES:
            if abs(mine[0][key] - theirs[0][key]) > tolerance:
                raise RuntimeError(f"{key}: sides differ, got {mine[0][key]} (striate) and {theirs[0][key]} ({name})")
        lines = (("time", "seconds", "s", goal), ("CPU time", "cpu", "s", None))
        for label, field, unit, bound in (*lines, ("memory on top of the data", "rise", "MB", THIRD if goal else None)):
            pairs = [[result[field] for result in results] for results in (mine, theirs)]
            here, there = (f"{statistics.median(values):{'.0f' if unit == 'MB' else '.3g'}} {unit}" for values in pairs)
            what = f"COCO evaluation of {images:,} images, {images * DETECTIONS:,} detections: {label}; peer: {name}"
            yield Row(what, here, there, median_ratio(*pairs), bound)


if __name__ == "__main__":
    child()
