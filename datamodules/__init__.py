"""Data modules: what a sample is, how it is read and augmented, and how it is batched."""

import os

# albumentations asks the network for its newest version when it is imported; striate works without a network
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from .ade20k import ADE20K
from .augmentations import (
    CopyPaste,
    IoUCrop,
    LargeScaleJitter,
    Mix,
    Mosaic,
    PhotometricDistort,
    ShortSideResize,
    SSDAugmentation,
    ZoomOut,
)
from .base import VisionDataModule
from .batches import (
    ClassificationBatch,
    DetectionBatch,
    DetectionTarget,
    InstanceSegmentationBatch,
    InstanceTarget,
    LocalizationBatch,
    PredictBatch,
    SemanticSegmentationBatch,
)
from .caltech import Caltech101, Caltech256
from .cifar import CIFAR10, CIFAR100
from .cityscapes import Cityscapes
from .coco import CocoDetection
from .cub import CUB200
from .detection_manifest import DetectionManifest
from .digit_scenes import DigitScenes
from .folder import ImageFolder
from .imagenet import ImageNet
from .imagenet_localization import ImageNetLocalization
from .images import ImageError, read_image
from .instance_masks import InstanceMasks
from .lighting import PCALighting, RGBCovariance, rgb_pca, training_pca
from .loading import EpochSampler, ResumableLoader, TransformedDataset, collate
from .localization import CocoLocalization, VOCLocalization
from .localization_manifest import LocalizationManifest
from .manifest import Manifest
from .mask_folder import MaskFolder
from .mnist import MNIST, FashionMNIST
from .one_object import BoxSource
from .pets import OxfordPets
from .policies import RandAugment, TrivialAugment
from .sampling import RepeatFactor
from .scenes import Scene, SceneComposer
from .targets import TargetAugmentation, collate_objects
from .voc import VOCDetection
from .voc_instances import VOCInstances
from .voc_segmentation import VOCSegmentation
from .yolo import YoloDetection

__all__ = [
    "ADE20K",
    "CIFAR10",
    "CIFAR100",
    "CUB200",
    "MNIST",
    "BoxSource",
    "Caltech101",
    "Caltech256",
    "Cityscapes",
    "ClassificationBatch",
    "CocoDetection",
    "CocoLocalization",
    "CopyPaste",
    "DetectionBatch",
    "DetectionManifest",
    "DetectionTarget",
    "DigitScenes",
    "EpochSampler",
    "FashionMNIST",
    "ImageError",
    "ImageFolder",
    "ImageNet",
    "ImageNetLocalization",
    "InstanceMasks",
    "InstanceSegmentationBatch",
    "InstanceTarget",
    "IoUCrop",
    "LargeScaleJitter",
    "LocalizationBatch",
    "LocalizationManifest",
    "Manifest",
    "MaskFolder",
    "Mix",
    "Mosaic",
    "OxfordPets",
    "PCALighting",
    "PhotometricDistort",
    "PredictBatch",
    "RGBCovariance",
    "RandAugment",
    "RepeatFactor",
    "ResumableLoader",
    "SSDAugmentation",
    "Scene",
    "SceneComposer",
    "SemanticSegmentationBatch",
    "ShortSideResize",
    "TargetAugmentation",
    "TransformedDataset",
    "TrivialAugment",
    "VOCDetection",
    "VOCInstances",
    "VOCLocalization",
    "VOCSegmentation",
    "VisionDataModule",
    "YoloDetection",
    "ZoomOut",
    "collate",
    "collate_objects",
    "read_image",
    "rgb_pca",
    "training_pca",
]
