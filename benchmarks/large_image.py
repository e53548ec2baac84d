"""Memory of predicting, evaluating and writing 1,000 instances of an image of 2048 x 2048 pixels, against a limit.

The instances are small masks of 28 x 28 cells in boxes of 20 to 200 pixels, as a network returns them. They are
pasted, compared with 1,000 objects by all metrics of the task, and written as ``striate predict`` does: tables, COCO's
file, the mask of ids, and the plot. Memory is the peak growth of a new process in all of that, after imports, the
image and the small masks. The objects, as run lengths, are counted too; as uint8 masks they would take 4 GB.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from striate.benchmarks.harness import Goal, Row, peak_mb, reset_peak, resident_mb, run_fresh

INSTANCES, CELLS, SIDE, CLASSES = 1000, 28, 2048, 5
LIMIT = 300  # MB
STEPS = ("predicting", "evaluating", "writing")


class _NoNetwork(nn.Module):
    """Stands for the network, whose memory is not measured."""

    num_classes = CLASSES

    def forward(self, images: Any) -> list[Any]:
        """Detect nothing, in images ``[B, 3, H, W]``."""
        return []

    def losses(self, images: Any, targets: Any) -> dict[str, Tensor]:
        """Return no losses, since nothing is trained here."""
        return {}


def make_instances(count: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw small round masks ``[M, 28, 28]`` and their boxes ``[M, 4]``."""
    sides = torch.exp(torch.rand(count, 2, generator=generator) * 2.3 + 3)
    corners = torch.rand(count, 2, generator=generator) * (side - sides)
    line = (torch.arange(CELLS) + 0.5) / CELLS * 2 - 1
    radius = (line[:, None] ** 2 + line**2).sqrt()
    masks = torch.sigmoid((0.7 + 0.3 * torch.rand(count, 1, 1, generator=generator) - radius) * 10)
    return masks, torch.cat([corners, corners + sides], 1)


def measure(count: int, side: int, folder: Path) -> dict[str, float]:
    """Predict, evaluate and write, and return the growth of the peak memory in MB after each step."""
    from striate.callbacks.predictions.instances import InstanceWriter
    from striate.models.ops.masks import paste_masks
    from striate.tasks import InstanceSegmentation

    generator = torch.Generator().manual_seed(0)
    task = InstanceSegmentation(_NoNetwork(), max_detections=count)
    task.class_names = [f"class {label}" for label in range(CLASSES)]
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    masks, boxes = make_instances(count, side, generator)
    reset_peak()
    before, grown = resident_mb(), {}
    labels, scores = torch.arange(count) % CLASSES, torch.rand(count, generator=generator)
    objects = paste_masks(masks, boxes + 3 * torch.randn(count, 4, generator=generator), (side, side))
    target = {"boxes": objects.boxes(), "labels": labels, "masks": objects}
    detections: Any = {
        "boxes": boxes,
        "scores": scores,
        "labels": labels,
        "masks": paste_masks(masks, boxes, image.shape[:2]),
    }
    grown["predicting"] = peak_mb() - before
    metrics = task.make_metrics()
    task.update_metrics(metrics, [detections], {"target": [target]})
    if not task.compute_metrics(metrics)["mask_map50"] > 0.3:
        raise RuntimeError("mask_map50: must be above 0.3, since detections are near objects")
    grown["evaluating"] = peak_mb() - before
    writer = InstanceWriter(task, folder, 0, ["image.png"])
    writer.rows("image.png", 0, detections, image.shape[:2])
    writer.counts("image.png", detections)
    writer.draw(image, "image.png", detections)
    writer.join()
    grown["writing"] = peak_mb() - before
    return grown


def child() -> None:
    """Entry point of the new process: do all steps with few instances, then measure, and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("instances", type=int)
    parser.add_argument("side", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(5, 256, Path(folder))  # exclude imports and one-time initialization
        print(json.dumps(measure(options.instances, options.side, Path(folder))))


def run(instances: int = INSTANCES, side: int = SIDE, repetitions: int = 1) -> Iterator[Row]:
    """Measure in new processes; the peak includes the steps before."""
    arguments = "striate.benchmarks.large_image", str(instances), str(side)
    measured = [run_fresh(*arguments) for _ in range(repetitions)]
    for step in STEPS:
        grown = statistics.median(result[step] for result in measured)
        what = (
            f"peak memory of {' and '.join(STEPS[: STEPS.index(step) + 1])} {instances:,} instances of {side} x {side}"
        )
        bound = Goal(1, at_least=False) if step == STEPS[-1] else None
        yield Row(what, f"{grown:.0f} MB", f"{LIMIT} MB (limit)", grown / LIMIT, bound)


if __name__ == "__main__":
    child()
