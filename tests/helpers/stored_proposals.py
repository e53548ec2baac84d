"""Compute proposals in tests, and a process that does so slowly."""

import sys
import time
from pathlib import Path

import numpy as np

from striate.datamodules import DigitScenes
from striate.datamodules.proposals import ProposalJob, compute_proposals


def scenes(**options):
    """A small DigitScenes for detection."""
    sizes = {"train_size": 12, "val_size": 5, "test_size": 4}
    return DigitScenes("detection", **{"image_size": 32, "batch_size": 4, "num_workers": 0, **sizes, **options})


def brightest(image: np.ndarray) -> np.ndarray:
    """As many boxes as the image's mean has tens, around its brightest pixel; they depend on the image."""
    row, column = np.unravel_index(image.sum(axis=2).argmax(), image.shape[:2])
    sides = np.arange(1, int(image.mean()) // 10 + 1)
    low = np.array([column, row]) - sides[:, None]
    boxes = np.concatenate([low, low + 2 * sides[:, None] + 1], axis=1)
    return boxes.clip(0, np.tile(image.shape[1::-1], 2))


def job(data: DigitScenes, splits=("train", "val"), **method) -> ProposalJob:
    """The job of some splits of a data set."""
    return ProposalJob("DigitScenes", {split: data.make_source(split) for split in splits}, {"mode": "x", **method})


def write(path: Path, data: DigitScenes | None = None, propose=brightest, processes: int = 0, **method) -> Path:
    """Compute the proposals of training and validation scenes."""
    compute_proposals(job(data or scenes(), **method), propose, path, processes)
    return path


if __name__ == "__main__":

    def slow(image: np.ndarray) -> np.ndarray:
        """`brightest`, so slowly that the process can be killed in between."""
        time.sleep(0.05)
        return brightest(image)

    write(Path(sys.argv[1]), propose=slow, processes=int(sys.argv[2]))
