"""Metrics of semantic segmentation: one matrix of pixel counts, and what is read off it.

How pixels and classes are counted, as in the VOC devkit's ``VOCevalseg``:

- Pixels are counted over the whole data set, and a class's figure is computed once, from the sums. (It is not the mean
  of figures of single images.)
- A pixel whose truth is 255 does not count, whatever was predicted there: neither for nor against any class. Nothing
  can be predicted as 255.
- IoU of class k: ``n_kk / (t_k + p_k - n_kk)``, with t_k its true and p_k its predicted counted pixels.
- A class that neither occurs nor is predicted has no IoU (0/0; the devkit never meets it, since each of VOC's classes
  occurs). It is left out of the mean, as in FCN's own evaluation. A class that does not occur but *is* predicted has
  IoU 0, and is part of the mean.
- The mean accuracy is over the classes that occur. The frequency-weighted IoU weights each class by its true pixels.
- Where nothing counts at all (every pixel ignored), every figure is NaN.

Reference: Everingham et al., "The Pascal Visual Object Classes Challenge 2012 development kit"; Long, Shelhamer,
Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, section 5 (the four figures).
"""

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from ...models.segmentation.losses import IGNORE_INDEX
from ..classification import class_accuracies

__all__ = [
    "BoundaryIoU",
    "SegmentationConfusion",
    "class_accuracies",
    "class_ious",
    "frequency_weighted_iou",
    "outside_message",
    "pixel_accuracy",
]


def class_ious(confusion: Tensor) -> Tensor:
    """Intersection over union of each class; NaN for a class that neither occurs nor is predicted.

    Shape:
        - confusion: ``[K, K]``, truth by prediction.
        - output: ``[K]``.
    """
    right = confusion.diagonal()
    return right / (confusion.sum(1) + confusion.sum(0) - right)


def pixel_accuracy(confusion: Tensor) -> Tensor:
    """Part of the counted pixels that are right: a scalar, from ``[K, K]``; NaN where none counts."""
    return confusion.trace() / confusion.sum()


def frequency_weighted_iou(confusion: Tensor) -> Tensor:
    """Mean of the IoUs, each class weighted by its true pixels: a scalar, from ``[K, K]``; NaN where none counts."""
    true = confusion.sum(1)
    return (class_ious(confusion) * true).nansum() / true.sum()


class SegmentationConfusion(Metric):
    """The confusion matrix of pixels, truth by prediction; ignored pixels do not count.

    A batch costs one ``bincount`` of a number of 16 bits a pixel. Masks are not looked over beforehand: a value that is
    neither a class nor 255 gets a row of its own, and is reported at the end.

    Args:
        num_classes: K, at most 255.

    Shape:
        - predicted: ``[…]``, any integer type, 0 … K-1.
        - mask: the same, uint8, 0 … K-1 or 255.
        - compute: ``[K, K]`` int64.

    Raises:
        ValueError: `update`: the two differ in shape, or a prediction is no class. `compute`: the masks had values
            outside the classes; the message names them and counts their pixels.

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
            raise ValueError(f"num_classes: {num_classes}; a mask of 8 bits tells 1 to {IGNORE_INDEX} classes apart")
        self.num_classes = num_classes
        self.add_state("counts", torch.zeros(256, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, mask: Tensor) -> None:
        """Count a batch."""
        if predicted.shape != mask.shape:
            raise ValueError(
                f"predictions of {list(predicted.shape)} for masks of {list(mask.shape)}: they must have one size"
            )
        if predicted.numel():  # on a GPU no wait of its own: counting waits right after
            least, most = map(int, torch.stack(predicted.aminmax()).tolist())
            if least < 0 or most >= self.num_classes:
                raise ValueError(
                    f"the predictions have the value {most if least >= 0 else least}; there are {self.num_classes} "
                    f"classes, 0 to {self.num_classes - 1}"
                )
        self.counts = self.counts + _joint_counts(mask, predicted, 256, self.num_classes)

    def compute(self) -> Tensor:
        """The matrix."""
        totals = self.counts.sum(1)
        if totals[self.num_classes : IGNORE_INDEX].any():
            raise ValueError(outside_message(totals, self.num_classes))
        return self.counts[: self.num_classes]


class BoundaryIoU(Metric):
    """Intersection over union of the boundaries of each class: how well its outline is met, whatever its size.

    The boundary of a class in a mask are its own pixels that are at most d away, in rows and in columns, from a pixel
    that is not of the class, or from the image's edge; d is `ratio` times the image's diagonal, rounded, at least 1.
    Intersections and unions are summed over the data set, as those of `class_ious`. Ignored pixels are of no class in
    the truth nor in the prediction: a class ends at them in both.

    Args:
        num_classes: K.
        ratio: d as a part of the diagonal.

    Shape:
        - predicted, mask: ``[B, H, W]``.
        - compute: ``[K]``; NaN for a class without boundary in both.

    Reference:
        Cheng et al., "Boundary IoU: improving object-centric image segmentation evaluation", CVPR 2021, section 4; d as
        in its code, where a mask is eroded d times by a square of 3 pixels. There the figure is one object's or
        image's, here it is a class's over the data set.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, ratio: float = 0.02) -> None:
        super().__init__()
        if not ratio > 0:
            raise ValueError(f"ratio: {ratio} is not a part of the diagonal above 0, such as 0.02")
        self.num_classes, self.ratio = num_classes, ratio
        size = num_classes + 1  # the last one: not on a boundary
        self.add_state("counts", torch.zeros(size, size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, mask: Tensor) -> None:
        """Count a batch of images of one size."""
        height, width = mask.shape[-2:]
        distance = max(1, math.floor(self.ratio * math.hypot(height, width) + 0.5))
        ends = mask == IGNORE_INDEX
        edges = [
            self._edges(labels, distance) for labels in (mask, predicted.to(mask.dtype).masked_fill(ends, IGNORE_INDEX))
        ]
        size = self.num_classes + 1
        self.counts = self.counts + _joint_counts(edges[0], edges[1], size, size)

    def _edges(self, labels: Tensor, distance: int) -> Tensor:
        """Class of each pixel on a boundary, and K for the others: int16 ``[B, H, W]``."""
        labels = labels.to(torch.int16)
        around = torch.nn.functional.pad(labels, (distance,) * 4, value=-1)
        side = 2 * distance + 1
        least, most = (
            running(running(around, side, -1, compare), side, -2, compare) for compare in (torch.minimum, torch.maximum)
        )
        # torch (2.15) does arithmetic of 16 bits at once, and comparisons one by one: this takes a tenth of `where`
        on_edge = most.sub_(least).clamp_(max=1)
        return labels.clamp(max=self.num_classes).sub_(self.num_classes).mul_(on_edge).add_(self.num_classes)

    def compute(self) -> Tensor:
        """IoU of each class's boundary."""
        right = self.counts.diagonal()
        return (right / (self.counts.sum(1) + self.counts.sum(0) - right))[: self.num_classes]


def running(values: Tensor, window: int, dim: int, compare: object) -> Tensor:
    """Minimum or maximum over each window along a dimension, by doubling: log2(window) passes.

    Args:
        window: length, at most the dimension's.
        compare: ``torch.minimum`` or ``torch.maximum``.

    Shape:
        - output: as `values`, shorter by ``window - 1`` along `dim`.
    """
    covered = 1
    while covered < window:
        shift = min(covered, window - covered)
        length = values.shape[dim] - shift
        values = compare(values.narrow(dim, 0, length), values.narrow(dim, shift, length))  # type: ignore[operator]
        covered += shift
    return values


def _joint_counts(rows: Tensor, columns: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """How often each pair occurs: int64 ``[num_rows, num_columns]``."""
    # narrow numbers: reading eight bytes a pixel takes ten times as long as counting
    dtype = torch.int16 if num_rows * num_columns <= 2**15 else torch.int32
    pairs = rows.to(dtype, copy=True).mul_(num_columns).add_(columns.to(dtype))
    return torch.bincount(pairs.reshape(-1), minlength=num_rows * num_columns).view(num_rows, num_columns)


def outside_message(counts: Tensor, num_classes: int) -> str:
    """What to say of masks with values outside the classes.

    Args:
        counts: pixels of each value, ``[256]``.
        num_classes: K.
    """
    found = [(value, int(count)) for value, count in enumerate(counts.tolist()) if num_classes <= value < IGNORE_INDEX]
    listed = [f"{value} ({count} pixel{'s' * (count != 1)})" for value, count in found if count]
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return (
        f"the masks have values that are no class: {', '.join(listed[:8])}{more}; there are {num_classes} classes, "
        f"0 to {num_classes - 1}, and {IGNORE_INDEX} = ignore"
    )
