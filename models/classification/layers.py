"""Layers that the classic networks share: response normalisation, the fully connected head, and their frame.

Shape legend: B images, C channels, H x W a feature map, K classes.
"""

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..ops.checks import check_min


def local_response_norm(maps: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Tensor:
    """Divides each activity by what its neighbours across feature maps sum up to.

    ``b_i = a_i / (k + alpha * sum_j a_j^2) ** beta``, where j runs over the ``size`` maps centred on i, cut short at
    the first and the last map. ``alpha`` multiplies the **sum**, as in the paper; ``torch.nn.LocalResponseNorm``
    divides its alpha by ``size``, so its equivalent is ``alpha * size``. Squares are taken in float32 whatever the
    type of the maps, because those of activities that stem from 0..255 pixels overflow float16. Plain sums of shifted
    slices: on CPU about three times as fast as torch's own, forward and backward, which averages in three dimensions.

    Args:
        maps: Activities.
        size: Number n of neighbouring maps, the map itself included; odd.
        alpha: Factor of the sum of squares.
        beta: Exponent.
        k: What is added to the sum.

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
        in_channels: Channels of the incoming feature map.
        in_size: Height and width of the incoming feature map, in cells.
        num_classes: Number K of classes.
        hidden: Units of fc6 and of fc7.
        dropout: Probability of dropping a unit of fc6 and of fc7.

    Shape:
        - input: ``[B, in_channels, in_size, in_size]`` (or flat, ``[B, in_channels * in_size ** 2]``)
        - output: logits ``[B, K]``

    Raises:
        ValueError: if ``num_classes`` or ``hidden`` is below 1.
    """

    def __init__(
        self, in_channels: int, in_size: int, num_classes: int, hidden: int = 4096, dropout: float = 0.5
    ) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes, hidden=hidden)
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


class TrunkWithHead(nn.Module):
    """A classifier of the classic kind: a convolutional trunk, then fully connected layers on its last feature map.

    Both parts stay whole, so that other models can take them with their weights: `backbone` gives feature maps, `head`
    holds fc6, fc7 and fc8. The fully connected layers fix the size of the last map, and with it the size of the images.

    Args:
        backbone: The trunk; its last map feeds the head.
        head: The fully connected layers.
        image_size: Side of the images that fc6 is built for, in pixels; for messages.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of a size whose last feature map is as large as fc6 wants
        - output: logits ``[B, K]``

    Raises:
        ValueError: if the images do not give the last feature map that fc6 was built for.
    """

    def __init__(self, backbone: Backbone, head: FullyConnectedHead, image_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.num_classes = head.num_classes
        self.image_size = image_size

    def check_size(self, height: int, width: int) -> None:
        """Refuses images that do not give the last feature map that fc6 was built for.

        Args:
            height: Of the images, in pixels.
            width: Of the images, in pixels.

        Raises:
            ValueError: if they do not; names the size that does.
        """
        want = self.head.in_size
        found = [_map_sizes(self.backbone.stages, side) for side in (height, width)]
        maps = [None if sizes is None else sizes[-1] for sizes in found]
        if maps != [want, want]:
            given = "no last feature map" if None in maps else f"a last feature map of {maps[0]} x {maps[1]}"
            raise ValueError(
                f"images are {height} x {width} pixels, which gives {given}, but fc6 was built for {want} x {want}: "
                f"resize to {self.image_size} x {self.image_size}, or build {type(self).__name__} with another "
                "image_size"
            )

    def features(self, images: Tensor) -> Tensor:
        """Activations of fc7, ``[B, hidden]``, of images ``[B, 3, H, W]``."""
        self.check_size(*images.shape[-2:])
        return self.head.features(self.backbone(images)[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]``."""
        return self.head.fc8(self.features(images))


def named(**layers: nn.Module) -> nn.Sequential:
    """A sequence whose layers go by the paper's names: ``named(conv1=..., relu1=...)``."""
    return nn.Sequential(OrderedDict(layers))


def map_sizes(stages: Iterable[nn.Module], image_size: int) -> list[int]:
    """Side of the feature map after each stage, in cells, for an image of a given side; no tensor is computed.

    Only convolutions and max-poolings count; every other layer leaves the size as it is.

    Args:
        stages: Sequences of layers, one after the other.
        image_size: Side of the image, in pixels.

    Raises:
        ValueError: if the image is too small for one of the layers; names the smallest that is not.
    """
    sizes = _map_sizes(stages, image_size)
    if sizes is None:
        smallest = image_size + 1
        while _map_sizes(stages, smallest) is None:
            smallest += 1
        raise ValueError(f"an image side of {image_size} pixels is too small: this network needs {smallest} at least")
    return sizes


def _map_sizes(stages: Iterable[nn.Module], size: int) -> list[int] | None:
    """As `map_sizes`; None where a layer finds no place for its window."""
    sizes = []
    for stage in stages:
        for layer in stage.modules():
            if isinstance(layer, nn.Conv2d):
                kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
                size = (size + 2 * int(padding) - layer.dilation[0] * (kernel - 1) - 1) // stride + 1
            elif isinstance(layer, nn.MaxPool2d):
                size = _pooled(layer, size)
            if size < 1:
                return None
        sizes.append(size)
    return sizes


def _pooled(layer: nn.MaxPool2d, size: int) -> int:
    kernel, stride, padding = (
        v if isinstance(v, int) else v[0] for v in (layer.kernel_size, layer.stride, layer.padding)
    )
    room = size + 2 * padding - kernel
    if not layer.ceil_mode:
        return room // stride + 1
    places = -(-room // stride) + 1
    # As in torch: the last window must start inside the map or its left padding.
    return places - 1 if (places - 1) * stride >= size + padding else places
