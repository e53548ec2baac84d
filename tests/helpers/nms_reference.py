"""Boxes whose overlaps are known, random ones, and non-maximum suppression as a plain loop."""

import torch
from torchvision.ops import box_iou


def pixel_boxes(count, seed, span=60):
    """Random boxes of whole pixels, so that shifting and mirroring are exact."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, span, (count, 2), generator=generator)
    return torch.cat([corners, corners + torch.randint(1, 40, (count, 2), generator=generator)], dim=1).float()


def loop_nms(boxes, scores, labels, iou):
    """Indices of boxes, highest score first, that no kept box of the same label overlaps by more than `iou`."""
    overlap = box_iou(boxes.double(), boxes.double())
    kept = []
    for index in sorted(range(len(scores)), key=lambda i: (-scores[i].item(), i)):
        if all(labels[index] != labels[other] or overlap[index, other] <= iou + 1e-9 for other in kept):
            kept.append(index)
    return kept


BOXES = torch.tensor([
    [0.0, 0.0, 10.0, 10.0],
    [0.0, 0.0, 10.0, 5.0],  # IoU with the first 0.5
    [0.0, 0.0, 10.0, 8.0],  # with the first 0.8, with the second 0.625
    [30.0, 0.0, 40.0, 10.0],
])  # fmt: skip
SCORES = torch.tensor([0.6, 0.9, 0.7, 0.5])
