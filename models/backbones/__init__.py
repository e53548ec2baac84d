"""Backbones: networks that map images to feature maps, in order of increasing stride."""

from .base import Backbone, backbone_name
from .build import as_backbone, available_backbones, build_backbone, dilated_backbone
from .lite0 import EfficientNetLite0
from .plain import PlainCNN
from .timm import TimmBackbone
from .torchvision import TorchvisionBackbone, TorchvisionHead
from .unpadded import UnpaddedCNN

__all__ = [
    "Backbone",
    "EfficientNetLite0",
    "PlainCNN",
    "TimmBackbone",
    "TorchvisionBackbone",
    "TorchvisionHead",
    "UnpaddedCNN",
    "as_backbone",
    "available_backbones",
    "backbone_name",
    "build_backbone",
    "dilated_backbone",
]
