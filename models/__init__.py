"""Models in plain PyTorch: backbones, and what is built on them."""

from .backbones import (
    Backbone,
    PlainCNN,
    TimmBackbone,
    TorchvisionBackbone,
    TorchvisionHead,
    available_backbones,
    build_backbone,
)
from .classifier import Classifier
from .pixels import Normalize
from .weights import LoadReport, load_state_dict_file, load_weights, skip_pretrained

__all__ = [
    "Backbone",
    "Classifier",
    "LoadReport",
    "Normalize",
    "PlainCNN",
    "TimmBackbone",
    "TorchvisionBackbone",
    "TorchvisionHead",
    "available_backbones",
    "build_backbone",
    "load_state_dict_file",
    "load_weights",
    "skip_pretrained",
]
