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
from .dense import augmented_logits, best_classes, sliding_logits
from .detection import (
    FCOS,
    Detections,
    Detector,
    FasterRCNN,
    ImageBatch,
    ResizeAndPad,
    RetinaNet,
    TorchvisionDetector,
)
from .four_layer import ActivationRace, FourLayerCNN
from .googlenet import GoogLeNet
from .layers import FullyConnectedHead, LocalResponseNorm, TrunkWithHead, local_response_norm
from .lenet import LeNet5, MAPLoss, map_loss
from .localizer import Localizer, LocalizerOutput, MapBoxHead, VectorBoxHead
from .mixing import BatchMixer, cutmix, mixup
from .pixels import Normalize
from .segmentation import (
    FCN,
    LRASPP,
    AlexNetFullyConvolutional,
    CaffeSGD,
    DeepLabV3Plus,
    FCN8s,
    FCN16s,
    FCN32s,
    FCNAlexNet,
    FullyConvolutional,
    TorchvisionSegmentation,
    UNet,
    VGG16FullyConvolutional,
)
from .segmentation_losses import (
    DiceLoss,
    LovaszSoftmax,
    OhemCrossEntropy,
    PixelCrossEntropy,
    SoftmaxFocalLoss,
    WeightedLosses,
    lovasz_softmax,
    ohem_cross_entropy,
    pixel_cross_entropy,
    soft_dice_loss,
    softmax_focal_loss,
)
from .small_resnet import SmallImageResNet
from .tencrop import TenCrop
from .weights import LoadReport, load_state_dict_file, load_weights, skip_pretrained
from .zfnet import ZFNet, ZFNetBackbone

__all__ = [
    "FCN",
    "FCOS",
    "LRASPP",
    "ActivationRace",
    "AlexNet",
    "AlexNetBackbone",
    "AlexNetFullyConvolutional",
    "Backbone",
    "BatchMixer",
    "BoxLoss",
    "CaffeSGD",
    "Classifier",
    "DeepLabV3Plus",
    "Detections",
    "Detector",
    "DiceLoss",
    "EfficientNetLite0",
    "FCN8s",
    "FCN16s",
    "FCN32s",
    "FCNAlexNet",
    "FasterRCNN",
    "FourLayerCNN",
    "FullyConnectedHead",
    "FullyConvolutional",
    "GoogLeNet",
    "ImageBatch",
    "LeNet5",
    "LoadReport",
    "LocalResponseNorm",
    "Localizer",
    "LocalizerOutput",
    "LovaszSoftmax",
    "MAPLoss",
    "MapBoxHead",
    "Normalize",
    "OhemCrossEntropy",
    "PixelCrossEntropy",
    "PlainCNN",
    "ResizeAndPad",
    "RetinaNet",
    "SmallImageResNet",
    "SoftmaxFocalLoss",
    "TenCrop",
    "TimmBackbone",
    "TorchvisionBackbone",
    "TorchvisionDetector",
    "TorchvisionHead",
    "TorchvisionSegmentation",
    "TrunkWithHead",
    "UNet",
    "VGG16FullyConvolutional",
    "VectorBoxHead",
    "WeightedLosses",
    "ZFNet",
    "ZFNetBackbone",
    "augmented_logits",
    "available_backbones",
    "best_classes",
    "box_loss",
    "build_backbone",
    "clip_boxes",
    "cutmix",
    "load_state_dict_file",
    "load_weights",
    "local_response_norm",
    "lovasz_softmax",
    "map_loss",
    "mixup",
    "normalize_boxes",
    "ohem_cross_entropy",
    "ordered_corners",
    "paired_iou",
    "pixel_cross_entropy",
    "skip_pretrained",
    "sliding_logits",
    "soft_dice_loss",
    "softmax_focal_loss",
]
