"""The small training run that is measured, and its peer, a bare PyTorch loop.

This module imports only torch and torchvision, so that the peer's process contains nothing else.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

CLASSES = 10
# in segmentation masks; the classes of the other cases are fewer. Not imported: the peer must not load striate
IGNORE_INDEX = 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# no weight decay, so that a bare `SGD(model.parameters(), …)` equals the task's parameter groups
LR, MOMENTUM = 0.001, 0.9


@dataclass(frozen=True)
class Case:
    """A network and the size of its batches.

    Attributes:
        network: Name of a backbone, for `striate.models.build_backbone`.
        pixels: Side of the square images, in pixels.
        batch: Images per step.
    """

    network: str
    pixels: int
    batch: int

    def __str__(self) -> str:
        return f"{self.network}, {self.pixels} px, batch {self.batch}"


def make_batches(case: Case, count: int = 8, classes: int = CLASSES) -> list[dict[str, Any]]:
    """Make batches as striate's loaders do: uint8 images ``[B, 3, H, W]``, channels-last in memory."""
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
    """A torchvision network for uint8 pixels, preceded by the usual normalization."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``[B, CLASSES]`` of pixels ``[B, 3, H, W]``."""
        logits: Tensor = self.network((images / 255 - self.mean) / self.std)
        return logits


class BareLoop:
    """A hand-written training loop without logging, schedule or checks.

    Args:
        model: The network, set to training mode.
        weight_decay: Weight decay of SGD.
        inputs: Key of the images in a batch.
        target: Key of the labels in a batch.

    Attributes:
        loss: Loss of the last step.
    """

    def __init__(
        self, model: nn.Module, weight_decay: float = 0.0, inputs: str = "image", target: str = "label"
    ) -> None:
        self.model = model.train()
        self.inputs, self.target = inputs, target
        self.optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM, weight_decay=weight_decay)
        self.loss: Tensor | None = None

    def run(self, batches: Iterable[dict[str, Any]], after_step: Callable[[], None] = lambda: None) -> None:
        """Make one training step per batch."""
        for batch in batches:
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(batch[self.inputs]), batch[self.target], ignore_index=IGNORE_INDEX)
            loss.backward()
            self.optimizer.step()
            self.loss = loss.detach()
            after_step()
