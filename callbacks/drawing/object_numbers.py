"""Numbers of predicted objects, from which their colors follow."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_GRID = 16
"""Rows and columns of the cells of an image from which objects that match no ground truth get their color."""


def follow_ground_truth(
    prediction: Mapping[str, Any], ground_truth: Mapping[str, Any], size: Sequence[int]
) -> dict[str, Any]:
    """Number the predicted objects with masks, so that their colors stay the same from epoch to epoch.

    In turn, by descending score, each takes the number (and so the color) of the free ground-truth object with the
    highest IoU of boxes, if that is at least 0.5. Ground truth is numbered in its order. The others are numbered by the
    position of their center.

    Args:
        prediction: Fields as returned by `drawable_fields`.
        ground_truth: The same fields of the ground truth.
        size: Height and width of the image, in pixels.

    Returns:
        The prediction, with ``numbers`` if it has masks.
    """
    if "masks" not in prediction or "boxes" not in ground_truth:
        return dict(prediction)
    boxes, objects = (np.asarray(fields["boxes"], np.float64).reshape(-1, 4) for fields in (prediction, ground_truth))
    cells = (boxes[:, :2] + boxes[:, 2:]) / 2 * _GRID // np.array(size[1::-1])
    numbers = len(objects) + (cells.clip(0, _GRID - 1) @ [1, _GRID]).astype(np.int64)
    sides = np.minimum(boxes[:, None, 2:], objects[:, 2:]) - np.maximum(boxes[:, None, :2], objects[:, :2])
    common = sides.clip(0).prod(2)  # [M, N]
    areas, object_areas = ((box[:, 2:] - box[:, :2]).prod(1) for box in (boxes, objects))
    iou = common / np.maximum(areas[:, None] + object_areas - common, 1e-9)
    for index in np.argsort(-np.asarray(prediction["scores"]), kind="stable").tolist() if len(objects) else ():
        best = int(iou[index].argmax())
        if iou[index, best] >= 0.5:
            numbers[index] = best
            iou[:, best] = -1
    return {**prediction, "numbers": numbers}
