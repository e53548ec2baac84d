"""Parts that the classic networks share: response normalization, the fully connected head, base classes.

Shape legend: B images, C channels, H x W a feature map, K classes.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..ops.checks import check_choice, check_dropout, check_min
from ..ops.init import init_he
from ..ops.pixels import check_pixel_layout

MEAN_PIXEL = (122.679 / 255, 116.669 / 255, 104.007 / 255)
"""Mean RGB of ImageNet's training images in [0, 1]; Caffe's values, which R-CNN and FCN use too."""

PIXEL_UNIT = (1 / 255, 1 / 255, 1 / 255)
"""The "standard deviation" that leaves pixels on the scale of 0 to 255, for which the papers' initial weights are."""


def local_response_norm(maps: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Tensor:
    """Divide each activation by a function of its neighbors in adjacent feature maps.

    ``b_i = a_i / (k + alpha * sum_j a_j^2) ** beta``, where j runs over the ``size`` maps centered on i, truncated at
    the first and the last map. ``alpha`` multiplies the **sum**, as in the paper. ``torch.nn.LocalResponseNorm``
    divides its alpha by ``size``, so its equivalent is ``alpha * size``. Squares are computed in float32 for any input
    dtype, because squared activations of 0..255 pixels overflow float16. Sums of shifted slices are on CPU about three
    times as fast as torch's version, forward and backward, which averages in three dimensions.

    Args:
        maps: Activations.
        size: Number n of maps in the window, including the map itself; odd.
        alpha: Factor of the sum of squares.
        beta: Exponent.
        k: Constant added to the sum.

    Shape:
        - maps: ``[B, C, H, W]``
        - output: as ``maps``, of the same dtype

    Raises:
        ValueError: ``size`` is even or below 1.

    Reference:
        Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012,
        section 3.3; the defaults are the paper's constants.
    """
    _check_window(size)
    channels, reach = maps.shape[1], size // 2
    square = maps.float().square()
    padded = F.pad(square, (0, 0, 0, 0, reach, reach))
    window = square
    # sum over adjacent maps, truncated at both ends by the zeros of the padding
    for shift in (s for s in range(size) if s != reach):
        window = window + padded[:, shift : shift + channels]
    base = window * alpha + k
    if beta == 0.75:  # two square roots are much faster than a power
        root = base.rsqrt()  # base ** -0.5
        scale = root * root.sqrt()  # base ** -0.75
    else:
        scale = base.pow(-beta)
    return (maps * scale).to(maps.dtype)


def _check_window(size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size: must be odd and positive to be centered on a map, got {size}; the paper uses 5")


class LocalResponseNorm(nn.Module):
    """Local response normalization across feature maps, `local_response_norm` with fixed constants as a module."""

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        super().__init__()
        _check_window(size)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, maps: Tensor) -> Tensor:
        """Normalize ``[B, C, H, W]`` to the same shape."""
        return local_response_norm(maps, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """Return the constants, for ``print(model)``."""
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class ClassicBackbone(Backbone):
    """Base of the classic trunks: adds initialization and loading of weights to `Backbone`.

    Args:
        stages: Modules that each take the output of the previous one; the first takes normalized images.
        channels: Channels of each stage's output.
        strides: Stride of each stage's output, in pixels per cell.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        frozen_stages: Number of leading stages that are not trained.
        out_indices: Indices of the returned maps, increasing from 0. ``None``: all.
        weights: Path of a checkpoint to load the trunk from. ``None``: initialize according to ``init``.
        init: ``"he"``: weights from N(0, 2 / fan-in), biases 0. ``None``: PyTorch's default. (The whole network sets
            the paper's initialization.)
    """

    def __init__(
        self,
        stages: Iterable[nn.Module],
        channels: Sequence[int],
        strides: Sequence[int],
        mean: Sequence[float] = MEAN_PIXEL,
        std: Sequence[float] = PIXEL_UNIT,
        frozen_stages: int = 0,
        out_indices: Sequence[int] | None = None,
        weights: str | None = None,
        init: Literal["he"] | None = None,
    ) -> None:
        if init is not None:
            check_choice(("he",), init=init)
        super().__init__(stages, channels, strides, mean, std, frozen_stages, out_indices=out_indices)
        if init == "he":
            init_he(self)
        self._load_trunk(weights)


class FullyConnectedHead(nn.Module):
    """The three fully connected layers at the end of AlexNet, ZFNet and VGG: ``fc6``, ``fc7``, ``fc8``.

    R-CNN, Fast R-CNN, localization and FCN reuse ``fc6`` and ``fc7`` with their weights, so these are plain
    ``nn.Linear`` attributes, and `features` returns the input of the last layer. Dropout follows the ReLU of fc6 and
    fc7: it zeroes the outputs of these two layers, as in the AlexNet paper (torchvision's AlexNet drops the inputs
    instead). PyTorch scales the remaining units by ``1 / (1 - dropout)`` in training, where the papers scale by ``1 -
    dropout`` in testing: the expectation is the same, and testing needs no extra step.

    Args:
        in_channels: Channels of the input feature map.
        in_size: Height and width of the input feature map, in cells.
        num_classes: Number K of classes.
        hidden: Units of fc6 and of fc7.
        dropout: Dropout probability of fc6 and fc7.

    Shape:
        - input: ``[B, in_channels, in_size, in_size]`` (or flat, ``[B, in_channels * in_size ** 2]``)
        - output: logits ``[B, K]``

    Raises:
        ValueError: ``num_classes`` or ``hidden`` is below 1, or ``dropout`` is outside [0, 1).
    """

    def __init__(
        self, in_channels: int, in_size: int, num_classes: int, hidden: int = 4096, dropout: float = 0.5
    ) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes, hidden=hidden)
        check_dropout(dropout=dropout)
        self.in_channels, self.in_size, self.num_classes = in_channels, in_size, num_classes
        self.fc6 = nn.Linear(in_channels * in_size**2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.drop6 = nn.Dropout(dropout)
        self.drop7 = nn.Dropout(dropout)

    def features(self, maps: Tensor) -> Tensor:
        """Return the input of fc8, ``[B, hidden]``: activations of fc7 after ReLU (and dropout in training)."""
        hidden = self.drop6(F.relu(self.fc6(torch.flatten(maps, 1))))  # [B, hidden]
        return self.drop7(F.relu(self.fc7(hidden)))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the logits ``[B, K]`` of feature maps."""
        return self.fc8(self.features(maps))


class TrunkWithHead(nn.Module):
    """A classifier with a convolutional trunk and fully connected layers on its last feature map.

    Both parts stay intact, so that other models can reuse them with their weights: `backbone` returns feature maps,
    `head` holds fc6, fc7 and fc8. The fully connected layers fix the size of the last map, and with it the image size.

    Args:
        backbone: The trunk, whose last map is the input of the head.
        head: The fully connected layers.
        image_size: Side of the images that fc6 is built for, in pixels; used in error messages.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of a size whose last feature map fits fc6
        - output: logits ``[B, K]``

    Raises:
        ValueError: The last feature map of the images does not have the size that fc6 was built for.
    """

    def __init__(self, backbone: Backbone, head: FullyConnectedHead, image_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.num_classes = head.num_classes
        self.image_size = image_size

    def check_size(self, height: int, width: int) -> None:
        """Check that images of this size give the last feature map that fc6 was built for.

        Args:
            height: Height of the images, in pixels.
            width: Width of the images, in pixels.

        Raises:
            ValueError: They do not; the message names the size that does.
        """
        expected = self.head.in_size
        # before running the trunk, whose own error would not mention fc6
        sizes = [_map_sizes(self.backbone.stages, side) for side in (height, width)]
        actual = [None if side is None else side[-1] for side in sizes]
        if actual != [expected, expected]:
            cells = "no last feature map" if None in actual else f"a last feature map of {actual[0]} x {actual[1]}"
            raise ValueError(
                f"images: fc6 was built for a last feature map of {expected} x {expected}, got {height} x {width} "
                f"pixels with {cells}; resize to {self.image_size} x {self.image_size}, or build "
                f"{type(self).__name__} with another image_size"
            )

    def features(self, images: Tensor) -> Tensor:
        """Return the activations of fc7, ``[B, hidden]``, of images ``[B, 3, H, W]``."""
        check_pixel_layout(images)
        self.check_size(*images.shape[-2:])
        return self.head.features(self.backbone(images)[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, K]`` of images ``[B, 3, H, W]``."""
        return self.head.fc8(self.features(images))


class ClassicNet(TrunkWithHead):
    """Base of `AlexNet` and `ZFNet`: builds the head for the trunk and the image size, then initializes both.

    Args:
        backbone: The trunk, whose last map is the input of the head.
        image_size: Side of the square images, in pixels.
        num_classes: Number K of classes.
        hidden: Units of fc6 and of fc7.
        dropout: Dropout probability of fc6 and fc7.
        init: Initialization of the weights, ``"paper"`` or ``"he"``.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, image_size, image_size]``
        - output: logits ``[B, K]``
    """

    def __init__(
        self, backbone: Backbone, image_size: int, num_classes: int, hidden: int, dropout: float, init: str
    ) -> None:
        check_choice(("paper", "he"), init=init)
        in_size = map_sizes(backbone.stages, image_size)[-1]  # without running the trunk
        head = FullyConnectedHead(backbone.channels[-1], in_size, num_classes, hidden, dropout)
        super().__init__(backbone, head, image_size)
        self.init = init
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights and reset all biases, according to ``init``."""
        raise NotImplementedError


def map_sizes(stages: Iterable[nn.Module], image_size: int) -> list[int]:
    """Compute the side of the feature map after each stage, in cells, without running the layers.

    Only convolutions and max pooling change the size; every other layer is assumed to keep it.

    Args:
        stages: Sequences of layers, in order.
        image_size: Side of the image, in pixels.

    Raises:
        ValueError: The image is too small for one of the layers; the message names the smallest size that works.
    """
    sizes = _map_sizes(stages, image_size)
    if sizes is None:
        smallest = image_size + 1
        while _map_sizes(stages, smallest) is None:
            smallest += 1
        raise ValueError(f"image_size: too small for this network, got {image_size}; use at least {smallest} pixels")
    return sizes


def _map_sizes(stages: Iterable[nn.Module], size: int) -> list[int] | None:
    """Compute `map_sizes`, or None if a window does not fit its map."""
    sizes = []
    for stage in stages:
        for layer in stage.modules():
            if isinstance(layer, nn.Conv2d):
                kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
                # output size of a convolution
                size = (size + 2 * int(padding) - layer.dilation[0] * (kernel - 1) - 1) // stride + 1
            elif isinstance(layer, nn.MaxPool2d):
                size = _pooled_size(layer, size)
            if size < 1:
                return None
        sizes.append(size)
    return sizes


def _pooled_size(layer: nn.MaxPool2d, size: int) -> int:
    kernel, stride, padding = (
        v if isinstance(v, int) else v[0] for v in (layer.kernel_size, layer.stride, layer.padding)
    )
    room = size + 2 * padding - kernel
    if not layer.ceil_mode:
        return room // stride + 1
    windows = -(-room // stride) + 1
    # As in torch: the last window must start inside the map or its left padding.
    return windows - 1 if (windows - 1) * stride >= size + padding else windows
