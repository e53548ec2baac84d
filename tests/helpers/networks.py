"""Torchvision models with random weights, and checks and inputs shared by the tests of networks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.regnet import BlockParams

FAMILIES = [
    "alexnet",
    "vgg11",
    "vgg11_bn",
    "vgg16",
    "vgg16_bn",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "densenet121",
    "squeezenet1_0",
    "squeezenet1_1",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "convnext_tiny",
    "swin_t",
    "swin_v2_t",
]
"""At least one network of every family of torchvision's classifiers that has stages."""

OVER_200M = {"regnet_y_128gf"}
"""Networks of more than 200 million parameters, tested on the meta device only."""

UNPADDED = {"alexnet", "squeezenet1_0", "squeezenet1_1", "inception_v3"}
"""Networks whose maps are slightly smaller than image over stride, because some convolutions do not pad."""

TRANSFORMS_INPUT = {"googlenet", "inception_v3"}
"""Networks that transform their normalized input once more if they have published weights."""


@contextmanager
def quick_initialization() -> Iterator[None]:
    """Leave parameters uninitialized, for models whose parameters are all set afterwards."""
    names = ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_")
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(nn.init, name, lambda tensor, *args, **kwargs: tensor))
        yield


@contextmanager
def on_meta() -> Iterator[None]:
    """Build on the meta device, including RegNets, which compute their widths with tensors."""
    original = BlockParams.from_init_params.__func__

    def from_init_params(cls, *args, **kwargs):
        with torch.device("cpu"):
            return original(cls, *args, **kwargs)

    with mock.patch.object(BlockParams, "from_init_params", classmethod(from_init_params)), torch.device("meta"):
        yield


def bare_model(name: str, num_classes: int = 1000) -> Any:
    """Return torchvision's model without auxiliary heads."""
    extra = {"aux_logits": False, "init_weights": True} if name in TRANSFORMS_INPUT else {}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)


def random_model(name: str, num_classes: int = 1000) -> Any:
    """Return torchvision's model with random parameters and running statistics, in evaluation mode."""
    with quick_initialization():
        model = bare_model(name, num_classes)
    return randomize(model)


@torch.no_grad()
def randomize(model: Any) -> Any:
    """Draw all parameters and running statistics of a model at random, and set it to evaluation mode."""
    for key, parameter in model.named_parameters():
        if parameter.ndim > 1:
            bound = (3 / parameter[0].numel()) ** 0.5
            parameter.uniform_(-bound, bound)
        elif key.endswith("bias"):
            parameter.uniform_(-0.2, 0.2)
        else:
            parameter.uniform_(0.5, 1.5)
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.uniform_(-0.2, 0.2)
        elif key.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model.eval()


def random_images(side: int = 64, batch: int = 2) -> Tensor:
    """Return images ``[batch, 3, side, side]``, uint8."""
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)


def side_for(name: str) -> int:
    """Return the side in pixels of a small image that the network accepts."""
    return 96 if name == "inception_v3" else 64


@contextmanager
def published(state: dict[str, Tensor]) -> Iterator[mock.Mock]:
    """Let every download of published weights return ``state``."""
    with mock.patch.object(torchvision.models.WeightsEnum, "get_state_dict", return_value=state) as get:
        yield get


def seeded_images(batch: int = 2, side: int = 64, channels: int = 3, seed: int = 2) -> Tensor:
    """Return the same images ``[batch, channels, side, side]``, uint8, on every call."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, channels, side, side), dtype=torch.uint8, generator=generator)


def find_layer(network: nn.Module, name: str) -> Any:
    """Return the first submodule with ``name`` as the last part of its dotted name."""
    return next(module for key, module in network.named_modules() if key.rpartition(".")[2] == name)


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def trace_map_sides(backbone: nn.Module, images: Tensor) -> list[tuple[str, int]]:
    """Return the name of each convolution and max pooling that runs, and the side of its output in cells."""
    sides: list[tuple[str, int]] = []
    hooks = [
        module.register_forward_hook(
            lambda _m, _i, out, name=name: sides.append((name.rpartition(".")[2], len(out[0, 0])))
        )
        for name, module in backbone.named_modules()
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d))
    ]
    backbone(images)
    for hook in hooks:
        hook.remove()
    return sides


def assert_learns(
    network: nn.Module,
    images: Tensor,
    lr: float,
    steps: int,
    ratio: float,
    loss_function: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
) -> None:
    """Train on a batch with one image per class; check for nonzero gradients and a final loss below ``ratio``."""
    labels = torch.arange(len(images))
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    losses: list[float] = []
    for _ in range(steps):
        loss = loss_function(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            assert all(p.grad is not None and (p.grad != 0).any() for p in network.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    assert losses[-1] < ratio * losses[0]


def assert_channels_last_matches(network: nn.Module, images: Tensor, atol: float = 1e-4) -> None:
    """Check that the output in evaluation mode does not depend on the memory format."""
    network.eval()
    with torch.no_grad():
        expected = network(images)
        network.to(memory_format=torch.channels_last)
        actual = network(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=atol)
