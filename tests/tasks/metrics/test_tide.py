"""TIDE's errors against an independent computation of its authors' rule, one detection after another, and by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.tasks.metrics import COCODetection

from ...helpers.random_detections import CLASSES, crowded, detections_of, fraction_iou, images, overfull, target_of

KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")


def iou_of(one, other):
    return float(fraction_iou(one, other))


def share_inside(box, region):
    sides = [min(box[i + 2], region[i + 2]) - max(box[i], region[i]) for i in (0, 1)]
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(sides[0], 0) * max(sides[1], 0) / area if area else 0.0


def average(points, objects):
    """AP of a class from (score, correct), read at 101 recalls; 0 without objects."""
    if not objects:
        return 0.0
    points, right, curve = sorted(points, key=lambda point: -point[0]), 0, []
    for number, (_, correct) in enumerate(points, 1):
        right += correct
        curve.append((right, right / number))
    return sum(max((p for r, p in curve if 100 * r >= step * objects), default=0.0) for step in range(101)) / 101


class Image:
    """One image: each detection with the object it takes and its kind of error."""

    def __init__(self, detections, target, iou, background, most):
        columns = zip(*(detections[k].double().tolist() for k in ("boxes", "scores", "labels")), strict=True)
        self.found = sorted(({"box": b, "score": s, "label": int(k)} for b, s, k in columns), key=lambda d: -d["score"])
        del self.found[most:]
        crowds = target.get("iscrowd", torch.zeros(len(target["labels"]))).tolist()
        listed = list(zip(target["boxes"].double().tolist(), target["labels"].tolist(), crowds, strict=True))
        self.objects = [{"box": b, "label": k, "taken": False, "pointed": None} for b, k, crowd in listed if not crowd]
        for one in self.found:
            one["object"] = None
            free = [o for o in self.objects if not o["taken"] and o["label"] == one["label"]]
            best = max(free, key=lambda o: iou_of(one["box"], o["box"]), default=None)
            if best is not None and iou_of(one["box"], best["box"]) >= iou:
                one["object"], best["taken"] = best, True
            inside = any(crowd and k == one["label"] and share_inside(one["box"], b) > iou for b, k, crowd in listed)
            one["counts"] = one["object"] is not None or not inside
        for one in self.found:
            one["kind"], one["points_to"] = (
                (None, None) if one["object"] is not None else self.kind(one, iou, background)
            )
            target_object = one["points_to"]
            if target_object is not None and not target_object["taken"] and target_object["pointed"] is None:
                target_object["pointed"] = one  # the first has the highest score

    def kind(self, one, iou, background):
        def best(objects):
            overlaps = [(iou_of(one["box"], o["box"]), o) for o in objects]
            return max(overlaps, key=lambda pair: pair[0], default=(-1.0, None))

        same = best([o for o in self.objects if o["label"] == one["label"]])
        other = best([o for o in self.objects if o["label"] != one["label"]])
        if background <= same[0] <= iou:
            return "Loc", same[1]
        if other[0] >= iou:
            return "Cls", other[1]
        if same[0] >= iou:
            return "Dupe", None
        return ("Bkg" if max(same[0], other[0]) <= background else "Both"), None


def reference(pairs, iou=0.5, background=0.1, most=100):
    """AP, the AP that each kind of error costs, and their numbers."""
    pictures = [Image(detections, target, iou, background, most) for detections, target in pairs]
    found, objects = ([one for picture in pictures for one in getattr(picture, k)] for k in ("found", "objects"))
    classes = {o["label"] for o in objects}

    def mean_ap(fixed=None, removed=lambda o: False):
        aps = []
        for label in classes:
            points = []
            for one in found:
                if one["kind"] is None or (one["kind"] != fixed and fixed != "FP"):
                    if one["counts"] and one["label"] == label:
                        points.append((one["score"], one["object"] is not None))
                elif one["points_to"] is not None and one["points_to"]["pointed"] is one and fixed != "FP":
                    points += [(one["score"], True)] if one["points_to"]["label"] == label else []
            left = sum(o["label"] == label and not removed(o) for o in objects)
            if points or left:
                aps.append(average(points, left))
        return sum(aps) / len(aps) if aps else 1.0

    ap = mean_ap()
    gains = {kind: mean_ap(kind) - ap for kind in ("Cls", "Loc", "Both", "Dupe", "Bkg", "FP")}
    missed = [not o["taken"] and o["pointed"] is None for o in objects]
    gains["Miss"] = mean_ap(removed=lambda o: not o["taken"] and o["pointed"] is None) - ap
    gains["FN"] = mean_ap(removed=lambda o: not o["taken"]) - ap
    counts = {kind: sum(one["kind"] == kind for one in found) for kind in KINDS} | {"Miss": sum(missed)}
    return ap if classes else math.nan, gains, counts


def tide_of(pairs, **options):
    metric = COCODetection(CLASSES)
    metric.update([detections for detections, _ in pairs], [target for _, target in pairs])
    return metric.tide(**options)


def assert_equals_reference(pairs, **options):
    names = {"background": "background_iou", "most": "max_detections"}
    errors = tide_of(pairs, **{names.get(name, name): value for name, value in options.items()})
    ap, gains, counts = reference(pairs, **options)
    assert errors["ap"] == pytest.approx(ap, abs=1e-12, nan_ok=True)
    assert errors["delta_ap"] == pytest.approx(gains, abs=1e-12)
    assert errors["counts"] == counts
    return counts


@settings(max_examples=60, deadline=None)
@given(st.lists(images(), min_size=1, max_size=4), st.sampled_from([(0.5, 0.1), (0.75, 0.2), (0.3, 0.0)]))
def test_equals_the_reference_on_edge_cases(pairs, ious):
    assert_equals_reference(pairs, iou=ious[0], background=ious[1])


def test_equals_the_reference_with_more_than_100_detections_of_an_image():
    pairs = [*crowded(7, 4, most=60), overfull(7)]
    for detections, _ in pairs:
        detections["labels"][::4] = (detections["labels"][::4] + 1) % CLASSES
    assert len(pairs[-1][0]["labels"]) > 100 and any(t.get("iscrowd", torch.zeros(1)).any() for _, t in pairs)
    counts = assert_equals_reference(pairs)
    assert all(counts[kind] for kind in KINDS), counts  # each kind occurs
    assert assert_equals_reference(pairs, most=40) != counts
    assert sum(assert_equals_reference(pairs, most=10**6)[kind] for kind in KINDS[:5]) > sum(
        counts[kind] for kind in KINDS[:5]
    )


def test_100_detections_of_an_image_count_over_all_classes():
    # 100 detections of class 0 on the background, and below them the right one of class 1
    boxes = [[0, 0, 10, 10]] + [[200 + n, 200, 210 + n, 210] for n in range(100)]
    pair = detections_of(boxes, [0.1, *np.linspace(0.3, 0.9, 100)], [1] + [0] * 100), target_of([[0, 0, 10, 10]], [1])
    assert tide_of([pair])["ap"] == 0 and tide_of([pair])["counts"]["Bkg"] == 100
    assert tide_of([pair])["counts"]["Miss"] == 1
    assert tide_of([pair], max_detections=101)["ap"] == 1
    metric = COCODetection(2)
    metric.update([pair[0]], [pair[1]])
    assert metric.compute()["map50"].item() == pytest.approx(1)  # COCO: 100 of each class


def test_a_detection_in_a_crowd_is_an_error_without_a_cost():
    target = target_of([[0, 0, 50, 50], [100, 100, 120, 120]], [0, 0], iscrowd=[True, False])
    inside = detections_of([[5, 5, 15, 15], [100, 100, 120, 120]], [0.9, 0.5], [0, 0])
    errors = tide_of([(inside, target)])
    assert errors["ap"] == 1 and errors["counts"]["Bkg"] == 1 and errors["delta_ap"]["Bkg"] == 0
    # in a crowd of another class it costs half the AP of its own
    target = target_of(
        [[0, 0, 50, 50], [100, 100, 120, 120], [200, 200, 220, 220]], [0, 0, 1], iscrowd=[True, False, False]
    )
    boxes = [[5, 5, 15, 15], [100, 100, 120, 120], [200, 200, 220, 220]]
    errors = tide_of([(detections_of(boxes, [0.9, 0.5, 0.5], [1, 0, 1]), target)])
    assert errors["ap"] == 0.75 and errors["counts"]["Bkg"] == 1 and errors["delta_ap"]["Bkg"] == 0.25


def test_of_the_errors_that_point_to_an_object_the_best_is_fixed():
    # a wrong class at 0.8 and a poor location at 0.9 point to the same object: only the latter takes it
    target = target_of([[0, 0, 10, 10]], [0])
    found = detections_of([[0, 0, 10, 3], [0, 0, 10, 10]], [0.9, 0.8], [0, 1])
    errors = tide_of([(found, target)])
    assert errors["counts"] == {"Cls": 1, "Loc": 1, "Both": 0, "Dupe": 0, "Bkg": 0, "Miss": 0}
    assert errors["delta_ap"]["Loc"] == 1 and errors["delta_ap"]["Cls"] == 0


def test_all_errors_of_missed_objects_are_gone_once_they_are():
    errors = tide_of([(detections_of([], [], []), target_of([[0, 0, 10, 10]], [2]))])
    assert errors["ap"] == 0 and errors["delta_ap"]["Miss"] == errors["delta_ap"]["FN"] == 1
    assert errors["counts"]["Miss"] == 1
