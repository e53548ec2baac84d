"""Small segmentation models for tests, also for configurations of the launcher."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TinySegmenter(nn.Module):
    """Computes logits ``[B, K, H, W]`` from pixels by three convolutions at half the size."""

    def __init__(self, num_classes: int = 11, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float() / (255 if images.dtype == torch.uint8 else 1) - 0.5
        logits = self.head(self.dropout(self.backbone(pixels)))
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


class WithAuxiliary(TinySegmenter):
    """Adds two auxiliary outputs: twice the logits, and zeros."""

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits = self(images)
        return logits, [2 * logits, 0 * logits]


class Thresholds(nn.Module):
    """Classifies pixels by their red channel: 0 below 100, otherwise 1, with logits of +-3."""

    num_classes = 2

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, images: Tensor) -> Tensor:
        red = images[:, 0].float() * (1 if images.dtype == torch.uint8 else 255)
        sign = torch.where(red >= 100, 1.0, -1.0)
        rest = torch.full_like(sign, -9.0)
        return torch.stack([-self.scale * sign, self.scale * sign] + [rest] * (self.num_classes - 2), 1)
