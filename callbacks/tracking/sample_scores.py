"""How well each of a few samples is predicted, to find the worst."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...tasks.metrics.coco_detection import COCODetection
from ...tasks.metrics.coco_instances import COCOInstances
from ...tasks.metrics.segmentation import IGNORE_INDEX


def sample_score(task: Any, batch: Any, prediction: Mapping[str, Any]) -> tuple[str, float]:
    """Name and value of the score of a sample: NaN where it is not defined, as without objects.

    Detection: ``AP50``, COCO's average precision of boxes at IoU 0.5, mean over the classes of the image; instance
    segmentation: that of masks. Semantic segmentation: ``IoU``, mean over the classes of ground truth and prediction.
    Localization: ``IoU`` of the boxes, 0 if the class is wrong. Classification: ``loss``.

    Args:
        task: The task.
        batch: A batch of this one sample, on the device of the task.
        prediction: What the task predicts for it.
    """
    if "target" in batch:
        return "AP50", average_precision(task.num_classes, prediction, batch["target"][0])
    if "mask" in batch:
        return "IoU", mean_iou(np.asarray(prediction["mask"]), batch["mask"][0].cpu().numpy())
    if "box" in batch:
        same = int(prediction["label"]) == int(batch["label"][0])
        return "IoU", box_iou(prediction["box"], batch["box"][0]) if same else 0.0
    with torch.no_grad():
        losses, _ = task.evaluate(batch)
    return "loss", float(torch.stack(list(losses.values())).sum()) if losses else math.nan


def average_precision(num_classes: int, prediction: Mapping[str, Any], target: Mapping[str, Any]) -> float:
    """AP at IoU 0.5 of one image, of masks if both have them, else of boxes; NaN without objects."""
    masks = "masks" in prediction and "masks" in target
    # this rank alone computes it
    metric = (COCOInstances if masks else COCODetection)(num_classes, sync_on_compute=False)
    expected = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in target.items()}
    metric.update([prediction], [expected])
    return float(metric.compute()["map50"])


def mean_iou(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Mean intersection over union of the classes in one image, without ignored pixels; NaN if all are ignored.

    Shape:
        - predicted, expected: ``[H, W]``.
    """
    valid = expected != IGNORE_INDEX
    predicted, expected = predicted[valid], expected[valid]
    ious = []
    for label in np.union1d(predicted, expected).tolist():
        first, second = predicted == label, expected == label
        ious.append((first & second).sum() / (first | second).sum())
    return float(np.mean(ious)) if ious else math.nan


def box_iou(first: Any, second: Any) -> float:
    """Intersection over union of two boxes ``[4]``; 0 if neither has an area."""
    a, b = (np.asarray(torch.as_tensor(box).cpu(), np.float64).reshape(4) for box in (first, second))
    intersection = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0).prod()
    union = sum((box[2:] - box[:2]).clip(0).prod() for box in (a, b)) - intersection
    return float(intersection / union) if union > 0 else 0.0


def worst_first(name: str, values: list[float]) -> list[int]:
    """Order of samples by a score of `sample_score`: the highest loss or the lowest other score first, NaN last."""
    sign = -1 if name == "loss" else 1
    return sorted(range(len(values)), key=lambda i: (math.isnan(values[i]), sign * np.nan_to_num(values[i])))
