"""AlexNet, the network of 2012: grouped convolutions, response normalization, overlapping pooling."""

from typing import Any, Literal

import torch
from torch import nn

from ..backbones.layers import named_layers, scale_channels
from ..ops.checks import check_min
from ..ops.init import init_gaussian, init_he
from .layers import ClassicBackbone, ClassicNet, LocalResponseNorm


class AlexNetBackbone(ClassicBackbone):
    """AlexNet's convolutional trunk, usable alone at any image size.

    Four feature maps: conv1 after normalization (stride 4), conv2 after normalization (8), conv5 (16), pool5 (32).

    Args:
        width: Factor on all channel counts, which are rounded to multiples of 8.
        first_kernel: Side of conv1's kernel, in pixels.
        first_stride: Stride of conv1, in pixels.
        first_padding: Zeros around the normalized image, in pixels.
        groups: Groups of conv2, conv4 and conv5. The paper's 2 are its two GPUs, each with half of the maps.
        response_norm: Whether conv1 and conv2 are followed by response normalization. Without it, training is cheaper;
            the paper reports this ablation.
        **options: ``mean``, ``std``, ``frozen_stages``, ``out_indices``, ``weights`` and ``init`` of `ClassicBackbone`.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - output: for 224 pixels ``[B, 96, 55, 55]``, ``[B, 256, 27, 27]``, ``[B, 256, 13, 13]``, ``[B, 256, 6, 6]``

    Raises:
        ValueError: ``width`` leaves a layer without channels, ``groups`` does not divide the channels, or a kernel,
            stride or padding is out of range.
    """

    def __init__(
        self,
        width: float = 1.0,
        first_kernel: int = 11,
        first_stride: int = 4,
        first_padding: int = 2,
        groups: int = 2,
        response_norm: bool = True,
        **options: Any,
    ) -> None:
        check_min(1, first_kernel=first_kernel, first_stride=first_stride, groups=groups)
        check_min(0, first_padding=first_padding)
        widths = c1, c2, c3, c4, c5 = [scale_channels(c, width) for c in (96, 256, 384, 384, 256)]
        if any(channels % groups for channels in widths):
            raise ValueError(
                f"groups: must divide the channels of conv1 to conv5, {', '.join(map(str, widths))}, got {groups}; use "
                "1, 2, 4 or 8"
            )
        stages = [
            named_layers(
                conv1=nn.Conv2d(3, c1, first_kernel, first_stride, first_padding),
                relu1=nn.ReLU(),
                norm1=LocalResponseNorm() if response_norm else nn.Identity(),
            ),
            named_layers(
                pool1=nn.MaxPool2d(3, 2),
                conv2=nn.Conv2d(c1, c2, 5, padding=2, groups=groups),
                relu2=nn.ReLU(),
                norm2=LocalResponseNorm() if response_norm else nn.Identity(),
            ),
            named_layers(
                pool2=nn.MaxPool2d(3, 2),
                conv3=nn.Conv2d(c2, c3, 3, padding=1),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(c3, c4, 3, padding=1, groups=groups),
                relu4=nn.ReLU(),
                conv5=nn.Conv2d(c4, c5, 3, padding=1, groups=groups),
                relu5=nn.ReLU(),
            ),
            named_layers(pool5=nn.MaxPool2d(3, 2)),
        ]
        strides = tuple(first_stride * factor for factor in (1, 2, 4, 8))  # each pooling halves the map
        super().__init__(stages, (c1, c2, c5, c5), strides, **options)


class AlexNet(ClassicNet):
    """AlexNet as published, with the paper's values as defaults.

    conv1 96 (11 x 11, stride 4) - ReLU - norm - pool - conv2 256 (5 x 5, 2 groups) - ReLU - norm - pool - conv3 384 -
    conv4 384 (2 groups) - conv5 256 (2 groups) - pool - fc6 4096 - fc7 4096 - fc8 1000. The maps have 55, 27, 27, 13,
    13, 13, 13, 6 cells per side; the network has 60,965,224 parameters. Pooling is 3 x 3 with stride 2. Response
    normalization sums over 5 maps with k = 2, alpha = 1e-4, beta = 0.75. Dropout is 0.5 on fc6 and fc7.

    Small images need a finer first layer and fewer channels, for example ``image_size=64, first_kernel=5,
    first_stride=2, width=0.25, hidden=256``. With so few inputs per unit, weights from N(0, 0.01^2) let the signal
    vanish from layer to layer: use ``init="he"`` and the ``mean`` and ``std`` of pixels scaled to unit variance.

    Args:
        num_classes: Number K of classes.
        image_size: Side of the square input images, in pixels; determines the size of fc6. See the note on 224 and 227
            below.
        hidden: Units of fc6 and of fc7.
        first_padding: Zeros around the normalized image, in pixels. ``None``: 0 for an ``image_size`` of 227, 2
            otherwise.
        dropout: Dropout probability of fc6 and fc7.
        init: ``"paper"``: weights from N(0, 0.01^2), biases 1 in conv2, conv4, conv5, fc6 and fc7 and 0 elsewhere.
            ``"he"``: weights from N(0, 2 / fan-in), biases 0.
        **options: ``width``, ``first_kernel``, ``first_stride``, ``groups`` and ``response_norm`` of `AlexNetBackbone`;
            ``mean`` and ``std`` of each channel, for pixels in [0, 1], by default ImageNet's mean pixel and the paper's
            scale of 0 to 255; ``frozen_stages``, the number of leading stages that are not trained.

    Attributes:
        backbone: The convolutional trunk, an `AlexNetBackbone`.
        head: The `FullyConnectedHead` with ``fc6``, ``fc7`` and ``fc8``.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, image_size, image_size]``
        - output: logits ``[B, K]``

    Raises:
        ValueError: ``init`` is unknown, the sizes do not make a network, or the images are too small or do not fit fc6.

    Reference:
        Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012.
        Deviations from the paper, and choices that it leaves open:

        - The text says 224 x 224, but (224 - 11) / 4 + 1 is not an integer: 55 cells need 227 pixels. With 2 zeros
          around 224 pixels, of which the last row and column stay unused, 224 gives the maps of 227. A model built for
          224 also takes 227. A model built for 227 has no padding, like the network that the authors trained, and
          rejects 224, whose last map would be 5 x 5. Both have the same weights.
        - The paper subtracts the mean image; here the mean pixel is subtracted, which serves all image sizes.
        - Response normalization runs over all maps of a layer, as the formula says. The paper does not say whether the
          two GPUs read each other's maps there; this would change 4 of conv1's 96 maps and 4 of conv2's 256.
        - Training (SGD, batches of 128 images, momentum 0.9, weight decay 5e-4, learning rate 0.01 divided by ten three
          times) is configured in the experiment. Caffe's port starts biases at 0.1 instead of 1, because with 1 the
          loss did not decrease.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        *,
        hidden: int = 4096,
        first_padding: int | None = None,
        dropout: float = 0.5,
        init: Literal["paper", "he"] = "paper",
        **options: Any,
    ) -> None:
        padding = (0 if image_size == 227 else 2) if first_padding is None else first_padding
        # weights and initial values are those of the whole network
        backbone = AlexNetBackbone(first_padding=padding, out_indices=None, weights=None, init=None, **options)
        super().__init__(backbone, image_size, num_classes, hidden, dropout, init)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights and reset all biases, according to ``init``."""
        if self.init == "he":
            init_he(self)
            return
        init_gaussian(self, 0.01)
        for name, layer in self.named_modules():
            # positive inputs for ReLUs at first
            if name.rpartition(".")[2] in ("conv2", "conv4", "conv5", "fc6", "fc7"):
                nn.init.ones_(layer.get_parameter("bias"))
