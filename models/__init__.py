"""Models in plain PyTorch: backbones, and what is built on them."""

from .alexnet import AlexNet, AlexNetBackbone
from .backbones import (
    Backbone,
    EfficientNetLite0,
    PlainCNN,
    TimmBackbone,
    TorchvisionBackbone,
    TorchvisionHead,
    available_backbones,
    build_backbone,
)
from .box_losses import BoxLoss, box_loss
from .boxes import clip_boxes, normalize_boxes, ordered_corners, paired_iou
from .classifier import Classifier
from .four_layer import ActivationRace, FourLayerCNN
from .googlenet import GoogLeNet
from .layers import FullyConnectedHead, LocalResponseNorm, TrunkWithHead, local_response_norm
from .lenet import LeNet5, MAPLoss, map_loss
from .localizer import Localizer, LocalizerOutput, MapBoxHead, VectorBoxHead
from .mixing import BatchMixer, cutmix, mixup
from .pixels import Normalize
from .small_resnet import SmallImageResNet
from .tencrop import TenCrop
from .weights import LoadReport, load_state_dict_file, load_weights, skip_pretrained
from .zfnet import ZFNet, ZFNetBackbone

__all__ = [
    "ActivationRace",
    "AlexNet",
    "AlexNetBackbone",
    "Backbone",
    "BatchMixer",
    "BoxLoss",
    "Classifier",
    "EfficientNetLite0",
    "FourLayerCNN",
    "FullyConnectedHead",
    "GoogLeNet",
    "LeNet5",
    "LoadReport",
    "LocalResponseNorm",
    "Localizer",
    "LocalizerOutput",
    "MAPLoss",
    "MapBoxHead",
    "Normalize",
    "PlainCNN",
    "SmallImageResNet",
    "TenCrop",
    "TimmBackbone",
    "TorchvisionBackbone",
    "TorchvisionHead",
    "TrunkWithHead",
    "VectorBoxHead",
    "ZFNet",
    "ZFNetBackbone",
    "available_backbones",
    "box_loss",
    "build_backbone",
    "clip_boxes",
    "cutmix",
    "load_state_dict_file",
    "load_weights",
    "local_response_norm",
    "map_loss",
    "mixup",
    "normalize_boxes",
    "ordered_corners",
    "paired_iou",
    "skip_pretrained",
]
