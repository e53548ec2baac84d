"""Segmentation metrics against scikit-learn, OpenCV and hand-computed tables."""

import math

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score
from torch import Tensor

from striate.tasks.metrics import (
    BoundaryIoU,
    SegmentationConfusion,
    class_accuracies,
    class_ious,
    frequency_weighted_iou,
    pixel_accuracy,
)

# ground truth by prediction; class 2 is predicted but never occurs, class 3 neither
TABLE = torch.tensor([[50, 8, 2, 0], [5, 30, 5, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def masks(seed, size=(3, 20, 30), classes=5, ignored=0.1):
    rng = np.random.default_rng(seed)
    target, predicted = rng.integers(0, classes, (2, *size)).astype(np.uint8)
    predicted = np.where(rng.random(size) < 0.6, target, predicted)
    target[rng.random(size) < ignored] = 255
    return torch.from_numpy(predicted), torch.from_numpy(target)


def test_hand_computed_metrics():
    torch.testing.assert_close(
        class_ious(TABLE), torch.tensor([50 / 65, 30 / 48, 0.0, math.nan]), equal_nan=True
    )  # predicted but absent: 0; neither: none
    torch.testing.assert_close(
        class_accuracies(TABLE), torch.tensor([50 / 60, 30 / 40, math.nan, math.nan]), equal_nan=True
    )
    assert pixel_accuracy(TABLE).item() == pytest.approx(80 / 100)
    assert frequency_weighted_iou(TABLE).item() == pytest.approx(0.6 * 50 / 65 + 0.4 * 30 / 48)
    empty = torch.zeros(3, 3, dtype=torch.int64)
    for value in (pixel_accuracy(empty), frequency_weighted_iou(empty), class_ious(empty).nanmean()):
        assert value.isnan()


def test_equals_scikit_learn_over_batches_of_differing_sizes():
    metric = SegmentationConfusion(5)
    targets, predictions = [], []
    for seed, size in enumerate([(2, 9, 7), (1, 30, 41), (3, 8, 8)]):
        predicted, target = masks(seed, size)
        metric.update(predicted if seed else predicted.long(), target)
        counted = target != 255
        targets.append(target[counted].numpy())
        predictions.append(predicted[counted].numpy())
    target, predicted = np.concatenate(targets), np.concatenate(predictions)
    confusion = metric.compute()
    assert confusion.tolist() == confusion_matrix(target, predicted, labels=range(5)).tolist()
    np.testing.assert_allclose(class_ious(confusion).numpy(), jaccard_score(target, predicted, average=None), rtol=1e-6)
    assert class_ious(confusion).nanmean().item() == pytest.approx(jaccard_score(target, predicted, average="macro"))
    assert frequency_weighted_iou(confusion).item() == pytest.approx(
        jaccard_score(target, predicted, average="weighted")
    )
    assert pixel_accuracy(confusion).item() == pytest.approx(accuracy_score(target, predicted))
    assert class_accuracies(confusion).nanmean().item() == pytest.approx(balanced_accuracy_score(target, predicted))


def test_a_fully_ignored_image_changes_nothing():
    predicted, target = masks(0)
    metric, boundary = SegmentationConfusion(5), BoundaryIoU(5)
    for one in (metric, boundary):
        one.update(predicted, target)
        before = one.compute()
        one.update(predicted, torch.full_like(target, 255))
        assert torch.equal(one.compute(), before) and before.any()
    alone = SegmentationConfusion(5)
    alone.update(predicted, torch.full_like(target, 255))
    assert not alone.compute().any()


def test_ignored_pixels_do_not_count():
    metric = SegmentationConfusion(3)
    target = torch.tensor([[[0, 0, 255, 255]]], dtype=torch.uint8)
    metric.update(torch.tensor([[[0, 0, 1, 2]]]), target)
    assert metric.compute().tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert class_ious(metric.compute())[0] == 1 and class_ious(metric.compute())[1:].isnan().all()


@pytest.mark.parametrize("classes", [2, 21, 127, 128, 129, 255])
def test_any_number_of_classes_up_to_255(classes):
    rng = np.random.default_rng(classes)
    target, predicted = rng.integers(0, classes, (2, 1, 40, 50)).astype(np.uint8)
    target[0, 0], predicted[0, 0] = classes - 1, classes - 1
    metric = SegmentationConfusion(classes)
    metric.update(torch.from_numpy(predicted), torch.from_numpy(target))
    expected = confusion_matrix(target.ravel(), predicted.ravel(), labels=range(classes))
    np.testing.assert_array_equal(metric.compute().numpy(), expected)


def test_values_outside_the_classes_are_counted_and_named():
    metric = SegmentationConfusion(3)
    target = torch.tensor([[[0, 3, 3, 77, 2, 255]]], dtype=torch.uint8)
    metric.update(torch.zeros(1, 1, 6, dtype=torch.uint8), target)
    with pytest.raises(ValueError, match=r"mask.* 0 … 2 .*got 3 \(2 pixels\), 77 \(1 pixel\)"):
        metric.compute()


@pytest.mark.parametrize("value, dtype", [(3, torch.uint8), (-1, torch.int64), (70000, torch.int64)])
def test_predictions_outside_the_classes_are_rejected(value, dtype):
    metric = SegmentationConfusion(3)
    predicted = torch.tensor([[[0, 2, value]]], dtype=dtype)
    with pytest.raises(ValueError, match=rf"predicted.* 0 … 2, got {value}"):
        metric.update(predicted, torch.tensor([[[0, 1, 2]]], dtype=torch.uint8))
    assert not metric.counts.any()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"predicted.*\[1, 3, 2\], got \[1, 2, 3\]"):
        SegmentationConfusion(3).update(
            torch.zeros(1, 2, 3, dtype=torch.int64), torch.zeros(1, 3, 2, dtype=torch.uint8)
        )
    with pytest.raises(ValueError, match="num_classes.*got 256"):
        SegmentationConfusion(256)
    with pytest.raises(ValueError, match="ratio.*got 0"):
        BoundaryIoU(3, 0)


def boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """A binary mask minus its erosion, `distance` times, with background outside the image."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    return (mask != 0) & (inner == 0)


def reference_boundary_iou(pairs: list[tuple[Tensor, Tensor]], classes: int, ratio: float) -> list[float]:
    intersections, unions = np.zeros((2, classes))
    for predicted, target in pairs:
        for image_prediction, image_target in zip(predicted.numpy(), target.numpy(), strict=True):
            distance = max(1, round(ratio * math.hypot(*image_target.shape)))
            for k in range(classes):
                a = boundary((image_prediction == k) & (image_target != 255), distance)
                b = boundary(image_target == k, distance)
                intersections[k] += (a & b).sum()
                unions[k] += (a | b).sum()
    return [s / e if e else math.nan for s, e in zip(intersections, unions, strict=True)]


@pytest.mark.parametrize("ratio", [0.02, 0.05, 0.5])
def test_boundary_iou_equals_erosion_class_by_class(ratio):
    pairs = []
    for seed, (height, width) in enumerate([(40, 61), (33, 20), (4, 3)]):
        rng = np.random.default_rng(seed)
        target, predicted = np.zeros((2, 2, height, width), np.uint8)
        for number in range(2):
            for label in (1, 2, 3):
                x, y = (int(rng.integers(side)) for side in (width, height))
                cv2.circle(target[number], (x, y), 9, label, -1)
                cv2.circle(predicted[number], (x + 2, y + 1), 8, label, -1)
            target[number, :3, 2:9] = 255
        pairs.append((torch.from_numpy(predicted), torch.from_numpy(target)))
    metric = BoundaryIoU(5, ratio)
    for predicted, target in pairs:
        metric.update(predicted, target)
    expected = reference_boundary_iou(pairs, 5, ratio)
    np.testing.assert_allclose(metric.compute().numpy(), expected, rtol=1e-6)
    assert math.isnan(expected[4]) and 0 < expected[1] < 1


def test_hand_computed_boundary_iou():
    # a square of 4 pixels, and the same square moved by one: their outlines, one pixel wide, share 6 of 18 pixels
    target, predicted = torch.zeros(2, 1, 10, 10, dtype=torch.uint8)
    target[0, 3:7, 3:7] = predicted[0, 3:7, 4:8] = 1
    metric = BoundaryIoU(2, 0.02)
    metric.update(predicted, target)
    assert metric.compute()[1].item() == pytest.approx(6 / 18)


def test_a_good_interior_does_not_hide_a_bad_outline():
    target = torch.zeros(1, 100, 100, dtype=torch.uint8)
    target[0, 20:80, 20:80] = 1
    predicted = torch.zeros_like(target)
    predicted[0, 23:77, 23:77] = 1
    plain, outline = SegmentationConfusion(2), BoundaryIoU(2)
    for metric in (plain, outline):
        metric.update(predicted, target)
    assert class_ious(plain.compute())[1].item() == pytest.approx(54**2 / 60**2)
    assert outline.compute()[1] < 0.1 < class_ious(plain.compute())[1]


def test_states_add_up_and_reset():
    first, second, both = (SegmentationConfusion(5) for _ in range(3))
    for seed, metric in enumerate((first, second)):
        predicted, target = masks(seed)
        metric.update(predicted, target)
        both.update(predicted, target)
    assert torch.equal(first.compute() + second.compute(), both.compute())
    first.merge_state(second)  # by the reduction that DDP uses too
    assert torch.equal(first.counts, both.counts)
    both.reset()
    assert not both.counts.any()
