"""Suggested anchors, class weights, input sizes and sampling, checked by hand."""

import re

import numpy as np
import pytest
import yaml

from striate.datamodules import RepeatFactor
from striate.datamodules.doctor import check, suggestions
from striate.tests.helpers.fixtures import noise
from striate.tests.helpers.small_datasets import InMemory, boxed


def test_the_iou_with_the_best_anchor_by_hand():
    anchors = np.array([[10, 20], [40, 40], [120, 60]], float)
    overlap = suggestions.best_iou(np.array([10.0, 80]), np.array([10.0, 40]), anchors)
    # 10x10 in 10x20: half; 80x40: 40x40 of 3200, and 80x40 in 120x60: 3200 of 7200
    np.testing.assert_allclose(overlap, [0.5, 0.5])


def test_fitted_anchors_have_the_sizes_and_ratios_of_the_boxes():
    generator = np.random.default_rng(0)
    sides = np.exp(generator.uniform(np.log(20), np.log(300), 400))
    ratios = np.exp(generator.normal(np.log(3), 0.1, 400))  # three times as high as wide
    widths, heights = sides / ratios**0.5, sides * ratios**0.5
    levels, fitted, iou = suggestions.fit_anchors(widths, heights, (4, 8, 16, 32, 64), 1)
    assert [level[0] / levels[0][0] for level in levels] == pytest.approx([1, 2, 4, 8, 16], rel=0.1)
    assert 10 < levels[0][0] < 40 and fitted[1] == pytest.approx(3, rel=0.1)
    assert fitted[0] / fitted[1] == pytest.approx(fitted[1] / fitted[2], rel=0.05)
    default = [(size / r**0.5, size * r**0.5) for size in (32, 64, 128, 256, 512) for r in (0.5, 1, 2)]
    assert iou.mean() > 0.7 > suggestions.best_iou(widths, heights, np.array(default)).mean()


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


def detected(sides, shape=(320, 160), count=4):
    """A training set of images with a square object each."""
    samples = [{**boxed((1, 1, 1 + sides[n % len(sides)], 1 + sides[n % len(sides)])), "image": noise(*shape, n)}
               for n in range(count)]  # fmt: skip
    return suggested(check(InMemory(samples), processes=0))


def test_input_size_follows_the_small_objects():
    # 20 of 160 pixels is an eighth: 16 * 8 = 128 leaves them 16
    found = detected([20])["Input size"]
    assert "larger than 12.5 % of it" in found.text and ", 20 pixels." in found.text
    assert found.yaml == "min_size: 128\nmax_size: 256" and "leaves them 16, with a long side of 256" in found.text
    # 8 of 160: 320 pixels, which the images have not
    found = detected([8])["Input size"]
    assert "short side of 320, 2 times" in found.text
    assert "min_size is their own side. Use a finer map (stride 4), or cut" in found.text
    assert found.yaml == "min_size: 160\nmax_size: 320"
    assert "finer map" not in detected([6])["Input size"].text  # nor has one of stride 4 two cells for them


@pytest.mark.parametrize("side", [3, 7, 11, 15, 16, 17, 18, 25, 40, 90, 159])
@pytest.mark.parametrize("shape", [(320, 160), (170, 161), (33, 32), (900, 160)])
def test_the_suggested_input_size_matches_its_text(side, shape):
    side = min(side, min(shape) - 2)
    found = detected([side], shape, 1)["Input size"]
    size = yaml.safe_load(found.yaml)["min_size"]
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


DETECTORS = {"Anchors of FasterRCNN": ("FasterRCNN", {"hidden": 32}), "Anchors of RetinaNet": ("RetinaNet", {})}


def test_suggestions_can_be_pasted_into_detectors():
    """Each suggestion's lines are arguments of the detector that it names."""
    from striate import models

    assert not {title for title in detected([20], count=9) if "nchors" in title}  # too few boxes to say
    found = detected([20, 40], count=20)
    resizing = yaml.safe_load(found["Input size"].yaml)
    for title, (name, options) in DETECTORS.items():
        arguments = yaml.safe_load(found[title].yaml)
        assert set(arguments) == {"anchor_sizes", "ratios"}
        detector = getattr(models, name)(2, "resnet18", fpn_channels=16, **options, **resizing, **arguments)
        assert (
            detector.resize.min_size == (resizing["min_size"],)
            and f"short side of {resizing['min_size']}" in found[title].text
        )
    models.FCOS(2, "resnet18", fpn_channels=64, **resizing)
    backbone = models.PlainCNN(widths=[4, 4, 4, 4, 4, 4], out_indices=[0, 1, 2, 3, 4, 5])
    models.SSD(2, backbone, **yaml.safe_load(found["Default boxes of SSD"].yaml))


def test_scales_are_percent_of_the_square_input():
    # 20 x 20 and 40 x 40 in 160 x 320: 8.8 % and 17.7 % of a square
    scales = yaml.safe_load(detected([20, 40], count=20)["Default boxes of SSD"].yaml)["scales"]
    assert scales[0] == 9 and scales[-1] == 18 and len(scales) == 7 and sorted(set(scales)) == scales


def test_suggestions_need_the_training_split():
    assert check(InMemory([boxed((1, 1, 9, 9))]), splits=("val",), processes=0).statistics.suggestions == []


def test_rare_classes():
    samples = [boxed((1, 1, 9, 9))] * 150 + [boxed((1, 1, 9, 9), labels=[1])]
    found = suggested(check(InMemory(samples), processes=0))["Rare classes"]
    assert "1% of the 151 training images: dog (1)" in found.text
    sampling = yaml.safe_load(found.yaml)["sampling"]
    assert sampling["class_path"].endswith(RepeatFactor.__name__) and sampling["init_args"] == {"threshold": 0.01}
