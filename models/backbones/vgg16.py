"""The convolutions of VGG-16 with layer names, shared by the networks of FCN and SSD, and the names in checkpoints."""

from torch import nn

from .layers import scale_channels

CHANNELS = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
"""Channels of VGG-16's convolutions by block; blocks are separated by a pooling."""


def vgg16_blocks(width: float = 1.0, first_padding: int = 1) -> tuple[list[dict[str, nn.Module]], list[int]]:
    """Build the convolutions and ReLUs of VGG-16, without poolings.

    Args:
        width: Factor on all channel counts, which are rounded to multiples of 8.
        first_padding: Zeros around the image, in pixels.

    Returns:
        The layers of each block by name (``conv1_1``, ``relu1_1``, …), and the channels of each block.
    """
    blocks: list[dict[str, nn.Module]] = []
    channels, in_channels = [], 3
    for block, widths in enumerate(CHANNELS, start=1):
        layers: dict[str, nn.Module] = {}
        for number, full_width in enumerate(widths, start=1):
            out_channels = scale_channels(full_width, width)
            padding = first_padding if block == number == 1 else 1  # the padding of the image is in conv1_1
            layers[f"conv{block}_{number}"] = nn.Conv2d(in_channels, out_channels, 3, padding=padding)
            layers[f"relu{block}_{number}"] = nn.ReLU(inplace=True)
            in_channels = out_channels
        blocks.append(layers)
        channels.append(in_channels)
    return blocks, channels


def vgg16_names() -> tuple[list[str], list[str], list[str]]:
    """List the layers with weights up to fc7 by their names here, in torchvision and in ``Classifier("vgg16")``."""
    ours, theirs, classifier = [], [], []
    index = 0
    for block, widths in enumerate(CHANNELS):
        for number in range(len(widths)):
            ours.append(f"stages.{block}.conv{block + 1}_{number + 1}")
            theirs.append(f"features.{index}")
            classifier.append(f"backbone.stages.{block}.{index}")
            index += 2  # a convolution and a ReLU
        index += 1  # a pooling
    return (
        [*ours, "stages.4.fc6", "stages.4.fc7"],
        [*theirs, "classifier.0", "classifier.3"],
        [*classifier, "head.body.0", "head.body.3"],
    )
