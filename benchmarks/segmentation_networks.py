"""FCN-8s as in its paper, compared with torchvision's `fcn_resnet50`, a dilated ResNet-50 without skip connections.

The two networks differ in size, and both run through striate's interface. So the ratio has no goal: it shows their
cost. Both get the same batch of one image of VOC's size, uint8, channels-last as set by the task.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.benchmarks.harness import Clock, Row, compare, interleave, time_call
from striate.models import FCN8s, TorchvisionSegmentation

HEIGHT, WIDTH, CLASSES = 375, 500, 21


def infer(network: nn.Module, image: Tensor) -> None:
    """Compute the logits of one image ``[1, 3, H, W]``, without gradients."""
    network.eval()
    with torch.no_grad():
        network(image)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, image: Tensor, mask: Tensor) -> None:
    """Make one training step on one image ``[1, 3, H, W]`` and its mask ``[1, H, W]``."""
    network.train()
    optimizer.zero_grad()
    F.cross_entropy(network(image), mask).backward()
    optimizer.step()


def measured(act: Callable[[nn.Module], Callable[[], None]], repetitions: int) -> dict[str, list[Clock]]:
    """Time both networks alternately; `act` returns the function to time for a network."""
    torch.manual_seed(0)
    networks = {
        "ours": FCN8s(CLASSES),
        "peer": TorchvisionSegmentation("fcn_resnet50", CLASSES, auxiliary=False),
    }
    sides = {side: act(network.to(memory_format=torch.channels_last)) for side, network in networks.items()}
    return interleave({side: partial(time_call, call) for side, call in sides.items()}, repetitions)


def run(repetitions: int = 5) -> Iterator[Row]:
    """Measure inference and training step; the first round is a warm-up."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2)
    mask = torch.randint(0, CLASSES, (1, HEIGHT, WIDTH), generator=generator)

    def training(network: nn.Module) -> Callable[[], None]:
        return partial(step, network, torch.optim.SGD(network.parameters(), 1e-4, 0.9, fused=True), image, mask)

    for what, act in (("inference", lambda network: partial(infer, network, image)), ("training step", training)):
        times = measured(act, repetitions)
        yield from compare(f"FCN-8s and fcn_resnet50, {what} ({WIDTH} x {HEIGHT})", times["ours"], times["peer"])
