"""What the parts of ``python -m benchmarks gpu`` share: the device, rows for failures, memory, and inputs."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from striate.benchmarks.harness import Row, peak_mb

PACKAGES_OF_TASKS = ("albumentations", "hotcoco", "jsonargparse", "msgspec")
"""What striate's tasks and data modules import beyond torch, torchvision, Lightning, torchmetrics and OpenCV."""


@dataclass(frozen=True)
class Settings:
    """Where and on what scale the parts run.

    Attributes:
        device: ``cuda``, or ``cpu`` to test the script.
        small: Small sizes and few repetitions, for a test on a CPU.
    """

    device: str = "cuda"
    small: bool = False

    @property
    def gpu(self) -> bool:
        """Whether the benchmarks run on a GPU."""
        return self.device != "cpu"

    @property
    def backend(self) -> str:
        """Backend of ``torch.compile``. On a CPU, graphs are traced but not compiled, which would take minutes."""
        return "inductor" if self.gpu else "eager"

    def synchronize(self) -> None:
        """Wait until the GPU has finished."""
        if self.gpu:
            torch.cuda.synchronize()

    def peak_memory(self, call: Callable[[], object]) -> float:
        """Return the peak memory of a call, in MB (2**20 bytes): of the GPU, or on a CPU of the whole process."""
        if not self.gpu:
            call()
            return peak_mb()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 2**20


def missing(packages: Sequence[str]) -> list[str]:
    """Return those of the packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def skipped(what: str, packages: Sequence[str]) -> Row:
    """Return the row of a measurement that needs packages which are not installed."""
    return Row(what, f"skipped: needs {', '.join(packages)}; pip install {' '.join(packages)}")


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return type and message of an error in one line of at most `limit` characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def guarded(what: str, rows: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """Yield rows as they are measured; an error becomes a row, and what follows goes on."""
    try:
        yield from rows()
    except Exception as error:  # a part goes on with its next measurement
        yield Row(what, f"failed: {one_line(error)}", failed=True)


def random_images(sizes: Sequence[tuple[int, int]], device: str) -> list[Tensor]:
    """Return images of noise: uint8 ``[3, H, W]`` for each pair of height and width."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return [image.to(device) for image in drawn]


def random_targets(
    sizes: Sequence[tuple[int, int]], objects: int, classes: int, device: str, largest: float = 0.5, masks: bool = True
) -> list[dict[str, Tensor]]:
    """Return targets with random boxes ``[objects, 4]``, labels, and on request masks that fill the boxes.

    Args:
        sizes: Height and width of each image, in pixels.
        objects: Number of objects N per image.
        classes: Number of classes.
        device: Device of the targets.
        largest: Maximum side of an object, as a fraction of the image's side.
        masks: Whether targets have masks ``[N, H, W]``.
    """
    generator = torch.Generator().manual_seed(1)
    targets = []
    for height, width in sizes:
        corner = torch.rand(objects, 2, generator=generator) * (1 - largest)
        side = (0.2 + 0.8 * torch.rand(objects, 2, generator=generator)) * largest
        boxes = (torch.cat([corner, corner + side], 1) * torch.tensor([width, height] * 2)).to(device)
        labels = torch.randint(0, classes, (objects,), generator=generator).to(device)
        target = {"boxes": boxes, "labels": labels}
        if masks:
            target["masks"] = torch.zeros(objects, height, width, dtype=torch.uint8, device=device)
            for mask, (x1, y1, x2, y2) in zip(target["masks"], boxes.int().tolist(), strict=True):
                mask[y1 : y2 + 1, x1 : x2 + 1] = 1
        targets.append(target)
    return targets
