"""Mean IoU of 1,000 masks of VOC's size, compared with torchmetrics.

The masks are generated, with 500x375 pixels and 21 classes: ellipses on background, each with an ignored border of 5
pixels as in VOC. Predictions are the same ellipses shifted by a few pixels, some with a different class. striate's side
is `SegmentationConfusion` with `class_ious`; the peer is torchmetrics' ``MulticlassJaccardIndex``, macro-averaged, with
``ignore_index=255``. (Its ``segmentation.MeanIoU`` averages over single images, which is a different metric.) Both get
the same uint8 tensors in the same batches, and must agree. For the row with a goal, the peer's input check is turned
off; striate's check is part of its counting.
"""

import statistics
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from striate.benchmarks.harness import Goal, Row, interleave, median_ratio, time_call

MASKS, CLASSES, WIDTH, HEIGHT, BATCH = 1000, 21, 500, 375, 8
DISTINCT = 200  # number of masks drawn; they are repeated
FASTER = Goal(1 / 3, at_least=False)

Batches = list[tuple[Tensor, Tensor]]


def make_batches(count: int = MASKS) -> Batches:
    """Make pairs of predictions and ground truth, ``[BATCH, HEIGHT, WIDTH]`` uint8 each."""
    rng = np.random.default_rng(0)
    pairs = [_pair(rng) for _ in range(min(count, DISTINCT))]
    repeated = [pairs[number % len(pairs)] for number in range(count)]
    return [
        (torch.from_numpy(np.stack([p for p, _ in part])), torch.from_numpy(np.stack([t for _, t in part])))
        for part in (repeated[start : start + BATCH] for start in range(0, count, BATCH))
    ]


def _pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a predicted mask and its target, each ``[HEIGHT, WIDTH]``."""
    predicted, target = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for _ in range(int(rng.integers(1, 6))):
        label = int(rng.integers(1, CLASSES))
        predicted_label = label if rng.random() < 0.8 else int(rng.integers(1, CLASSES))
        x, y, dx, dy = (int(v) for v in rng.integers((0, 0, -9, -9), (WIDTH, HEIGHT, 10, 10)))
        axes = (int(rng.integers(15, 140)), int(rng.integers(15, 140)))
        cv2.ellipse(target, (x, y), axes, 0, 0, 360, label, -1)
        cv2.ellipse(target, (x, y), axes, 0, 0, 360, 255, 5)
        cv2.ellipse(predicted, (x + dx, y + dy), axes, 0, 0, 360, predicted_label, -1)
    return predicted, target


def ours(batches: Batches) -> float:
    """Compute the mean IoU with striate."""
    from striate.tasks.metrics import SegmentationConfusion, class_ious

    metric = SegmentationConfusion(CLASSES)
    for predicted, target in batches:
        metric.update(predicted, target)
    return float(class_ious(metric.compute()).nanmean())


def peer(batches: Batches, validate: bool) -> float:
    """Compute the mean IoU with torchmetrics."""
    from torchmetrics.classification import MulticlassJaccardIndex

    metric = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=255, validate_args=validate)
    for predicted, target in batches:
        metric.update(predicted, target)
    return float(metric.compute())


def boundaries(batches: Batches) -> float:
    """Compute the mean boundary IoU with striate; it has no peer here."""
    from striate.tasks.metrics import BoundaryIoU

    metric = BoundaryIoU(CLASSES)
    for predicted, target in batches:
        metric.update(predicted, target)
    return float(metric.compute().nanmean())


def run(masks: int = MASKS, repetitions: int = 3) -> Iterator[Row]:
    """Measure striate, the peer, and the peer with its input check, alternately.

    Raises:
        RuntimeError: If the mean IoUs differ.
    """
    batches = make_batches(masks)
    values = ours(batches), peer(batches, False)
    if abs(values[0] - values[1]) > 1e-6:
        raise RuntimeError(f"mean IoU: sides differ, got {values[0]} (striate) and {values[1]} (torchmetrics)")
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: time_call(lambda: ours(batches)).wall,
        "peer": lambda: time_call(lambda: peer(batches, False)).wall,
        "checked": lambda: time_call(lambda: peer(batches, True)).wall,
        "boundary": lambda: time_call(lambda: boundaries(batches)).wall,
    }
    seconds = interleave(sides, repetitions, warm_up=1)
    shown = {name: f"{statistics.median(values):.2f} s" for name, values in seconds.items()}
    what = f"mean IoU of {masks:,} masks of {WIDTH}x{HEIGHT}, {CLASSES} classes; "
    for name, peer_name, goal in (
        ("peer", "torchmetrics", FASTER),
        ("checked", "torchmetrics with its input check", None),
    ):
        ratio = median_ratio(seconds["ours"], seconds[name])
        yield Row(f"{what}peer: {peer_name}", shown["ours"], shown[name], ratio, goal)
    ratio = median_ratio(seconds["boundary"], seconds["peer"])
    yield Row("boundary IoU of the same masks; peer: torchmetrics' IoU", shown["boundary"], shown["peer"], ratio)
