"""Data modules: what a sample is, how it is read and augmented, and how it is batched."""

import os

# albumentations asks the network for its newest version when it is imported; striate works without a network
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from .annotations.one_box import BoxSource
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
from .augmentations.lighting import PCALighting, RGBCovariance, rgb_pca, training_pca
from .augmentations.pipeline import TargetAugmentation
from .augmentations.policies import RandAugment, TrivialAugment
from .base import ObjectDataModule, VisionDataModule
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
from .classic.ade20k import ADE20K
from .classic.caltech import Caltech101, Caltech256
from .classic.cifar import CIFAR10, CIFAR100
from .classic.cityscapes import Cityscapes
from .classic.cub import CUB200
from .classic.mnist import MNIST, FashionMNIST
from .classic.pets import OxfordPets
from .coco.detection import CocoDetection
from .coco.localization import CocoLocalization
from .digit_scenes.compose import Scene, SceneComposer
from .digit_scenes.module import DigitScenes
from .folders.images import ImageFolder
from .folders.instances import InstanceMasks
from .folders.masks import MaskFolder
from .imagenet.classification import ImageNet
from .imagenet.localization import ImageNetLocalization
from .images.bit_depth import ReadOptions
from .images.read import ImageError, read_image
from .labeling_tools.label_studio import LabelStudioJson
from .labeling_tools.labelme import LabelmeJson
from .loading.collate import collate, collate_objects
from .loading.dataset import TransformedDataset
from .loading.epoch_sampling import RepeatFactor
from .loading.loader import ResumableLoader
from .loading.samplers import EpochSampler
from .tables.classification import Manifest
from .tables.detection import DetectionManifest
from .tables.localization import LocalizationManifest
from .voc.detection import VOCDetection
from .voc.instances import VOCInstances
from .voc.localization import VOCLocalization
from .voc.segmentation import VOCSegmentation
from .yolo.detection import YoloDetection

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
    "LabelStudioJson",
    "LabelmeJson",
    "LargeScaleJitter",
    "LocalizationBatch",
    "LocalizationManifest",
    "Manifest",
    "MaskFolder",
    "Mix",
    "Mosaic",
    "ObjectDataModule",
    "OxfordPets",
    "PCALighting",
    "PhotometricDistort",
    "PredictBatch",
    "RGBCovariance",
    "RandAugment",
    "ReadOptions",
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
