"""Weight initialization, in place: He's and Glorot's rules, and the fixed Gaussian of the early papers."""

import torch
from torch import nn


@torch.no_grad()
def init_gaussian(module: nn.Module, std: float = 0.01) -> None:
    """Draw the weights of all convolutions and linear layers from N(0, std^2), and set their biases to 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, 0.0, std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def init_he(module: nn.Module) -> None:
    """Draw weights from N(0, 2 / fan-in) and set biases to 0, so that ReLU layers preserve the activations' scale."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def init_glorot(layer: nn.Conv2d) -> nn.Conv2d:
    """Draw the weights of a layer without activation by Glorot's uniform rule, set its bias to 0, and return it."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
