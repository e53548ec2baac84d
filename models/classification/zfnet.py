"""ZFNet, the network of 2013: AlexNet with a finer first layer, whose filters are kept from growing."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..backbones.base import Backbone
from ..ops.checks import check_min
from .alexnet import MEAN_PIXEL, PIXEL_UNIT, init_gaussian, init_he, scaled
from .layers import FullyConnectedHead, LocalResponseNorm, TrunkWithHead, map_sizes, named


def renormalized(weight: Tensor, radius: float = 0.1) -> Tensor:
    """Filters with those shrunk whose root mean square exceeds a radius: to exactly that radius.

    Args:
        weight: Filters.
        radius: Largest root mean square that a filter may have.

    Shape:
        - weight: ``[out_channels, ...]``, one filter an entry of the first axis
        - output: as ``weight``

    Raises:
        ValueError: if the radius is not positive.

    Reference:
        Zeiler, Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 3.
    """
    if radius <= 0:
        raise ValueError(f"radius={radius}: a positive root mean square is needed (the paper takes 0.1)")
    rms = weight.square().flatten(1).mean(1).sqrt()
    scale = (radius / rms).clamp(max=1.0)  # a filter of zeros: radius / 0 is inf, clamped to 1
    return weight * scale.view(-1, *[1] * (weight.ndim - 1))


class ZFNetBackbone(Backbone):
    """ZFNet's convolutional trunk, usable alone at any image size.

    Four feature maps: conv1 (stride 2), conv2 (8), conv5 (16), pool5 (32).

    Args:
        width: Factor on all channel counts, which are rounded to multiples of 8.
        first_kernel: Side of conv1's kernel, in pixels.
        first_stride: Stride of conv1, in pixels.
        second_stride: Stride of conv2, in cells of pool1.
        response_norm: Whether the two normalisations are there.
        mean: Subtracted from pixels in [0, 1].
        std: Divides pixels in [0, 1].
        frozen_stages: How many stages, from the first, do not train.
        out_indices: Which of the four maps are returned, increasing from 0; None: all.
        weights: A checkpoint file, of which the trunk is taken. None: see ``init``.
        init: ``"he"``: weights from N(0, 2 / fan-in), biases 0. None: torch's own; the whole network sets the paper's.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - output: ``[B, 96, 110, 110]``, ``[B, 256, 26, 26]``, ``[B, 256, 13, 13]``, ``[B, 256, 6, 6]`` for 224 pixels

    Raises:
        ValueError: if ``width`` leaves a layer without channels, or a kernel or stride is below 1.
    """

    def __init__(
        self,
        width: float = 1.0,
        first_kernel: int = 7,
        first_stride: int = 2,
        second_stride: int = 2,
        response_norm: bool = True,
        mean: Sequence[float] = MEAN_PIXEL,
        std: Sequence[float] = PIXEL_UNIT,
        frozen_stages: int = 0,
        out_indices: Sequence[int] | None = None,
        weights: str | None = None,
        init: Literal["he"] | None = None,
    ) -> None:
        check_min(1, first_kernel=first_kernel, first_stride=first_stride, second_stride=second_stride)
        if init not in (None, "he"):
            raise ValueError(f"init={init!r}: choose 'he', or null for torch's own")
        c1, c2, c3, c4, c5 = (scaled(c, width) for c in (96, 256, 384, 384, 256))
        stages = [
            named(conv1=nn.Conv2d(3, c1, first_kernel, first_stride, padding=1), relu1=nn.ReLU()),
            named(
                pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
                norm1=LocalResponseNorm() if response_norm else nn.Identity(),
                conv2=nn.Conv2d(c1, c2, 5, second_stride),
                relu2=nn.ReLU(),
            ),
            named(
                pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
                norm2=LocalResponseNorm() if response_norm else nn.Identity(),
                conv3=nn.Conv2d(c2, c3, 3, padding=1),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(c3, c4, 3, padding=1),
                relu4=nn.ReLU(),
                conv5=nn.Conv2d(c4, c5, 3, padding=1),
                relu5=nn.ReLU(),
            ),
            named(pool5=nn.MaxPool2d(3, 2, ceil_mode=True)),
        ]
        conv2_stride = first_stride * 2 * second_stride
        strides = (first_stride, conv2_stride, conv2_stride * 2, conv2_stride * 4)
        super().__init__(stages, (c1, c2, c5, c5), strides, mean, std, frozen_stages, out_indices=out_indices)
        if init == "he":
            init_he(self)
        self._load_trunk(weights)


class ZFNet(TrunkWithHead):
    """ZFNet as published, with the paper's values as defaults.

    conv1 96 (7 x 7, stride 2) - ReLU - pool - norm - conv2 256 (5 x 5, stride 2) - ReLU - pool - norm - conv3 384 -
    conv4 384 - conv5 256 - pool - fc6 4096 - fc7 4096 - fc8 1000, no groups. Maps of 110, 55, 26, 13, 13, 13, 13, 6
    cells (Fig. 3); 62,357,608 parameters. Pooling is 3 x 3 with stride 2; dropout 0.5 on fc6 and fc7.

    Args:
        num_classes: Number K of classes.
        image_size: Side of the square images, in pixels; fixes fc6.
        width: Factor on the convolutions' channel counts, which are rounded to multiples of 8.
        hidden: Units of fc6 and of fc7.
        first_kernel: Side of conv1's kernel, in pixels.
        first_stride: Stride of conv1, in pixels.
        second_stride: Stride of conv2, in cells of pool1; 1 suits small images.
        response_norm: Whether the two normalisations are there.
        dropout: Probability of dropping a unit of fc6 and of fc7.
        init: ``"paper"``: weights from N(0, 0.01^2), biases 0. ``"he"``: weights from N(0, 2 / fan-in), biases 0; for
            narrow networks, together with the ``mean`` and ``std`` of unit-scale pixels.
        mean: Subtracted from pixels in [0, 1]; the default is ImageNet's mean pixel.
        std: Divides pixels in [0, 1]; the default leaves them on the scale of 0 to 255, as in the paper.
        frozen_stages: How many stages of the trunk, from the first, do not train.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, image_size, image_size]``
        - output: logits ``[B, K]``

    Attributes:
        backbone: The convolutional trunk, a `ZFNetBackbone`.
        head: ``fc6``, ``fc7``, ``fc8``.

    Raises:
        ValueError: for an unknown ``init``, numbers that make no network, or an image that is too small or does not fit
            fc6.

    Reference:
        Zeiler, Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 3 and Fig. 3. Where
        this leaves the paper, and what it settles:

        - Neither padding nor rounding is stated. One zero around the image for conv1, none for conv2, and pooling that
          rounds up give all of Fig. 3's sizes; pooling that rounds down does not (54 instead of 55).
        - "Contrast normalized across feature maps" comes without a formula; the paper describes its network by what
          differs from AlexNet, and normalisation is not among that. So it is AlexNet's response normalisation across
          maps (n = 5, k = 2, alpha = 1e-4, beta = 0.75), after the pooling as Fig. 3 has it: it divides and subtracts
          nothing, unlike the local contrast normalisation of Jarrett et al. (ICCV 2009), which the paper cites as well.
        - "All weights are initialized to 10^-2" would leave all filters of a layer alike for ever: it is taken for the
          standard deviation of a normal distribution.
        - Filters are renormalised by `renormalize_filters`, which the training loop is to call after each step.
        - The paper subtracts the mean image; here it is its mean pixel.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        width: float = 1.0,
        hidden: int = 4096,
        first_kernel: int = 7,
        first_stride: int = 2,
        second_stride: int = 2,
        response_norm: bool = True,
        dropout: float = 0.5,
        init: Literal["paper", "he"] = "paper",
        mean: Sequence[float] = MEAN_PIXEL,
        std: Sequence[float] = PIXEL_UNIT,
        frozen_stages: int = 0,
    ) -> None:
        if init not in ("paper", "he"):
            raise ValueError(f"init={init!r}: choose 'paper' or 'he'")
        backbone = ZFNetBackbone(
            width, first_kernel, first_stride, second_stride, response_norm, mean, std, frozen_stages
        )
        in_size = map_sizes(backbone.stages, image_size)[-1]
        super().__init__(
            backbone, FullyConnectedHead(backbone.channels[-1], in_size, num_classes, hidden, dropout), image_size
        )
        self.init = init
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all weights and sets all biases to 0, by ``init``."""
        if self.init == "he":
            init_he(self)
        else:
            init_gaussian(self, 0.01)

    @torch.no_grad()
    def renormalize_filters(self, radius: float = 0.1) -> None:
        """Shrinks every convolution's filters whose root mean square exceeds ``radius`` to it, in place.

        To be called after each optimizer step. The paper does so in all convolutional layers and finds it crucial in
        the first, where inputs range from -128 to 128 and a few filters would come to dominate (its Fig. 6).
        """
        for layer in self.backbone.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(renormalized(layer.weight, radius))
