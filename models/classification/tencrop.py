"""Ten-crop testing: the mean of a classifier's softmax over ten crops of an image."""

import math

import torch
from torch import Tensor, nn

from ..modes import evaluation_mode
from ..ops.checks import check_min
from .layers import TrunkWithHead


def ten_crops(images: Tensor, size: int) -> list[Tensor]:
    """Crop the four corners and the center of images, then mirror these five left to right.

    Args:
        images: Pixels of any dtype.
        size: Side of the square crops, in pixels.

    Shape:
        - images: ``[B, C, H, W]``, H and W at least ``size``
        - output: ten of ``[B, C, size, size]``: top left, top right, bottom left, bottom right, center, then their
          reflections. If the border is odd, the center crop is half a pixel up and left of the center.

    Raises:
        ValueError: The images are smaller than the crops.
    """
    height, width = images.shape[-2:]
    if size < 1 or min(height, width) < size:
        raise ValueError(
            f"images: must be at least {size} x {size} pixels for crops of size={size}, got {height} x {width}"
        )
    bottom, right = height - size, width - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [images[..., top : top + size, left : left + size] for top, left in corners]
    return crops + [crop.flip(-1) for crop in crops]


class TenCrop(nn.Module):
    """Wraps a classifier to average its softmax over ten crops.

    ``forward`` returns the logarithm of the mean probabilities. These are logits whose softmax is that mean, so
    accuracy and cross-entropy work as for any classifier. The crops run one after another, in the memory of one crop,
    and with the model in evaluation mode.

    Args:
        model: Any classifier, ``images -> logits [B, K]``.
        size: Side of the crops, in pixels.

    Shape:
        - images: as for the model, but larger: ``[B, 3, H, W]``, 256 x 256 pixels in the paper
        - output: ``[B, K]``

    Raises:
        ValueError: ``size`` is below 1, or does not fit the model.

    Reference:
        Krizhevsky, Sutskever, Hinton, NIPS 2012, section 4.1.
    """

    def __init__(self, model: nn.Module, size: int = 224) -> None:
        super().__init__()
        check_min(1, size=size)
        if isinstance(model, TrunkWithHead):
            model.check_size(size, size)  # fails now and not at the first batch
        self.model = model
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Return the logarithm of the mean softmax, ``[B, K]``."""
        with evaluation_mode(self.model):
            views = torch.stack([self.model(crop).log_softmax(-1) for crop in ten_crops(images, self.size)])
        # [10, B, K]
        return views.logsumexp(0) - math.log(len(views))
