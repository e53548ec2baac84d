"""Torchvision models with random weights, made quickly, and what the tests of several files ask of them."""

from collections.abc import Iterator
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
"""One of every family of torchvision's classifiers that has stages, and those that differ within one."""

OVER_200M = {"regnet_y_128gf"}
"""Networks of more than 200 million parameters: tried on the meta device only."""

UNPADDED = {"alexnet", "squeezenet1_0", "squeezenet1_1", "inception_v3"}
"""Networks whose maps are a little smaller than image over stride, for some convolutions do not pad."""

TRANSFORMS_INPUT = {"googlenet", "inception_v3"}
"""Networks that change their normalised input once more when they have their published weights."""


@contextmanager
def quick_initialisation() -> Iterator[None]:
    """Leaves parameters uninitialised: for models whose every parameter is about to be set."""
    names = ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_")
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(nn.init, name, lambda tensor, *args, **kwargs: tensor))
        yield


@contextmanager
def on_meta() -> Iterator[None]:
    """Builds on the meta device, RegNets too, which compute their widths with tensors."""
    original = BlockParams.from_init_params.__func__

    def from_init_params(cls, *args, **kwargs):
        with torch.device("cpu"):
            return original(cls, *args, **kwargs)

    with mock.patch.object(BlockParams, "from_init_params", classmethod(from_init_params)), torch.device("meta"):
        yield


def bare_model(name: str, num_classes: int = 1000) -> Any:
    """Torchvision's model as it is, without auxiliary heads."""
    extra = {"aux_logits": False, "init_weights": True} if name in TRANSFORMS_INPUT else {}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)


@torch.no_grad()
def random_model(name: str, num_classes: int = 1000) -> Any:
    """Torchvision's model with every parameter and every running statistic random, in evaluation mode."""
    with quick_initialisation():
        model = bare_model(name, num_classes)
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


@torch.no_grad()
def randomize(model: nn.Module) -> Any:
    """Draw statistics, biases and norm weights at random, so that none is the identity; evaluation mode."""
    for key, tensor in model.state_dict().items():
        if key.endswith("running_var") or (tensor.ndim == 1 and key.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.3, 0.3)
    return model.eval()


def random_images(side: int = 64, batch: int = 2) -> Tensor:
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)


def side_for(name: str) -> int:
    """Side of a small image, in pixels, that the network takes."""
    return 96 if name == "inception_v3" else 64


@contextmanager
def published(state: dict[str, Tensor]) -> Iterator[mock.Mock]:
    """Makes every download of published weights give ``state``."""
    with mock.patch.object(torchvision.models.WeightsEnum, "get_state_dict", return_value=state) as get:
        yield get
