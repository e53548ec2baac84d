"""AlexNet, the network of 2012: groups, response normalisation, overlapping pooling, and 60,965,224 parameters."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from ..backbones.base import Backbone
from ..ops.checks import check_min
from .layers import FullyConnectedHead, LocalResponseNorm, TrunkWithHead, map_sizes, named

MEAN_PIXEL = (122.679 / 255, 116.669 / 255, 104.007 / 255)
"""Mean RGB of ImageNet's training images in [0, 1]; Caffe's figures, which R-CNN and FCN take too."""

PIXEL_UNIT = (1 / 255, 1 / 255, 1 / 255)
"""The "standard deviation" that leaves pixels on the scale of 0 to 255, to which the papers' initial weights belong."""


def scaled(channels: int, width: float) -> int:
    """Channels of a layer at a fraction of its width: the nearest multiple of 8.

    Raises:
        ValueError: if that is 0.
    """
    if not (eights := round(channels * width / 8)) > 0:
        raise ValueError(
            f"width={width}: of a layer's {channels} channels none are left, since they are counted in eights; take "
            f"more than {4 / channels:.3f}"
        )
    return 8 * eights


@torch.no_grad()
def init_gaussian(module: nn.Module, std: float = 0.01) -> None:
    """Draws every convolution's and linear layer's weights from N(0, std^2), and sets their biases to 0, in place."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, 0.0, std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def init_he(module: nn.Module) -> None:
    """Draws weights from N(0, 2 / fan-in) and sets biases to 0, in place: activations keep their size through ReLUs."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class AlexNetBackbone(Backbone):
    """AlexNet's convolutional trunk, usable alone at any image size.

    Four feature maps: conv1 after normalisation (stride 4), conv2 after normalisation (8), conv5 (16), pool5 (32).

    Args:
        width: Factor on all channel counts, which are rounded to multiples of 8.
        first_kernel: Side of conv1's kernel, in pixels.
        first_stride: Stride of conv1, in pixels.
        first_padding: Zeros around the normalised image, in pixels.
        groups: Groups of conv2, conv4 and conv5: the two GPUs of the paper, each of which saw its own half of the maps.
        response_norm: Whether the two normalisations are there; without them is the paper's own ablation, and cheaper.
        mean: Subtracted from pixels in [0, 1].
        std: Divides pixels in [0, 1].
        frozen_stages: How many stages, from the first, do not train.
        out_indices: Which of the four maps are returned, increasing from 0; None: all.
        weights: A checkpoint file, of which the trunk is taken. None: see ``init``.
        init: ``"he"``: weights from N(0, 2 / fan-in), biases 0. None: torch's own; the whole network sets the paper's.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - output: ``[B, 96, 55, 55]``, ``[B, 256, 27, 27]``, ``[B, 256, 13, 13]``, ``[B, 256, 6, 6]`` for 224 pixels

    Raises:
        ValueError: if ``width`` leaves a layer without channels, ``groups`` do not divide channels, or a kernel, stride
            or padding is below what it can be.
    """

    def __init__(
        self,
        width: float = 1.0,
        first_kernel: int = 11,
        first_stride: int = 4,
        first_padding: int = 2,
        groups: int = 2,
        response_norm: bool = True,
        mean: Sequence[float] = MEAN_PIXEL,
        std: Sequence[float] = PIXEL_UNIT,
        frozen_stages: int = 0,
        out_indices: Sequence[int] | None = None,
        weights: str | None = None,
        init: Literal["he"] | None = None,
    ) -> None:
        check_min(1, first_kernel=first_kernel, first_stride=first_stride, groups=groups)
        check_min(0, first_padding=first_padding)
        if init not in (None, "he"):
            raise ValueError(f"init={init!r}: choose 'he', or null for torch's own")
        c1, c2, c3, c4, c5 = (scaled(c, width) for c in (96, 256, 384, 384, 256))
        if any(channels % groups for channels in (c1, c2, c3, c4, c5)):
            raise ValueError(
                f"groups={groups} do not divide the channels of conv1 to conv5, {c1}, {c2}, {c3}, {c4}, {c5}; 1, 2, 4 "
                "and 8 do"
            )
        stages = [
            named(
                conv1=nn.Conv2d(3, c1, first_kernel, first_stride, first_padding),
                relu1=nn.ReLU(),
                norm1=LocalResponseNorm() if response_norm else nn.Identity(),
            ),
            named(
                pool1=nn.MaxPool2d(3, 2),
                conv2=nn.Conv2d(c1, c2, 5, padding=2, groups=groups),
                relu2=nn.ReLU(),
                norm2=LocalResponseNorm() if response_norm else nn.Identity(),
            ),
            named(
                pool2=nn.MaxPool2d(3, 2),
                conv3=nn.Conv2d(c2, c3, 3, padding=1),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(c3, c4, 3, padding=1, groups=groups),
                relu4=nn.ReLU(),
                conv5=nn.Conv2d(c4, c5, 3, padding=1, groups=groups),
                relu5=nn.ReLU(),
            ),
            named(pool5=nn.MaxPool2d(3, 2)),
        ]
        strides = tuple(first_stride * factor for factor in (1, 2, 4, 8))
        super().__init__(stages, (c1, c2, c5, c5), strides, mean, std, frozen_stages, out_indices=out_indices)
        if init == "he":
            init_he(self)
        self._load_trunk(weights)


class AlexNet(TrunkWithHead):
    """AlexNet as published, with the paper's values as defaults.

    conv1 96 (11 x 11, stride 4) - ReLU - norm - pool - conv2 256 (5 x 5, 2 groups) - ReLU - norm - pool - conv3 384 -
    conv4 384 (2 groups) - conv5 256 (2 groups) - pool - fc6 4096 - fc7 4096 - fc8 1000. Maps of 55, 27, 27, 13, 13, 13,
    6 cells; 60,965,224 parameters. Pooling is 3 x 3 with stride 2. Response normalisation sums over 5 maps with k = 2,
    alpha = 1e-4, beta = 0.75. Dropout 0.5 on fc6 and fc7.

    Small images need a finer first layer and fewer channels, say ``image_size=64, first_kernel=5, first_stride=2,
    width=0.25, hidden=256``; and with so few inputs a unit, N(0, 0.01) makes a signal that fades from layer to layer:
    take ``init="he"`` and the ``mean`` and ``std`` of unit-scale pixels there.

    Args:
        num_classes: Number K of classes.
        image_size: Side of the square images, in pixels; fixes fc6. See the note on 224 and 227 below.
        width: Factor on the convolutions' channel counts, which are rounded to multiples of 8.
        hidden: Units of fc6 and of fc7.
        first_kernel: Side of conv1's kernel, in pixels.
        first_stride: Stride of conv1, in pixels.
        first_padding: Zeros around the normalised image, in pixels; None: 0 for an ``image_size`` of 227, 2 otherwise.
        groups: Groups of conv2, conv4 and conv5; 1 joins the two GPUs' halves.
        response_norm: Whether the two normalisations are there; without them is the paper's own ablation, and cheaper.
        dropout: Probability of dropping a unit of fc6 and of fc7.
        init: ``"paper"``: weights from N(0, 0.01^2), biases 1 in conv2, conv4, conv5, fc6 and fc7 and 0 elsewhere.
            ``"he"``: weights from N(0, 2 / fan-in), biases 0.
        mean: Subtracted from pixels in [0, 1]; the default is ImageNet's mean pixel.
        std: Divides pixels in [0, 1]; the default leaves them on the scale of 0 to 255, as in the paper.
        frozen_stages: How many stages of the trunk, from the first, do not train.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, image_size, image_size]``
        - output: logits ``[B, K]``

    Attributes:
        backbone: The convolutional trunk, an `AlexNetBackbone`.
        head: ``fc6``, ``fc7``, ``fc8``.

    Raises:
        ValueError: for an unknown ``init``, numbers that make no network, or an image that is too small or does not fit
            fc6.

    Reference:
        Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012.
        Where this leaves the paper, and what it settles:

        - The text says 224 x 224, but (224 - 11) / 4 + 1 is no whole number: 55 needs 227. With 2 zeros around 224
          pixels, of which the last row and column stay unused, 224 works as 227 does. A model built for 224 takes 227
          too; one built for 227 has no padding, which is the network as it was trained, and refuses 224, whose last map
          would be 5 x 5. Weights fit both.
        - The paper subtracts the mean image; here it is its mean pixel, so that all image sizes share it.
        - Response normalisation runs over all maps of a layer, as the formula has it. Whether the two GPUs looked at
          each other's maps there the paper does not say; it would change 4 of conv1's 96 maps and 4 of conv2's 256.
        - Training (SGD, 128 images a step, momentum 0.9, weight decay 5e-4, 0.01 divided by ten three times) is the
          experiment's affair. Caffe's port starts biases at 0.1 instead of 1, saying that 1 left the loss flat.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        width: float = 1.0,
        hidden: int = 4096,
        first_kernel: int = 11,
        first_stride: int = 4,
        first_padding: int | None = None,
        groups: int = 2,
        response_norm: bool = True,
        dropout: float = 0.5,
        init: Literal["paper", "he"] = "paper",
        mean: Sequence[float] = MEAN_PIXEL,
        std: Sequence[float] = PIXEL_UNIT,
        frozen_stages: int = 0,
    ) -> None:
        if init not in ("paper", "he"):
            raise ValueError(f"init={init!r}: choose 'paper' or 'he'")
        padding = (0 if image_size == 227 else 2) if first_padding is None else first_padding
        backbone = AlexNetBackbone(
            width, first_kernel, first_stride, padding, groups, response_norm, mean, std, frozen_stages
        )
        in_size = map_sizes(backbone.stages, image_size)[-1]
        super().__init__(
            backbone, FullyConnectedHead(backbone.channels[-1], in_size, num_classes, hidden, dropout), image_size
        )
        self.init = init
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws all weights and sets all biases anew, by ``init``."""
        if self.init == "he":
            init_he(self)
            return
        init_gaussian(self, 0.01)
        for name, layer in self.named_modules():
            if name.rpartition(".")[2] in ("conv2", "conv4", "conv5", "fc6", "fc7"):
                nn.init.ones_(layer.get_parameter("bias"))
