"""Selective search of two photographs of 500 x 375 pixels, compared with OpenCV's contributed module.

CPU time of one thread. OpenCV's is not the published method (scales from 150, other derivatives, another ranking), and
proposes fewer boxes: it anchors the speed per proposal only. Boxes below 20 pixels are dropped on our side, as
published, and count on OpenCV's. See `opencv_proposals` for how to install it.
"""

import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from striate.benchmarks.harness import Goal, Row
from striate.benchmarks.opencv_proposals import opencv_proposals
from striate.models import selective_search
from striate.models.proposals.selective_search import Mode

SIZE = (500, 375)
REPETITIONS = 3
LIMIT = 3.0
"""Goal of fast mode, in seconds per image."""


def run() -> Iterator[Row]:
    """Measure single and fast mode, and quality mode once."""
    images = [np.asarray(Image.fromarray(image).resize(SIZE)) for image in load_sample_images().images]
    _ours(images[:1], "single")  # imports
    modes: tuple[tuple[Mode, int], ...] = (("single", 1), ("fast", REPETITIONS), ("quality", 1))
    for mode, repetitions in modes:
        seconds, peers = [], []
        counts: list[int] = []
        for _ in range(repetitions):
            spent, counts = _ours(images, mode)
            seconds.append(spent)
            peers.append(opencv_proposals(images, mode) if mode != "single" else None)
        ours, number = statistics.median(seconds), statistics.mean(counts)
        what = f"selective search, {mode} mode, 500x375, CPU time per image ({number:.0f} boxes)"
        if mode == "fast":
            yield Row(f"{what}; peer: the limit", f"{ours:.2f} s", f"{LIMIT:.0f} s", ours / LIMIT, Goal(1, False))
        if peers[0] is None:
            if mode != "fast":
                yield Row(what, f"{ours:.2f} s")
            continue
        theirs = statistics.median(statistics.mean(times) for _, times in filter(None, peers))
        their_number = statistics.mean(len(boxes) for boxes in peers[0][0])
        yield Row(f"{what}; peer: OpenCV ({their_number:.0f} boxes)", f"{ours:.2f} s", f"{theirs:.2f} s", ours / theirs)
        each, their_each = 1e3 * ours / number, 1e3 * theirs / their_number
        goal = Goal(1, False) if mode == "fast" else None
        yield Row("the same, per proposal", f"{each:.2f} ms", f"{their_each:.2f} ms", each / their_each, goal)


def _ours(images: list[np.ndarray], mode: Mode) -> tuple[float, list[int]]:
    """Mean CPU time per image ``[H, W, 3]``, and the number of boxes of each."""
    tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images]
    begin = time.process_time()
    counts = [len(selective_search(image, mode)[0]) for image in tensors]
    return (time.process_time() - begin) / len(images), counts
