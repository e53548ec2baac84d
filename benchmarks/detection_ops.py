"""Matching 100,000 anchors with 200 objects, and NMS of 100,000 boxes, compared with torchvision.

Matching: `match_anchors` with the settings of Faster R-CNN's region proposals, compared with ``Matcher`` on
``box_iou``; and `bipartite_then_threshold`, compared with ``SSDMatcher``. NMS: `classwise_nms`, compared with
``batched_nms``, for 80 classes, for one class, and for the few boxes that remain after a detector's score threshold.
Boxes are distributed as those of a detector: around 200 objects in an image of 800 pixels, randomly shifted and scaled.
Both sides get the same tensors, and must agree (for SSD's matching, except where objects compete for an anchor).

Times are CPU times, which a busy machine affects less. Memory is the peak growth of a new process in one call, after
imports and data.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from striate.benchmarks.harness import Goal, Row, interleave, median_ratio, peak_mb, resident_mb, run_fresh, time_call

ANCHORS, OBJECTS, BOXES, CLASSES, FEW, SIDE = 100_000, 200, 100_000, 80, 500, 800
NOT_SLOWER, LIGHTER = Goal(1, at_least=False), Goal(1 / 3, at_least=False)
RPN = (0.7, 0.3, True)

Call = Callable[[], Tensor]


def make_matching() -> tuple[Tensor, Tensor]:
    """Make objects ``[OBJECTS, 4]`` and anchors ``[ANCHORS, 4]``: three scales and three shapes per grid cell."""
    generator = torch.Generator().manual_seed(0)
    grid = int((ANCHORS / 9) ** 0.5) + 1
    line = (torch.arange(grid) + 0.5) * SIDE / grid
    centers = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).reshape(-1, 1, 2)
    sides = torch.tensor([
        [side * ratio**0.5, side / ratio**0.5] for side in (32.0, 64.0, 128.0) for ratio in (0.5, 1, 2)
    ])  # fmt: skip
    anchors = torch.cat([centers - sides / 2, centers + sides / 2], dim=-1).reshape(-1, 4)[:ANCHORS]
    return _objects(OBJECTS, generator)[0], anchors


def make_detections(count: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make boxes ``[count, 4]``, scores and labels ``[count]``: near objects, half with the object's label."""
    generator = torch.Generator().manual_seed(0)
    objects, sides = _objects(OBJECTS, generator)
    of = torch.randint(0, OBJECTS, (count,), generator=generator)
    boxes = objects[of] + torch.randn(count, 4, generator=generator) * 0.1 * sides[of].repeat(1, 2)
    low, high = torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:]) + 1
    other = torch.randint(0, classes, (count,), generator=generator) * torch.randint(
        0, 2, (count,), generator=generator
    )
    scores = torch.randperm(count, generator=generator) / count
    return torch.cat([low, high], dim=1).clamp(0, SIDE), scores, (of + other) % classes


def _objects(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw objects ``[count, 4]`` and their sides ``[count, 2]``."""
    sides = torch.exp(torch.rand(count, 2, generator=generator) * 3 + 3)  # 20 to 400 pixels
    low = torch.rand(count, 2, generator=generator) * (SIDE - sides)
    return torch.cat([low, low + sides], dim=1), sides


def make_case(case: str) -> dict[str, Call]:
    """Return the functions of both sides of a case, bound to its data."""
    from torchvision.ops import batched_nms, box_iou

    from striate.benchmarks.compat import Matcher, SSDMatcher
    from striate.models.detection import bipartite_then_threshold, classwise_nms, match_anchors

    if case in ("rpn", "ssd"):
        objects, anchors = make_matching()
        if case == "rpn":
            return {
                "ours": lambda: match_anchors(objects, anchors, *RPN),
                "peer": lambda: Matcher(*RPN)(box_iou(objects, anchors)),
            }
        return {
            "ours": lambda: bipartite_then_threshold(objects, anchors),
            "peer": lambda: SSDMatcher(0.5)(box_iou(objects, anchors)),
        }
    boxes, scores, labels = make_detections(*{"nms": (BOXES, CLASSES), "one": (BOXES, 1), "few": (FEW, CLASSES)}[case])
    return {
        "ours": lambda: classwise_nms(boxes, scores, labels, 0.5),
        "peer": lambda: batched_nms(boxes, scores, labels, 0.5),
    }


CASES = {
    "rpn": f"matching {ANCHORS:,} anchors with {OBJECTS} objects, for region proposals",
    "ssd": "the same for SSD",
    "nms": f"class-wise NMS of {BOXES:,} boxes, {CLASSES} classes",
    "one": "the same, one class",
    "few": f"the same, {FEW} boxes, {CLASSES} classes",
}


def check(case: str, sides: dict[str, Call]) -> None:
    """Compare the outputs of both sides.

    Raises:
        RuntimeError: If they differ.
    """
    ours, peer = (sides[side]() for side in ("ours", "peer"))
    if case == "ssd":  # in torchvision, an object whose anchor another object takes has no anchor
        alike = float((ours == peer).float().mean()) > 1 - 2 * OBJECTS / ANCHORS
    else:
        alike = torch.equal(ours, peer)
    if not alike:
        raise RuntimeError(f"{case}: outputs differ, got {ours} (striate) and {peer} (torchvision)")


def child() -> None:
    """Entry point of the new process: make one call, and print its memory as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("side", choices=("ours", "peer"))
    options = parser.parse_args()
    call = make_case(options.case)[options.side]
    torch.rand(1000).sort()  # allocate the memory of the threads first
    before = resident_mb()
    call()
    print(json.dumps({"grown": max(peak_mb() - before, 0.1)}))


def memory(case: str, repetitions: int) -> Row:
    """Measure the peak memory of both sides of a case."""
    sides = {side: partial(run_fresh, "striate.benchmarks.detection_ops", case, side) for side in ("ours", "peer")}
    measured = interleave(sides, repetitions, warm_up=0)
    ours, peer = (statistics.median(result["grown"] for result in measured[side]) for side in sides)
    return Row(f"peak memory of {CASES[case]}", f"{ours:.0f} MB", f"{peer:.0f} MB", ours / peer, LIGHTER)


def run(repetitions: int = 5) -> Iterator[Row]:
    """Measure all cases, and yield each row as soon as it is measured."""
    for case, what in CASES.items():
        sides = make_case(case)
        check(case, sides)
        calls = 20 if case == "few" else 1
        measures = {side: partial(milliseconds, call, calls) for side, call in sides.items()}
        times = interleave(measures, repetitions)
        shown = {side: f"{statistics.median(values):.3g} ms" for side, values in times.items()}
        ratio = median_ratio(times["ours"], times["peer"])
        goal = None if case == "few" else NOT_SLOWER
        yield Row(f"{what}; peer: torchvision", shown["ours"], shown["peer"], ratio, goal)
    yield memory("rpn", 3)


def milliseconds(call: Call, calls: int) -> float:
    """Return the CPU time of one of `calls` calls in a row, in milliseconds."""
    return time_call(lambda: [call() for _ in range(calls)]).cpu * 1000 / calls


if __name__ == "__main__":
    child()
