"""Segmentation metrics against scikit-learn, OpenCV and tables worked by hand."""

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

# truth by prediction; class 2 is predicted and never true, class 3 neither
TABLE = torch.tensor([[50, 8, 2, 0], [5, 30, 5, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def masks(seed, size=(3, 20, 30), classes=5, ignored=0.1):
    rng = np.random.default_rng(seed)
    truth, said = rng.integers(0, classes, (2, *size)).astype(np.uint8)
    said = np.where(rng.random(size) < 0.6, truth, said)
    truth[rng.random(size) < ignored] = 255
    return torch.from_numpy(said), torch.from_numpy(truth)


def test_figures_worked_by_hand():
    torch.testing.assert_close(
        class_ious(TABLE), torch.tensor([50 / 65, 30 / 48, 0.0, math.nan]), equal_nan=True
    )  # predicted but absent: 0; neither: none
    torch.testing.assert_close(
        class_accuracies(TABLE), torch.tensor([50 / 60, 30 / 40, math.nan, math.nan]), equal_nan=True
    )
    assert pixel_accuracy(TABLE).item() == pytest.approx(80 / 100)
    assert frequency_weighted_iou(TABLE).item() == pytest.approx(0.6 * 50 / 65 + 0.4 * 30 / 48)
    empty = torch.zeros(3, 3, dtype=torch.int64)
    for figure in (pixel_accuracy(empty), frequency_weighted_iou(empty), class_ious(empty).nanmean()):
        assert figure.isnan()


def test_equals_scikit_learn_over_batches_of_differing_sizes():
    metric = SegmentationConfusion(5)
    truths, saids = [], []
    for seed, size in enumerate([(2, 9, 7), (1, 30, 41), (3, 8, 8)]):
        said, truth = masks(seed, size)
        metric.update(said if seed else said.long(), truth)
        counted = truth != 255
        truths.append(truth[counted].numpy())
        saids.append(said[counted].numpy())
    truth, said = np.concatenate(truths), np.concatenate(saids)
    got = metric.compute()
    assert got.tolist() == confusion_matrix(truth, said, labels=range(5)).tolist()
    np.testing.assert_allclose(class_ious(got).numpy(), jaccard_score(truth, said, average=None), rtol=1e-6)
    assert class_ious(got).nanmean().item() == pytest.approx(jaccard_score(truth, said, average="macro"))
    assert frequency_weighted_iou(got).item() == pytest.approx(jaccard_score(truth, said, average="weighted"))
    assert pixel_accuracy(got).item() == pytest.approx(accuracy_score(truth, said))
    assert class_accuracies(got).nanmean().item() == pytest.approx(balanced_accuracy_score(truth, said))


def test_an_image_that_is_ignored_throughout_changes_nothing():
    said, truth = masks(0)
    metric, boundary = SegmentationConfusion(5), BoundaryIoU(5)
    for one in (metric, boundary):
        one.update(said, truth)
        before = one.compute()
        one.update(said, torch.full_like(truth, 255))
        assert torch.equal(one.compute(), before) and before.any()
    alone = SegmentationConfusion(5)
    alone.update(said, torch.full_like(truth, 255))
    assert not alone.compute().any()


def test_predictions_where_the_truth_is_ignored_are_neither_right_nor_wrong():
    metric = SegmentationConfusion(3)
    truth = torch.tensor([[[0, 0, 255, 255]]], dtype=torch.uint8)
    metric.update(torch.tensor([[[0, 0, 1, 2]]]), truth)
    assert metric.compute().tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert class_ious(metric.compute())[0] == 1 and class_ious(metric.compute())[1:].isnan().all()


@pytest.mark.parametrize("classes", [2, 21, 127, 128, 129, 255])
def test_any_number_of_classes_up_to_255(classes):
    rng = np.random.default_rng(classes)
    truth, said = rng.integers(0, classes, (2, 1, 40, 50)).astype(np.uint8)
    truth[0, 0], said[0, 0] = classes - 1, classes - 1
    metric = SegmentationConfusion(classes)
    metric.update(torch.from_numpy(said), torch.from_numpy(truth))
    expected = confusion_matrix(truth.ravel(), said.ravel(), labels=range(classes))
    np.testing.assert_array_equal(metric.compute().numpy(), expected)


def test_values_outside_the_classes_are_counted_and_named():
    metric = SegmentationConfusion(3)
    truth = torch.tensor([[[0, 3, 3, 77, 2, 255]]], dtype=torch.uint8)
    metric.update(torch.zeros(1, 1, 6, dtype=torch.uint8), truth)
    with pytest.raises(ValueError, match=r"no class: 3 \(2 pixels\), 77 \(1 pixel\); there are 3 classes, 0 to 2"):
        metric.compute()


@pytest.mark.parametrize("value, dtype", [(3, torch.uint8), (-1, torch.int64), (70000, torch.int64)])
def test_predictions_outside_the_classes_are_refused(value, dtype):
    metric = SegmentationConfusion(3)
    said = torch.tensor([[[0, 2, value]]], dtype=dtype)
    with pytest.raises(ValueError, match=rf"predictions have the value {value}; there are 3 classes, 0 to 2"):
        metric.update(said, torch.tensor([[[0, 1, 2]]], dtype=torch.uint8))
    assert not metric.counts.any()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"predictions of \[1, 2, 3\] for masks of \[1, 3, 2\]"):
        SegmentationConfusion(3).update(
            torch.zeros(1, 2, 3, dtype=torch.int64), torch.zeros(1, 3, 2, dtype=torch.uint8)
        )
    with pytest.raises(ValueError, match="num_classes: 256; a mask of 8 bits"):
        SegmentationConfusion(256)
    with pytest.raises(ValueError, match="ratio: 0 is not a part of the diagonal"):
        BoundaryIoU(3, 0)


def boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """A binary mask less what is left of it after so many erosions, the outside of the image being background."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    return (mask != 0) & (inner == 0)


def reference_boundary_iou(pairs: list[tuple[Tensor, Tensor]], classes: int, ratio: float) -> list[float]:
    shared, either = np.zeros((2, classes))
    for said, truth in pairs:
        for guess, true in zip(said.numpy(), truth.numpy(), strict=True):
            distance = max(1, round(ratio * math.hypot(*true.shape)))
            for k in range(classes):
                a = boundary((guess == k) & (true != 255), distance)
                b = boundary(true == k, distance)
                shared[k] += (a & b).sum()
                either[k] += (a | b).sum()
    return [s / e if e else math.nan for s, e in zip(shared, either, strict=True)]


@pytest.mark.parametrize("ratio", [0.02, 0.05, 0.5])
def test_boundary_iou_equals_erosion_class_by_class(ratio):
    pairs = []
    for seed, (height, width) in enumerate([(40, 61), (33, 20), (4, 3)]):
        rng = np.random.default_rng(seed)
        truth, said = np.zeros((2, 2, height, width), np.uint8)
        for number in range(2):
            for label in (1, 2, 3):
                x, y = (int(rng.integers(side)) for side in (width, height))
                cv2.circle(truth[number], (x, y), 9, label, -1)
                cv2.circle(said[number], (x + 2, y + 1), 8, label, -1)
            truth[number, :3, 2:9] = 255
        pairs.append((torch.from_numpy(said), torch.from_numpy(truth)))
    metric = BoundaryIoU(5, ratio)
    for said, truth in pairs:
        metric.update(said, truth)
    expected = reference_boundary_iou(pairs, 5, ratio)
    np.testing.assert_allclose(metric.compute().numpy(), expected, rtol=1e-6)
    assert math.isnan(expected[4]) and 0 < expected[1] < 1


def test_boundary_iou_by_hand():
    # a square of 4 pixels and the same moved by one: their outlines, one pixel wide, share 6 of 18 pixels
    truth, said = torch.zeros(2, 1, 10, 10, dtype=torch.uint8)
    truth[0, 3:7, 3:7] = said[0, 3:7, 4:8] = 1
    metric = BoundaryIoU(2, 0.02)
    metric.update(said, truth)
    assert metric.compute()[1].item() == pytest.approx(6 / 18)


def test_a_good_inside_does_not_make_up_for_a_bad_outline():
    truth = torch.zeros(1, 100, 100, dtype=torch.uint8)
    truth[0, 20:80, 20:80] = 1
    said = torch.zeros_like(truth)
    said[0, 23:77, 23:77] = 1
    plain, outline = SegmentationConfusion(2), BoundaryIoU(2)
    for metric in (plain, outline):
        metric.update(said, truth)
    assert class_ious(plain.compute())[1].item() == pytest.approx(54**2 / 60**2)
    assert outline.compute()[1] < 0.1 < class_ious(plain.compute())[1]


def test_states_add_up_and_reset():
    first, second, both = (SegmentationConfusion(5) for _ in range(3))
    for seed, metric in enumerate((first, second)):
        said, truth = masks(seed)
        metric.update(said, truth)
        both.update(said, truth)
    assert torch.equal(first.compute() + second.compute(), both.compute())
    assert set(first._reductions) == {"counts"} and first._reductions["counts"] is not None
    both.reset()
    assert not both.counts.any()
