"""Comparison of images, statistics, suggestions, pictures and the page, checked by hand and by brute force."""

import base64
import re

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.datamodules import CocoDetection, RepeatFactor
from striate.datamodules.annotations.fault_kinds import KINDS
from striate.datamodules.doctor import check, duplicates, pictures, suggestions
from striate.datamodules.doctor.findings import MAX_FINDINGS, Finding, Findings
from striate.datamodules.doctor.html_report import write_html
from striate.datamodules.doctor.samples import APPEARANCE_BYTES, appearance_of, pixel_digest
from striate.tests.helpers import small_datasets
from striate.tests.helpers.fixtures import noise
from striate.tests.helpers.small_datasets import InMemory, boxed

# -- comparison --------------------------------------------------------------------------------------


def test_gradient_bits_by_hand():
    ramp = np.repeat(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], 80, axis=0).repeat(3, axis=2)
    assert appearance_of(ramp)[0] == 2**64 - 1 and appearance_of(ramp[:, ::-1].copy())[0] == 0
    half = np.concatenate([ramp[:40], ramp[40:, ::-1]])
    assert appearance_of(half)[0] == (2**64 - 1) ^ (2**32 - 1)  # the upper four rows


def test_digests_depend_on_the_shape():
    image = noise(6, 4)
    assert pixel_digest(image) == pixel_digest(image.copy()) != pixel_digest(image.reshape(6, 4, 3))
    assert pixel_digest(image[:, ::-1]) == pixel_digest(np.ascontiguousarray(image[:, ::-1])) != pixel_digest(image)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_bit_counts_without_numpy_2(numbers):
    array = np.array(numbers, np.uint64)
    expected = [number.bit_count() for number in numbers]
    assert duplicates.bit_counts(array).tolist() == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(np, "bitwise_count", raising=False)
        assert duplicates.bit_counts(array).tolist() == expected


def test_near_pairs_match_brute_force():
    generator = np.random.default_rng(3)
    gradients = generator.integers(0, 2**63, 300).astype(np.uint64)
    gradients[150:] = gradients[:150]
    for number in range(150, 300):  # flip 0 to 12 bits
        for bit in generator.choice(64, number % 13, replace=False):
            gradients[number] ^= np.uint64(1) << np.uint64(bit)
    appearances = np.tile(generator.integers(0, 256, APPEARANCE_BYTES).astype(np.uint8), (300, 1))
    near = duplicates.near_pairs(gradients, appearances, np.arange(300))
    distance = np.array([[int(a ^ b).bit_count() for b in gradients.tolist()] for a in gradients.tolist()])
    expected = np.argwhere(np.triu(distance <= duplicates.MAX_BITS, 1))
    assert len(expected) > 70 and near.tolist() == expected.tolist()


def test_uniform_images_are_not_compared():
    plain = [appearance_of(np.full((50, 50, 3), level, np.uint8)) for level in (10, 10, 200)]
    gradients, appearances = np.array([one[0] for one in plain], np.uint64), np.array([one[1] for one in plain])
    assert not len(duplicates.near_pairs(gradients, appearances, np.arange(3)))


def test_the_same_shape_in_another_color_is_another_image():
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:40, 20:50] = (200, 40, 40)
    other = image[..., ::-1].copy()
    appearances = np.array([appearance_of(one)[1] for one in (image, other)])
    assert not duplicates.look_alike(appearances, np.array([[0, 1]]))[0]


def test_exact_groups():
    digests = np.array([[1, 2], [3, 4], [1, 2], [1, 3], [3, 4], [1, 2], [9, 9], [0, 0], [0, 0]], np.uint64)
    readable = np.array([True] * 7 + [False] * 2)
    assert [group.tolist() for group in duplicates.exact_groups(digests, readable)] == [[0, 2, 5], [1, 4]]


# -- boxes and findings ----------------------------------------------------------------------------------


def test_findings_beyond_the_limit_are_only_counted():
    findings = Findings()
    for number in range(MAX_FINDINGS + 5):
        findings.add(Finding("orphan-image", str(number)))
    findings.add(Finding("crash", "x"))
    assert findings.counts["orphan-image"] == MAX_FINDINGS + 5 and len(findings.of("orphan-image")) == MAX_FINDINGS
    assert findings.codes() == ["crash", "orphan-image"] and findings.total("error") == 1
    assert all(kind.advice for kind in KINDS.values())


# -- statistics and suggestions ------------------------------------------------------------------------------


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
    assert "takes a short side of 320, 2 times that of the images" in found.text
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
    assert "Start with 64 pixels, the multiple of 32 below 70." in found["Input size"].text
    assert "10 times as many images as" in found["Class weights"].text and "(20 and 2)" in found["Class weights"].text
    large = [{"label": n, "image": noise(1024, 1100, n)} for n in range(2)]
    text = suggested(check(InMemory(large), processes=0))["Input size"].text
    assert "Start with 512 pixels: full resolution has 4.0 times as many" in text
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
    assert "1 class is in fewer than 1% of the 151 training images: dog (1)" in found.text
    sampling = yaml.safe_load(found.yaml)["sampling"]
    assert sampling["class_path"].endswith(RepeatFactor.__name__) and sampling["init_args"] == {"threshold": 0.01}


# -- pictures and page ------------------------------------------------------------------------------------


def test_thumbnails_show_boxes_outside_the_image():
    image = np.full((40, 60, 3), 200, np.uint8)
    inside = pictures.thumbnail(image, [(10, 10, 30, 30)])
    assert inside.shape == (147, 220, 3)
    red = (inside == (230, 57, 70)).all(axis=2)
    scale = 220 / 60
    assert red[round(10 * scale) : round(30 * scale), round(10 * scale)].all() and not red[:, : round(8 * scale)].any()
    beyond = pictures.thumbnail(image, [(50, 10, 80, 30)])
    assert max(beyond.shape) in (219, 220, 221) and (beyond[:, -3] == (60, 60, 66)).all()  # gray, on the right
    assert pictures.thumbnail(np.zeros((20, 20000, 3), np.uint8)).shape == (1, 220, 3)
    assert pictures.thumbnail(np.zeros((1, 1, 3), np.uint8), [(0, 0, 1, np.nan)]).shape == (4, 4, 3)


def test_overlays_do_not_color_the_background():
    image = np.full((2, 3, 3), 100, np.uint8)
    shown = pictures.overlay(image, np.array([[0, 1, 255], [0, 2, 2]], np.uint8))
    assert (shown[:, 0] == 100).all() and shown[0, 2].tolist() == [114] * 3
    assert shown[0, 1].tolist() != shown[1, 1].tolist() == shown[1, 2].tolist()


def test_the_page_is_self_contained(tmp_path):
    def change(content):
        content["annotations"][0]["bbox"] = [60, 6, 20, 24]
        content["categories"][0]["name"] = "<cat> & co"

    for file in (small_datasets.write_coco(tmp_path), tmp_path / "annotations/instances_val2017.json"):
        small_datasets.edit(file, lambda content: content["categories"][0].update(name="<cat> & co"))
    small_datasets.edit(tmp_path / "annotations/instances_train2017.json", change)
    report = check(CocoDetection(str(tmp_path), num_workers=0), processes=0, name="<mine>")
    table = write_html(report, tmp_path / "deep" / "page.html")
    page = (tmp_path / "deep" / "page.html").read_text()
    assert (
        not re.search(r"(src|href)=\"(?!data:image/jpeg;base64,|#)", page)
        and "<script" not in page
        and "@import" not in page
    )
    assert "<h1>&lt;mine&gt;</h1>" in page and "&lt;cat&gt; &amp; co" in page and "<cat>" not in page
    assert "1 error in 6 images." in page and 'id="box-outside"' in page
    picture = re.search(r"data:image/jpeg;base64,([^\"]+)", page)[1]
    assert cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR).shape[1] == 220
    lines = table.read_text().splitlines()
    assert len(lines) == 2 and lines[1].startswith("error,box-outside,train,")
    # classes twice, and objects: how many, how large, of what shape; the images are all of one size
    charts = re.findall(r'<svg role="img" aria-label="(.*?)".*?</svg>', page, re.DOTALL)
    objects = ["Objects per image", "Size of objects", "Shape of objects"]
    assert charts == ["Classes (objects)", "Classes (images with it)", *objects]
    assert "#0" not in re.sub(r"(id|href)=\S+|url\(\S+", "", page[page.index("<svg") :])  # colors are the page's
    assert page.count("var(--first)") > len(charts)
