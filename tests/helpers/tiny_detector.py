"""Detectors for tests: one that learns in seconds, and one with fixed predictions."""

import torch
from torch import nn
from torch.nn import functional as F

from striate.models.detection import Detector, ResizeAndPad, classwise_nms

CELL = 8


class TinyDetector(Detector):
    """Each cell of 8 by 8 pixels predicts the class of the object over its center, and the sides of that object."""

    def __init__(self, num_classes: int = 10, width: int = 16, min_size: int | None = None, dropout: float = 0.0):
        super().__init__(num_classes, ResizeAndPad(min_size, size_divisible=CELL))
        layers = [nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        self.backbone = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv2d(width, num_classes + 4, 1)
        nn.init.constant_(self.head.bias[:num_classes], -3.0)

    def _maps(self, batch):
        pixels = batch.pixels / 255 if batch.pixels.dtype == torch.uint8 else batch.pixels
        maps = self.head(self.dropout(self.backbone(pixels - 0.5))).flatten(2).transpose(1, 2)  # [B, cells, K + 4]
        rows, columns = (torch.arange(size // CELL, device=pixels.device) for size in pixels.shape[-2:])
        centers = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1).reshape(-1, 2) * CELL + CELL / 2
        sides = F.softplus(maps[..., self.num_classes :] + 2) * torch.tensor([-1, -1, 1, 1], device=pixels.device)
        return maps[..., : self.num_classes], centers, centers.repeat(1, 2) + sides * CELL / 2

    def detect(self, batch):
        detections = []
        for logits, boxes in zip(*self._maps(batch)[::2], strict=True):
            scores, labels = logits.sigmoid().max(1)
            kept = classwise_nms(boxes, scores, labels, 0.5)
            kept = kept[scores[kept] > 0.05][:50]
            detections.append({"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]})
        return detections

    def compute_losses(self, batch, targets):
        logits, centers, boxes = self._maps(batch)
        classes, sides, count = torch.zeros_like(logits), boxes.sum() * 0, 0
        for index, target in enumerate(targets):
            for box, label in zip(target["boxes"], target["labels"], strict=True):
                middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 4
                inside = ((centers - middle).abs() <= half.clamp(min=CELL / 2)).all(1)
                classes[index, inside, label] = 1
                sides = sides + (boxes[index, inside] - box).abs().mean(1).sum() / CELL
                count += int(inside.sum())
        class_loss = F.binary_cross_entropy_with_logits(logits, classes, reduction="sum")
        return {"loss_class": class_loss / max(count, 1), "loss_box": sides / max(count, 1)}


class Breaking(TinyDetector):
    """The box loss is NaN after `after` training batches."""

    def __init__(self, num_classes: int = 10, after: int = 4):
        super().__init__(num_classes)
        self.after, self.seen = after, 0

    def compute_losses(self, batch, targets):
        losses = super().compute_losses(batch, targets)
        self.seen += 1
        return losses if self.seen <= self.after else {**losses, "loss_box": losses["loss_box"] * torch.nan}


class Known(Detector):
    """Predicts the same objects for each image: sides as fractions of the image, label and score of each."""

    def __init__(self, objects: list[list[float]], num_classes: int = 2):
        super().__init__(num_classes, ResizeAndPad())
        self.objects = torch.tensor(objects, dtype=torch.float32).reshape(-1, 6)
        self.shift = nn.Parameter(torch.zeros(()))

    def detect(self, batch):
        one = self.objects.to(batch.pixels.device)
        sides = [torch.tensor([w, h, w, h], device=one.device) for h, w in batch.sizes]
        return [{"boxes": one[:, :4] * side, "labels": one[:, 4].long(), "scores": one[:, 5]} for side in sides]

    def compute_losses(self, batch, targets):
        self.seen = targets
        return {"loss_shift": self.shift + sum(target["boxes"].sum() for target in targets) * 0}
