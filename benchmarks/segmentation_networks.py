"""FCN-8s as in its paper, against the network that torchvision calls FCN: `fcn_resnet50`, a dilated ResNet-50 without
skips. Two networks of unlike size, each behind our interface, so the ratio has no goal: it says what either costs.

Both see the same batch of one image of VOC's size, uint8, channels-last as the task keeps them.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.benchmarks.harness import Clock, Row, interleave, time_call
from striate.benchmarks.training_step import compare
from striate.models import FCN8s, TorchvisionSegmentation

HEIGHT, WIDTH, CLASSES = 375, 500, 21


def infer(network: nn.Module, image: Tensor) -> None:
    """One image's logits, without a gradient."""
    network.eval()
    with torch.no_grad():
        network(image)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, image: Tensor, mask: Tensor) -> None:
    """One training step."""
    network.train()
    optimizer.zero_grad()
    F.cross_entropy(network(image), mask).backward()
    optimizer.step()


def measured(act: Callable[[nn.Module], Callable[[], None]], repetitions: int) -> dict[str, list[Clock]]:
    """How long each network takes for what `act` makes of it, in turn."""
    torch.manual_seed(0)
    networks = {
        "ours": FCN8s(CLASSES),
        "peer": TorchvisionSegmentation("fcn_resnet50", CLASSES, auxiliary=False),
    }
    sides = {side: act(network.to(memory_format=torch.channels_last)) for side, network in networks.items()}
    return interleave({side: partial(time_call, call) for side, call in sides.items()}, repetitions)


def run(repetitions: int = 5) -> list[Row]:
    """Measure; the first round warms up."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2)
    mask = torch.randint(0, CLASSES, (1, HEIGHT, WIDTH), generator=generator)

    def training(network: nn.Module) -> Callable[[], None]:
        return partial(step, network, torch.optim.SGD(network.parameters(), 1e-4, 0.9, fused=True), image, mask)

    rows = []
    for what, act in (("inference", lambda network: partial(infer, network, image)), ("training step", training)):
        times = measured(act, repetitions)
        rows += compare(f"FCN-8s against fcn_resnet50, {what} ({WIDTH} x {HEIGHT})", times["ours"], times["peer"])
    return rows
