"""Images per second from JPEG files to batches of 224-pixel crops, in one process, like a loader worker.

striate's side is what an experiment's YAML builds: `LabeledFiles`, albumentations' RandomResizedCrop and
HorizontalFlip, `make_loader`. Batches are uint8; the model normalizes them. The peer is the training preset of
torchvision's classification reference with its default backend (Pillow images, ``antialias=True``), which yields
normalized floats. Both sample crops in the same way: 8 to 100 % of the area, aspect ratios 3:4 to 4:3. Two more rows
compare with decoding alone, and with the same preset without its conversion to normalized floats.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from striate.benchmarks.harness import Clock, Goal, Row, interleave, median_clock, median_ratio, time_call
from striate.datamodules import TransformedDataset, read_image
from striate.datamodules.folders.images import LabeledFiles
from striate.datamodules.loading.loader import make_loader

FILES, BATCH, CROP = 64, 32, 224
HEIGHT, WIDTH, QUALITY = 375, 500, 90  # a typical image of ImageNet
REPETITIONS = 15
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PillowFiles(Dataset[tuple[Any, int]]):
    """The peer's data set, read as in torchvision's ImageFolder: opened with Pillow, converted to RGB."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        """Store the files and the transform, which returns images ``[3, H, W]``."""
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return an image ``[3, H, W]`` and the label 0."""
        with self.paths[index].open("rb") as file:
            image = Image.open(file).convert("RGB")
        return self.transform(image), 0


def reference_steps() -> list[Callable[[Any], Any]]:
    """Return the reference's training preset: crop, flip, to uint8 tensor, to float, normalize."""
    crop = T.RandomResizedCrop(CROP, interpolation=T.InterpolationMode.BILINEAR, antialias=True)
    flip = T.RandomHorizontalFlip(0.5)
    return [crop, flip, T.PILToTensor(), T.ConvertImageDtype(torch.float), T.Normalize(MEAN, STD)]


def write_jpegs(folder: Path) -> list[Path]:
    """Write crops of scikit-learn's two photographs, flipped at random, as 4:2:0 JPEGs."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = load_sample_images().images  # [427, 640, 3] each
    paths = []
    for number in range(FILES):
        photograph = photographs[number % len(photographs)]
        top, left = (
            rng.integers(1 + size - crop) for size, crop in zip(photograph.shape, (HEIGHT, WIDTH), strict=False)
        )
        crop = photograph[top : top + HEIGHT, left : left + WIDTH]
        crop = crop[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(np.ascontiguousarray(crop)).save(paths[-1], quality=QUALITY)
    return paths


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch and OpenCV to one thread, as in a loader worker."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)


def exhaust(items: Iterable[Any]) -> None:
    """Iterate over all items without keeping them: keeping them would add the cost of new memory."""
    for _ in items:
        pass


def make_sides(paths: list[Path]) -> dict[str, Callable[[], Clock]]:
    """Make the sides: each one iterates over all files once."""
    pipeline = A.Compose([A.RandomResizedCrop(size=(CROP, CROP)), A.HorizontalFlip()])
    data = TransformedDataset(LabeledFiles(paths, np.zeros(FILES, np.int64)), pipeline)
    ours = make_loader(data, BATCH, num_workers=0, training=True, seed=0)
    steps = reference_steps()
    preset = DataLoader(PillowFiles(paths, T.Compose(steps)), BATCH, shuffle=True, drop_last=True)
    uint8 = DataLoader(PillowFiles(paths, T.Compose(steps[:3])), BATCH, shuffle=True, drop_last=True)
    calls: dict[str, Callable[[], object]] = {
        "ours": partial(exhaust, ours),
        "preset": partial(exhaust, preset),
        "decode": lambda: exhaust(map(read_image, paths)),
        "uint8": partial(exhaust, uint8),
    }
    return {name: partial(time_call, call) for name, call in calls.items()}


def run() -> Iterator[Row]:
    """Measure striate and its peers alternately."""
    with tempfile.TemporaryDirectory() as folder, one_thread():
        measured = interleave(make_sides(write_jpegs(Path(folder))), REPETITIONS, warm_up=2)
    for side, what, goal in (
        ("preset", "torchvision's reference preset", Goal(2.5, at_least=True)),
        ("decode", "decoding only, with read_image", Goal(0.8, at_least=True)),
        ("uint8", "the preset without normalization", None),
    ):
        ours, peer = median_clock(measured["ours"]).wall, median_clock(measured[side]).wall
        # throughput is the inverse of time, so the ratio is the peer's time over striate's
        ratio = median_ratio([t.wall for t in measured[side]], [t.wall for t in measured["ours"]])
        yield Row(f"images/s; peer: {what}", f"{FILES / ours:.0f}", f"{FILES / peer:.0f}", ratio, goal)
