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
from .classifier import Classifier
from .four_layer import ActivationRace, FourLayerCNN
from .googlenet import GoogLeNet
from .layers import FullyConnectedHead, LocalResponseNorm, TrunkWithHead, local_response_norm
from .lenet import LeNet5, MAPLoss, map_loss
from .mixing import BatchMixer, cutmix, mixup
from .pixels import Normalize
from .segmentation import LRASPP, DeepLabV3Plus, TorchvisionSegmentation, UNet
from .small_resnet import SmallImageResNet
from .tencrop import TenCrop
from .weights import LoadReport, load_state_dict_file, load_weights, skip_pretrained
from .zfnet import ZFNet, ZFNetBackbone

__all__ = [
    "LRASPP",
    "ActivationRace",
    "AlexNet",
    "AlexNetBackbone",
    "Backbone",
    "BatchMixer",
    "Classifier",
    "DeepLabV3Plus",
    "EfficientNetLite0",
    "FourLayerCNN",
    "FullyConnectedHead",
    "GoogLeNet",
    "LeNet5",
    "LoadReport",
    "LocalResponseNorm",
    "MAPLoss",
    "Normalize",
    "PlainCNN",
    "SmallImageResNet",
    "TenCrop",
    "TimmBackbone",
    "TorchvisionBackbone",
    "TorchvisionHead",
    "TorchvisionSegmentation",
    "TrunkWithHead",
    "UNet",
    "ZFNet",
    "ZFNetBackbone",
    "available_backbones",
    "build_backbone",
    "cutmix",
    "load_state_dict_file",
    "load_weights",
    "local_response_norm",
    "map_loss",
    "mixup",
    "skip_pretrained",
]
