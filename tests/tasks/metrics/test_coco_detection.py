"""COCO's metric against pycocotools, and against hand-computed tables."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.tasks.metrics import COCODetection

from ...helpers.pycocotools_metrics import evaluate
from ...helpers.random_detections import (
    CLASSES,
    crowded,
    detections_of,
    images,
    overfull,
    rounded_scores,
    target_of,
    with_ids,
)

NAMES = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
NAMES += ("mar1", "mar10", "mar100", "mar_small", "mar_medium", "mar_large")


def evaluate_by_pycocotools(pairs, classes=CLASSES):
    """pycocotools' evaluation of the same float32 numbers, with images numbered in order."""
    objects, results = [], []
    for image, (detections, target) in enumerate(pairs):
        count = len(target["labels"])
        areas = target.get("area", torch.full((count,), torch.nan)).tolist()
        crowds = target.get("iscrowd", torch.zeros(count)).tolist()
        columns = zip(target["boxes"].tolist(), target["labels"].tolist(), areas, crowds, strict=True)
        for (x1, y1, x2, y2), label, area, crowd in columns:
            area = (x2 - x1) * (y2 - y1) if math.isnan(area) else area
            one = {"id": len(objects) + 1, "image_id": image, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            objects.append(one | {"area": area, "iscrowd": int(crowd)})
        for (x1, y1, x2, y2), score, label in zip(
            *(detections[k].tolist() for k in ("boxes", "scores", "labels")), strict=True
        ):
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    return evaluate([{"id": i} for i in range(len(pairs))], objects, results, classes, "bbox")


def count(pairs, size=3, classes=CLASSES):
    metric = COCODetection(classes)
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        metric.update([detections for detections, _ in part], [target for _, target in part])
    return metric


def undefined(values):
    return np.where(np.asarray(values) == -1, np.nan, values)


def assert_equals_pycocotools(pairs, classes=CLASSES):
    metric, expected = count(pairs, classes=classes), evaluate_by_pycocotools(pairs, classes)
    metrics = metric.compute()
    assert list(metrics) == list(NAMES)
    values = [metrics[name].item() for name in NAMES]
    np.testing.assert_allclose(values, undefined(expected.stats), rtol=0, atol=1e-9)
    table, precision = metric.class_table(), undefined(expected.eval["precision"][:, :, :, 0, 2])
    recall = undefined(expected.eval["recall"][:, :, 0, 2])
    for name, reference in {
        "ap": precision.mean((0, 1)),
        "ap50": precision[0].mean(0),
        "ap75": precision[5].mean(0),
        "ar100": recall.mean(0),
    }.items():
        np.testing.assert_allclose(table[name].numpy(), reference, rtol=0, atol=1e-9)
    curves = metric.pr_curves(0.75)
    np.testing.assert_allclose(curves["precision"].numpy(), precision[5].T, rtol=0, atol=1e-9)
    scores = np.where(np.isnan(precision[5]), np.nan, expected.eval["scores"][5, :, :, 0, 2]).T
    np.testing.assert_allclose(curves["scores"].numpy(), scores, rtol=0, atol=1e-9)


@settings(max_examples=120, deadline=None)
@given(st.lists(images(), min_size=1, max_size=5))
def test_equals_pycocotools_on_edge_cases(pairs):
    assert_equals_pycocotools(pairs)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6))
def test_equals_pycocotools_with_more_than_100_detections(seed):
    full = overfull(seed)
    assert int(torch.bincount(full[0]["labels"]).max()) > 100
    assert_equals_pycocotools([*crowded(seed, 4), full])


@pytest.mark.parametrize("batch", [1, 7])
def test_equal_scores_are_ranked_by_image_id_as_in_pycocotools(batch):
    pairs = rounded_scores(crowded(4, 70, classes=1, most=6))  # more images than BLOCK
    expected = undefined(evaluate_by_pycocotools(pairs, 1).stats)
    shuffled = np.random.default_rng(0).permutation(len(pairs)).tolist()
    numbered = with_ids(pairs, [10 * n - 50 for n in range(len(pairs))])
    metric = count([numbered[n] for n in shuffled], batch, classes=1)
    np.testing.assert_allclose([value.item() for value in metric.compute().values()], expected, rtol=0, atol=1e-12)
    curves = count(numbered, classes=1).pr_curves()
    torch.testing.assert_close(metric.pr_curves(), curves, rtol=0, atol=0, equal_nan=True)
    # the order matters in this data: by updates it is another, where ids are missing or equal
    for plain in ([pairs[n] for n in shuffled], [with_ids(pairs, [3] * len(pairs))[n] for n in shuffled]):
        assert abs(count(plain, batch, classes=1).compute()["map"].item() - expected[0]) > 1e-4


def test_images_without_an_id_come_last():
    def image(correct, **fields):
        box = [0, 0, 9, 9]
        return detections_of([box if correct else [50, 50, 60, 60]], [0.5], [0]), target_of([box], [0]) | fields

    for ids, first in (((None, 4), False), ((9, 4), False), ((4, 9), True), ((4, None), True)):
        pairs = [
            image(right, **({} if number is None else {"image_id": number}))
            for right, number in zip((True, False), ids, strict=True)
        ]
        ap = count(pairs, classes=1).compute()["map"].item()
        assert ap == pytest.approx(51 / 101 * (1 if first else 0.5)), ids


def test_equals_pycocotools_on_each_edge_case():
    box = [[10, 10, 60, 60]]
    empty, nothing = detections_of([], [], []), target_of([], [])
    cases = [
        [(empty, nothing)],  # nothing at all
        [(empty, target_of(box, [1]))],  # no detection
        [(detections_of(box, [0.5], [1]), nothing)],  # no objects
        [(detections_of(box, [0.5], [1]), target_of(box, [0]))],  # another class
        [(detections_of(box * 3, [0.5] * 3, [1] * 3), target_of(box, [1], iscrowd=[True]))],  # only a crowd
        [(detections_of(box * 3, [0.5] * 3, [1] * 3), target_of(box * 2, [1, 1], iscrowd=[True, False]))],
        [(detections_of([[5, 5, 5, 40]], [0.5], [1]), target_of(box, [1]))],  # a detection of no area
        [(detections_of(box, [0.5], [1]), target_of(box, [1], area=[1024.0]))],  # on the bound of two sizes
        [(detections_of(box * 101, [0.5] * 100 + [0.4], [1] * 101), target_of(box, [1]))],
    ]
    for case in cases:
        assert_equals_pycocotools(case)
    assert_equals_pycocotools([pair for case in cases for pair in case])
    assert_equals_pycocotools(crowded(3, 70, classes=1, most=3), classes=1)  # more images than BLOCK


def test_hand_computed_metrics():
    # two objects; detections: the first at IoU 0.8, a false positive, the second exactly; class 1 does not occur
    ground_truth = target_of([[0, 0, 100, 100], [200, 0, 210, 10]], [0, 0])
    results = detections_of([[0, 0, 80, 100], [0, 200, 50, 250], [200, 0, 210, 10]], [0.9, 0.8, 0.7], [0, 0, 0])
    metric = COCODetection(2)
    metric.update([results], [ground_truth])
    metrics = metric.compute()
    # up to IoU 0.8 (7 of ten): precision 1 at 51 of the 101 recalls, 2/3 at 50; above: 1/3 at 51 (the third alone)
    low, high = (51 + 50 * 2 / 3) / 101, 51 / 101 / 3
    assert metrics["map50"].item() == pytest.approx(low)
    assert metrics["map"].item() == pytest.approx((7 * low + 3 * high) / 10)
    assert metrics["mar1"].item() == pytest.approx(0.7 * 0.5)
    assert metrics["mar100"].item() == pytest.approx((7 * 1 + 3 * 0.5) / 10)
    assert metrics["map_small"].item() == pytest.approx(1)  # larger unmatched detections do not count
    assert metrics["map_large"].item() == pytest.approx(0.7) and metrics["map_medium"].isnan()
    table = metric.class_table()
    assert table["objects"].tolist() == [2, 0] and table["detections"].tolist() == [3, 0] and table["ap"][1].isnan()
    curves = metric.pr_curves()
    assert curves["recall"][[0, 50, 51, 100]].tolist() == pytest.approx([0, 0.5, 0.51, 1])
    assert curves["precision"][0, [0, 50, 51, 100]].tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3])
    assert curves["scores"][0, [50, 51]].tolist() == pytest.approx([0.9, 0.7]) and curves["precision"][1].isnan().all()


def test_crowds_are_not_counted_as_objects():
    metric = COCODetection(2)
    ground_truth = target_of([[0, 0, 9, 9], [20, 0, 29, 9]], [0, 0], iscrowd=[True, False])
    metric.update([detections_of([[20, 0, 29, 9]], [0.5], [0])], [ground_truth])
    assert metric.class_table()["objects"].tolist() == [1, 0]


def test_hand_computed_errors_and_confusion():
    ground_truth = target_of([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], [0, 0, 1, 1])
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 3], [40, 0, 50, 10], [80, 80, 90, 90], [60, 0, 70, 10]]
    # correct, duplicate, poorly localized (IoU 0.3), wrong class, background, correct but below the score of 0.5
    metric = COCODetection(2)
    metric.update([detections_of(boxes, [0.9, 0.8, 0.7, 0.6, 0.55, 0.25], [0, 0, 0, 0, 1, 1])], [ground_truth])
    errors = metric.tide()
    assert errors["counts"] == {"Cls": 1, "Loc": 1, "Both": 0, "Dupe": 1, "Bkg": 1, "Miss": 0}
    assert errors["ap"] == pytest.approx(metric.compute()["map50"].item())
    assert set(errors["delta_ap"]) == {"Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN"}
    # at 0.95 the duplicate (IoU 0.9) is a localization error; with background_iou 0.35 the box of IoU 0.3 is background
    assert metric.tide(iou=0.95)["counts"] == errors["counts"] | {"Loc": 2, "Dupe": 0}
    assert metric.tide(background_iou=0.35)["counts"] == errors["counts"] | {"Loc": 0, "Bkg": 2, "Miss": 1}
    # class 0 has AP 51/101, class 1 half of that (its background comes first); each error is fixed by itself
    gains = {"Loc": 50 * 2 / 3, "Cls": 51 + 50 * 2 / 3 - 51 / 2, "Bkg": 51 / 2, "Dupe": 0, "Both": 0, "Miss": 0}
    for name, gain in gains.items():
        assert errors["delta_ap"][name] == pytest.approx(gain / 101 / 2), name
    # rows: ground truth 0, 1, background; columns: predicted 0, 1, background
    assert metric.confusion_matrix().tolist() == [[1, 0, 1], [1, 0, 1], [2, 1, 0]]
    assert metric.confusion_matrix(score=0.25).tolist() == [[1, 0, 1], [1, 1, 0], [2, 1, 0]]  # from that score on
    assert metric.confusion_matrix(score=0.2).tolist() == [[1, 0, 1], [1, 1, 0], [2, 1, 0]]
    assert metric.confusion_matrix(iou=0.25).tolist() == [[2, 0, 0], [1, 0, 1], [1, 1, 0]]


def test_confusion_in_crowds_and_by_score():
    crowd = [0, 0, 40, 40]
    ground_truth = target_of([crowd, [0, 0, 20, 20]], [1, 0], iscrowd=[True, False])
    boxes = [[0, 0, 20, 18], [0, 0, 20, 20], [20, 20, 40, 40], [20, 20, 40, 40], [30, 20, 50, 40], [31, 20, 51, 40]]
    # class 1 takes the object before class 0; in the crowd: its class, another class, its class by half, by less
    metric = COCODetection(2)
    metric.update([detections_of(boxes, [0.8, 0.7, 0.9, 0.9, 0.9, 0.9], [1, 0, 1, 0, 1, 1])], [ground_truth])
    assert metric.confusion_matrix().tolist() == [[0, 1, 0], [0, 0, 0], [2, 1, 0]]
    assert metric.confusion_matrix(iou=0.95).tolist() == [[1, 0, 0], [0, 0, 0], [1, 2, 0]]
    # when the second detection comes first, the first one takes the other object, which it overlaps less
    two = target_of([[0, 0, 10, 10], [0, 0, 10, 7]], [0, 1])
    metric = COCODetection(2)
    metric.update([detections_of([[0, 0, 10, 9], [0, 0, 10, 10]], [0.7, 0.8], [1, 0])], [two])
    assert metric.confusion_matrix().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    nothing = COCODetection(2)
    nothing.update([detections_of([], [], [])], [target_of([], [])])
    assert not nothing.confusion_matrix().any() and math.isnan(nothing.tide()["ap"])
    assert not any(nothing.tide()["counts"].values())


def test_confusion_equals_hotcoco_where_there_are_no_crowds():
    import hotcoco

    pairs = [(detections, {"boxes": t["boxes"], "labels": t["labels"]}) for detections, t in crowded(8, most=40)]
    objects, results = [], []
    for image, (detections, target) in enumerate(pairs):
        for box, label in zip(target["boxes"].double(), target["labels"].tolist(), strict=True):
            sides = torch.cat((box[:2], box[2:] - box[:2])).tolist()
            objects.append(
                {"id": len(objects) + 1, "image_id": image, "category_id": label, "bbox": sides, "iscrowd": 0}
            )
            objects[-1]["area"] = sides[2] * sides[3]
        boxes = detections["boxes"].double()
        columns = [
            torch.full((len(boxes), 1), image),
            boxes[:, :2],
            boxes[:, 2:] - boxes[:, :2],
            detections["scores"][:, None],
        ]
        results.append(torch.cat([*columns, detections["labels"][:, None]], 1).numpy())
    ground_truth = {"images": [{"id": i} for i in range(len(pairs))], "annotations": objects}
    ground_truth = hotcoco.COCO(
        ground_truth | {"categories": [{"id": label, "name": str(label)} for label in range(CLASSES)]}
    )
    expected = hotcoco.COCOeval(ground_truth, ground_truth.load_res(np.concatenate(results)), "bbox").confusion_matrix(
        0.5, min_score=0.25
    )
    confusion = count(pairs).confusion_matrix(score=0.25)
    assert confusion.tolist() == expected["matrix"].tolist() and confusion.diagonal()[:-1].sum() > 20


def test_a_perfect_detector_scores_one():
    pairs = [
        (detections_of(t["boxes"].tolist(), [1.0] * len(t["labels"]), t["labels"].tolist()), t) for _, t in crowded(0)
    ]
    pairs = [(detections, {"boxes": t["boxes"], "labels": t["labels"]}) for detections, t in pairs]
    metrics = count(pairs).compute()
    for name in NAMES:
        assert name == "mar1" or metrics[name].item() == pytest.approx(1), name


def test_undefined_metrics_are_nan_and_checkpointing_handles_them(tmp_path):
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint

    metric = COCODetection(2)
    metric.update([detections_of([[0, 0, 5, 5]], [0.5], [0])], [target_of([], [])])
    assert all(
        value.isnan() and value.dtype == torch.float64 and value.ndim == 0 for value in metric.compute().values()
    )

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.metric = COCODetection(1)

        def training_step(self, batch, _):
            return self.layer(batch).sum()

        def validation_step(self, batch, _):
            target = target_of([[0, 0, 9, 9]], [0]) if self.current_epoch == 1 else target_of([], [])
            self.metric.update([detections_of([[0, 0, 9, 9]], [0.5], [0])], [target])

        def on_validation_epoch_end(self):
            self.log_dict({f"val/{name}": value for name, value in self.metric.compute().items()})
            self.metric.reset()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    saver = ModelCheckpoint(tmp_path, "{epoch}", monitor="val/map", mode="max", auto_insert_metric_name=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    loader = torch.utils.data.DataLoader(torch.ones(2, 1))
    pl.Trainer(max_epochs=3, callbacks=[saver], **quiet).fit(Net(), loader, loader)
    assert saver.best_model_score == pytest.approx(1) and saver.best_model_path.endswith("1.ckpt")


def test_image_ids_are_optional_and_may_be_equal():
    pairs = crowded(1)
    plain = count(pairs).compute()
    numbered = with_ids(pairs, [7] * len(pairs))
    torch.testing.assert_close(count(numbered, size=1).compute(), plain, rtol=0, atol=0, equal_nan=True)


def test_thresholds_of_highest_f1_by_hand():
    ground_truth = target_of([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], [0, 0, 1])
    boxes = [[0, 0, 10, 10], [0, 50, 10, 60], [20, 0, 30, 9], [40, 0, 50, 3], [0, 0, 10, 10]]
    metric = COCODetection(3)
    metric.update([detections_of(boxes, [0.9, 0.7, 0.7, 0.6, 0.3], [0, 0, 0, 1, 0])], [ground_truth])
    best = metric.best_thresholds()
    # class 0: at 0.9 F1 is 2/3; at 0.7, where one is wrong and one right, 4/5; at 0.3, with a duplicate, 4/6
    assert best.score[0] == pytest.approx(0.7) and best.f1[0] == pytest.approx(4 / 5)
    assert (best.precision[0], best.recall[0]) == (pytest.approx(2 / 3), 1)
    # class 1: IoU 0.3; class 2 does not occur; together: 4 of 3 + 3 at 0.7
    assert np.isnan(best.score[1:3]).all() and np.isnan(best.f1[1:3]).all()
    assert best.score[3] == pytest.approx(0.7) and best.f1[3] == pytest.approx(4 / 6)
    assert metric.best_thresholds(iou=0.25).score[1] == pytest.approx(0.6)


def test_forward_reset_merge_pickle_and_moves():
    pairs = crowded(2)
    whole, empty = count(pairs).compute(), COCODetection(CLASSES)
    metric = COCODetection(CLASSES)
    parts = [pairs[:5], pairs[5:]]
    for part in parts:
        batch_result = metric([detections for detections, _ in part], [target for _, target in part])
        torch.testing.assert_close(batch_result, count(part).compute(), equal_nan=True)
    torch.testing.assert_close(metric.compute(), whole, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(metric.class_table(), count(pairs).class_table(), equal_nan=True)  # not the batch's
    copies = [pickle.loads(pickle.dumps(metric)), metric.clone(), metric.to("cpu").half()]
    first, second = (count(part) for part in parts)
    assert second.compute()["map"] != whole["map"]
    second.merge_state(first)  # torchmetrics puts the incoming state first
    for other in (*copies, second):
        torch.testing.assert_close(other.compute(), whole, rtol=0, atol=0, equal_nan=True)
    metric = count(pairs)
    metric.reset()
    metric.update([d for d, _ in parts[1]], [t for _, t in parts[1]])
    torch.testing.assert_close(metric.class_table(), count(parts[1]).class_table(), equal_nan=True)
    assert empty.higher_is_better and not empty.detections


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_stored_as_float32(dtype):
    pairs = crowded(4)
    narrow = [
        (detections | {k: detections[k].to(dtype) for k in ("boxes", "scores")}, target) for detections, target in pairs
    ]
    rounded = [
        (detections | {k: detections[k].float() for k in ("boxes", "scores")}, target) for detections, target in narrow
    ]
    torch.testing.assert_close(count(narrow).compute(), count(rounded).compute(), rtol=0, atol=0, equal_nan=True)


def test_the_state_is_a_copy_without_graph():
    detections, target = detections_of([[0, 0, 9, 9]], [0.5], [0]), target_of([[0, 0, 9, 9]], [0])
    detections["boxes"].requires_grad_()
    metric = COCODetection(1)
    metric.update([detections], [target])
    with torch.no_grad():
        detections["boxes"].add_(50)
    assert metric.compute()["map"].item() == pytest.approx(1) and not metric.detections[0].requires_grad


def test_bad_arguments():
    good, target = detections_of([[0, 0, 9, 9]], [0.5], [0]), target_of([[0, 0, 9, 9]], [0])
    metric = COCODetection(2)
    with pytest.raises(ValueError, match="targets.*one per image.*got 0"):
        metric.update([good], [])
    with pytest.raises(ValueError, match=r"detections\[1\]: must have scores, got boxes, labels"):
        metric.update([good, target], [target, target])
    with pytest.raises(ValueError, match=r"targets\[0\]: labels must be \[1\].*got \[2\]"):
        metric.update([good], [target | {"labels": torch.zeros(2)}])
    with pytest.raises(ValueError, match=r"boxes must be \[N, 4\], got \[1, 5\]"):
        metric.update([good | {"boxes": torch.zeros(1, 5)}], [target])
    with pytest.raises(TypeError, match=r"detections\[0\]: scores must be a tensor, got ndarray"):
        metric.update([good | {"scores": np.array([0.5])}], [target])
    with pytest.raises(TypeError, match=r"targets\[0\]: iscrowd must be a tensor, got list"):
        metric.update([good], [target | {"iscrowd": [False]}])
    with pytest.raises(ValueError, match="num_classes.*got 0"):
        COCODetection(0)
    with pytest.raises(ValueError, match="iou.*0.55.*got 0.52"):
        metric.pr_curves(0.52)
    with pytest.raises(ValueError, match=r"iou: must be in \(0, 1\], got 0"):
        metric.tide(0)
    with pytest.raises(ValueError, match=r"background_iou.*\[0, 0.5\).*got 0.6"):
        metric.tide(background_iou=0.6)
    with pytest.raises(ValueError, match="max_detections.*>= 1, got 0; the default of TIDE is 100"):
        metric.tide(max_detections=0)
    for wrong_id in ("a.jpg", 1.0, torch.tensor(1.0), torch.tensor([1, 2])):
        with pytest.raises(TypeError, match=r"targets\[0\]: image_id must be a whole number.*number the images"):
            metric.update([good], [target | {"image_id": wrong_id}])
    metric.update([], [])
    assert not metric.counts
    for wrong, message in [
        ({"labels": torch.tensor([2])}, r"labels.* 0 … 1, got 2 \(detection in image 1,"),
        ({"labels": torch.tensor([-1])}, "labels.*got -1"),
        ({"scores": torch.tensor([math.nan])}, "scores.*NaN in image 1"),
        (
            {"boxes": torch.tensor([[5.0, 5, 2, 9]])},
            r"boxes.*got \[5.0, 5.0, 2.0, 9.0\] \(detection in image 1,",
        ),
        ({"boxes": torch.tensor([[5.0, 5, math.nan, 9]])}, "nan"),
    ]:
        metric = COCODetection(2)
        metric.update([good, good | wrong], [target, target])
        with pytest.raises(ValueError, match=message):
            metric.compute()
    metric = COCODetection(2)
    metric.update([good], [target | {"labels": torch.tensor([3])}])
    with pytest.raises(ValueError, match=r"labels.*got 3 \(object in image 0,"):
        metric.compute()
    metric = COCODetection(2)
    metric.update([good], [target | {"area": torch.tensor([-1.0]), "image_id": torch.tensor([139])}])
    with pytest.raises(ValueError, match="area: must be >= 0, got -1 in image 0,.*image_id 139.*area of the box"):
        metric.compute()
