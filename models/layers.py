"""Layers that the classic networks share: response normalisation and the fully connected head.

Shape legend: B images, C channels, H x W a feature map, K classes.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def local_response_norm(
    maps: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Tensor:
    """Divides each activity by what its neighbours across feature maps sum up to.

    ``b_i = a_i / (k + alpha * sum_j a_j^2) ** beta``, where j runs over the ``size`` maps centred on i, cut short at the
    first and the last map. ``alpha`` multiplies the **sum**, as in the paper; ``torch.nn.LocalResponseNorm`` divides its
    alpha by ``size``, so its equivalent is ``alpha * size``. The arithmetic is in float32 under autocast too, because
    squares of activities that stem from 0..255 pixels overflow float16. Plain sums of shifted slices, three to four
    times as fast on CPU as torch's own, which goes through a 3-D average pooling.

    Args:
        maps: activities.
        size: number n of neighbouring maps, the map itself included; odd.
        alpha: factor of the sum of squares.
        beta: exponent.
        k: what is added to the sum.

    Shape:
        - maps: ``[B, C, H, W]``
        - output: as ``maps``, of the same dtype

    Raises:
        ValueError: if ``size`` is even or below 1.

    Reference:
        Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012,
        section 3.3, whose constants are the defaults.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size={size}: the window must be odd, so that it is centred on a map (the paper takes 5)")
    channels, reach = maps.shape[1], size // 2
    square = maps.float().square()
    padded = F.pad(square, (0, 0, 0, 0, reach, reach))
    window = square
    for shift in (s for s in range(size) if s != reach):
        window = window + padded[:, shift : shift + channels]
    base = window * alpha + k
    if beta == 0.75:  # two square roots are much quicker than a power
        root = base.rsqrt()
        scale = root * root.sqrt()
    else:
        scale = base.pow(-beta)
    return (maps * scale).to(maps.dtype)


class LocalResponseNorm(nn.Module):
    """Local response normalisation across feature maps with the paper's own constants, see `local_response_norm`."""

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size={size}: the window must be odd, so that it is centred on a map (the paper takes 5)")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, maps: Tensor) -> Tensor:
        """Normalises ``[B, C, H, W]`` to the same shape."""
        return local_response_norm(maps, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """The constants, for ``print(model)``."""
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class FullyConnectedHead(nn.Module):
    """The three fully connected layers that end AlexNet, ZFNet and VGG: ``fc6``, ``fc7``, ``fc8``.

    R-CNN, Fast R-CNN, localization and FCN reuse ``fc6`` and ``fc7`` with their weights, so these are plain
    ``nn.Linear`` attributes, and `features` gives what comes before the last layer. Dropout follows the ReLU of fc6 and
    fc7: it removes outputs of these two layers, which is how the AlexNet paper puts it (torchvision's AlexNet drops the
    inputs instead). Torch scales the kept units by ``1 / (1 - dropout)`` while training, where the papers scale by
    ``1 - dropout`` while testing: the same expectation, and nothing to do at test time.

    Args:
        in_channels: channels of the incoming feature map.
        in_size: height and width of the incoming feature map, in cells.
        num_classes: number K of classes.
        hidden: units of fc6 and of fc7.
        dropout: probability of dropping a unit of fc6 and of fc7.

    Shape:
        - input: ``[B, in_channels, in_size, in_size]`` (or flat, ``[B, in_channels * in_size ** 2]``)
        - output: logits ``[B, K]``
    """

    def __init__(
        self, in_channels: int, in_size: int, num_classes: int, hidden: int = 4096, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.in_channels, self.in_size, self.num_classes = in_channels, in_size, num_classes
        self.fc6 = nn.Linear(in_channels * in_size**2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.drop6 = nn.Dropout(dropout)
        self.drop7 = nn.Dropout(dropout)

    def features(self, maps: Tensor) -> Tensor:
        """What fc8 sees: activations of fc7 after ReLU (and dropout in training), ``[B, hidden]``."""
        hidden = self.drop6(F.relu(self.fc6(torch.flatten(maps, 1))))
        return self.drop7(F.relu(self.fc7(hidden)))

    def forward(self, maps: Tensor) -> Tensor:
        """Logits ``[B, K]``."""
        return self.fc8(self.features(maps))


def conv_block(index: int, conv: nn.Conv2d, *after: tuple[str, nn.Module]) -> "OrderedDict[str, nn.Module]":
    """Names a convolution, its ReLU and what follows by the paper's layer number: ``conv1``, ``relu1``, ``norm1``.

    Args:
        index: the layer's number in the paper.
        conv: the convolution.
        *after: pairs of a name without number and a module, appended after the ReLU.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers[f"conv{index}"] = conv
    layers[f"relu{index}"] = nn.ReLU(inplace=True)
    for name, module in after:
        layers[f"{name}{index}"] = module
    return layers
