"""Metrics of semantic segmentation: the confusion matrix of pixels, and the IoU of boundaries.

Pixels count as in the VOC devkit's ``VOCevalseg``:

- Pixels are counted over the whole data set, and the metric of a class is computed once, from the sums. (It is not the
  mean of metrics of single images.)
- A pixel with ground truth 255 does not count, regardless of the prediction: neither for nor against any class. 255 is
  never a prediction.

`confusion` defines the metrics that are computed from the matrix.

Reference: Everingham et al., "The Pascal Visual Object Classes Challenge 2012 development kit".
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric

from ...models.segmentation.losses import IGNORE_INDEX


class SegmentationConfusion(Metric):
    """The confusion matrix of pixels, ground truth by prediction; ignored pixels do not count.

    A batch costs one ``bincount`` of 16-bit numbers, one per pixel. Masks are not validated beforehand: each
    value gets a row, and values that are neither a class nor 255 are reported at the end.

    Args:
        num_classes: Number of classes K, at most 255.

    Shape:
        - predicted: ``[…]``, any integer type, 0 … K-1.
        - mask: the same, uint8, 0 … K-1 or 255.
        - compute: ``[K, K]`` int64.

    Raises:
        ValueError: `num_classes` is out of range. `update`: the two differ in shape, or a prediction is not a class.
            `compute`: the masks had values outside the classes; the message names them and counts their pixels.

    Example:
        >>> metric = SegmentationConfusion(2)
        >>> metric.update(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 255], dtype=torch.uint8))
        >>> metric.compute().tolist()
        [[1, 1], [0, 1]]
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise ValueError(f"num_classes: must be in [1, {IGNORE_INDEX}] (masks have 8 bits), got {num_classes}")
        self.num_classes = num_classes
        self.add_state("counts", torch.zeros(256, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, mask: Tensor) -> None:
        """Add the pixels of a batch, predictions and mask ``[B, H, W]``."""
        if predicted.shape != mask.shape:
            raise ValueError(
                f"predicted: must have the shape of the mask, {list(mask.shape)}, got {list(predicted.shape)}"
            )
        if predicted.numel():  # on a GPU this costs no wait of its own: counting waits right after
            lowest, highest = map(int, torch.stack(predicted.aminmax()).tolist())
            if lowest < 0 or highest >= self.num_classes:
                value = highest if lowest >= 0 else lowest
                raise ValueError(f"predicted: must be classes in 0 … {self.num_classes - 1}, got {value}")
        self.counts = self.counts + _joint_counts(mask, predicted, 256, self.num_classes)

    def compute(self) -> Tensor:
        """Return the matrix, int64 ``[K, K]``."""
        totals = self.counts.sum(1)
        if totals[self.num_classes : IGNORE_INDEX].any():
            raise ValueError(invalid_values_message(totals, self.num_classes))
        return self.counts[: self.num_classes]


class BoundaryIoU(Metric):
    """Intersection over union of the boundaries of each class: the quality of outlines, for objects of any size.

    The boundary of a class in a mask is made of the pixels of the class that are at most d away, in rows and in
    columns, from a pixel of another class or from the image's edge; d is `ratio` times the image's diagonal, rounded,
    at least 1. Intersections and unions are summed over the data set, as those of `class_ious`. Ignored pixels belong
    to no class, neither in the ground truth nor in the prediction: classes end at them in both.

    Args:
        num_classes: Number of classes K.
        ratio: Distance d as a fraction of the diagonal.

    Shape:
        - predicted, mask: ``[B, H, W]``.
        - compute: ``[K]``; NaN for a class without boundary in both.

    Raises:
        ValueError: `ratio` is not above 0.

    Reference:
        Cheng et al., "Boundary IoU: improving object-centric image segmentation evaluation", CVPR 2021, section 4; d as
        in its code, where a mask is eroded d times by a square of 3 pixels. There the metric is computed per object or
        image, here per class over the data set.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, ratio: float = 0.02) -> None:
        super().__init__()
        if not ratio > 0:
            raise ValueError(f"ratio: must be > 0, a fraction of the diagonal such as 0.02, got {ratio}")
        self.num_classes, self.ratio = num_classes, ratio
        size = num_classes + 1  # the last one: pixels that are not on a boundary
        self.add_state("counts", torch.zeros(size, size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, mask: Tensor) -> None:
        """Add a batch of images of one size, predictions and mask ``[B, H, W]``."""
        height, width = mask.shape[-2:]
        distance = max(1, math.floor(self.ratio * math.hypot(height, width) + 0.5))
        ignored = mask == IGNORE_INDEX
        boundaries = [
            self._boundaries(labels, distance)
            for labels in (mask, predicted.to(mask.dtype).masked_fill(ignored, IGNORE_INDEX))
        ]
        size = self.num_classes + 1
        self.counts = self.counts + _joint_counts(boundaries[0], boundaries[1], size, size)

    def _boundaries(self, labels: Tensor, distance: int) -> Tensor:
        """Class of each pixel on a boundary, and K for all others: int16 ``[B, H, W]``."""
        labels = labels.to(torch.int16)
        padded = torch.nn.functional.pad(labels, (distance,) * 4, value=-1)
        side = 2 * distance + 1
        minimum, maximum = (
            sliding_extremum(sliding_extremum(padded, side, -1, compare), side, -2, compare)
            for compare in (torch.minimum, torch.maximum)
        )
        # torch (2.15) vectorizes arithmetic on 16 bits, but not comparisons: this takes a tenth of the time of `where`
        on_boundary = maximum.sub_(minimum).clamp_(max=1)
        return labels.clamp(max=self.num_classes).sub_(self.num_classes).mul_(on_boundary).add_(self.num_classes)

    def compute(self) -> Tensor:
        """Return the IoU of each class's boundary, ``[K]``."""
        intersection = self.counts.diagonal()
        return (intersection / (self.counts.sum(1) + self.counts.sum(0) - intersection))[: self.num_classes]


def sliding_extremum(values: Tensor, window: int, dim: int, compare: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Minimum or maximum over each window along a dimension, by doubling: log2(window) passes.

    Args:
        values: Values of any shape.
        window: Length of the window, at most that of the dimension.
        dim: The dimension.
        compare: ``torch.minimum`` or ``torch.maximum``.

    Shape:
        - values: ``[…, N, …]``
        - output: ``[…, N - window + 1, …]``
    """
    covered = 1
    while covered < window:
        shift = min(covered, window - covered)
        length = values.shape[dim] - shift
        values = compare(values.narrow(dim, 0, length), values.narrow(dim, shift, length))
        covered += shift
    return values


def _joint_counts(rows: Tensor, columns: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """Count how often each pair of values occurs: int64 ``[num_rows, num_columns]`` of two tensors ``[B, H, W]``."""
    # 16 bits where they suffice: reading eight bytes per pixel takes ten times as long as counting
    dtype = torch.int16 if num_rows * num_columns <= 2**15 else torch.int32
    pairs = rows.to(dtype, copy=True).mul_(num_columns).add_(columns.to(dtype))
    return torch.bincount(pairs.reshape(-1), minlength=num_rows * num_columns).view(num_rows, num_columns)


def invalid_values_message(counts: Tensor, num_classes: int) -> str:
    """The error message for masks with values outside the classes.

    Args:
        counts: Number of pixels of each value, ``[256]``.
        num_classes: Number of classes K.
    """
    invalid = [
        f"{value} ({count} pixel{'s' * (count != 1)})"
        for value, count in enumerate(counts.tolist())
        if num_classes <= value < IGNORE_INDEX and count
    ]
    more = f" and {len(invalid) - 8} more" if len(invalid) > 8 else ""
    return (
        f"mask: must have classes in 0 … {num_classes - 1} or {IGNORE_INDEX} = ignore, got "
        f"{', '.join(invalid[:8])}{more}"
    )
