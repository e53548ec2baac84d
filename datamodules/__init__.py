"""Data modules: what a sample is, how it is read and augmented, and how it is batched."""

import os

# albumentations asks the network for its newest version when it is imported; striate works without a network
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from .base import VisionDataModule
from .batches import ClassificationBatch, PredictBatch
from .digit_scenes import DigitScenes
from .folder import ImageFolder
from .images import ImageError, read_image
from .lighting import PCALighting, RGBCovariance, rgb_pca
from .loading import EpochSampler, ResumableLoader, TransformedDataset, collate
from .scenes import Scene, SceneComposer

__all__ = [
    "ClassificationBatch",
    "DigitScenes",
    "EpochSampler",
    "ImageError",
    "ImageFolder",
    "PCALighting",
    "PredictBatch",
    "RGBCovariance",
    "ResumableLoader",
    "Scene",
    "SceneComposer",
    "TransformedDataset",
    "VisionDataModule",
    "collate",
    "read_image",
    "rgb_pca",
]
