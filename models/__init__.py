"""striate.models."""

from .alexnet import AlexNet, AlexNetBackbone
from .layers import FullyConnectedHead, LocalResponseNorm, TrunkWithHead, local_response_norm
from .lenet import LeNet5, MAPLoss, map_loss
from .mixing import BatchMixer, cutmix, mixup
from .tencrop import TenCrop
from .zfnet import ZFNet, ZFNetBackbone

__all__ = [
    "AlexNet",
    "AlexNetBackbone",
    "BatchMixer",
    "FullyConnectedHead",
    "LeNet5",
    "LocalResponseNorm",
    "MAPLoss",
    "TenCrop",
    "TrunkWithHead",
    "ZFNet",
    "ZFNetBackbone",
    "cutmix",
    "local_response_norm",
    "map_loss",
    "mixup",
]
