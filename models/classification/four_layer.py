"""The four-layer network of AlexNet's Fig. 1, with ReLU or tanh units, and a pair of them to compare."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from ..ops.checks import check_choice
from ..ops.normalize import Normalize
from .layers import map_sizes

Activation = Literal["relu", "tanh"]
ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class FourLayerCNN(nn.Module):
    """Three convolutions, each with an activation and a pooling, and one linear layer: four layers with weights.

    conv1 32 (5 x 5) - pool (max) - conv2 32 (5 x 5) - pool (mean) - conv3 64 (5 x 5) - pool (mean) - fc4. Pooling is
    3 x 3 with stride 2; 85,098 parameters for 32 pixels and ten classes.

    Args:
        num_classes: Number K of classes.
        activation: Activation after each convolution, ``"relu"`` or ``"tanh"``.
        image_size: Side of the square input images, in pixels; determines the size of fc4.
        widths: Channels of the three convolutions.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, image_size, image_size]``
        - output: logits ``[B, K]``

    Raises:
        ValueError: ``activation`` is unknown, ``widths`` does not have three entries, or the images are too small or
            not of ``image_size``.

    Reference:
        Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012,
        section 3.1 and Fig. 1. The paper only says "a four-layer convolutional network" on CIFAR-10. Sizes, poolings
        and their order are those of the first author's small CIFAR-10 network in cuda-convnet (the one with an error of
        18 %, without its response normalization, since the networks of the figure are not regularized). Two things
        differ: the activation precedes conv1's pooling too (for max pooling the result is the same), and weights of
        convolutions are drawn from N(0, 2 / fan-in) with ReLU and N(0, 1 / fan-in) with tanh, those of fc4 from N(0,
        0.01^2) with both, and biases are 0, so that initialization slows down neither network.
    """

    def __init__(
        self,
        num_classes: int = 10,
        activation: Activation = "relu",
        image_size: int = 32,
        widths: Sequence[int] = (32, 32, 64),
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__()
        check_choice(tuple(ACTIVATIONS), activation=activation)
        if len(widths) != 3:
            raise ValueError(f"widths: must have 3 channel counts, one per convolution, got {list(widths)}")
        self.num_classes, self.activation, self.image_size = num_classes, activation, image_size
        self.normalize = Normalize(mean, std)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, width) in enumerate(zip((3, *widths), widths, strict=False), 1):
            layers[f"conv{number}"] = nn.Conv2d(before, width, 5, padding=2)
            layers[f"{activation}{number}"] = ACTIVATIONS[activation]()
            layers[f"pool{number}"] = nn.MaxPool2d(3, 2) if number == 1 else nn.AvgPool2d(3, 2)
        self.trunk = nn.Sequential(layers)
        cells = map_sizes([nn.MaxPool2d(3, 2)] * 3, image_size)[-1]  # mean pooling has the size of max pooling
        self.fc4 = nn.Linear(widths[-1] * cells**2, num_classes)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights and set all biases to 0."""
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                gain = 2.0 if self.activation == "relu" else 1.0  # ReLU halves the variance
                fan_in = layer.weight[0].numel()
                nn.init.normal_(layer.weight, 0.0, 0.01 if layer is self.fc4 else (gain / fan_in) ** 0.5)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, K]`` of images ``[B, 3, image_size, image_size]``."""
        pixels = self.normalize(images)
        if tuple(pixels.shape[-2:]) != (self.image_size, self.image_size):
            height, width = pixels.shape[-2:]
            raise ValueError(
                f"images: fc4 was built for {self.image_size} x {self.image_size} pixels, got {height} x {width}; "
                "resize them, or build FourLayerCNN with another image_size"
            )
        return self.fc4(self.trunk(pixels).flatten(1))


class ActivationPair(nn.Module):
    """Two independent `FourLayerCNN` on the same images, one with ReLU and one with tanh units.

    Args:
        num_classes: Number K of classes.
        **options: ``image_size``, ``widths``, ``mean`` and ``std`` of both networks, see `FourLayerCNN`.

    Attributes:
        runners: The networks, by activation: ``relu`` and ``tanh``.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, image_size, image_size]``
        - output: dictionary from activation to logits ``[B, K]``
    """

    def __init__(self, num_classes: int = 10, **options: Any) -> None:
        super().__init__()
        self.num_classes = num_classes
        activations: tuple[Activation, ...] = ("relu", "tanh")
        self.runners = nn.ModuleDict({name: FourLayerCNN(num_classes, name, **options) for name in activations})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits ``[B, K]`` of each network, by activation, for images ``[B, 3, H, W]``."""
        return {name: network(images) for name, network in self.runners.items()}
