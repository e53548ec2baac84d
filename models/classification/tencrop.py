"""Ten-crop testing: the mean of a classifier's softmax over ten views of an image."""

import math

import torch
from torch import Tensor, nn

from .layers import TrunkWithHead


def ten_crops(images: Tensor, size: int) -> list[Tensor]:
    """The four corners and the centre of the images, then the same five mirrored left to right.

    Args:
        images: Pixels of any type.
        size: Side of the square crops, in pixels.

    Shape:
        - images: ``[B, C, H, W]``, H and W at least ``size``
        - output: ten of ``[B, C, size, size]``: top left, top right, bottom left, bottom right, centre, then their
          reflections. Where the border is odd, the centre crop lies half a pixel up and left.

    Raises:
        ValueError: if the images are smaller than the crops.
    """
    height, width = images.shape[-2:]
    if size < 1 or min(height, width) < size:
        raise ValueError(
            f"images are {height} x {width} pixels; ten crops of size={size} need {size} x {size} at least"
        )
    bottom, right = height - size, width - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [images[..., top : top + size, left : left + size] for top, left in corners]
    return crops + [crop.flip(-1) for crop in crops]


class TenCrop(nn.Module):
    """Wraps a classifier so that its answer is the mean of its softmax over ten crops.

    ``forward`` gives the logarithm of the mean probabilities: logits whose softmax is that mean, so that accuracy,
    cross-entropy and everything else that takes a classifier works unchanged. The crops run one after another, so
    memory is that of one crop.

    Args:
        model: Any classifier, ``images -> logits [B, K]``.
        size: Side of the crops, in pixels.

    Shape:
        - images: as the model takes them, but larger: ``[B, 3, H, W]``, 256 x 256 in the paper
        - output: ``[B, K]``

    Raises:
        ValueError: if ``size`` is below 1, or the model takes no images of that size.

    Reference:
        Krizhevsky, Sutskever, Hinton, NIPS 2012, section 4.1.
    """

    def __init__(self, model: nn.Module, size: int = 224) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size={size}: a crop has 1 pixel a side at least (the paper takes 224)")
        if isinstance(model, TrunkWithHead):
            model.check_size(size, size)
        self.model = model
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Log of the mean of ten softmaxes, ``[B, K]``."""
        views = torch.stack([self.model(crop).log_softmax(-1) for crop in ten_crops(images, self.size)])
        return views.logsumexp(0) - math.log(len(views))
