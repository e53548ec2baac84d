"""A feature pyramid on any backbone, and its anchors, for one-stage and two-stage detectors.

Shape legend: B images, C channels, levels from fine to coarse, A anchors.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from ..backbones import Backbone, as_backbone, backbone_name
from ..ops.checks import check_choice, check_min

Sizes = Sequence[Sequence[float]]
Extra = Literal["pool", "p6p7"]


class FeaturePyramid(nn.Module):
    """A feature pyramid on any backbone: maps of several strides, all with the same channels and similar semantics.

    Like a backbone, it maps pixels to feature maps, and has ``channels`` and ``strides``. `FasterRCNN`, `RetinaNet` and
    `FCOS` are built on it. Its tensors have torchvision's names.

    Args:
        backbone: The backbone, or the name of one (see `build_backbone`). Its maps of stride ``finest_stride`` and
            coarser are used, the last of each stride.
        channels: Number of channels C of every level.
        finest_stride: Stride of the finest level, in pixels.
        extra: Levels beyond the backbone's. None: none. ``pool``: one, every other cell of the coarsest (Faster R-CNN).
            ``p6p7``: two, by strided convolutions (RetinaNet, FCOS).
        extra_from_trunk: Whether ``p6p7`` start from the backbone's last map rather than the pyramid's.
        norm: Whether batch normalization follows each convolution, as in torchvision's ``_v2`` detectors.

    Attributes:
        body: The backbone.
        channels: Number of channels of each level.
        strides: Stride of each level, in pixels.
        out_channels: C, as torchvision's detectors call it.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: one map per level, from fine to coarse, ``[B, C, H / strides[i], W / strides[i]]``

    Raises:
        ValueError: The backbone has no map of ``finest_stride``, strides do not double from map to map, or an argument
            is out of range.

    Reference:
        Lin et al., "Feature pyramid networks for object detection", CVPR 2017, section 3.

    Example:
        >>> import torch
        >>> pyramid = FeaturePyramid("resnet18", channels=64)
        >>> pyramid.channels, pyramid.strides
        ((64, 64, 64, 64), (4, 8, 16, 32))
        >>> [tuple(level.shape) for level in pyramid(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))]
        [(1, 64, 16, 24), (1, 64, 8, 12), (1, 64, 4, 6), (1, 64, 2, 3)]
    """

    def __init__(
        self,
        backbone: Backbone | str,
        channels: int = 256,
        finest_stride: int = 4,
        extra: Extra | None = None,
        extra_from_trunk: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        check_min(1, channels=channels)
        check_choice((None, *get_args(Extra)), extra=extra)
        if extra_from_trunk and extra != "p6p7":
            raise ValueError(f"extra_from_trunk: must be false without extra 'p6p7', got true with extra {extra!r}")
        self.body = as_backbone(backbone)
        self._used = _level_indices(self.body, finest_stride)
        strides = [self.body.strides[index] for index in self._used]
        widths = [self.body.channels[index] for index in self._used]
        blocks: ExtraFPNBlock | None = None
        if extra == "pool":
            blocks = LastLevelMaxPool()
            strides += [2 * strides[-1]]
        elif extra == "p6p7":
            blocks = LastLevelP6P7(widths[-1] if extra_from_trunk else channels, channels)
            # torchvision would decide this by whether the two numbers of channels are equal
            blocks.use_P5 = not extra_from_trunk
            strides += [2 * strides[-1], 4 * strides[-1]]
        self.fpn = _LeanPyramid(widths, channels, blocks, nn.BatchNorm2d if norm else None)
        self.strides = tuple(strides)
        self.channels, self.out_channels = (channels,) * len(strides), channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """The levels ``[B, C, h, w]`` of images ``[B, 3, H, W]``, from fine to coarse."""
        return list(self.named_levels(images).values())

    def named_levels(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The levels ``[B, C, h, w]`` under torchvision's names: "0", "1", …, and "pool", or "p6" and "p7"."""
        if type(self.body).forward is Backbone.forward:
            maps = self.body(images, self._used)
        else:  # a subclass that does not take indices
            maps = [self.body(images)[index] for index in self._used]
        levels = OrderedDict((str(level), features) for level, features in enumerate(maps))
        del maps  # so that the pyramid can release them one by one
        return self.fpn(levels)


class _LeanPyramid(FeaturePyramidNetwork):
    """torchvision's pyramid with less memory: sums are made in place, and the trunk's maps are released when used."""

    def forward(self, x: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
        """The levels of a trunk's maps ``[B, C, h, w]``, from fine to coarse, which are taken out of ``x``."""
        names = list(x)
        last = x.pop(names[-1])  # the extra levels may start from it
        inner = self.inner_blocks[-1](last)
        levels = [self.layer_blocks[-1](inner)]
        for index in range(len(names) - 2, -1, -1):
            lateral = self.inner_blocks[index](x.pop(names[index]))
            inner = _add_upsampled(lateral, inner)
            levels.insert(0, self.layer_blocks[index](inner))
        if self.extra_blocks is not None:
            levels, names = self.extra_blocks(levels, [last], names)
        return OrderedDict(zip(names, levels, strict=True))


def _add_upsampled(fine: Tensor, coarse: Tensor) -> Tensor:
    """Add a map ``[B, C, h', w']``, enlarged to the nearest cell, to a finer one ``[B, C, h, w]``, in its place."""
    rows, columns = coarse.shape[-2:]
    doubled = fine.shape[-2:] == (2 * rows, 2 * columns) and fine.is_contiguous(memory_format=torch.channels_last)
    if torch.is_grad_enabled() or not doubled:
        return fine.add_(F.interpolate(coarse, size=fine.shape[-2:], mode="nearest"))
    fine.unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).add_(coarse[:, :, :, None, :, None])  # without a copy
    return fine


def _level_indices(body: Backbone, finest: int) -> list[int]:
    """Indices of the backbone's maps that are levels of the pyramid."""
    last = {stride: index for index, stride in enumerate(body.strides)}
    strides = sorted(stride for stride in last if stride >= finest)
    name = backbone_name(body)
    if not strides or strides[0] != finest:
        raise ValueError(
            f"finest_stride: must be a stride of {name}, which has {body.strides}, got {finest}; change it or the "
            "backbone's out_indices"
        )
    if strides != [finest * 2**level for level in range(len(strides))]:
        raise ValueError(
            f"finest_stride: strides of {name} must double from level to level, got {tuple(strides)} from {finest} "
            "on; change the backbone's out_indices or finest_stride"
        )
    return [last[stride] for stride in strides]


def detector_pyramid(
    backbone: Backbone,
    fpn_channels: int,
    finest_stride: int,
    extra: Extra | None = None,
    p6_from_trunk: bool = False,
    norm: bool = False,
) -> FeaturePyramid:
    """Build the pyramid of a detector; errors name the detector's arguments, those of the signature."""
    check_min(1, fpn_channels=fpn_channels)
    return FeaturePyramid(backbone, fpn_channels, finest_stride, extra, p6_from_trunk, norm)


class Anchors(AnchorGenerator):
    """torchvision's anchors, always in float32, since bfloat16 represents pixels exactly only up to 256."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """The anchors of each image, ``[A, 4]`` in pixels of the batch. Only the sizes of the maps are used."""
        return super().forward(image_list, [level[:1, :1].float() for level in feature_maps])


def make_anchors(sizes: Sizes, ratios: Sequence[float], strides: Sequence[int]) -> Anchors:
    """Build the anchors of a pyramid.

    Args:
        sizes: For each level, the square roots of the anchors' areas, in pixels.
        ratios: Aspect ratios, height over width, the same on every level.
        strides: Strides of the levels, in pixels.

    Raises:
        ValueError: ``sizes`` are not one list per level, all of the same length, or a number is not above 0.
    """
    listed = [list(level) for level in sizes]
    if len(listed) != len(strides) or len({len(level) for level in listed}) != 1 or not listed[0]:
        raise ValueError(
            f"anchor_sizes: must be one list for each of the {len(strides)} levels (strides {tuple(strides)}), all of "
            f"the same length, got {listed}"
        )
    if not ratios or not min(ratios) > 0:
        raise ValueError(f"ratios: must be numbers above 0, got {list(ratios)}")
    if not min(min(level) for level in listed) > 0:
        raise ValueError(f"anchor_sizes: must be above 0, got {listed}")
    return Anchors(tuple(map(tuple, listed)), (tuple(ratios),) * len(listed))
