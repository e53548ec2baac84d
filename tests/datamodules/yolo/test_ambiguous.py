"""YOLO's labels that are not what they seem: pixels, corners, keypoints, oriented boxes, no object at all."""

from contextlib import nullcontext

import numpy as np
import pytest

from striate.datamodules import YoloDetection
from striate.datamodules.annotations.annotation_errors import record_faults
from striate.datamodules.yolo.keypoints import KeypointEvidence
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.small_datasets import BOXES, HEIGHT, WIDTH, repaired, write_yolo

POSE = "0 0.25 0.5 0.25 0.5 0.2 0.4 2 0.3 0.6 1\n1 0.75 0.5 0.25 0.5 0.7 0.4 2 0 0 0\n"
PLAIN_POSE = "0 0.25 0.5 0.25 0.5 0.2 0.4 0.3 0.6 0.25 0.5\n1 0.75 0.5 0.25 0.5 0.7 0.4 0 0 0.75 0.5\n"
POLYGONS = "0 0.1 0.1 0.4 0.1 0.4 0.8 0.1 0.8 0.05 0.5\n1 0.6 0.2 0.9 0.3 0.8 0.9 0.6 0.8 0.55 0.5\n"
ORIENTED = "0 0.5 0.2 0.8 0.5 0.5 0.8 0.2 0.5\n1 0.5 0.5 0.6 0.6 0.5 0.7 0.4 0.6\n"


@pytest.fixture
def root(tmp_path):
    return write_yolo(tmp_path / "data")


def module(root, task="detection", **options):
    return YoloDetection(str(root), task, num_workers=0, **options)


def write_labels(root, text):
    for path in (root / "labels").rglob("*.txt"):
        path.write_text(text)


def recorded(data):
    with record_faults() as faults:
        source = data.make_source("train")
    return [fault.code for fault in faults], source


@pytest.mark.parametrize("text", [POSE, PLAIN_POSE])
@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_keypoints_are_never_polygons(root, text):
    write_labels(root, text)
    with stops_at("keypoints", "data, labels: labels look like boxes with keypoints.*all 6 .*points: keypoints"):
        module(root).make_source("train")
    found, source = recorded(module(root))
    assert found == ["keypoints"]
    for one in (source, module(root, points="keypoints").make_source("train")):
        np.testing.assert_allclose(one[0]["boxes"], [[7.5, 10, 22.5, 30], [37.5, 10, 52.5, 30]], rtol=1e-6)
    assert len(module(root, points="polygons").make_source("train")[0]["labels"]) == 2


@pytest.mark.parametrize(("text", "warned"), [(PLAIN_POSE, True), (POLYGONS, False), (ORIENTED, False)])
def test_few_labels_that_may_be_keypoints_are_warned_of(root, text, warned):
    write_labels(root, "")
    (root / "labels" / "train" / "0.txt").write_text(text)
    message = r"^labels read as polygons, but all 2 have 3 points .*set points: polygons .*points: keypoints"
    with pytest.warns(UserWarning, match=message) if warned else nullcontext():
        assert len(module(root).make_source("train")[0]["labels"]) == 2
    assert recorded(module(root))[0] == ["maybe-keypoints"] * warned
    for points in ("polygons", "keypoints") if warned else ():
        module(root, points=points).make_source("train")


def test_keypoints_with_an_even_count_of_numbers(root):
    write_labels(root, "0 0.25 0.5 0.25 0.5 0.2 0.4 2\n")
    with stops_at("keypoints", r"train/0.txt, line 1: .*1 points; set points: keypoints"):
        module(root).make_source("train")
    assert len(module(root, points="keypoints").make_source("train")[0]["labels"]) == 1


def test_the_data_yaml_says_that_there_are_keypoints(root):
    write_labels(root, POSE)
    file = root / "data.yaml"
    file.write_text(file.read_text() + "kpt_shape: [2, 3]\n")
    boxes = module(root).make_source("train")[0]["boxes"]
    np.testing.assert_allclose(boxes, [[7.5, 10, 22.5, 30], [37.5, 10, 52.5, 30]], rtol=1e-6)
    with pytest.raises(ValueError, match="data.yaml: task: instance_segmentation .*keypoints"):
        module(root, "instance_segmentation").make_source("train")
    file.write_text(file.read_text().replace("[2, 3]", "[17, 3]"))
    with stops_at("unusable-annotation", "line 1: a label must have 56 numbers, got 11"):
        module(root).make_source("train")


def test_a_corrected_copy_of_keypoints_has_boxes(tmp_path, root):
    write_labels(root, POSE + "0 0.9 0.5 0.4 0.5 0.7 0.4 2 0 0 0\n")
    report, _, copy, _ = repaired(YoloDetection, tmp_path, root=str(root), points="keypoints", num_workers=0)
    assert report.clean
    boxes = copy.make_source("train")[0]["boxes"]
    np.testing.assert_allclose(boxes[:2], [[7.5, 10, 22.5, 30], [37.5, 10, 52.5, 30]], rtol=1e-6)


@pytest.mark.parametrize("text", [POLYGONS, ORIENTED])
@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_polygons_and_oriented_boxes_are_no_keypoints(root, text, task):
    write_labels(root, text)
    found, source = recorded(module(root, task))
    assert found == [] and len(source[0]["labels"]) == 2
    if text == ORIENTED:
        np.testing.assert_allclose(source[0]["boxes"][1], [24, 20, 36, 28], rtol=1e-5)


def test_evidence_of_keypoints():
    def evidence(*labels):
        collected = KeypointEvidence()
        for label in labels:
            collected.add(label)
        return collected.found()

    box, pose = [0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4, 0.4, 0.6, 0.6, 0.5]
    assert evidence() is None and evidence(box, box, box) is None
    assert evidence(pose, pose) is None and "2 points in it" in (evidence(pose, pose, pose) or "")
    assert evidence(pose, pose, pose, box) is None  # not the same count throughout
    assert evidence(pose, pose, [*pose[:6], 0.9, 0.9]) is None  # a point far from its box
    assert evidence([0.5, 0.5, 0.4, 0.4, 0.5, 0.5, 3]) is None  # no visibility
    assert evidence([0.9, 0.5, 0.4, 0.4, 0.5, 0.5, 2]) is None  # no box in the image


def test_all_labels_in_pixels(root):
    write_labels(root, "0 15 20 15 20\n1 45 20 15 20\n")
    with stops_at("box-in-pixels", "data, labels: .*6 of 6 .*divide x and width"):
        module(root).make_source("train")
    found, source = recorded(module(root))
    assert found[0] == "box-in-pixels" and not len(source.objects.labels)


def test_labels_of_two_corners(root):
    lines = [f"0 {x1 / WIDTH} {y1 / HEIGHT} {x2 / WIDTH} {y2 / HEIGHT}\n" for x1, y1, x2, y2 in BOXES]
    write_labels(root, "".join(lines))
    with stops_at("box-corners", "data, labels: .*two corners.*class x y width height"):
        module(root).make_source("train")
    write_labels(root, lines[0] + "0 0.5 0.5 1 0.25\n0 0.5 0.5 0.25 1\n")
    assert "box-corners" not in recorded(module(root))[0]


def test_images_listed_twice(root):
    file = root / "data.yaml"
    file.write_text(file.read_text().replace("train: images/train", "train: [images/train, images/train]"))
    with pytest.warns(
        UserWarning, match=r"^3 of 6 images are listed more than once, and count double .*data.yaml, first"
    ):
        module(root).make_source("train")


def test_two_images_of_one_label_file_are_warned_of(root):
    image = root / "images" / "train" / "0.png"
    image.with_suffix(".bmp").write_bytes(image.read_bytes())
    message = (
        r"^1 annotation files belong to several images, and each .*first: images/train/0.bmp and images/train/0.png"
    )
    with pytest.warns(UserWarning, match=message):
        assert len(module(root).make_source("train")) == 4
    assert recorded(module(root))[0] == ["same-stem"]


def test_no_object_at_all(root):
    write_labels(root, "")
    with stops_at("no-objects", "data: none of its 3 images has a usable object: it has no annotation"):
        module(root).setup("fit")
    with pytest.warns(UserWarning, match="^metrics of val will measure nothing .* it has no annotation"):
        module(root).setup("validate")


def test_objects_that_are_all_dropped(root):
    write_labels(root, "0 0.5 0.5 0 0.2\n")
    with (
        pytest.warns(UserWarning, match="^3 annotations .* dropped"),
        stops_at("no-objects", r"dropped: 3 x .*\(box-zero-area, first: labels/train/0.txt, line 1"),
    ):
        module(root).setup("fit")
