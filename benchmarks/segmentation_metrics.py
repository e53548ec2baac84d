"""Mean IoU of 1,000 masks of VOC's size, against torchmetrics.

Masks of 500x375 pixels with 21 classes, made here: ellipses on background, with an ignored border of 5 pixels around
each as VOC's have it, and as predictions the same ellipses moved a few pixels, some of another class. Ours is
`SegmentationConfusion` with `class_ious`; the peer is torchmetrics' ``MulticlassJaccardIndex``, macro-averaged, with
``ignore_index=255``. (Its ``segmentation.MeanIoU`` averages figures of single images, which is another measure.) Both
get the same uint8 tensors in the same batches, and must agree. The peer's own check of its input is switched off for
the figure with the goal; ours counts what is wrong along with the rest.
"""

import statistics
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from striate.benchmarks.harness import Goal, Row, interleave, median_ratio, time_call

MASKS, CLASSES, WIDTH, HEIGHT, BATCH = 1000, 21, 500, 375, 8
DISTINCT = 200  # masks drawn; they come again
FASTER = Goal(1 / 3, at_least=False)

Batches = list[tuple[Tensor, Tensor]]


def make_batches(count: int = MASKS) -> Batches:
    """Predictions and truths, ``[BATCH, HEIGHT, WIDTH]`` uint8 each."""
    rng = np.random.default_rng(0)
    pairs = [_pair(rng) for _ in range(min(count, DISTINCT))]
    chosen = [pairs[number % len(pairs)] for number in range(count)]
    return [
        (torch.from_numpy(np.stack([p for p, _ in part])), torch.from_numpy(np.stack([t for _, t in part])))
        for part in (chosen[start : start + BATCH] for start in range(0, count, BATCH))
    ]


def _pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for _ in range(int(rng.integers(1, 6))):
        label = int(rng.integers(1, CLASSES))
        said = label if rng.random() < 0.8 else int(rng.integers(1, CLASSES))
        x, y, dx, dy = (int(v) for v in rng.integers((0, 0, -9, -9), (WIDTH, HEIGHT, 10, 10)))
        axes = (int(rng.integers(15, 140)), int(rng.integers(15, 140)))
        cv2.ellipse(truth, (x, y), axes, 0, 0, 360, label, -1)
        cv2.ellipse(truth, (x, y), axes, 0, 0, 360, 255, 5)
        cv2.ellipse(predicted, (x + dx, y + dy), axes, 0, 0, 360, said, -1)
    return predicted, truth


def ours(batches: Batches) -> float:
    """Our mean IoU."""
    from striate.tasks.metrics import SegmentationConfusion, class_ious

    metric = SegmentationConfusion(CLASSES)
    for predicted, truth in batches:
        metric.update(predicted, truth)
    return float(class_ious(metric.compute()).nanmean())


def peer(batches: Batches, validate: bool) -> float:
    """torchmetrics' mean IoU."""
    from torchmetrics.classification import MulticlassJaccardIndex

    metric = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=255, validate_args=validate)
    for predicted, truth in batches:
        metric.update(predicted, truth)
    return float(metric.compute())


def boundaries(batches: Batches) -> float:
    """Our mean boundary IoU, which has no peer here."""
    from striate.tasks.metrics import BoundaryIoU

    metric = BoundaryIoU(CLASSES)
    for predicted, truth in batches:
        metric.update(predicted, truth)
    return float(metric.compute().nanmean())


def run(masks: int = MASKS, repetitions: int = 3) -> list[Row]:
    """Measure: ours, the peer, and the peer with its checks, in turn.

    Raises:
        RuntimeError: when the two give different figures.
    """
    batches = make_batches(masks)
    figures = ours(batches), peer(batches, False)
    if abs(figures[0] - figures[1]) > 1e-6:
        raise RuntimeError(f"mean IoU is {figures[0]} by ours and {figures[1]} by torchmetrics")
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: time_call(lambda: ours(batches)).wall,
        "peer": lambda: time_call(lambda: peer(batches, False)).wall,
        "checked": lambda: time_call(lambda: peer(batches, True)).wall,
        "boundary": lambda: time_call(lambda: boundaries(batches)).wall,
    }
    seconds = interleave(sides, repetitions, warm_up=1)
    shown = {name: f"{statistics.median(values):.2f} s" for name, values in seconds.items()}
    what = f"mean IoU of {masks:,} masks of {WIDTH}x{HEIGHT}, {CLASSES} classes, "
    rows = [
        Row(
            what + ("against torchmetrics" if name == "peer" else "against torchmetrics with its checks of the input"),
            shown["ours"],
            shown[name],
            median_ratio(seconds["ours"], seconds[name]),
            FASTER if name == "peer" else None,
        )
        for name in ("peer", "checked")
    ]
    ratio = median_ratio(seconds["boundary"], seconds["peer"])
    return [*rows, Row("boundary IoU of the same, beside torchmetrics' IoU", shown["boundary"], shown["peer"], ratio)]
