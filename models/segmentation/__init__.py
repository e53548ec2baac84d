"""Semantic segmentation: networks from images to class scores of each pixel, their losses, and inference."""

from .deeplab import AtrousPyramid, DeepLabV3Plus
from .fcn import AT_ONCE, FCN, FCN8s, FCN16s, FCN32s, FCNAlexNet
from .fcn_backbones import AlexNetFullyConvolutional, FullyConvolutional, VGG16FullyConvolutional, as_convolution
from .fcn_solver import CaffeSGD
from .fcn_upsampling import BilinearUpsample, bilinear_kernel
from .lraspp import LRASPP
from .torchvision import TorchvisionSegmentation
from .unet import UNet

__all__ = [
    "AT_ONCE",
    "FCN",
    "LRASPP",
    "AlexNetFullyConvolutional",
    "AtrousPyramid",
    "BilinearUpsample",
    "CaffeSGD",
    "DeepLabV3Plus",
    "FCN8s",
    "FCN16s",
    "FCN32s",
    "FCNAlexNet",
    "FullyConvolutional",
    "TorchvisionSegmentation",
    "UNet",
    "VGG16FullyConvolutional",
    "as_convolution",
    "bilinear_kernel",
]
