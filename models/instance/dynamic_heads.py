"""CondInst's mask heads: networks of three 1 x 1 convolutions, with separate parameters for each instance.

Shape legend: B images, A locations of all levels together, C channels, N objects, n instances, P parameters of an
instance, ``h x w`` cells of a map. Coordinates lie between pixels: the center of cell (0, 0) of a map of stride s is
(s / 2, s / 2).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 8
"""Number of channels between the convolutions of an instance's network."""


class Instances(NamedTuple):
    """Instances of one or several images, with the inputs from which their masks are computed."""

    parameters: Tensor  # float32 [n, P], of their networks; see `split_parameters`
    locations: Tensor  # float32 [n, 2], x and y in pixels
    units: Tensor  # float32 [n], unit of relative coordinates, in pixels

    def part(self, index: slice) -> "Instances":
        """Some of the instances, in order."""
        return Instances(*(value[index] for value in self))


def number_of_parameters(features: int) -> int:
    """Number of parameters of one network that reads this many features and two coordinates.

    Example:
        >>> number_of_parameters(8)
        169
    """
    return sum(_counts(features))


def _counts(features: int) -> tuple[int, ...]:
    """Numbers of weights of the three layers, then of their biases."""
    return (WIDTH * (features + 2), WIDTH * WIDTH, WIDTH, WIDTH, WIDTH, 1)


def split_parameters(parameters: Tensor, features: int) -> tuple[list[Tensor], list[Tensor]]:
    """Split parameters into the weights and the biases of the three layers.

    First come all weights, layer by layer, then all biases. The first layer reads x, y and then the features.

    Shape:
        - parameters: ``[n, P]``
        - output: weights ``[n, 8, 2 + C]``, ``[n, 8, 8]`` and ``[n, 1, 8]``; biases ``[n, 8, 1]``, ``[n, 8, 1]`` and
          ``[n, 1, 1]``
    """
    parts = parameters.split(_counts(features), dim=1)
    outputs = (WIDTH, WIDTH, 1)
    return (
        [weight.unflatten(1, (rows, -1)) for weight, rows in zip(parts[:3], outputs, strict=True)],
        [bias[:, :, None] for bias in parts[3:]],
    )


def dynamic_logits(features: Tensor, instances: Instances, stride: int) -> Tensor:
    """Compute the mask logits of instances of one image, all at once, in float32.

    The relative coordinates of a cell are the instance's location minus the cell's center, over the instance's unit.
    They are linear in the center, so that the first layer is one product for all instances, without a map of
    coordinates per instance. The other layers are a batch of products, one per instance, which is what a convolution
    with groups computes.

    Args:
        features: Features of the image.
        instances: The instances of that image.
        stride: Side of a cell, in pixels.

    Shape:
        - features: ``[C, h, w]``
        - output: ``[n, h, w]``
    """
    channels, height, width = features.shape
    with torch.autocast(features.device.type, enabled=False):
        weights, biases = split_parameters(instances.parameters.float(), channels)
        of_pixels = weights[0][:, :, :2] / instances.units[:, None, None]  # [n, 8, 2]
        bias = biases[0] + of_pixels @ instances.locations[:, :, None]
        first = torch.cat([-of_pixels, weights[0][:, :, 2:], bias], dim=2).flatten(0, 1)  # [8 n, 2 + C + 1]
        x, y = ((torch.arange(n, device=features.device) + 0.5) * stride for n in (width, height))
        centers = torch.stack(torch.meshgrid(x, y, indexing="xy"))  # [2, h, w]
        inputs = torch.cat([centers, features.float(), torch.ones_like(centers[:1])]).flatten(1)
        values = (first @ inputs).unflatten(0, (-1, WIDTH)).relu_()  # [n, 8, h * w]
        values = torch.baddbmm(biases[1], weights[1], values).relu_()
        return torch.baddbmm(biases[2], weights[2], values).unflatten(2, (height, width))[:, 0]


def at_locations(conv: nn.Conv2d, maps: Sequence[Tensor], image: Tensor, location: Tensor) -> Tensor:
    """Apply a 3 x 3 convolution with padding 1 only where its output is needed, in float32.

    Args:
        conv: The convolution.
        maps: The levels of a pyramid.
        image: Image of each output, int64.
        location: Cell of each output, int64: its number when the cells of all levels are counted, row by row.

    Shape:
        - maps: ``[B, C, h, w]`` each
        - image, location: ``[n]``
        - output: ``[n, P]``
    """
    dy, dx = (offset.flatten() for offset in torch.meshgrid(*[torch.arange(3, device=image.device)] * 2, indexing="ij"))
    patches, order, first = [], [], 0
    for level in maps:
        cells = level.shape[-2] * level.shape[-1]
        inside = ((location >= first) & (location < first + cells)).nonzero()[:, 0]
        y, x = (location[inside] - first) // level.shape[-1], (location[inside] - first) % level.shape[-1]
        padded = F.pad(level, (1, 1, 1, 1))
        patches.append(padded[image[inside, None], :, y[:, None] + dy, x[:, None] + dx].flatten(1))  # [n, 9 * C]
        order.append(inside)
        first += cells
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)  # [P, 9 * C]
    with torch.autocast(image.device.type, enabled=False):
        values = F.linear(torch.cat(patches).float(), weight, conv.bias)
    return values[torch.cat(order).argsort()]


def double_size(maps: Tensor) -> Tensor:
    """Halve the cells of maps ``[n, h, w]``, with bilinear values at the new centers: ``[n, 2 h, 2 w]``.

    Beyond the outermost centers of the old cells, values stay the same.

    Example:
        >>> double_size(torch.tensor([[[0.0, 4.0]]]))
        tensor([[[0., 1., 3., 4.],
                 [0., 1., 3., 4.]]])
    """
    return F.interpolate(maps[:, None], scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0]


def sample_masks(masks: Tensor, cells: Sequence[int], stride: float, image_size: tuple[int, int]) -> Tensor:
    """Ground-truth masks at the centers of cells, bilinear between the centers of pixels.

    With an even stride and an image that is not resized, this is the mean of the four pixels around the center of a
    cell.

    Args:
        masks: Masks in pixels of the original image, 0 or 1.
        cells: Number of rows and columns of cells.
        stride: Side of a cell, in pixels of the resized image.
        image_size: Height and width of the resized image, in pixels.

    Shape:
        - masks: ``[N, H, W]``, bool or uint8
        - output: ``[N, *cells]``, in [0, 1]
    """
    low, high, fraction = [], [], []
    for count, new, old in zip(cells, image_size, masks.shape[-2:], strict=True):
        position = (torch.arange(count, dtype=torch.float64, device=masks.device) + 0.5) * stride * old / new - 0.5
        position = position.clamp(0, old - 1)
        low.append(position.long())
        high.append((low[-1] + 1).clamp(max=old - 1))
        fraction.append((position - low[-1]).float())
    upper, lower = (  # only the rows and columns that are needed: [N, rows, columns]
        masks[:, rows][:, :, low[1]] * (1 - fraction[1]) + masks[:, rows][:, :, high[1]] * fraction[1]
        for rows in (low[0], high[0])
    )
    return upper * (1 - fraction[0][:, None]) + lower * fraction[0][:, None]


def dice_losses(probabilities: Tensor, targets: Tensor) -> Tensor:
    """The dice loss of each mask: ``1 - 2 sum(p t) / (sum(p²) + sum(t²) + 1e-5)``.

    Shape:
        - probabilities, targets: ``[n, h, w]``, in [0, 1]
        - output: ``[n]``
    """
    p, t = probabilities.flatten(1), targets.flatten(1)
    return 1 - 2 * (p * t).sum(1) / (p.square().sum(1) + t.square().sum(1) + 1e-5)
