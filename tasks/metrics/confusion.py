"""Metrics computed from a confusion matrix of classes.

Shape legend: a confusion matrix is ``[K, K]``, ground truth by prediction, of K classes.

- IoU of class k: ``n_kk / (t_k + p_k - n_kk)``, with t_k its ground-truth and p_k its predicted elements.
- A class that neither occurs nor is predicted has no IoU (0/0; VOC's devkit never meets it, since each of VOC's classes
  occurs). It is left out of the mean, as in FCN's own evaluation. A class that does not occur but *is* predicted has
  IoU 0, and is part of the mean.
- The mean accuracy is over the classes that occur. The frequency-weighted IoU weights each class by its ground-truth
  elements.
- Where nothing counts at all, every metric is NaN.

Reference: Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, section 5.
"""

from torch import Tensor


def class_accuracies(confusion: Tensor) -> Tensor:
    """Accuracy of each class: its diagonal element over the sum of its row; NaN for a class that does not occur.

    Shape:
        - confusion: ``[K, K]``, ground truth by prediction.
        - Output: ``[K]``.
    """
    return confusion.diagonal() / confusion.sum(dim=1)


def class_ious(confusion: Tensor) -> Tensor:
    """Intersection over union of each class; NaN for a class that neither occurs nor is predicted.

    Shape:
        - confusion: ``[K, K]``, ground truth by prediction.
        - output: ``[K]``.
    """
    intersection = confusion.diagonal()
    return intersection / (confusion.sum(1) + confusion.sum(0) - intersection)


def pixel_accuracy(confusion: Tensor) -> Tensor:
    """Share of the counted pixels that are correct: a scalar, from ``[K, K]``; NaN where none counts."""
    return confusion.trace() / confusion.sum()


def frequency_weighted_iou(confusion: Tensor) -> Tensor:
    """Mean IoU with classes weighted by their ground-truth pixels: a scalar, from ``[K, K]``; NaN where none counts."""
    pixels = confusion.sum(1)
    return (class_ious(confusion) * pixels).nansum() / pixels.sum()
