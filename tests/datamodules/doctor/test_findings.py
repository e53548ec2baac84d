"""The doctor finds each planted fault once, with its code and location; valid data sets are clean."""

import os
import shutil
import time

import cv2
import numpy as np
import pytest

from striate.datamodules import (
    CocoDetection,
    DigitScenes,
    ImageFolder,
    Manifest,
    MaskFolder,
    VOCDetection,
)
from striate.datamodules.annotations.annotation_errors import AnnotationErrors
from striate.datamodules.doctor import KINDS, check
from striate.datamodules.doctor.findings import MAX_FINDINGS, Finding, Findings
from striate.tests.helpers import small_datasets
from striate.tests.helpers.coco_voc import voc_xml
from striate.tests.helpers.fixtures import noise, write_image
from striate.tests.helpers.small_datasets import InMemory, SampleList, boxed, truncate, unique_image


def coco(root, task="detection", **options):
    return CocoDetection(str(root), task, num_workers=0, **options)


def voc(root):
    return VOCDetection(str(root), "2007", num_workers=0)


def masks(root):
    return MaskFolder(str(root), ["ground", "cat", "dog"], num_workers=0)


def manifest(root):
    return Manifest(str(root / "train.csv"), str(root / "val.csv"), root=str(root), num_workers=0)


def examine(data, **options):
    """Check a data set; most here are too small to have each class."""
    return check(data, **({"processes": 0, "ignored": ["absent-class", "unused-class"]} | options))


def only(report, code):
    """The only finding, which has this code."""
    assert dict(report.findings.counts) == {code: 1}, [(f.code, f.location, f.detail) for f in report.findings]
    assert report.clean == (KINDS[code].severity == "note")
    return next(iter(report.findings))


# -- valid sets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["detection", "instance_segmentation", "semantic_segmentation"])
def test_a_valid_coco_set_is_clean(tmp_path, task):
    small_datasets.write_coco(tmp_path)
    report = examine(coco(tmp_path, task))
    assert report.clean and not report.findings.counts
    assert report.notes == ["test is the same as val, and checked once."]
    train, val = report.statistics.splits
    assert (train.images, train.readable, val.images) == (4, 4, 2)
    if task == "semantic_segmentation":
        # rows and columns of the two boxes: 24 x 20 and 28 x 25 pixels, of which none overlap
        assert train.counts.tolist() == [4 * (2400 - 480 - 700), 4 * 480, 4 * 700] and train.empty == 0
    else:
        assert train.objects == 8 and train.counts.tolist() == [4, 4] and train.images_with.tolist() == [4, 4]
        assert train.per_image.tolist() == [2, 2, 2, 2] and train.empty == 0
        assert sorted(train.box_widths.tolist()) == [20] * 4 + [25] * 4


@pytest.mark.parametrize("kind", ["voc", "masks", "folder", "manifest"])
def test_other_valid_sets_are_clean(tmp_path, kind):
    write = {
        "voc": small_datasets.write_voc,
        "masks": small_datasets.write_masks,
        "folder": small_datasets.write_folder,
    }
    write.get(kind, small_datasets.write_manifest)(tmp_path)
    data = {"voc": voc, "masks": masks, "manifest": manifest}.get(kind, lambda root: ImageFolder(str(root)))(tmp_path)
    report = examine(data, processes=2)
    assert report.clean and not report.findings.counts, list(report.findings)
    assert ("There is no test split." in report.notes) == (kind != "voc")


@pytest.mark.parametrize(
    "task", ["classification", "localization", "semantic_segmentation", "detection", "instance_segmentation"]
)
def test_digit_scenes_are_clean_in_all_five_tasks(task):
    report = examine(DigitScenes(task, train_size=30, val_size=10, test_size=10))
    assert report.clean, list(report.findings)
    assert [split.readable for split in report.statistics.splits] == [30, 10, 10]
    kind = {"classification": "labels", "semantic_segmentation": "pixels"}.get(task, "boxes")
    assert report.statistics.kind == kind


# -- one fault each: COCO ----------------------------------------------------------------------------


def first_box(*box):
    return lambda content: content["annotations"][0].update(bbox=list(box))


@pytest.mark.parametrize(
    "change, code, where, detail",
    [
        (first_box(5, 6, 0, 24), "box-zero-area", "annotation 1", "[5, 6, 5, 30]"),
        (first_box(25, 6, -20, 24), "box-inverted", "annotation 1", "[25, 6, 5, 30]"),
        (first_box(5, 6, float("nan"), 24), "box-not-finite", "annotation 1", "[5, 6, nan, 30]"),
        (first_box(60, 6, 20, 24), "box-outside", "annotation 1", "[60, 6, 80, 30]"),
        (first_box(-3, 6, 20, 24), "box-beyond", "annotation 1", "[-3, 6, 17, 30]"),
        (lambda c: c["annotations"][0].update(category_id=9), "label-outside", "annotation 1", "category_id 9"),
        (lambda c: c["annotations"][0].update(image_id=99), "unknown-image", "annotation 1", "image_id 99"),
        (
            lambda c: c["annotations"].append(dict(c["annotations"][2], id=77)),
            "duplicate-object",
            "train1.png",
            "cat, box",
        ),
        (lambda c: c["images"][1].update(width=61), "size-mismatch", "train1.png", "for 61x40"),
        (lambda c: c["annotations"][0].update(segmentation=[]), None, None, None),  # masks are not required
    ],
)
def test_coco_annotations(tmp_path, change, code, where, detail):
    small_datasets.edit(small_datasets.write_coco(tmp_path), change)
    report = examine(coco(tmp_path))
    if code is None:
        assert report.clean
        return
    finding = only(report, code)
    assert finding.split == "train" and where in finding.location and detail in finding.detail
    assert finding.location.startswith(str(tmp_path)) and report.statistics.splits[0].images == 4


def test_a_finding_has_its_box_and_image(tmp_path):
    small_datasets.edit(small_datasets.write_coco(tmp_path), first_box(60, 6, 20, 24))
    finding = only(examine(coco(tmp_path)), "box-outside")
    assert finding.boxes == ((60, 6, 80, 30),) and finding.image == str(tmp_path / "train2017" / "train0.png")


@pytest.mark.parametrize(
    "segmentation, code, detail",
    [
        ([], "bad-mask", "no mask"),
        ({"size": [9, 9], "counts": [81]}, "bad-mask", "another size"),
        ([[5, 6, 5.1, 6, 5.1, 6.1]], "empty-mask", "cat, box [5, 6, 25, 30]"),
        ([[30, 6, 50, 6, 50, 30, 30, 30]], "mask-box", "but its mask fills [30, 6, 50, 30]"),
        ([[5, 6, 24, 6, 24, 31, 5, 31]], None, ""),  # annotators may round by a pixel
    ],
)
def test_coco_masks(tmp_path, segmentation, code, detail):
    change = lambda content: content["annotations"][0].update(segmentation=segmentation)  # noqa: E731
    small_datasets.edit(small_datasets.write_coco(tmp_path), change)
    report = examine(coco(tmp_path, "instance_segmentation"))
    if code is None:
        assert report.clean
    else:
        assert detail in only(report, code).detail


def test_all_faults_of_a_file_are_found_at_once(tmp_path):
    def change(content):
        for number, box in enumerate([(5, 6, 0, 24), (5, 6, -4, 24), (70, 6, 3, 3), (5, 6, 1, 0)]):
            content["annotations"][number]["bbox"] = list(box)
        content["annotations"][4]["category_id"] = content["annotations"][5]["category_id"] = 9
        content["annotations"][6]["image_id"] = 9

    small_datasets.edit(small_datasets.write_coco(tmp_path), change)
    (tmp_path / "val2017" / "val0.png").unlink()
    report = examine(coco(tmp_path, strict=True))  # strict affects training only
    assert dict(report.findings.counts) == {
        "box-zero-area": 2,
        "box-inverted": 1,
        "box-outside": 1,
        "label-outside": 2,
        "unknown-image": 1,
        "missing-image": 1,
    }
    assert report.statistics.splits[0].objects == 1 and report.statistics.splits[1].readable == 1


def test_a_malformed_file_does_not_prevent_the_check_of_the_other_split(tmp_path):
    truncate(small_datasets.write_coco(tmp_path))
    report = examine(coco(tmp_path))
    finding = only(report, "unopened-split")
    assert finding.split == "train" and "malformed JSON" in finding.detail and "line 1" in finding.detail
    assert [split.name for split in report.statistics.splits] == ["val"]


# -- images ------------------------------------------------------------------------------------------


def test_unreadable_images(tmp_path):
    small_datasets.write_coco(tmp_path)
    folder = tmp_path / "train2017"
    (folder / "train0.png").unlink()
    truncate(folder / "train1.png")
    (folder / "train2.png").write_bytes(b"")
    (folder / "train3.png").write_text("no image")
    report = examine(coco(tmp_path), processes=2)
    assert dict(report.findings.counts) == {"missing-image": 1, "unreadable-image": 3}
    assert report.findings.of("missing-image")[0].location == str(folder / "train0.png")
    assert [os.path.basename(f.location) for f in report.findings.of("unreadable-image")] == [  # noqa: PTH119
        f"train{number}.png" for number in (1, 2, 3)
    ]
    assert "empty" in report.findings.of("unreadable-image")[1].detail
    assert report.statistics.splits[0].readable == 0 and report.statistics.splits[1].readable == 2


@pytest.mark.parametrize("processes", [0, 2])
def test_a_damaged_jpeg(tmp_path, capfd, processes):
    small_datasets.write_voc(tmp_path)
    file = tmp_path / "VOCdevkit/VOC2007/JPEGImages/000002.jpg"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + data[-2:])  # the end marker is there, the rest is not
    finding = only(examine(voc(tmp_path), processes=processes), "damaged-image")
    assert finding.location == str(file) and "premature end of data" in finding.detail
    assert "premature" not in capfd.readouterr().err  # the decoder writes nothing to the terminal


def test_exact_duplicates_within_a_split(tmp_path):
    small_datasets.write_folder(tmp_path)
    shutil.copy(tmp_path / "train/cat/0.png", tmp_path / "train/cat/9.png")
    finding = only(examine(ImageFolder(str(tmp_path))), "duplicate-image")
    assert finding.location.endswith("train/cat/9.png") and finding.detail.endswith("train/cat/0.png")
    assert finding.other == ("train", 0) and "label" not in finding.detail


def test_the_same_image_with_two_labels(tmp_path):
    small_datasets.write_folder(tmp_path)
    shutil.copy(tmp_path / "train/cat/0.png", tmp_path / "train/dog/9.png")
    assert "with another label (dog, there cat)" in only(examine(ImageFolder(str(tmp_path))), "duplicate-image").detail


def test_leakage_across_file_formats(tmp_path):
    small_datasets.write_folder(tmp_path)
    image = cv2.imread(str(tmp_path / "train/cat/0.png"))
    cv2.imwrite(str(tmp_path / "val/cat/9.bmp"), image)
    finding = only(examine(ImageFolder(str(tmp_path))), "leaked-image")
    assert finding.split == "val" and finding.location.endswith("val/cat/9.bmp") and finding.other == ("train", 0)


def scene(seed):
    """A smooth image, as photographs are: noise would not survive compression."""
    small = noise(8, 6, seed)
    return cv2.resize(small, (120, 90), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    "alter",
    [
        lambda image: cv2.resize(image, (60, 45), interpolation=cv2.INTER_AREA),
        lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR),
        lambda image: (image * 0.8).astype(np.uint8),
    ],
)
def test_near_duplicates_across_splits(tmp_path, alter):
    for split, count, first in (("train", 8, 0), ("val", 4, 50)):
        for number in range(count):
            write_image(tmp_path / split / "cat" / f"{number}.png", scene(first + number))
    assert examine(ImageFolder(str(tmp_path))).clean
    write_image(tmp_path / "val/cat/9.png", alter(scene(3)))
    finding = only(examine(ImageFolder(str(tmp_path))), "near-leak")
    assert finding.location.endswith("val/cat/9.png") and finding.detail.endswith("train/cat/3.png")
    write_image(tmp_path / "train/cat/99.png", alter(scene(5)))
    counts = dict(examine(ImageFolder(str(tmp_path))).findings.counts)
    assert counts == {"near-leak": 1, "near-duplicate": 1}


# -- VOC ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objects, code, where, detail",
    [
        ([("cat", (20, 5, 10, 30), 0)], "box-inverted", "000002.xml, object 1", "[19, 4, 10, 30]"),
        ([("cat", (20, 5, 40, 4), 0)], "box-zero-area", "000002.xml, object 1", "[19, 4, 40, 4]"),
        ([("cat", (80, 5, 90, 30), 0)], "box-outside", "000002.xml, object 1", ""),
        ([("cat", (50, 5, 62, 30), 0)], "box-beyond", "000002.xml, object 1", "[49, 4, 62, 30]"),
        ([("cat", (1, 1, 9, 9), 0), ("cta", (9, 9, 20, 20), 0)], "label-outside", "000002.xml, object 2", "'cta'"),
        ([("cat", (1, 1, 9, 9), 0)] * 2, "duplicate-object", "000002.jpg", "cat, box [0, 0, 9, 9]"),
    ],
)
def test_voc_objects(tmp_path, objects, code, where, detail):
    small_datasets.write_xml(small_datasets.write_voc(tmp_path), "000002", objects)
    finding = only(examine(voc(tmp_path)), code)
    assert where in finding.location and detail in finding.detail and finding.split == "train"


def test_voc_files(tmp_path):
    year = small_datasets.write_voc(tmp_path)
    truncate(year / "Annotations" / "000001.xml")
    (year / "Annotations" / "000004.xml").unlink()
    small_datasets.write_xml(year, "000005", [], size=(40, 60))
    report = examine(voc(tmp_path))
    faults = {"annotation-file": 1, "missing-annotation": 1, "size-mismatch": 1}
    assert dict(report.findings.counts) == faults | {"no-objects": 1}  # in val
    assert "malformed XML" in report.findings.of("annotation-file")[0].detail
    assert report.findings.of("missing-annotation")[0].location == str(year / "Annotations" / "000004.xml")
    assert [split.images for split in report.statistics.splits] == [2, 1, 1]


def test_voc_orphans(tmp_path):
    year = small_datasets.write_voc(tmp_path)
    write_image(year / "JPEGImages" / "000097.jpg", noise(9, 9))
    (year / "Annotations" / "000098.xml").write_text(voc_xml("000098", (9, 9), []))
    small_datasets.write_xml(year, "000099", [])
    write_image(year / "JPEGImages" / "000099.jpg", noise(9, 9))
    report = examine(voc(tmp_path))
    assert dict(report.findings.counts) == {"orphan-image": 1, "orphan-annotation": 1, "unused-image": 1}
    assert report.findings.of("orphan-image")[0].location.endswith("000097.jpg")
    assert report.findings.of("orphan-annotation")[0].location.endswith("000098.xml")


# -- masks, folders, tables ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mask, code, detail",
    [
        (np.full((40, 60), 7, np.uint8), "label-outside", "7 (2400 pixels)"),
        (np.full((40, 60), 255, np.uint8), "empty-mask", "every pixel is ignored"),
        (np.zeros((40, 50), np.uint8), "size-mismatch", "is 50x40"),
        (noise(60, 40), "unreadable-image", "palette"),
    ],
)
def test_semantic_masks(tmp_path, mask, code, detail):
    small_datasets.write_masks(tmp_path)
    write_image(tmp_path / "train/masks/1.png", mask)
    finding = only(examine(masks(tmp_path)), code)
    assert detail in finding.detail and finding.index == 1


def test_masks_without_image_and_images_without_mask(tmp_path):
    small_datasets.write_masks(tmp_path)
    (tmp_path / "train/masks/1.png").unlink()
    (tmp_path / "train/masks/stray.png").write_bytes((tmp_path / "train/masks/0.png").read_bytes())
    report = examine(masks(tmp_path))
    assert dict(report.findings.counts) == {"missing-annotation": 1, "orphan-annotation": 1}
    assert report.findings.of("missing-annotation")[0].location == str(tmp_path / "train/images/1.png")
    assert report.findings.of("orphan-annotation")[0].location == str(tmp_path / "train/masks/stray.png")
    assert report.statistics.splits[0].images == 2


def test_class_folders(tmp_path):
    small_datasets.write_folder(tmp_path)
    (tmp_path / "train/empty").mkdir()
    write_image(tmp_path / "val/bird/0.png", unique_image(77))
    report = examine(ImageFolder(str(tmp_path)))
    assert dict(report.findings.counts) == {"bad-target": 1, "label-outside": 1}
    assert "bird" in report.findings.of("label-outside")[0].location
    assert "empty" in report.findings.of("bad-target")[0].location


def test_manifests(tmp_path):
    table = small_datasets.write_manifest(tmp_path)
    with table.open("a") as file:
        file.write("images/gone.png,cat\nimages/train1.png,\n")
    (tmp_path / "val.csv").write_text("path,label\nimages/val0.png,cat\nimages/val1.png,bird\n")
    write_image(tmp_path / "images/stray.png", unique_image(99))
    report = examine(manifest(tmp_path))
    counts = {"missing-image": 1, "missing-annotation": 1, "label-outside": 1, "orphan-image": 2}
    assert dict(report.findings.counts) == counts, list(report.findings)
    assert report.findings.of("missing-annotation")[0].location == f"{table}, line 7"
    assert report.findings.of("label-outside")[0].location == f"{tmp_path / 'val.csv'}, line 3"
    orphans = [os.path.basename(finding.location) for finding in report.findings.of("orphan-image")]  # noqa: PTH119
    assert orphans == ["stray.png", "val1.png"]  # val1's only row names no class


def test_a_repeated_row_is_a_duplicate_image(tmp_path):
    with small_datasets.write_manifest(tmp_path).open("a") as file:
        file.write("images/train0.png,cat\n")
    assert "the same file as train" in only(examine(manifest(tmp_path)), "duplicate-image").detail


# -- any data module ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sample, code, detail",
    [
        (boxed((1, 1, 9, 9), labels=[2]), "label-outside", "object 1 has the label 2, but there are 2 classes"),
        ({"label": -1}, "label-outside", "the label is -1"),
        ({"label": 0, "box": np.array([5, 5, 5, 9])}, "box-zero-area", "[5, 5, 5, 9] in 40x40"),
        (boxed((1, 1, 9, np.inf)), "box-not-finite", "inf"),
        (boxed((1, 1, 9, 9), labels=[0, 1]), "bad-target", "1 boxes, 2 labels"),
        ({"image": np.zeros((40, 40), np.uint8), "label": 0}, "bad-target", "uint8 [40, 40]"),
        ({"image": np.zeros((4, 4, 3), np.float32), "label": 0}, "bad-target", "float32"),
        ({"mask": np.full((40, 40), 2, np.uint8)}, "label-outside", "2 (1600 pixels)"),
        ({"mask": np.zeros((4, 4), np.uint8)}, "bad-target", "uint8 [4, 4]"),
        (boxed((1, 1, 9, 9), masks=np.zeros((1, 40, 40), np.uint8)), "empty-mask", "cat"),
        (KeyError("gone"), "bad-target", "KeyError"),
    ],
)
def test_faults_of_samples_in_memory(sample, code, detail):
    report = examine(InMemory([boxed((1, 1, 9, 9)), sample, boxed((2, 2, 8, 8))]))
    finding = only(report, code)
    assert detail in finding.detail and finding.index == 1 and finding.location == "sample 1"


def test_faults_recorded_while_a_sample_is_read(tmp_path):
    class Source(SampleList):
        def __getitem__(self, index):
            if index == 1:
                AnnotationErrors(tmp_path / "b.png", strict=True).add("bad-mask", [4], "object", "no class")
            return super().__getitem__(index)

    data = InMemory([])
    data.make_source = lambda split: Source([boxed((1, 1, 9, 9))] * 3) if split == "train" else None
    finding = only(examine(data, processes=2), "bad-mask")
    assert finding.location == f"{tmp_path / 'b.png'}, object 4" and (finding.index, finding.split) == (1, "train")


def test_a_crash_costs_one_sample():
    samples = [{"label": number % 2} for number in range(40)]
    samples[13] = samples[31] = None
    report = examine(InMemory(samples), processes=2)
    assert dict(report.findings.counts) == {"crash": 2}
    assert [finding.index for finding in report.findings] == [13, 31]
    assert report.statistics.splits[0].readable == 38


def test_the_number_of_processes_does_not_change_the_report(tmp_path):
    small_datasets.edit(small_datasets.write_coco(tmp_path), first_box(60, 6, 20, 24))
    truncate(tmp_path / "train2017" / "train3.png")
    shutil.copy(tmp_path / "train2017/train1.png", tmp_path / "val2017/val0.png")
    alone, many = (examine(coco(tmp_path), processes=count) for count in (0, 3))
    assert list(alone.findings) == list(many.findings) and len(list(many.findings)) == 3
    for one, other in zip(alone.records, many.records, strict=True):
        np.testing.assert_array_equal(one.digests, other.digests)
        np.testing.assert_array_equal(one.objects().boxes, other.objects().boxes)


def test_an_interrupted_check_reports_the_findings_so_far(tmp_path):
    samples = [boxed((1, 1, 9, 9), labels=[5])] + [boxed((1, 1, 9, 9))] * 299

    def stop(what, done, total):
        if what == "reading" and done:
            raise KeyboardInterrupt

    report = examine(InMemory(samples), progress=stop)
    assert report.interrupted and not report.clean and dict(report.findings.counts) == {"label-outside": 1}
    assert 0 < report.statistics.splits[0].readable < 300


def test_ignored_kinds_must_exist(tmp_path):
    small_datasets.write_folder(tmp_path)
    shutil.copy(tmp_path / "train/cat/0.png", tmp_path / "val/cat/9.png")
    assert examine(ImageFolder(str(tmp_path)), ignored=["leaked-image"]).clean
    with pytest.raises(ValueError, match="ignored: .*got 'leak'"):
        examine(ImageFolder(str(tmp_path)), ignored=["leak"])


def test_an_alias_of_train_is_a_leak_and_one_of_val_is_not():
    own, other = ([{"label": n % 2, "image": noise(40, 40, first + n)} for n in range(6)] for first in (0, 10))
    report = examine(InMemory(train=own, val=other, test=other))
    assert report.clean and report.notes == ["test is the same as val, and checked once."]
    assert report.aliases == {"test": "val"}
    finding = only(examine(InMemory(train=own, val=own)), "leaked-split")
    assert finding.split == "val" and "the images of train" in finding.detail


def test_each_copied_training_file_is_a_leak(tmp_path):
    small_datasets.write_folder(tmp_path)
    shutil.rmtree(tmp_path / "val")
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    report = examine(ImageFolder(str(tmp_path)))
    assert dict(report.findings.counts) == {"leaked-image": 6}


def test_tiny_images_are_not_compared_by_appearance():
    samples = [{"image": np.full((8, 8, 3), number, np.uint8), "label": 0} for number in range(6)]
    report = examine(InMemory(samples))
    assert report.clean and any("6 images are smaller than 32 pixels" in note for note in report.notes)


def test_a_thousand_samples_take_seconds():
    begun = time.process_time()  # a busy machine must not fail this
    assert examine(InMemory([{"label": number % 2} for number in range(1000)])).clean
    assert time.process_time() - begun < 20


def test_findings_beyond_the_limit_are_only_counted():
    findings = Findings()
    for number in range(MAX_FINDINGS + 5):
        findings.add(Finding("orphan-image", str(number)))
    findings.add(Finding("crash", "x"))
    assert findings.counts["orphan-image"] == MAX_FINDINGS + 5 and len(findings.of("orphan-image")) == MAX_FINDINGS
    assert findings.codes() == ["crash", "orphan-image"] and findings.total("error") == 1
    assert all(kind.advice for kind in KINDS.values())


def test_a_class_that_only_val_contains():
    data = InMemory([{"label": 0}] * 3, ("cat", "dog", "emu"), val=[{"label": 1}])
    report = check(data, processes=0)
    found = [(finding.code, finding.location, finding.detail) for finding in report.findings]
    expected = ("absent-class", "dog", "class 1 has no image; it occurs in val")
    assert [expected, ("unused-class", "emu", "class 2 has no image")] == [one for one in found if "class" in one[0]]
