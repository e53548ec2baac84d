"""R-CNN's box regression: for each class, ridge regression from pooled features to the offsets of a better box.

Shape legend: an image has N objects and P proposals; D features of a region; M training pairs of a class; K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...ops.box_coding import encode_boxes
from ...ops.boxes import box_iou_matrix
from ...ops.checks import check_above, check_fraction

MIN_VARIANCE = 1e-3
"""Added to the variances of targets, so that whitening does not divide by 0; the authors' value."""


@dataclass(frozen=True)
class BoxRegressionSettings:
    """How the box regression is trained. The defaults are R-CNN's.

    Attributes:
        min_iou: Proposals whose highest IoU with an object is above this are trained on, with that object.
        inclusive: Whether those with exactly this IoU are trained on too (SPP-net, with 0.5).
        ridge: Weight lambda of the squared norm of the weights.
        feature_norm: Features are scaled by one factor so that their mean norm is this.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A number is out of range.
    """

    min_iou: float = 0.6
    inclusive: bool = False
    ridge: float = 1000.0
    feature_norm: float = 20.0

    def __post_init__(self) -> None:
        check_fraction(min_iou=self.min_iou)
        check_above(0, ridge=self.ridge, feature_norm=self.feature_norm)


class BoxPairs(NamedTuple):
    """The proposals of an image that box regression is trained on.

    Attributes:
        rows: Indices of the proposals, int64 ``[M]``.
        labels: Class of the object of each, int64 ``[M]``.
        offsets: dx, dy, dw, dh from the proposal to the object, ``[M, 4]``.
    """

    rows: Tensor
    labels: Tensor
    offsets: Tensor


def select_pairs(objects: Tensor, labels: Tensor, proposals: Tensor, settings: BoxRegressionSettings) -> BoxPairs:
    """Pair the proposals near an object with the object that they overlap most.

    Shape:
        - objects: ``[N, 4]``; labels: int64 ``[N]``; proposals: ``[P, 4]``
        - output: `BoxPairs` of M <= P
    """
    if not len(objects):
        empty = torch.zeros(0, dtype=torch.int64, device=proposals.device)
        return BoxPairs(empty, empty, proposals.new_zeros(0, 4))
    highest, nearest = box_iou_matrix(proposals, objects).max(1)
    rows = (highest >= settings.min_iou if settings.inclusive else highest > settings.min_iou).nonzero()[:, 0]
    nearest = nearest[rows]
    return BoxPairs(rows, labels[nearest], encode_boxes(objects[nearest], proposals[rows]))


def whitening(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, whitening matrix and its inverse of targets: ``(offsets - mean) @ matrix`` has covariance 1.

    The matrices are the symmetric square roots of the inverse of the covariance and of the covariance, to whose
    eigenvalues `MIN_VARIANCE` is added.

    Shape:
        - offsets: ``[M, 4]`` with M above 0
        - output: ``[4]``, ``[4, 4]`` and ``[4, 4]``
    """
    mean = offsets.mean(0)
    centered = offsets - mean
    variances, vectors = np.linalg.eigh(centered.T @ centered / len(offsets))
    deviations = np.sqrt(np.maximum(variances, 0) + MIN_VARIANCE)
    return mean, vectors / deviations @ vectors.T, vectors * deviations @ vectors.T


def fit_ridge(features: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge regression with a constant feature, the last one, whose weight is penalized like all others.

    Solves for the weights with as many equations as there are features or, if these are fewer, samples.

    Args:
        features: Inputs.
        targets: Outputs.
        ridge: Weight lambda of the squared norm of the weights.

    Shape:
        - features: ``[M, D]``; targets: ``[M, T]``
        - output: ``[D + 1, T]``
    """
    x = np.concatenate([features, np.ones((len(features), 1))], axis=1, dtype=np.float64)
    targets = targets.astype(np.float64)
    if len(x) < x.shape[1]:
        return x.T @ np.linalg.solve(x @ x.T + ridge * np.eye(len(x)), targets)
    return np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ targets)


class BoxRegression(NamedTuple):
    """Trained box regression. The offsets of class k are ``features @ weight[k] + bias[k]``, for unscaled features.

    Attributes:
        weight: ``[K, D, 4]``; 0 for classes without pairs.
        bias: ``[K, 4]``; 0 for classes without pairs, whose boxes remain as proposed.
        pairs: Number of pairs of each class, int64 ``[K]``.
    """

    weight: Tensor
    bias: Tensor
    pairs: Tensor


def train_box_regression(
    features: Sequence[np.ndarray],
    pairs: Sequence[BoxPairs],
    num_classes: int,
    size: int,
    norm: float,
    settings: BoxRegressionSettings,
    progress: Callable[[int], None] | None = None,
) -> BoxRegression:
    """Train the box regression of all classes, one after the other, so that memory holds the pairs of one class.

    Args:
        features: For each image the pooled features of its pairs; arrays or memory-mapped arrays.
        pairs: The pairs of each image.
        num_classes: Number of classes K.
        size: Number of features D.
        norm: Mean norm of all features.
        settings: See `BoxRegressionSettings`.
        progress: Called with each class before it is trained; may raise to interrupt.

    Shape:
        - features: arrays ``[M_i, D]``; output: see `BoxRegression`

    Reference:
        Girshick et al., "Rich feature hierarchies for accurate object detection", CVPR 2014, appendix C; whitening as
        in the authors' code.
    """
    weight, bias = torch.zeros(num_classes, size, 4), torch.zeros(num_classes, 4)
    counts = torch.zeros(num_classes, dtype=torch.int64)
    scale = settings.feature_norm / norm if norm > 0 else 1.0
    for label in range(num_classes):
        if progress is not None:
            progress(label)
        chosen = [(pairs[index].labels == label).nonzero()[:, 0] for index in range(len(pairs))]
        counts[label] = sum(map(len, chosen))
        if not counts[label]:
            continue
        x = np.concatenate(
            [np.asarray(f[r.numpy()], np.float32) for f, r in zip(features, chosen, strict=True) if len(r)]
        )
        offsets = np.concatenate([p.offsets[r].numpy() for p, r in zip(pairs, chosen, strict=True) if len(r)])
        mean, whiten, restore = whitening(offsets.astype(np.float64))
        solution = fit_ridge(x * scale, (offsets - mean) @ whiten, settings.ridge) @ restore  # [D + 1, 4]
        weight[label] = torch.from_numpy(solution[:-1] * scale)
        bias[label] = torch.from_numpy(solution[-1] + mean)
    return BoxRegression(weight, bias, counts)
