"""The small training run that is measured, and the bare PyTorch loop that is its peer.

Only torch and torchvision are imported here: the peer's process is to carry nothing else.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

CLASSES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# no weight decay, so that a bare `SGD(model.parameters(), …)` and the task's parameter groups do the same
LR, MOMENTUM = 0.001, 0.9


@dataclass(frozen=True)
class Case:
    """What is trained on.

    Attributes:
        network: a backbone's name, as `striate.models.build_backbone` knows it.
        pixels: side of the square images.
        batch: images a step.
    """

    network: str
    pixels: int
    batch: int

    def __str__(self) -> str:
        return f"{self.network}, {self.pixels} px, batch {self.batch}"


def make_batches(case: Case, count: int = 8, classes: int = CLASSES) -> list[dict[str, Any]]:
    """Batches in memory, as striate's loaders give them: uint8, channels last in memory."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.pixels, case.pixels, 3)
    return [
        {
            "image": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2),
            "label": torch.randint(0, classes, (case.batch,), generator=generator),
            "index": torch.arange(case.batch),
            "unreadable": [],
        }
        for _ in range(count)
    ]


class NormalizedResNet(nn.Module):
    """A network of torchvision's on uint8 pixels, the usual normalisation in front."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, CLASSES]`` of pixels ``[B, 3, H, W]``."""
        logits: Tensor = self.network((images / 255 - self.mean) / self.std)
        return logits


class BareLoop:
    """A training loop as one writes it by hand: no logging, no schedule, no checks.

    Attributes:
        loss: of the last step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
        self.loss: Tensor | None = None

    def run(self, batches: Iterable[dict[str, Any]], after_step: Callable[[], None] = lambda: None) -> None:
        """One step a batch."""
        for batch in batches:
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(batch["image"]), batch["label"])
            loss.backward()
            self.optimizer.step()
            self.loss = loss.detach()
            after_step()
