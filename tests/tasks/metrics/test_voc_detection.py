"""Pascal VOC's metric against an independent computation in fractions, and against hand-computed tables."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.tasks.metrics import VOCDetection, detection_overlaps
from striate.tasks.metrics.detection_overlaps import overlaps
from striate.tasks.metrics.voc_detection import average_precision

from ...helpers.random_detections import (
    CLASSES,
    crowded,
    detections_of,
    fraction_iou,
    images,
    rounded_scores,
    target_of,
    with_ids,
)


def reference(pairs, label, year, threshold=Fraction(1, 2), pixel=0):
    """AP of one class, detection by detection as in the devkit's loops; None without objects."""
    objects, ranked = {}, []
    for image, (detections, target) in enumerate(pairs):
        count = len(target["labels"])
        ignored = target.get("difficult", torch.zeros(count)).bool() | target.get("iscrowd", torch.zeros(count)).bool()
        of_class = (target["labels"] == label).nonzero().flatten().tolist()
        objects[image] = [
            [[Fraction(v) for v in target["boxes"][i].tolist()], bool(ignored[i]), False] for i in of_class
        ]
        for place in (detections["labels"] == label).nonzero().flatten().tolist():
            box = [Fraction(v) for v in detections["boxes"][place].tolist()]
            ranked.append((-detections["scores"][place].item(), image, place, box))
    total = sum(not ignored for listed in objects.values() for _, ignored, _ in listed)
    if not total:
        return None
    right = wrong = 0
    curve = []
    for _, image, _, box in sorted(ranked, key=lambda entry: entry[:3]):
        best, chosen = Fraction(-1), None
        for candidate in objects[image]:
            overlap = fraction_iou(box, candidate[0], pixel)
            if overlap > best:
                best, chosen = overlap, candidate
        if best >= threshold and chosen[1]:
            continue
        if best >= threshold and not chosen[2]:
            chosen[2] = True
            right += 1
        else:
            wrong += 1
        curve.append((Fraction(right, total), Fraction(right, right + wrong)))
    if year < 2010:
        steps = [Fraction(step, 10) for step in range(11)]
        return sum(max((p for r, p in curve if r >= step), default=Fraction(0)) for step in steps) / 11
    area, before = Fraction(0), Fraction(0)
    for recall in sorted({r for r, _ in curve}):
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return area


def count(pairs, year=2007, size=3, classes=CLASSES, **options):
    metric = VOCDetection(classes, year, **options)
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        metric.update([detections for detections, _ in part], [target for _, target in part])
    return metric


def assert_equals_reference(pairs, year, **options):
    metric = count(pairs, year, inclusive=bool(options.get("pixel")))
    expected = [reference(pairs, label, year, **options) for label in range(CLASSES)]
    numbers = [math.nan if value is None else float(value) for value in expected]
    np.testing.assert_allclose(metric.class_table()["ap"].numpy(), numbers, rtol=0, atol=1e-12)
    defined = [number for number in numbers if not math.isnan(number)]
    mean = metric.compute()["voc_map"].item()
    assert mean == pytest.approx(sum(defined) / len(defined), abs=1e-12) if defined else math.isnan(mean)


@settings(max_examples=150, deadline=None)
@given(st.lists(images(), min_size=1, max_size=5), st.sampled_from([2007, 2010]), st.sampled_from([0, 1]))
def test_equals_the_reference_in_fractions(pairs, year, pixel):
    assert_equals_reference(pairs, year, pixel=pixel)


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2007, 2010]))
def test_equals_the_reference_on_many_detections(seed, year):
    assert_equals_reference(crowded(seed, 6, most=40), year)


def test_equal_scores_are_ranked_by_image_id():
    pairs = rounded_scores(crowded(2, 12, most=40))
    ordered = count(pairs, 2010).class_table()
    numbered = with_ids(pairs, range(100, 112))
    assert_equals_reference(pairs, 2010)
    torch.testing.assert_close(count(numbered[::-1], 2010).class_table(), ordered, rtol=0, atol=0)
    assert not torch.equal(count(pairs[::-1], 2010).class_table()["ap"], ordered["ap"])  # the order matters here


def test_block_size_does_not_change_results(monkeypatch):
    pairs = crowded(0)
    expected = count(pairs).class_table()
    monkeypatch.setattr(detection_overlaps, "PAIRS", 7)
    torch.testing.assert_close(count(pairs).class_table(), expected, rtol=0, atol=0, equal_nan=True)


ROW = [[20.0 * n, 0, 20.0 * n + 10, 10] for n in range(10)]  # ten objects side by side
NOWHERE = [0.0, 500, 10, 510]


@pytest.mark.parametrize(
    ("pattern", "objects", "eleven", "area"),
    [
        # correct (R) and wrong (w) by descending score, number of objects; both APs, term by term
        ("R", 1, 1, 1),
        ("w", 1, 0, 0),
        ("", 1, 0, 0),
        ("wR", 1, 11 * (1 / 2) / 11, 1 / 2),
        ("R", 2, 6 / 11, 1 / 2),  # recalls 0 … 0.5
        ("RwR", 2, (6 * 1 + 5 * 2 / 3) / 11, 1 / 2 + 1 / 2 * 2 / 3),
        ("wRR", 2, 11 * (2 / 3) / 11, 2 / 3),  # the higher precision to the right counts from the start
        ("RRR", 10, 4 / 11, 3 / 10),  # 3 of 10 reach recall 0.3, although 3 * 0.1 > 0.3 in floating point
        ("RwRwwR", 3, (4 * 1 + 3 * 2 / 3 + 4 * 1 / 2) / 11, (1 + 2 / 3 + 1 / 2) / 3),
        ("RwwwRR", 10, (2 + 2 * 1 / 2) / 11, (1 + 1 / 2 + 1 / 2) / 10),
    ],
)
def test_hand_computed_ap(pattern, objects, eleven, area):
    free = iter(ROW)
    boxes = [next(free) if letter == "R" else NOWHERE for letter in pattern]
    scores = [1 - 0.05 * place for place in range(len(pattern))]
    pair = detections_of(boxes, scores, [0] * len(boxes)), target_of(ROW[:objects], [0] * objects)
    assert count([pair], 2007).compute()["voc_map"].item() == pytest.approx(eleven)
    assert count([pair], 2012).compute()["voc_map"].item() == pytest.approx(area)
    right = np.array([letter == "R" for letter in pattern], bool)
    assert average_precision(right, objects, 2007) == pytest.approx(eleven)
    assert average_precision(right, objects, 2010) == pytest.approx(area)


def ap_of(boxes, target, year=2010, **options):
    detections = detections_of(boxes, [0.9 - 0.1 * place for place in range(len(boxes))], [0] * len(boxes))
    return count([(detections, target)], year, classes=1, **options).compute()["voc_map"].item()


def test_matching_rule():
    one = target_of([[0, 0, 10, 10]], [0])
    assert ap_of([[0, 0, 10, 5]], one) == 1  # an IoU of exactly 0.5 is correct, as in the devkit
    assert ap_of([[0, 0, 10, 4.99]], one) == 0
    assert ap_of([[0, 0, 10, 5]], one, iou=0.51) == 0
    assert ap_of([NOWHERE, [0, 0, 10, 10], [0, 0, 10, 10]], one) == 1 / 2
    # two overlapping objects: both detections have the highest IoU with the first. COCO would match both objects
    two = target_of([[0, 0, 10, 10], [0, 0, 10, 7]], [0, 0])
    assert ap_of([[0, 0, 10, 9], [0, 0, 10, 10]], two) == 1 / 2
    assert ap_of([[0, 0, 10, 9], [0, 0, 10, 7]], two) == 1
    # ties go to the first object
    assert ap_of([[0, 0, 10, 10], [0, 0, 10, 10]], target_of([[0, 0, 10, 10]] * 2, [0, 0])) == 1 / 2


def test_difficult_objects_do_not_count():
    objects = [[0, 0, 10, 10], [20, 0, 30, 10], [20, 0, 30, 9]]
    plain, ignored = target_of(objects, [0] * 3), target_of(objects, [0] * 3, difficult=[False, True, False])
    boxes = [[20, 0, 30, 10], [20, 0, 30, 10], [0, 0, 10, 10]]  # a difficult one twice, then the first
    assert ap_of(boxes, plain) == pytest.approx((1 + 2 / 3) / 3)
    assert ap_of(boxes, ignored) == 1 / 2  # one of two counted objects is detected, and nothing is wrong
    # the first has the highest IoU with the difficult object, so it is neither wrong nor a detection of the third
    metric = count([(detections_of(boxes, [0.9, 0.8, 0.7], [0] * 3), ignored)], classes=1)
    assert metric.class_table()["objects"].tolist() == [2] and metric.class_table()["detections"].tolist() == [3]
    assert ap_of(boxes, target_of(objects, [0] * 3, iscrowd=[False, True, False])) == 1 / 2
    alone = count([(detections_of(boxes, [0.9, 0.8, 0.7], [0] * 3), target_of(objects[:1], [0], difficult=[True]))])
    assert alone.compute()["voc_map"].isnan() and alone.class_table()["ap"].isnan().all()


def test_classes_without_objects_are_left_out_of_the_mean():
    detections = detections_of([[0, 0, 10, 10], NOWHERE, NOWHERE], [0.9, 0.8, 0.7], [0, 1, 2])
    metric = count([(detections, target_of([[0, 0, 10, 10], [20, 0, 30, 10]], [0, 1]))])
    torch.testing.assert_close(
        metric.class_table()["ap"], torch.tensor([1, 0, math.nan], dtype=torch.float64), equal_nan=True
    )
    assert metric.compute()["voc_map"] == 0.5


@given(st.lists(st.integers(1, 30), min_size=8, max_size=8))
def test_boxes_between_pixels_need_no_added_pixel(numbers):
    # VOC's files: first and last pixel, from 1 on. Ours: xmin - 1, ymin - 1, xmax, ymax
    files = [[x, y, x + w, y + h] for x, y, w, h in (numbers[:4], numbers[4:])]
    ours = [[x1 - 1, y1 - 1, x2, y2] for x1, y1, x2, y2 in files]
    assert fraction_iou(*files, pixel=1) == fraction_iou(*ours)
    for one, pixel in ((files, 1.0), (ours, 0.0)):
        boxes = np.array(one, np.float64)
        assert overlaps(boxes[:1], boxes[1:], pixel)[0] == pytest.approx(
            float(fraction_iou(*files, pixel=1)), abs=1e-15
        )


def test_inclusive_boxes_may_be_one_pixel():
    dot = [[7.0, 7, 7, 7]]
    target = target_of(dot, [0])
    assert ap_of(dot, target, inclusive=True) == 1 and ap_of(dot, target) == 0


def test_forward_reset_merge_and_pickle():
    pairs = crowded(2)
    whole, metric = count(pairs).compute(), VOCDetection(CLASSES)
    parts = [pairs[:5], pairs[5:]]
    for part in parts:
        of_batch = metric([detections for detections, _ in part], [target for _, target in part])
        assert of_batch == count(part).compute()
    first, second = (count(part) for part in parts)
    second.merge_state(first)
    for other in (metric, second, pickle.loads(pickle.dumps(metric))):
        assert other.compute() == whole
        torch.testing.assert_close(other.class_table(), count(pairs).class_table(), equal_nan=True)
    metric.reset()
    metric.update([d for d, _ in parts[1]], [t for _, t in parts[1]])
    assert metric.compute() == count(parts[1]).compute()


def test_bad_arguments():
    with pytest.raises(ValueError, match="year.*got 11"):
        VOCDetection(20, 11)
    with pytest.raises(ValueError, match="iou.*got 50"):
        VOCDetection(20, iou=50)
    with pytest.raises(ValueError, match="num_classes.*got 0"):
        VOCDetection(0)
