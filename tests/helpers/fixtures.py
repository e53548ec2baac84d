"""Small images with a learnable signal, and a network that learns it."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

CLASSES = ("bright", "dark")


class TinyNet(nn.Module):
    """A convolution, a normalization and a linear layer; a step takes a millisecond."""

    def __init__(self, num_classes: int = 2, width: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]`` of ``uint8`` images ``[B, 3, H, W]``."""
        features = self.backbone(images.float() / 255 - 0.5)
        return self.head(self.dropout(features.mean(dim=(2, 3))))


def noisy_image(label: int, seed: int, size: int = 32) -> np.ndarray:
    """Noise ``[size, size, 3]`` around light gray (label 0) or dark gray (label 1)."""
    generator = np.random.default_rng((label, seed))
    return np.clip(generator.normal(200 - 120 * label, 25, (size, size, 3)), 0, 255).astype(np.uint8)


def batch(labels: list[int], size: int = 32) -> dict[str, Any]:
    """A classification batch with one image per label."""
    images = np.stack([noisy_image(label, seed, size) for seed, label in enumerate(labels)])
    return {
        "image": torch.from_numpy(images).permute(0, 3, 1, 2),
        "label": torch.tensor(labels),
        "index": torch.arange(len(labels)),
        "unreadable": [],
    }


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write an RGB image ``[H, W, 3]``, or any array that OpenCV takes, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image)
    return path


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    """An image ``[height, width, 3]`` of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_gray(path: Path, values: np.ndarray) -> Path:
    """Write a mask ``[H, W]`` as a gray PNG of 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def make_folder(root: Path, per_class: int = 6, size: int = 32, suffix: str = ".png") -> Path:
    """Write ``root/bright`` and ``root/dark`` with `per_class` images each."""
    for label, name in enumerate(CLASSES):
        for number in range(per_class):
            write_image(root / name / f"{number:03d}{suffix}", noisy_image(label, number, size))
    return root
