"""Pasting 100 masks of 28 x 28 cells into an image of 1333 x 800 pixels, compared with torchvision.

Both sides end with binary masks: striate's are run lengths, torchvision's a bool tensor made from its float masks of
the image. torchvision rounds boxes to whole pixels and makes them a pixel wider and higher, so areas must only agree
within 10 % and 30 pixels. Memory is the peak growth of a new process in one call.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from striate.benchmarks.harness import Goal, Row, interleave, median_ratio, peak_mb, resident_mb, run_fresh, time_call
from striate.benchmarks.input_pipeline import one_thread

MASKS, CELLS, HEIGHT, WIDTH = 100, 28, 800, 1333
FASTER, LIGHTER = Goal(1 / 5, at_least=False), Goal(1 / 4, at_least=False)
TOLERANCE = 0.1


def make_sides() -> dict[str, Callable[[], Any]]:
    """Return the functions of both sides, bound to the same masks ``[100, 28, 28]`` and boxes ``[100, 4]``."""
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    from striate.models.ops.masks import paste_masks

    generator = torch.Generator().manual_seed(0)
    sides = torch.exp(torch.rand(MASKS, 2, generator=generator) * 3 + 3)  # 20 to 400 pixels
    corners = torch.rand(MASKS, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - sides)
    boxes = torch.cat([corners, corners + sides], 1)
    line = (torch.arange(CELLS) + 0.5) / CELLS * 2 - 1
    radius = (line[:, None] ** 2 + line**2).sqrt()
    masks = torch.sigmoid((0.6 + 0.4 * torch.rand(MASKS, 1, 1, generator=generator) - radius) * 10)
    size = (HEIGHT, WIDTH)
    return {
        "ours": lambda: paste_masks(masks, boxes, size),
        "peer": lambda: paste_masks_in_image(masks[:, None], boxes, size) > 0.5,
    }


def child() -> None:
    """Entry point of the new process: make one call, and print its memory as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("ours", "peer"))
    call = make_sides()[parser.parse_args().side]
    torch.rand(1000, 1000) @ torch.rand(1000, 1000)  # allocate the memory of the threads first
    before = resident_mb()
    call()
    print(json.dumps({"grown": max(peak_mb() - before, 0.1)}))


def run(repetitions: int = 9) -> Iterator[Row]:
    """Measure time with one thread, and memory, and yield each row as soon as it is measured."""
    sides = make_sides()
    ours, peer = sides["ours"]().area(), sides["peer"]().sum((1, 2, 3))
    if not bool(((ours - peer).abs() <= TOLERANCE * peer + 30).all()):
        raise RuntimeError(f"areas differ: {ours.tolist()} (striate) and {peer.tolist()} (torchvision)")
    with one_thread():
        times = interleave({name: partial(time_call, call) for name, call in sides.items()}, repetitions)
    shown = {name: f"{statistics.median(t.cpu for t in values) * 1000:.1f} ms" for name, values in times.items()}
    ratio = median_ratio(*([t.cpu for t in times[name]] for name in ("ours", "peer")))
    what = f"pasting {MASKS} masks into {WIDTH} x {HEIGHT}, CPU time of one thread; peer: torchvision"
    yield Row(what, shown["ours"], shown["peer"], ratio, FASTER)
    fresh = {name: partial(run_fresh, "striate.benchmarks.mask_pasting", name) for name in sides}
    measured = interleave(fresh, 3, warm_up=0)
    grown = [statistics.median(result["grown"] for result in measured[name]) for name in sides]
    yield Row("the same, peak memory", f"{grown[0]:.1f} MB", f"{grown[1]:.1f} MB", grown[0] / grown[1], LIGHTER)


if __name__ == "__main__":
    child()
