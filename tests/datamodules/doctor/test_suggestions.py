"""Suggested anchors, class weights, input sizes and sampling, checked by hand."""

import re

import numpy as np
import pytest
import yaml

from striate.datamodules import RepeatFactor
from striate.datamodules.doctor import check, suggestions
from striate.tests.helpers.fixtures import noise
from striate.tests.helpers.small_datasets import InMemory, boxed


def test_anchors_are_cluster_centers():
    generator = np.random.default_rng(0)
    centers = np.array([[10, 20], [40, 40], [120, 60]], float)
    boxes = np.repeat(centers, 50, axis=0) * np.exp(generator.normal(0, 0.02, (150, 2)))
    anchors = suggestions.anchor_sizes(boxes[:, 0], boxes[:, 1], 3)
    np.testing.assert_allclose(anchors, centers, rtol=0.02)
    overlap = suggestions.best_iou(np.array([10.0, 80]), np.array([10.0, 40]), centers)
    # 10x10 in 10x20: half; 80x40: 40x40 of 3200, and 80x40 in 120x60: 3200 of 7200
    np.testing.assert_allclose(overlap, [0.5, 0.5])
    assert len(suggestions.anchor_sizes(np.array([5.0, 5]), np.array([5.0, 5]))) == 1


def test_class_weights_by_hand():
    np.testing.assert_allclose(suggestions.class_weights(np.array([10, 30, 0]), "labels"), [1.5, 0.5, 0])
    np.testing.assert_allclose(suggestions.class_weights(np.array([100, 900]), "pixels"), [1.5, 0.5])


def suggested(report):
    return {suggestion.title: suggestion for suggestion in report.statistics.suggestions}


def test_imbalance_suggests_weights():
    report = check(InMemory([{"label": 0}] * 1 + [{"label": 1}] * 9), processes=0)
    found = suggested(report)["Class weights"]
    assert "dog has 9 times as many images as cat" in found.text and found.yaml == "class_weights: [1.8, 0.2]"
    assert "Class weights" not in suggested(check(InMemory([{"label": n % 2} for n in range(9)]), processes=0))


def test_a_class_that_only_val_contains():
    data = InMemory([{"label": 0}] * 3, ("cat", "dog", "emu"), val=[{"label": 1}])
    report = check(data, processes=0)
    text = suggested(report)["Classes without a training sample"].text
    assert "2 of 3 classes never occur in train: dog, emu" in text and "val or test have dog:" in text


def detected(sides, shape=(320, 160), count=4):
    """A training set of images with a square object each."""
    samples = [{**boxed((1, 1, 1 + sides[n % len(sides)], 1 + sides[n % len(sides)])), "image": noise(*shape, n)}
               for n in range(count)]  # fmt: skip
    return suggested(check(InMemory(samples), processes=0))


def test_input_size_follows_the_small_objects():
    # 20 of 160 pixels is an eighth: 16 * 8 = 128 leaves them 16
    found = detected([20])["Input size"]
    assert "larger than 12.5 % of it" in found.text and ", 20 pixels." in found.text
    assert found.yaml == "short_side: 128" and "leaves them 16, with a long side of 256" in found.text
    # 8 of 160: 320 pixels, which the images have not
    found = detected([8])["Input size"]
    assert "short side of 320, 2 times" in found.text
    assert "a finer map (stride 4), or cut" in found.text and found.yaml == "short_side: 160"
    assert "finer map" not in detected([6])["Input size"].text  # nor has one of stride 4 two cells for them


@pytest.mark.parametrize("side", [3, 7, 11, 15, 16, 17, 18, 25, 40, 90, 159])
@pytest.mark.parametrize("shape", [(320, 160), (170, 161), (33, 32), (900, 160)])
def test_the_suggested_input_size_matches_its_text(side, shape):
    side = min(side, min(shape) - 2)
    found = detected([side], shape, 1)["Input size"]
    size = int(found.yaml.removeprefix("short_side: "))
    assert size <= min(shape)  # larger invents none
    if "leaves them" in found.text:
        left = float(re.search(r"leaves them ([\d.]+)", found.text)[1])
        assert left == pytest.approx(side * size / min(shape), rel=0.01) and left >= 16
    else:
        wanted = int(re.search(r"takes a short side of (\d+)", found.text)[1])
        assert size == min(shape) < wanted == round(16 * min(shape) / side)


def test_objects_are_measured_in_their_own_images():
    """Large images with large objects, small ones with small: after the resizing they are alike."""
    samples = [
        {**boxed((1, 1, 1 + k * 20, 1 + k * 20)), "image": noise(k * 100, k * 80, n)}
        for n, k in enumerate([1, 1, 1, 4, 4])
    ]
    text = suggested(check(InMemory(samples), processes=0))["Input size"].text
    assert "larger than 25 % of it" in text and "leaves them 16, " in text  # of 64


def test_other_tasks_get_no_advice_on_detectors():
    class One(InMemory):
        variable_size_images = False

    samples = [{**boxed((1, 1, 9, 9)), "image": noise(70, 100, n)} for n in range(20)]
    samples += [{**boxed((1, 1, 9, 9), labels=[1]), "image": noise(70, 100, 50 + n)} for n in range(2)]
    found = suggested(check(One(samples), processes=0))
    assert set(found) == {"Input size", "Class weights"}
    assert "64 pixels, the multiple of 32 below 70." in found["Input size"].text
    assert "10 times as many images as" in found["Class weights"].text and "(20 and 2)" in found["Class weights"].text
    large = [{"label": n, "image": noise(1024, 1100, n)} for n in range(2)]
    text = suggested(check(InMemory(large), processes=0))["Input size"].text
    assert "512 pixels: full resolution has 4.0 times" in text
    odd = [{"label": n, "image": noise(30, 20, n)} for n in range(2)]
    assert "Start with 20 pixels. " in suggested(check(InMemory(odd), processes=0))["Input size"].text


def test_printed_anchors_match_their_iou():
    assert "Anchor sizes" not in detected([20], count=9)  # too few boxes to say
    found = detected([20, 40], count=20)["Anchor sizes"]
    assert found.text.startswith("2 anchors by k-means over 20 boxes") and found.yaml == "anchors: [[20, 20], [40, 40]]"
    assert "an IoU of 1.00 on average" in found.text
    alike = detected([20.1, 20.2, 20.3], count=40)["Anchor sizes"]
    assert alike.text.startswith("1 anchor by") and alike.yaml == "anchors: [[20, 20]]"


def test_suggestions_need_the_training_split():
    assert check(InMemory([boxed((1, 1, 9, 9))]), splits=("val",), processes=0).statistics.suggestions == []


def test_rare_classes():
    samples = [boxed((1, 1, 9, 9))] * 150 + [boxed((1, 1, 9, 9), labels=[1])]
    found = suggested(check(InMemory(samples), processes=0))["Rare classes"]
    assert "1% of the 151 training images: dog (1)" in found.text
    sampling = yaml.safe_load(found.yaml)["sampling"]
    assert sampling["class_path"].endswith(RepeatFactor.__name__) and sampling["init_args"] == {"threshold": 0.01}
