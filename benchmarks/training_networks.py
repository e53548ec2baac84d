"""Training step of the classic networks through task and Trainer, compared with torchvision's and timm's scripts.

The peers reproduce the loops of those scripts (torchvision's ``references/classification/train.py``, timm's
``train.py``) with their defaults: the step, and the running metrics. All sides train a copy of the same weights on the
same batches with the same SGD, momentum and weight decay, alternately in one process; dropout uses the same seed on all
sides. On striate's side, weights and images are channels-last and SGD is torch's fused one, which the scripts do not
use. The scripts' loaders normalize, so the peers get normalized float32 images; striate gets uint8, and normalizes
within the step.

"alexnet" is torchvision's (one tower), like the peer's. timm has no AlexNet. Its VGG-16 and ResNet-50 are its own
implementations, so its loss is not compared with the others.
"""

import copy
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from striate.benchmarks.harness import Clock, Goal, Row, compare
from striate.benchmarks.training_case import LR, MEAN, MOMENTUM, STD, BareLoop, Case, make_batches
from striate.benchmarks.training_step import Side, measure_sides
from striate.models import Classifier
from striate.tasks import Classification

# (case, turns, steps per turn); a step of VGG-16 takes seconds
CASES = ((Case("alexnet", 224, 32), 5, 3), (Case("vgg16", 224, 4), 4, 2), (Case("resnet50", 224, 8), 5, 3))
CLASSES = 1000
WEIGHT_DECAY = 1e-4
TOLERANCE = 0.05  # of the last losses: fifty batch norms over eight images amplify rounding from step to step
AT_MOST = Goal(1.0, at_least=False)


class ReferenceLoop(BareLoop):
    """The step of torchvision's script: cross-entropy, SGD for all parameters, running loss and accuracies."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, WEIGHT_DECAY)
        self.totals = {"loss": 0.0, "acc1": 0.0, "acc5": 0.0}

    def run(self, batches: Iterable[dict[str, Any]], after_step: Callable[[], None] = lambda: None) -> None:
        """Make one training step per batch."""
        for batch in batches:
            logits = self.model(batch["float"])
            loss = F.cross_entropy(logits, batch["label"])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            with torch.inference_mode():
                hits = logits.topk(5).indices == batch["label"][:, None]
                self.totals["acc1"] += hits[:, 0].sum().item()
                self.totals["acc5"] += hits.sum().item()
            self.totals["loss"] += loss.item()
            self.loss = loss.detach()
            after_step()


class TimmLoop:
    """The step of timm's script: its SGD with its parameter groups, and a running loss.

    Attributes:
        loss: Always None, because the network is a different one.
    """

    def __init__(self, name: str) -> None:
        self.model = timm.create_model(name, num_classes=CLASSES).train()
        self.optimizer = create_optimizer_v2(
            self.model, opt="momentum", lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self.loss: Tensor | None = None
        self.total = 0.0

    def run(self, batches: Iterable[dict[str, Any]], after_step: Callable[[], None] = lambda: None) -> None:
        """Make one training step per batch."""
        for batch in batches:
            loss = F.cross_entropy(self.model(batch["float"]), batch["label"])
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.total += loss.item()
            after_step()


def make_task(network: nn.Module, name: str) -> Classification:
    """Make the task as in an experiment, with the peer's weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.pth"
        torch.save(network.state_dict(), path)
        model = Classifier(name, CLASSES, weights=str(path))
    return Classification(
        model,
        optimizer=partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
        decay_norm_and_bias=True,
    )


def with_floats(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the normalized float32 images ``[B, 3, H, W]`` that the scripts' loaders would provide."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return [{**batch, "float": ((batch["image"] / 255 - mean) / std).contiguous()} for batch in batches]


def measure(case: Case, turns: int, steps: int) -> dict[str, list[Clock]]:
    """Measure the median step of each turn, per side."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(case.network, weights=None, num_classes=CLASSES)
    task = make_task(network, case.network)
    sides: dict[str, Side] = {"peer": ReferenceLoop(copy.deepcopy(network)), "control": ReferenceLoop(network)}
    if timm.is_model(case.network):
        sides["timm"] = TimmLoop(case.network)
    batches = with_floats(make_batches(case, count=steps, classes=CLASSES))
    return measure_sides(case, task, sides, batches, turns, steps, TOLERANCE)


def run() -> Iterator[Row]:
    """Measure all cases; the first turn is a warm-up."""
    for case, turns, steps in CASES:
        measured = measure(case, turns, steps)
        peer = measured["peer"]
        yield from compare(f"training step ({case}); peer: torchvision's script", measured["ours"], peer, AT_MOST)
        yield from compare(f"control: torchvision's script against itself ({case})", measured["control"], peer)
        if "timm" in measured:
            yield from compare(f"training step ({case}); peer: timm's script", measured["ours"], measured["timm"])
