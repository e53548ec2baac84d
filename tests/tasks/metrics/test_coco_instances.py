"""Metrics of masks against pycocotools, boundaries and AP^r against plain loops, and hand-made cases."""

import pickle

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from striate.models.ops.masks import RunLengths
from striate.tasks.metrics import COCODetection, COCOInstances

from ...helpers.random_detections import CLASSES, crowded, with_ids
from ...helpers.random_instances import encode, evaluate_by_pycocotools, random_instances

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools


def count(pairs, size=3, classes=CLASSES, **options):
    metric = COCOInstances(classes, **options)
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        metric.update([detections for detections, _ in part], [target for _, target in part])
    return metric


def mean(values):
    return values[values > -1].mean() if (values > -1).any() else np.nan


def assert_equals(metric, expected):
    """Compare all results with pycocotools' tables."""
    precision, recall, most = expected["precision"][..., -1], expected["recall"], metric.max_detections
    summary = {
        "map": precision[..., 0], "map50": precision[0, :, :, 0], "map75": precision[5, :, :, 0],
        "map_small": precision[..., 1], "map_medium": precision[..., 2], "map_large": precision[..., 3],
        "mar1": recall[:, :, 0, 0], "mar10": recall[:, :, 0, 1], f"mar{most}": recall[:, :, 0, 2],
        "mar_small": recall[:, :, 1, 2], "mar_medium": recall[:, :, 2, 2], "mar_large": recall[:, :, 3, 2],
    }  # fmt: skip
    computed = metric.compute()
    assert list(computed) == list(summary)
    for name, values in summary.items():
        np.testing.assert_allclose(computed[name].item(), mean(values), rtol=0, atol=1e-9, err_msg=name)
    curves, table = metric.pr_curves(0.75), metric.class_table()
    scores = np.where(precision[5, ..., 0] == -1, np.nan, expected["scores"][5, :, :, 0, -1]).T
    np.testing.assert_allclose(curves["scores"].numpy(), scores, rtol=0, atol=1e-9)
    defined = np.where(precision == -1, np.nan, precision)[..., 0]
    np.testing.assert_allclose(curves["precision"].numpy(), defined[5].T, rtol=0, atol=1e-9)
    np.testing.assert_allclose(table["ap"].numpy(), defined.mean((0, 1)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_equals_pycocotools_on_crowds_ties_and_empty_images(seed):
    most = (3, 12, 40)[seed % 3]
    pairs = random_instances(seed, 6, most=most, size=((40, 60), (12, 9), (90, 120))[seed // 4])
    assert_equals(count(pairs), evaluate_by_pycocotools(pairs))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 8))
def test_equals_pycocotools_on_tiny_images(seed, images, most):
    pairs = random_instances(seed, images, (3, 4), most, classes=2)
    assert_equals(count(pairs, classes=2), evaluate_by_pycocotools(pairs, 2))


@pytest.mark.parametrize("limit", [11, 100, 300])
def test_more_detections_count_where_asked_for(limit):
    pairs = random_instances(3, 2, (30, 40), most=260, classes=1, ties=False)
    assert max(len(detections["labels"]) for detections, _ in pairs) > 100
    metric = count(pairs, classes=1, max_detections=limit)
    assert_equals(metric, evaluate_by_pycocotools(pairs, 1, limit))
    assert f"ar{limit}" in metric.class_table()


def test_boxes_count_as_many_detections_as_asked_for():
    pairs = crowded(0, 4, classes=1, most=300)
    results = {}
    for limit in (5, 100, 600):
        metric = COCODetection(1, max_detections=limit)
        metric.update([detections for detections, _ in pairs], [target for _, target in pairs])
        results[limit] = metric.compute()
    names = {name for name in results[600] if name.startswith("mar") and name[3].isdigit()}
    assert names == {"mar1", "mar10", "mar600"} and "mar5" in results[5] and "mar10" not in results[5]
    recalls = [results[limit][f"mar{limit}"].item() for limit in (5, 100, 600)]
    assert recalls == sorted(set(recalls))  # each more than the one before
    assert results[600]["mar10"] == results[100]["mar10"]
    with pytest.raises(ValueError, match="max_detections: must be >= 1, got 0; COCO's is 100"):
        COCODetection(1, max_detections=0)


def test_equal_scores_are_ranked_by_image_id():
    pairs = random_instances(5, 40, (12, 16), 5, classes=1)
    expected = evaluate_by_pycocotools(pairs, 1)
    numbered = with_ids(pairs, [10 * number - 50 for number in range(len(pairs))])
    shuffled = np.random.default_rng(0).permutation(len(pairs)).tolist()
    assert_equals(count([numbered[number] for number in shuffled], 7, classes=1), expected)
    plain = count([pairs[number] for number in shuffled], 7, classes=1)
    assert abs(plain.compute()["map"].item() - mean(expected["precision"][..., 0, -1])) > 1e-4


def boundary_of(mask, ratio):
    """The boundary of a mask as its paper's code computes it: d erosions by a square of 3 pixels."""
    distance = max(1, round(ratio * float(np.hypot(*mask.shape))))
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return mask - cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]


@pytest.mark.parametrize("ratio", [0.02, 0.1])
def test_boundary_ap_takes_the_smaller_of_both_ious_but_for_crowds(ratio):
    pairs = random_instances(2, 6, (70, 90), 9)

    def overlaps(evaluation):
        def compute(image, label):
            objects, found = evaluation._gts[image, label], evaluation._dts[image, label]
            if not objects and not found:
                return []
            order = np.argsort([-one["score"] for one in found], kind="mergesort")
            masks = [
                [coco_mask.decode(one["segmentation"]) for one in group]
                for group in ([found[index] for index in order], objects)
            ]
            crowds = np.array([one["iscrowd"] for one in objects])
            whole, border = [
                coco_mask.iou(*([encode(change(mask)) for mask in group] for group in masks), crowds)
                for change in (lambda mask: mask, lambda mask: boundary_of(mask, ratio))
            ]
            return np.where(crowds, whole, np.minimum(whole, border)) if len(whole) else []

        return compute

    metric = count(pairs, boundary=ratio)
    assert_equals(metric, evaluate_by_pycocotools(pairs, overlaps=overlaps))
    assert metric.compute()["map"] < count(pairs).compute()["map"] - 0.01


def region_precision(pairs, label, iou, protocol):
    """AP^r of a class by plain loops; NaN without objects."""
    ranked, taken, correct = [], set(), []
    for image, (detections, _) in enumerate(pairs):
        masks = detections["masks"].dense()
        ranked += [
            (float(score), image, mask)
            for score, mask, kind in zip(detections["scores"], masks, detections["labels"], strict=True)
            if kind == label
        ]
    objects = [
        (image, number)
        for image, (_, target) in enumerate(pairs)
        for number in range(len(target["labels"]))
        if target["labels"][number] == label
    ]
    for _, image, mask in sorted(ranked, key=lambda one: -one[0]):
        best, chosen = -1.0, None
        for one in objects:
            if one[0] == image and not (protocol == "sds" and one in taken):
                other = pairs[image][1]["masks"][one[1]] != 0
                union = int((mask | other).sum())
                overlap = int((mask & other).sum()) / union if union else 0.0
                if overlap > best:
                    best, chosen = overlap, one
        right = best > iou if protocol == "sds" else best >= iou and chosen not in taken
        correct.append(right)
        if right:
            taken.add(chosen)
    if not objects:
        return np.nan
    hits = np.cumsum(correct)
    points = [(hit / len(objects), hit / rank) for rank, hit in enumerate(hits, 1)]
    if protocol == "mnc":
        return sum(max((p for r, p in points if r >= step / 10 - 1e-12), default=0) for step in range(11)) / 11
    area, previous = 0.0, 0.0
    for recall in sorted({r for r, _ in points}):
        area += (recall - previous) * max(p for r, p in points if r >= recall)
        previous = recall
    return area


@pytest.mark.parametrize("protocol", ["sds", "mnc"])
@pytest.mark.parametrize("iou", [0.5, 0.7])
def test_ap_of_regions_equals_plain_loops(protocol, iou):
    pairs = random_instances(11, 10, (24, 30), 8, ties=False)
    for _, target in pairs:
        target["iscrowd"][:] = False
    expected = np.nanmean([region_precision(pairs, label, iou, protocol) for label in range(CLASSES)])
    assert count(pairs).map_r(iou, protocol).item() == pytest.approx(expected, abs=1e-9) and expected > 0.02


def half(shift=0):
    """A mask of 4 x 8 pixels of an image of 8 x 8, moved down by `shift` pixels: uint8 ``[1, 8, 8]``."""
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[:, shift : shift + 4] = 1
    return mask


def one_image(masks, scores, target, labels=None, **flags):
    """Detections and target of one image, from masks ``[M, 8, 8]`` and ``[N, 8, 8]``."""
    runs, labels = RunLengths.from_dense(masks), torch.zeros(len(masks)).long() if labels is None else labels
    detections = {"boxes": runs.boxes(), "scores": torch.tensor(scores), "labels": labels, "masks": runs}
    boxes = RunLengths.from_dense(target).boxes()
    return detections, {"boxes": boxes, "labels": torch.zeros(len(target)).long(), "masks": target} | flags


def test_the_two_protocols_differ_at_the_threshold_and_at_duplicates():
    wide = torch.zeros(1, 8, 8, dtype=torch.uint8)
    wide[:, :8] = 1
    metric = count([one_image(half(), [0.9], wide)], classes=1)  # IoU 0.5
    assert metric.map_r(0.5, "mnc") == 1 and metric.map_r(0.5, "sds") == 0
    # the second detection of an object is wrong for MNC; for SDS it takes the next object, if that one is near enough
    objects = torch.cat([half(), half(1)])  # IoU of both 0.6
    metric = count([one_image(torch.cat([half(), half()]), [0.9, 0.8], objects)], classes=1)
    assert metric.map_r(0.5, "sds") == 1 and metric.map_r(0.5, "mnc") == pytest.approx(6 / 11)
    with pytest.raises(ValueError, match="protocol: must be"):
        metric.map_r(0.5, "voc")


def test_crowds_and_difficult_objects_do_not_count_in_ap_of_regions():
    objects, flag = torch.cat([half(), half(4)]), torch.tensor([False, True])
    for name in ("iscrowd", "difficult"):
        pair = one_image(torch.cat([half(4), half()]), [0.9, 0.8], objects, **{name: flag})
        for protocol in ("sds", "mnc"):
            assert count([pair], classes=1).map_r(0.5, protocol) == 1


def test_reports_use_masks_and_not_boxes():
    # both triangles of a square have its box
    square = torch.ones(1, 8, 8, dtype=torch.uint8)
    upper, lower = square.triu(), square.tril(-1)
    pair = one_image(torch.cat([lower, upper]), [0.9, 0.8], upper)
    pair[0]["boxes"][:], pair[1]["boxes"][:] = torch.tensor([0.0, 0, 8, 8]), torch.tensor([0.0, 0, 8, 8])
    metric = count([pair], classes=1)
    assert metric.confusion_matrix().tolist() == [[1, 0], [1, 0]]
    errors = metric.tide()
    assert errors["counts"] == {"Cls": 0, "Loc": 0, "Both": 0, "Dupe": 0, "Bkg": 1, "Miss": 0}
    assert metric.best_thresholds().score[0] == pytest.approx(0.8)
    boxes = COCODetection(1)
    boxes.update([pair[0]], [pair[1]])
    assert boxes.tide()["counts"]["Dupe"] == 1 and metric.compute()["map50"] == pytest.approx(0.5)


def test_merge_pickle_reset_and_sets_without_objects():
    pairs = random_instances(4, 9)
    whole = count(pairs).compute()
    first, second = count(pairs[:4]), count(pairs[4:])
    second.merge_state(first)
    torch.testing.assert_close(second.compute(), whole, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(pickle.loads(pickle.dumps(second)).compute(), whole, rtol=0, atol=0, equal_nan=True)
    second.reset()
    second.update([], [])
    assert all(value.isnan() for value in second.compute().values())
    assert second.map_r().isnan() and second.tide()["ap"] != second.tide()["ap"]
    nothing = torch.zeros(0, 8, 8, dtype=torch.uint8)
    metric = count([one_image(nothing, [], nothing), one_image(half(), [0.5], nothing)], classes=1)
    assert metric.compute()["map"].isnan() and metric.class_table()["detections"].tolist() == [1]


def test_the_state_does_not_hold_masks():
    masks = torch.zeros(40, 50, 60, dtype=torch.uint8)
    masks[:, 1::2] = 1  # 24 kB each as run lengths
    pair = one_image(masks, torch.linspace(0, 1, 40).tolist(), masks[:1])
    metric = count([pair], classes=1)
    assert sum(rows.numel() * rows.element_size() for name in metric.states for rows in getattr(metric, name)) < 4000


def test_bad_masks():
    detections, target = one_image(half(), [0.9], half())
    metric = COCOInstances(1)
    with pytest.raises(ValueError, match=r"targets\[0\]: must have masks, got boxes, labels"):
        metric.update([detections], [{key: target[key] for key in ("boxes", "labels")}])
    with pytest.raises(ValueError, match=r"detections\[0\]: masks must have the size of the target's, \[8, 8\]"):
        metric.update([one_image(half()[:, :7], [0.9], half())[0]], [target])
    with pytest.raises(ValueError, match=r"targets\[0\]: masks must be one per object, 1, got 2"):
        metric.update([detections], [target | {"masks": torch.cat([half(), half()])}])
    with pytest.raises(ValueError, match=r"masks must be \[N, H, W\].*got \[1, 8, 8\] of torch.float32"):
        metric.update([detections], [target | {"masks": half().float()}])
    with pytest.raises(TypeError, match="masks must be a RunLengths or a tensor, got list"):
        metric.update([detections | {"masks": [1]}], [target])
    with pytest.raises(ValueError, match="targets: must be one per image, 1, got 0"):
        metric.update([detections], [])
    with pytest.raises(ValueError, match="boundary: must be in .0, 1."):
        COCOInstances(1, boundary=0)
    assert not metric.counts and not metric.pairs
