"""Training step and inference of Mask R-CNN, ResNet-50 with a pyramid, at 800 pixels, compared with torchvision.

As `detection_step`, with masks. Memory is the peak growth of a new process in one inference of an image with 100
instances, after imports, weights and the image: striate returns run lengths, torchvision float masks of the whole
image.
"""

import argparse
import statistics
from collections.abc import Iterator
from functools import partial

import torch

from striate.benchmarks.detection_step import make_batch, make_ours, make_reference
from striate.benchmarks.detection_step import run as run_steps
from striate.benchmarks.harness import Goal, Row, interleave, measure_child, run_fresh

FASTER, LIGHTER = Goal(0.95, at_least=False), Goal(0.5, at_least=False)


def child() -> None:
    """Entry point of the new process: detect in one image, and print its memory as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("ours", "peer"))
    side = parser.parse_args().side
    reference = make_reference("Mask R-CNN").eval()
    reference.roi_heads.score_thresh = 0.0  # 100 instances
    images, _ = make_batch(1, "cpu")
    model = reference
    if side == "ours":
        model = make_ours(reference).eval()
        model.score_threshold = 0.0
    pixels = images if side == "ours" else [image / 255 for image in images]

    def instances() -> dict[str, float]:
        with torch.inference_mode():
            return {"instances": len(model(pixels)[0]["boxes"])}

    measure_child(instances)


def run() -> Iterator[Row]:
    """Measure times and memory, and yield each row as soon as it is measured."""
    yield from run_steps("Mask R-CNN", FASTER)
    sides = {side: partial(run_fresh, "striate.benchmarks.instance_step", side) for side in ("ours", "peer")}
    measured = interleave(sides, 3, warm_up=0)
    if any(result["instances"] != 100 for results in measured.values() for result in results):
        raise RuntimeError(f"the image must have 100 instances on both sides, got {measured}")
    ours, peer = (statistics.median(result["rise"] for result in measured[side]) for side in sides)
    what = "peak memory of inference (Mask R-CNN R50-FPN, 800 px, 100 instances)"
    yield Row(what, f"{ours:.0f} MB", f"{peer:.0f} MB", ours / peer, LIGHTER)


if __name__ == "__main__":
    child()
