"""ZFNet, the network of 2013: AlexNet with a finer first layer and a limit on the size of its filters."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..backbones.layers import named_layers, scale_channels
from ..ops.checks import check_min
from ..ops.init import init_gaussian, init_he
from .layers import ClassicBackbone, ClassicNet, LocalResponseNorm


def renormalize(weight: Tensor, radius: float = 0.1) -> Tensor:
    """Scale every filter whose root mean square exceeds a radius down to exactly that radius.

    Args:
        weight: Filters of a convolution.
        radius: Largest root mean square of a filter.

    Shape:
        - weight: ``[O, ...]``, one filter per entry of the first axis
        - output: as ``weight``

    Raises:
        ValueError: ``radius`` is not positive.

    Reference:
        Zeiler, Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 3.
    """
    if radius <= 0:
        raise ValueError(f"radius: must be positive, got {radius}; the paper uses 0.1")
    rms = weight.square().flatten(1).mean(1).sqrt()  # [O]
    scale = (radius / rms).clamp(max=1.0)  # a filter of zeros: radius / 0 is inf, clamped to 1
    return weight * scale.view(-1, *[1] * (weight.ndim - 1))


class ZFNetBackbone(ClassicBackbone):
    """ZFNet's convolutional trunk, usable alone at any image size.

    Four feature maps: conv1 (stride 2), conv2 (8), conv5 (16), pool5 (32).

    Args:
        width: Factor on all channel counts, which are rounded to multiples of 8.
        first_kernel: Side of conv1's kernel, in pixels.
        first_stride: Stride of conv1, in pixels.
        second_stride: Stride of conv2, in cells of pool1.
        response_norm: Whether pool1 and pool2 are followed by response normalization.
        **options: ``mean``, ``std``, ``frozen_stages``, ``out_indices``, ``weights`` and ``init`` of `ClassicBackbone`.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - output: for 224 pixels ``[B, 96, 110, 110]``, ``[B, 256, 26, 26]``, ``[B, 256, 13, 13]``, ``[B, 256, 6, 6]``

    Raises:
        ValueError: ``width`` leaves a layer without channels, or a kernel or stride is below 1.
    """

    def __init__(
        self,
        width: float = 1.0,
        first_kernel: int = 7,
        first_stride: int = 2,
        second_stride: int = 2,
        response_norm: bool = True,
        **options: Any,
    ) -> None:
        check_min(1, first_kernel=first_kernel, first_stride=first_stride, second_stride=second_stride)
        c1, c2, c3, c4, c5 = (scale_channels(c, width) for c in (96, 256, 384, 384, 256))
        stages = [
            named_layers(conv1=nn.Conv2d(3, c1, first_kernel, first_stride, padding=1), relu1=nn.ReLU()),
            named_layers(
                pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
                norm1=LocalResponseNorm() if response_norm else nn.Identity(),
                conv2=nn.Conv2d(c1, c2, 5, second_stride),
                relu2=nn.ReLU(),
            ),
            named_layers(
                pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
                norm2=LocalResponseNorm() if response_norm else nn.Identity(),
                conv3=nn.Conv2d(c2, c3, 3, padding=1),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(c3, c4, 3, padding=1),
                relu4=nn.ReLU(),
                conv5=nn.Conv2d(c4, c5, 3, padding=1),
                relu5=nn.ReLU(),
            ),
            named_layers(pool5=nn.MaxPool2d(3, 2, ceil_mode=True)),
        ]
        conv2_stride = first_stride * 2 * second_stride  # pool1 halves the map
        strides = (first_stride, conv2_stride, conv2_stride * 2, conv2_stride * 4)
        super().__init__(stages, (c1, c2, c5, c5), strides, **options)


class ZFNet(ClassicNet):
    """ZFNet as published, with the paper's values as defaults.

    conv1 96 (7 x 7, stride 2) - ReLU - pool - norm - conv2 256 (5 x 5, stride 2) - ReLU - pool - norm - conv3 384 -
    conv4 384 - conv5 256 - pool - fc6 4096 - fc7 4096 - fc8 1000, without groups. The maps have 110, 55, 26, 13, 13,
    13, 13, 6 cells per side (Fig. 3); the network has 62,357,608 parameters. Pooling is 3 x 3 with stride 2; dropout is
    0.5 on fc6 and fc7.

    Args:
        num_classes: Number K of classes.
        image_size: Side of the square input images, in pixels; determines the size of fc6.
        hidden: Units of fc6 and of fc7.
        dropout: Dropout probability of fc6 and fc7.
        init: ``"paper"``: weights from N(0, 0.01^2), biases 0. ``"he"``: weights from N(0, 2 / fan-in), biases 0; for
            narrow networks, together with the ``mean`` and ``std`` of pixels scaled to unit variance.
        **options: ``width``, ``first_kernel``, ``first_stride``, ``second_stride`` (1 suits small images) and
            ``response_norm`` of `ZFNetBackbone`; ``mean``, ``std`` and ``frozen_stages`` as in `AlexNet`.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, image_size, image_size]``
        - output: logits ``[B, K]``

    Attributes:
        backbone: The convolutional trunk, a `ZFNetBackbone`.
        head: The `FullyConnectedHead` with ``fc6``, ``fc7`` and ``fc8``.

    Raises:
        ValueError: As for `AlexNet`.

    Reference:
        Zeiler, Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 3 and Fig. 3.
        Deviations from the paper, and choices that it leaves open:

        - The paper states neither padding nor rounding. One zero around the image for conv1, none for conv2, and
          pooling that rounds up give all sizes of Fig. 3; pooling that rounds down does not (54 instead of 55).
        - "Contrast normalized across feature maps" comes without a formula. The paper describes its network by the
          differences from AlexNet and does not list normalization among them, so this is AlexNet's response
          normalization across maps (n = 5, k = 2, alpha = 1e-4, beta = 0.75), after the pooling as in Fig. 3. It
          divides and does not subtract, unlike the local contrast normalization of Jarrett et al. (ICCV 2009), which
          the paper also cites.
        - "All weights are initialized to 10^-2" would keep all filters of a layer identical. It is read as the standard
          deviation of a normal distribution.
        - The training loop must call `renormalize_filters` after each step to renormalize the filters.
        - The paper subtracts the mean image; here the mean pixel is subtracted.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        *,
        hidden: int = 4096,
        dropout: float = 0.5,
        init: Literal["paper", "he"] = "paper",
        **options: Any,
    ) -> None:
        # weights and initial values are those of the whole network
        backbone = ZFNetBackbone(out_indices=None, weights=None, init=None, **options)
        super().__init__(backbone, image_size, num_classes, hidden, dropout, init)

    def reset_parameters(self) -> None:
        """Draw all weights according to ``init``, and set all biases to 0."""
        if self.init == "he":
            init_he(self)
        else:
            init_gaussian(self, 0.01)

    @torch.no_grad()
    def renormalize_filters(self, radius: float = 0.1) -> None:
        """Scale convolution filters whose root mean square exceeds ``radius`` down to it, in place.

        Call it after each optimizer step. The paper applies it to all convolutional layers and finds it crucial in the
        first, where inputs range from -128 to 128 and a few filters would otherwise dominate (its Fig. 6).
        """
        for layer in self.backbone.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(renormalize(layer.weight, radius))
