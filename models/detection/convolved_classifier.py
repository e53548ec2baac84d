"""A classifier on all windows of an image in one pass: its fully connected layers as convolutions.

Shape legend: B images of H x W pixels; a window has S x S pixels, the size that the classifier was built for; L outputs
of the classifier; h x w windows.

The scores are those of the windows one by one if no layer sees beyond a window. Padding breaks this: a crop has zeros
around it, where the image goes on. So does pooling that rounds up with a last cell of fewer pixels, and any layer that
mixes all positions. `inexact_layers` names them.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..classification.layers import FullyConnectedHead, LocalResponseNorm, TrunkWithHead

_POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity, LocalResponseNorm)
"""Layers that compute a cell from the channels of the same cell, in evaluation mode."""

_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
"""Layers that compute a cell from a window of cells."""


def inexact_layers(classifier: TrunkWithHead) -> list[str]:
    """Name the layers for which one pass over an image differs from windows one by one; none: both are the same.

    Args:
        classifier: A convolutional trunk with fully connected layers.
    """
    found: list[str] = []
    size = classifier.image_size
    for name, layer in classifier.backbone.stages.named_modules():
        if isinstance(layer, (nn.Sequential, nn.ModuleList, *_POINTWISE)):
            continue
        if not isinstance(layer, _WINDOWED):
            if not any(name.startswith(f"{block}.") for block in found):  # its parts are in an unknown order
                found.append(name)
            continue
        kernel, stride, padding = (_side(value) for value in (layer.kernel_size, layer.stride, layer.padding))
        dilation = _side(getattr(layer, "dilation", 1))
        room = size - dilation * (kernel - 1) - 1
        rounds_up = getattr(layer, "ceil_mode", False)
        if padding or (rounds_up and room % stride):
            found.append(name)
        room += 2 * padding
        size = (-(-room // stride) if rounds_up else room // stride) + 1
    return found


def trunk_stride(classifier: TrunkWithHead) -> int:
    """Return the distance, in pixels, of neighboring cells of the trunk's last map.

    It is the product of the layers' strides. `Backbone.strides` may be measured on maps, whose sizes give it only
    roughly where nothing is padded.
    """
    if any(not isinstance(layer, nn.Sequential) for layer in classifier.backbone.stages.modules() if _is_block(layer)):
        return classifier.backbone.strides[-1]
    strides = [_side(layer.stride) for layer in _layers(classifier) if isinstance(layer, _WINDOWED)]
    return math.prod(strides)


def _is_block(layer: nn.Module) -> bool:
    return any(layer.children()) and not isinstance(layer, nn.ModuleList)


def _side(value: int | str | tuple[int, ...]) -> int:
    """The number of a setting that may be a pair; 1 for padding by name."""
    if isinstance(value, str):
        return int(value != "valid")
    return value if isinstance(value, int) else max(value)


def last_pooling(classifier: TrunkWithHead) -> nn.MaxPool2d | None:
    """Return the max pooling that is the trunk's last layer, or None if it has another."""
    layer = _layers(classifier)[-1]
    return layer if isinstance(layer, nn.MaxPool2d) else None


def _layers(classifier: TrunkWithHead) -> list[nn.Module]:
    """The layers of the trunk in sequence."""
    return [layer for layer in classifier.backbone.stages.modules() if not any(layer.children())]


def convolved_logits(classifier: TrunkWithHead, images: Tensor, dense: bool = False) -> Tensor:
    """Compute the logits of all windows of images in one pass.

    Windows are as far apart as the cells of the trunk's last map. With ``dense``, the last max pooling is applied at
    each offset below its stride, and the results are interleaved: OverFeat's 3 x 3 offsets. Windows are then closer by
    this factor.

    Args:
        classifier: A convolutional trunk with fully connected layers, in evaluation mode.
        images: Pixels, at least as large as a window.
        dense: Whether to pool at all offsets. The trunk's layers must be in sequence and end with a max pooling.

    Shape:
        - images: ``[B, 3, H, W]``
        - output: ``[B, L, h, w]``
    """
    if not dense:
        return _convolved_head(classifier.head, classifier.backbone(images)[-1])
    *layers, pool = _layers(classifier)
    step = _side(pool.stride)  # type: ignore[arg-type]

    def unpooled(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x  # [B, C, h', w']

    maps = classifier.backbone.run(unpooled, images)
    kernel = _side(pool.kernel_size)  # type: ignore[arg-type]
    cells = kernel + step * (classifier.head.in_size - 1)  # that a window has before pooling
    height, width = (side - cells + 1 for side in maps.shape[-2:])
    logits = maps.new_zeros(len(maps), classifier.num_classes, height, width)
    for top in range(min(step, height)):
        for left in range(min(step, width)):
            at_offset = _convolved_head(classifier.head, pool(maps[..., top:, left:]))
            rows, columns = logits[..., top::step, left::step].shape[-2:]
            logits[..., top::step, left::step] = at_offset[..., :rows, :columns]
    return logits


def _convolved_head(head: FullyConnectedHead, maps: Tensor) -> Tensor:
    """Logits ``[B, L, h, w]`` of all windows of ``in_size`` cells of maps ``[B, C, h', w']``."""
    kernel = head.fc6.weight.view(-1, head.in_channels, head.in_size, head.in_size)
    hidden = F.relu(F.conv2d(maps, kernel, head.fc6.bias))
    hidden = F.relu(F.conv2d(hidden, head.fc7.weight[:, :, None, None], head.fc7.bias))
    return F.conv2d(hidden, head.fc8.weight[:, :, None, None], head.fc8.bias)


def cropped_logits(classifier: nn.Module, images: Tensor, window: int, stride: int, at_once: int) -> Tensor:
    """Compute the logits of all windows of images one by one, in batches.

    Args:
        classifier: Any classifier.
        images: Pixels, at least as large as a window.
        window: Side S of a window, in pixels.
        stride: Distance of windows, in pixels.
        at_once: Number of windows in a batch; at least one row of windows is.

    Shape:
        - images: ``[B, 3, H, W]``
        - output: ``[B, L, h, w]``
    """
    views = images.unfold(2, window, stride).unfold(3, window, stride)  # [B, 3, h, w, S, S]
    batch, width = views.shape[0], views.shape[3]
    rows = max(1, at_once // (batch * width))
    logits = []
    for part in views.split(rows, dim=2):
        crops = part.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, window, window)
        outputs = classifier(crops)
        logits.append(outputs.view(batch, -1, width, outputs.shape[-1]))
    return torch.cat(logits, dim=1).permute(0, 3, 1, 2)
