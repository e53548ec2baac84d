"""Augmentation beyond albumentations: SSD's, multi-scale resizing, large-scale jitter, mosaic, copy-paste."""

from .copy_paste import CopyPaste
from .mosaic import Mosaic
from .multi_image import Augmentation, Mix
from .resizing import LargeScaleJitter, ShortSideResize
from .ssd import IoUCrop, PhotometricDistort, SSDAugmentation, ZoomOut

__all__ = [
    "Augmentation",
    "CopyPaste",
    "IoUCrop",
    "LargeScaleJitter",
    "Mix",
    "Mosaic",
    "PhotometricDistort",
    "SSDAugmentation",
    "ShortSideResize",
    "ZoomOut",
]
