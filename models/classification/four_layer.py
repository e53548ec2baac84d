"""The four-layer network of AlexNet's figure 1, with rectified or saturating units, and a pair of them to race."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal

import torch
from torch import Tensor, nn

from ..ops.normalize import Normalize
from .layers import map_sizes

Activation = Literal["relu", "tanh"]
ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class FourLayerCNN(nn.Module):
    """Three convolutions, each followed by its activation and a pooling, and one linear layer: four layers of weights.

    conv1 32 (5 x 5) - pool (max) - conv2 32 (5 x 5) - pool (mean) - conv3 64 (5 x 5) - pool (mean) - fc4. Pooling is
    3 x 3 with stride 2; 85,098 parameters at 32 pixels and with ten classes.

    Args:
        num_classes: Number K of classes.
        activation: ``"relu"`` or ``"tanh"``, after each convolution.
        image_size: Side of the square images, in pixels; fixes fc4.
        widths: Channels of the three convolutions.
        mean: Mean of each channel, of values in [0, 1].
        std: Standard deviation of each channel, of values in [0, 1].

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, image_size, image_size]``
        - output: logits ``[B, K]``

    Raises:
        ValueError: for an unknown activation, other than three widths, images that are too small, or of another size.

    Reference:
        Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012,
        section 3.1 and Fig. 1. The paper says "a four-layer convolutional network" on CIFAR-10 and no more. What it
        leaves open is taken from the first author's small CIFAR-10 networks in cuda-convnet (the one known by its error
        of 18 %, less response normalisation, since the figure's networks are not regularised): sizes, poolings, their
        order. Two things differ: the activation precedes conv1's pooling too (for maxima it makes no difference), and
        the convolutions' weights start from N(0, 2 / fan-in) with ReLU and N(0, 1 / fan-in) with tanh, fc4's from
        N(0, 0.01^2) with both, biases from 0, so that neither network is held up by its initialisation.
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
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: choose from {', '.join(map(repr, ACTIVATIONS))}")
        if len(widths) != 3:
            raise ValueError(f"widths={list(widths)}: three convolutions need three numbers of channels")
        self.num_classes, self.activation, self.image_size = num_classes, activation, image_size
        self.normalize = Normalize(mean, std)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, width) in enumerate(zip((3, *widths), widths, strict=False), 1):
            layers[f"conv{number}"] = nn.Conv2d(before, width, 5, padding=2)
            layers[f"{activation}{number}"] = ACTIVATIONS[activation]()
            layers[f"pool{number}"] = nn.MaxPool2d(3, 2) if number == 1 else nn.AvgPool2d(3, 2)
        self.trunk = nn.Sequential(layers)
        cells = self._cells(image_size)
        self.fc4 = nn.Linear(widths[-1] * cells**2, num_classes)
        self.reset_parameters()

    @staticmethod
    def _cells(side: int) -> int:
        """Side of the last map, in cells; all three poolings are of one size."""
        return map_sizes([nn.MaxPool2d(3, 2)] * 3, side)[-1]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws all weights and sets all biases to 0."""
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                gain = 2.0 if self.activation == "relu" else 1.0
                fan_in = layer.weight[0].numel()
                nn.init.normal_(layer.weight, 0.0, 0.01 if layer is self.fc4 else (gain / fan_in) ** 0.5)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Gives the logits of a batch."""
        if tuple(images.shape[-2:]) != (self.image_size, self.image_size):
            height, width = images.shape[-2:]
            raise ValueError(
                f"images are {height} x {width} pixels, but fc4 was built for {self.image_size} x {self.image_size}: "
                "resize them, or build FourLayerCNN with another image_size"
            )
        return self.fc4(self.trunk(self.normalize(images)).flatten(1))


class ActivationPair(nn.Module):
    """Two `FourLayerCNN` side by side, one of ReLUs and one of tanhs, which share nothing but their images.

    Args:
        num_classes, image_size, widths, mean, std: as of `FourLayerCNN`, for both.

    Attributes:
        runners: ``relu`` and ``tanh``.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, image_size, image_size]``
        - output: name of the activation -> logits ``[B, K]``
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_size: int = 32,
        widths: Sequence[int] = (32, 32, 64),
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.runners = nn.ModuleDict(
            {
                "relu": FourLayerCNN(num_classes, "relu", image_size, widths, mean, std),
                "tanh": FourLayerCNN(num_classes, "tanh", image_size, widths, mean, std),
            }
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Gives the logits of both."""
        return {name: runner(images) for name, runner in self.runners.items()}
