"""Networks for semantic segmentation: images to one score for each class and pixel."""

from .fcn import AT_ONCE, FCN, FCN8s, FCN16s, FCN32s, FCNAlexNet
from .fcn_backbones import AlexNetFullyConvolutional, FullyConvolutional, VGG16FullyConvolutional, as_convolution
from .fcn_solver import CaffeSGD
from .fcn_upsampling import BilinearUpsample, bilinear_kernel

__all__ = [
    "AT_ONCE",
    "FCN",
    "AlexNetFullyConvolutional",
    "BilinearUpsample",
    "CaffeSGD",
    "FCN8s",
    "FCN16s",
    "FCN32s",
    "FCNAlexNet",
    "FullyConvolutional",
    "VGG16FullyConvolutional",
    "as_convolution",
    "bilinear_kernel",
]
