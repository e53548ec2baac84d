"""Networks for semantic segmentation: images to one score for each class and pixel."""

from .deeplab import AtrousPyramid, DeepLabV3Plus
from .lraspp import LRASPP
from .torchvision import TorchvisionSegmentation
from .unet import UNet

__all__ = ["LRASPP", "AtrousPyramid", "DeepLabV3Plus", "TorchvisionSegmentation", "UNet"]
