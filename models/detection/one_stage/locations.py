"""The locations at which FCOS predicts objects: where they are, and the object that each is trained on.

Shape legend: B images, A locations of all levels together, N objects of an image. A location is given as a square
around it, ``x1, y1, x2, y2`` in pixels, whose side is the stride of its level.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from ...ops.matching import BACKGROUND
from ..pyramid import Anchors

_PAIRS_PER_BLOCK = 2**18
"""Pairs of a location and an object that are compared at once, which bounds memory."""


class CellCenters(Anchors):
    """The locations of FCOS' paper: the centers of cells, in float32.

    torchvision has the cells' upper left corners instead. On levels whose size is rounded up, its distance between
    neighbors is not the stride but the side of the batch over the number of cells.

    Args:
        strides: Strides of the levels, in pixels.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__(tuple((stride,) for stride in strides), ((1.0,),) * len(strides))
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """The locations of each image, ``[A, 4]``. Only the sizes of the maps are used."""
        levels = []
        for stride, level in zip(self.strides, feature_maps, strict=True):
            y, x = (
                (torch.arange(cells, dtype=torch.float32, device=level.device) + 0.5) * stride
                for cells in level.shape[-2:]
            )
            center = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)  # row by row
            levels.append(torch.cat([center - stride / 2, center + stride / 2], dim=1))
        return [torch.cat(levels)] * len(image_list.image_sizes)


@torch.no_grad()
def match_locations(boxes: Tensor, locations: Tensor, counts: Sequence[int], radius: float) -> Tensor:
    """Match each location to the smallest object that it is trained on.

    A location may predict an object if it lies inside its box, less than ``radius`` strides from the box's center in x
    and in y, and if the largest of its distances to the four sides is between 4 and 8 strides of its level (on the
    finest level: below 8; on the coarsest: above 4). On ties the first object is taken. As in torchvision, areas that
    differ by less than about 8 pixels tie.

    Args:
        boxes: Ground-truth boxes, in pixels.
        locations: The locations of all levels, from fine to coarse.
        counts: Number of locations on each level.
        radius: Maximum distance from a box's center, in strides.

    Shape:
        - boxes: ``[N, 4]``
        - locations: ``[A, 4]``
        - output: int64 ``[A]``, indices of objects, or `BACKGROUND`
    """
    if not len(boxes):
        return torch.full((len(locations),), BACKGROUND, device=locations.device)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    preference = 1e8 - (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])  # a smaller box has a higher one
    matches = []
    for level, squares in enumerate(locations.split(list(counts))):
        for block in squares.split(max(1, _PAIRS_PER_BLOCK // len(boxes))):
            position = ((block[:, :2] + block[:, 2:]) / 2)[:, None]  # [a, 1, 2]
            stride = (block[:, 2] - block[:, 0])[:, None]  # [a, 1]
            eligible = (position - centers).abs().amax(2) < radius * stride  # [a, N]
            distances = torch.cat([position - boxes[:, :2], boxes[:, 2:] - position], dim=2)  # [a, N, 4]
            eligible &= distances.amin(2) > 0
            largest = distances.amax(2)
            if level > 0:
                eligible &= largest > 4 * stride
            if level < len(counts) - 1:
                eligible &= largest < 8 * stride
            best, match = (eligible * preference).max(1)
            matches.append(match.where(best > 0, BACKGROUND))
    return torch.cat(matches)
