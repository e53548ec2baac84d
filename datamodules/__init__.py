"""Data modules: what a sample is, how it is read and augmented, and how it is batched."""

import os

# albumentations asks the network for its newest version when it is imported; striate works without a network
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

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
from .coco import CocoDetection
from .detection_manifest import DetectionManifest
from .digit_scenes import DigitScenes
from .folder import ImageFolder
from .imagenet import ImageNet
from .images import ImageError, read_image
from .instance_masks import InstanceMasks
from .lighting import PCALighting, RGBCovariance, rgb_pca, training_pca
from .loading import EpochSampler, ResumableLoader, TransformedDataset, collate
from .manifest import Manifest
from .mask_folder import MaskFolder
from .mnist import MNIST, FashionMNIST
from .policies import RandAugment, TrivialAugment
from .scenes import Scene, SceneComposer
from .targets import TargetAugmentation, collate_objects
from .voc import VOCDetection
from .yolo import YoloDetection

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "Caltech101",
    "Caltech256",
    "ClassificationBatch",
    "CocoDetection",
    "DetectionBatch",
    "DetectionManifest",
    "DetectionTarget",
    "DigitScenes",
    "EpochSampler",
    "FashionMNIST",
    "ImageError",
    "ImageFolder",
    "ImageNet",
    "InstanceMasks",
    "InstanceSegmentationBatch",
    "InstanceTarget",
    "LocalizationBatch",
    "Manifest",
    "MaskFolder",
    "PCALighting",
    "PredictBatch",
    "RGBCovariance",
    "RandAugment",
    "ResumableLoader",
    "Scene",
    "SceneComposer",
    "SemanticSegmentationBatch",
    "TargetAugmentation",
    "TransformedDataset",
    "TrivialAugment",
    "VOCDetection",
    "VisionDataModule",
    "YoloDetection",
    "collate",
    "collate_objects",
    "read_image",
    "rgb_pca",
    "training_pca",
]
