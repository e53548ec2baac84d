"""COCO evaluation of 5,000 images with 500,000 detections, against pycocotools and torchmetrics.

Half of the detections are near an object, half are anywhere, over 80 classes, with 7 objects an image and a crowd now
and then. Each side gets the same float32 tensors in batches of 8 images, in a fresh process, and gives COCO's twelve
figures, which must agree. Measured are the seconds from the first update to the figures, and what the process's memory
rose above what imports and data take. Ours is `COCODetection`; the peers are torchmetrics' ``MeanAveragePrecision``
with its default backend and, where it is installed, with ``faster_coco_eval``; and pycocotools itself, with the
dictionaries that it wants made from the tensors.
"""

import argparse
import contextlib
import importlib.util
import json
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.benchmarks.harness import Goal, Row, interleave, median_ratio, peak_mb, resident_mb, run_fresh, time_call

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
"""Side -> its name, the goal for the time, and how far its figures may be off.

torchmetrics' differ by 2e-4: its thresholds of IoU and recall are float32, which some detections fall between.
"""

Batches = list[tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]]


def make_batches(images: int = IMAGES) -> Batches:
    """Detections and targets of each batch of images."""
    rng = np.random.default_rng(0)
    pairs = [_image(rng) for _ in range(images)]
    parts = (pairs[start : start + BATCH] for start in range(0, images, BATCH))
    return [([seen for seen, _ in part], [target for _, target in part]) for part in parts]


def _image(rng: np.random.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    objects = int(rng.integers(1, 2 * OBJECTS))
    true, labels = _boxes(rng, objects), rng.integers(0, CLASSES, objects)
    seen, said = _boxes(rng, DETECTIONS), rng.integers(0, CLASSES, DETECTIONS)
    near = np.arange(DETECTIONS) < DETECTIONS // 2
    which = rng.integers(0, objects, DETECTIONS)
    moved = true[which] + rng.normal(0, 0.08, (DETECTIONS, 4)) * np.tile(true[which, 2:] - true[which, :2], 2)
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
    seen, said = np.where(near[:, None], moved, seen), np.where(near, labels[which], said)
    scores = np.where(near, rng.beta(3, 2, DETECTIONS), rng.beta(1, 4, DETECTIONS))
    area = (true[:, 2:] - true[:, :2]).prod(1) * rng.uniform(0.4, 1, objects)
    target = {"boxes": _float(true), "labels": torch.from_numpy(labels), "area": _float(area)}
    target["iscrowd"] = torch.from_numpy(rng.random(objects) < 0.01)
    return {"boxes": _float(seen), "scores": _float(scores), "labels": torch.from_numpy(said)}, target


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    sides = np.exp(rng.uniform(2, 6, (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * (SIDE - sides)
    return np.concatenate((corner, corner + sides), axis=1)


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def ours(batches: Batches) -> list[float]:
    """Our figures, in the order of `NAMES`."""
    from striate.tasks.metrics import COCODetection

    metric = COCODetection(CLASSES)
    for seen, targets in batches:
        metric.update(seen, targets)
    figures = metric.compute()
    return [float(figures[name]) for name in NAMES]


def torchmetrics(batches: Batches, backend: str) -> list[float]:
    """torchmetrics' figures."""
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(backend=backend)  # type: ignore[arg-type]
    for seen, targets in batches:
        metric.update(seen, targets)
    figures = metric.compute()
    return [float(figures[name]) for name in THEIRS]


def pycocotools(batches: Batches) -> list[float]:
    """pycocotools' figures."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    image = 0
    for seen, targets in batches:
        for one, target in zip(seen, targets, strict=True):
            crowds, areas = target["iscrowd"].int().tolist(), target["area"].tolist()
            for fields, crowd, area in zip(_entries(image, target), crowds, areas, strict=True):
                objects.append({**fields, "id": len(objects) + 1, "iscrowd": crowd, "area": area})
            scores = one["scores"].tolist()
            detections += [{**fields, "score": s} for fields, s in zip(_entries(image, one), scores, strict=True)]
            image += 1
    truth = COCO()
    truth.dataset = {"images": [{"id": i} for i in range(image)], "annotations": objects, "info": {}}
    truth.dataset["categories"] = [{"id": label} for label in range(CLASSES)]
    with contextlib.redirect_stdout(None):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
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
    """What a fresh process does: evaluate, and print figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("images", type=int)
    given = parser.parse_args()
    side = SIDES[given.side]
    side(make_batches(2 * BATCH))  # imports, and what is made once, are no part of it
    batches = make_batches(given.images)
    figures: list[float] = []
    before = resident_mb()
    clock = time_call(lambda: figures.extend(side(batches)))
    measured = {"seconds": clock.wall, "cpu": clock.cpu, "rise": peak_mb() - before}
    print(json.dumps(measured | dict(zip(NAMES, figures, strict=True))))


def run(images: int = IMAGES, repetitions: int = 2) -> list[Row]:
    """Measure: in turn, each in a fresh process.

    Raises:
        RuntimeError: when two sides give different figures.
    """
    peers = [side for side in PEERS if side != "faster" or importlib.util.find_spec("faster_coco_eval")]
    sides = {side: partial(run_fresh, "striate.benchmarks.detection_metrics", side, str(images)) for side in SIDES}
    measured = interleave({side: sides[side] for side in ("ours", *peers)}, repetitions, warm_up=0)
    rows = []
    mine = measured["ours"]
    for side in peers:
        name, goal, tolerance = PEERS[side]
        theirs = measured[side]
        for figure in NAMES:
            if abs(mine[0][figure] - theirs[0][figure]) > tolerance:
                raise RuntimeError(f"{figure} is {mine[0][figure]} by ours and {theirs[0][figure]} by {name}")
        lines = (("time", "seconds", "s", goal), ("processor time", "cpu", "s", None))
        for label, field, unit, bound in (*lines, ("memory above the data", "rise", "MB", THIRD if goal else None)):
            pairs = [[result[field] for result in results] for results in (mine, theirs)]
            here, there = (f"{statistics.median(values):{'.0f' if unit == 'MB' else '.3g'}} {unit}" for values in pairs)
            what = f"COCO evaluation of {images:,} images, {images * DETECTIONS:,} detections: {label}, against {name}"
            rows.append(Row(what, here, there, median_ratio(*pairs), bound))
    return rows


if __name__ == "__main__":
    child()
