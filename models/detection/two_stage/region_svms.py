"""R-CNN's linear SVMs on the features of regions, one per class, with one pass of hard negatives.

Shape legend: an image has N objects and P proposals; D features of a region; K classes. Features may be memory-mapped:
no more than those of one image, and of the training set of one class, are in memory at a time.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...ops.boxes import box_iou_matrix
from ...ops.checks import check_above, check_fraction, check_min
from ...ops.nms import class_agnostic_nms


@dataclass(frozen=True)
class SVMSettings:
    """How the SVMs are trained. The defaults are R-CNN's.

    Attributes:
        negative_iou: A region is a negative of a class if its IoU with every object of the class is below this.
        inclusive: Whether a region with exactly this IoU is a negative too (SPP-net).
        negative_overlap: Of the negatives of an image, those that overlap an earlier one more than this are dropped.
            SPP-net: 0.7. None: none.
        c: Weight C of the hinge losses against the norm of the weights.
        bias: Value of the constant feature whose weight is the bias.
        positive_weight: Weight of the losses of positives; that of negatives is 1.
        feature_norm: Features are scaled by one factor so that their mean norm is this.
        hard_margin: A negative is hard if its score is above this.
        easy_margin: After each training, negatives with a score below this are dropped.
        retrain_after: Number of new hard negatives of a class after which its SVM is trained again, and number of
            negatives with which it is trained first.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A number is out of range.
    """

    negative_iou: float = 0.3
    inclusive: bool = False
    negative_overlap: float | None = None
    c: float = 1e-3
    bias: float = 10.0
    positive_weight: float = 2.0
    feature_norm: float = 20.0
    hard_margin: float = -1.0001
    easy_margin: float = -1.2
    retrain_after: int = 2000

    def __post_init__(self) -> None:
        check_fraction(negative_iou=self.negative_iou, negative_overlap=self.negative_overlap)
        check_above(0, c=self.c, bias=self.bias, positive_weight=self.positive_weight, feature_norm=self.feature_norm)
        check_min(1, retrain_after=self.retrain_after)
        if not self.easy_margin <= self.hard_margin:
            raise ValueError(
                f"easy_margin: must be <= hard_margin, or hard negatives would be dropped, got {self.easy_margin} > "
                f"{self.hard_margin}; lower easy_margin"
            )


class ImageRegions(NamedTuple):
    """What is stored of an image: its objects, its proposals, and the features of both.

    Attributes:
        features: ``[N + P, D]``, those of the objects first; a NumPy array or a memory-mapped one.
        objects: Ground-truth boxes, ``[N, 4]``.
        labels: int64 ``[N]``, 0 … K-1.
        proposals: Proposed boxes, ``[P, 4]``.
    """

    features: np.ndarray
    objects: Tensor
    labels: Tensor
    proposals: Tensor


def select_negatives(regions: ImageRegions, num_classes: int, settings: SVMSettings) -> Tensor:
    """Select the proposals of an image that are negatives of each class. Positives are the objects alone.

    Shape:
        - regions: one image
        - output: bool ``[P, K]``
    """
    iou = box_iou_matrix(regions.proposals, regions.objects)  # [P, N]
    highest = iou.new_zeros(len(iou), num_classes)
    highest.scatter_reduce_(1, regions.labels.expand(len(iou), -1), iou, "amax")
    s = settings
    negatives = highest <= s.negative_iou if s.inclusive else highest < s.negative_iou
    if s.negative_overlap is not None and s.negative_overlap < 1 and len(negatives):
        columns, inverse = negatives.unique(dim=1, return_inverse=True)  # most classes have the same negatives
        for index in range(columns.shape[1]):
            rows = columns[:, index].nonzero()[:, 0]
            order = -torch.arange(len(rows), dtype=torch.float32)  # the first proposals are the best
            columns[:, index] = False
            columns[rows[class_agnostic_nms(regions.proposals[rows], order, s.negative_overlap)], index] = True
        negatives = columns[:, inverse]
    return negatives


def fit_linear_svm(
    positives: np.ndarray, negatives: np.ndarray, settings: SVMSettings
) -> tuple[np.ndarray, float, bool]:
    """Train one SVM with liblinear: hinge loss, L2 regularization.

    Minimizes ``|w|² / 2 + b² / 2 + C sum_i v_i max(0, 1 - y_i (w x_i + B b))``, where B is the constant feature and
    v_i the weight of positives or 1. The bias is ``B b``.

    Args:
        positives: Scaled features of positives.
        negatives: Scaled features of negatives.
        settings: C, B and the weight of positives.

    Returns:
        Weights ``[D]``, bias, and whether the solver converged.

    Shape:
        - positives: ``[N, D]``; negatives: ``[M, D]``
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    x = np.concatenate([positives, negatives]).astype(np.float64)
    y = np.repeat([1, -1], [len(positives), len(negatives)])
    svm = LinearSVC(
        loss="hinge",
        C=settings.c,
        intercept_scaling=settings.bias,
        class_weight={1: settings.positive_weight, -1: 1.0},
        max_iter=10000,
        random_state=0,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svm.fit(x, y)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return svm.coef_[0].astype(np.float32), float(svm.intercept_[0]), converged


def mean_norm(images: Sequence[ImageRegions]) -> float:
    """Mean Euclidean norm of the features ``[N + P, D]`` of all regions of all images; 0 without regions."""
    total, count = 0.0, 0
    for regions in images:
        total += float(np.linalg.norm(np.asarray(regions.features, np.float32), axis=1).sum(dtype=np.float64))
        count += len(regions.features)
    return total / max(count, 1)


class SVMs(NamedTuple):
    """Trained SVMs. The score of a region is ``weight @ (scale * features) + bias``.

    Attributes:
        weight: ``[K, D]``.
        bias: ``[K]``; `NO_CLASS` for classes without an object.
        scale: Factor of features.
        negatives: Number of hard negatives that each SVM was trained on last, int64 ``[K]``.
        not_converged: Classes whose last training did not converge.
    """

    weight: Tensor
    bias: Tensor
    scale: float
    negatives: Tensor
    not_converged: list[int]


NO_CLASS = -100.0
"""Score of a class that has no object in training: it is never detected."""


class _HardNegatives:
    """The growing training sets of all classes, and their SVMs."""

    def __init__(self, images: Sequence[ImageRegions], num_classes: int, scale: float, settings: SVMSettings) -> None:
        self.images, self.scale, self.settings = images, scale, settings
        self.rows: list[list[tuple[int, int]]] = [[] for _ in range(num_classes)]  # image, row of its features
        self.new = [0] * num_classes
        self.trained = [False] * num_classes
        self.converged = [True] * num_classes
        self.positives = self._positives(num_classes)
        size = next((regions.features.shape[1] for regions in images), 0)
        self.weight = np.zeros((num_classes, size), np.float32)
        self.bias = np.full(num_classes, NO_CLASS, np.float32)

    def _positives(self, num_classes: int) -> list[np.ndarray]:
        """The scaled features of the objects of each class, ``[N_k, D]``."""
        found: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
        for regions in self.images:
            for index, label in enumerate(regions.labels.tolist()):
                found[label].append(np.asarray(regions.features[index], np.float32) * self.scale)
        return [np.stack(rows) if rows else np.zeros((0, 0), np.float32) for rows in found]

    def add(self, index: int) -> None:
        """Score the negatives of an image, and add the hard ones; all of them for an SVM that is not trained yet."""
        regions, s = self.images[index], self.settings
        negatives = select_negatives(regions, len(self.rows), s).numpy()  # [P, K]
        objects = len(regions.labels)
        features = np.asarray(regions.features[objects:], np.float32) * self.scale
        scores = features @ self.weight.T + self.bias
        hard = negatives & ((scores > s.hard_margin) | ~np.array(self.trained))
        for label in range(len(self.rows)):
            if len(self.positives[label]):
                self.rows[label] += [(index, objects + row) for row in np.flatnonzero(hard[:, label]).tolist()]
                self.new[label] += int(hard[:, label].sum())
                if self.new[label] >= s.retrain_after:
                    self.train(label)

    def train(self, label: int) -> None:
        """Train the SVM of a class, then drop its easy negatives."""
        self.new[label] = 0
        negatives = self._features(self.rows[label])
        if not len(negatives):  # any score of its objects is right
            negatives = np.zeros((1, self.weight.shape[1]), np.float32)
        weight, bias, converged = fit_linear_svm(self.positives[label], negatives, self.settings)
        self.weight[label], self.bias[label], self.converged[label] = weight, bias, converged
        self.trained[label] = True
        scores = negatives @ weight + bias
        self.rows[label] = [
            row for row, score in zip(self.rows[label], scores, strict=False) if score >= self.settings.easy_margin
        ]

    def _features(self, rows: Sequence[tuple[int, int]]) -> np.ndarray:
        """The scaled features of rows, ``[M, D]``, read image by image."""
        result = np.empty((len(rows), self.weight.shape[1]), np.float32)
        by_image: dict[int, list[int]] = {}
        for position, (image, _) in enumerate(rows):
            by_image.setdefault(image, []).append(position)
        for image, positions in by_image.items():
            features: Any = self.images[image].features
            result[positions] = features[[rows[position][1] for position in positions]]
        return result * self.scale


def train_svms(
    images: Sequence[ImageRegions],
    num_classes: int,
    settings: SVMSettings,
    norm: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> SVMs:
    """Train the SVMs of all classes in one pass over the images.

    All negatives are taken until a class has ``retrain_after``, with which its SVM is trained first. From then on only
    hard ones are added. The SVM is trained again whenever ``retrain_after`` new ones have come, and at the end.

    Args:
        images: The stored regions; an image is read when it is indexed.
        num_classes: Number of classes K.
        settings: See `SVMSettings`.
        norm: Mean norm of all features. None: it is computed in a pass of its own.
        progress: Called with the index of each image before it is read; may raise to interrupt.

    Raises:
        ValueError: No image has an object, or all features are 0.

    Reference:
        Girshick et al., "Rich feature hierarchies for accurate object detection", CVPR 2014, section 2.3 and appendix
        B; constants of the authors' code. That trains first after one image; a first training with more negatives gives
        the same kind of SVM with fewer trainings.
    """
    norm = mean_norm(images) if norm is None else norm
    if not norm > 0:
        raise ValueError(f"features: must not all be 0, got a mean norm of {norm:g}; fine-tune the network for longer")
    state = _HardNegatives(images, num_classes, settings.feature_norm / norm, settings)
    if not any(map(len, state.positives)):
        raise ValueError("images: must have at least one object, got none; SVMs cannot be trained")
    for index in range(len(images)):
        if progress is not None:
            progress(index)
        state.add(index)
    for label, positives in enumerate(state.positives):
        if len(positives) and (state.new[label] or not state.trained[label]):
            state.train(label)
    return SVMs(
        torch.from_numpy(state.weight),
        torch.from_numpy(state.bias),
        settings.feature_norm / norm,
        torch.tensor([len(rows) for rows in state.rows]),
        [label for label, converged in enumerate(state.converged) if not converged],
    )


def score_to_probability(scores: Tensor) -> Tensor:
    """Map SVM scores of any shape, such as ``[P, K]``, to (0, 1): 0.5 is the decision boundary; the order remains."""
    return scores.float().sigmoid()
