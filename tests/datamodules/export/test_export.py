"""Exports: striate's and other readers return the same targets, and no partial export remains."""

import json
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
import yaml
from hotcoco import mask as rle
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from striate import datamodules
from striate.datamodules import DigitScenes, ImageFolder, VisionDataModule
from striate.datamodules.export import FORMATS, export_data
from striate.datamodules.export.files import yolo_lines
from striate.datamodules.export.outlines import outline
from striate.datamodules.images.bit_depth import ReadOptions
from striate.datamodules.images.read import ImageError, read_image
from striate.tests.helpers.coco_voc import write_voc
from striate.tests.helpers.fixtures import make_folder, noise, write_image

SIZES = {"train": 12, "val": 4, "test": 3}
OBJECTS = ("detection", "instance_segmentation")


def scenes(task, **options):
    sizes = {f"{split}_size": size for split, size in SIZES.items()}
    empty = {} if task in ("classification", "localization") else {"empty_fraction": 0.2}
    return DigitScenes(task, image_size=48, num_workers=0, **sizes, **empty, **options)


def read_back(exported):
    """The data module that the export's YAML file names."""
    section = yaml.safe_load(exported.config.read_text())["data"]
    kind = getattr(datamodules, section["class_path"].rsplit(".", 1)[1])
    return kind(**section["init_args"], num_workers=0)


class Handmade(VisionDataModule):
    """Samples given as lists, the same for train and val; there is no test split."""

    def __init__(self, samples, names, **options):
        super().__init__(num_workers=0, **options)
        self.samples, self.names = samples, names

    def make_source(self, split):
        return None if split == "test" else Listed(self.samples)

    @property
    def class_names(self):
        return self.names


class Listed(list):
    def __getitem__(self, index):
        sample = list.__getitem__(self, index)
        if isinstance(sample, ImageError):
            raise sample
        return sample


def overlapping():
    """Two overlapping objects and a crowd below, with fractions of pixels, a flag, and an image_id."""
    masks = np.zeros((3, 20, 31), np.uint8)
    masks[0, 2:12, 3:20] = 1
    masks[1, 8:18, 15:30] = 1
    masks[2, 0:20, 0:31] = 1
    boxes = np.array([[2.7, 1.9, 20.1, 12.3], [15, 8, 30, 18], [0, 0, 31, 20]], np.float32)
    return {
        "image": noise(31, 20, 5), "boxes": boxes, "labels": np.array([1, 0, 1]), "masks": masks,
        "iscrowd": np.array([0, 0, 1]), "difficult": np.array([1, 0, 0]), "area": np.array([170.5, 150, 620]),
        "image_id": 77,
    }  # fmt: skip


@pytest.mark.parametrize("task", OBJECTS)
def test_coco_round_trip_is_exact(tmp_path, task):
    data = scenes(task)
    exported = export_data(data, "coco", tmp_path / "out")
    assert exported.task == task and exported.counts == SIZES and not exported.lost and not exported.absent
    back = read_back(exported)
    assert back.class_names == data.class_names and back.category_ids == list(range(1, 11))
    num_empty = 0
    for split, size in SIZES.items():
        ours, theirs = data.make_source(split), back.make_source(split)
        assert len(theirs) == size
        for index in range(size):
            one, two = ours[index], theirs[index]
            np.testing.assert_array_equal(two["image"], one["image"])
            np.testing.assert_array_equal(two["boxes"], one["boxes"])
            np.testing.assert_array_equal(two["labels"], one["labels"])
            np.testing.assert_array_equal(two.get("masks", 0), one.get("masks", 0))
            if len(one["labels"]):
                np.testing.assert_array_equal(two["area"], one["area"])
            assert two["image_id"] == index
            num_empty += not len(one["labels"])
    assert num_empty


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_coco_overlaps_crowds_and_fractions_against_pycocotools(tmp_path, capsys):
    from pycocotools.coco import COCO

    sample = overlapping()
    exported = export_data(Handmade([sample], ["cat", "dög"]), "coco", tmp_path / "out")
    assert exported.lost == {"`difficult` flags (not part of COCO)": 2}  # one in train, one in val
    assert exported.absent == {"test": "Handmade does not have this split"}
    file = tmp_path / "out" / "annotations" / "instances_val2017.json"
    reference = COCO(str(file))
    assert [category["name"] for category in reference.loadCats([1, 2])] == ["cat", "dög"]
    annotations = reference.loadAnns(reference.getAnnIds(imgIds=77))
    assert [a["category_id"] for a in annotations] == [2, 1, 2] and [a["iscrowd"] for a in annotations] == [0, 0, 1]
    assert [a["area"] for a in annotations] == [170.5, 150, 620] and annotations[1]["bbox"] == [15, 8, 15, 10]
    for one, mask in zip(annotations, sample["masks"], strict=True):
        np.testing.assert_array_equal(reference.annToMask(one), mask)
    with pytest.warns(UserWarning, match="^1 of 3 objects are crowds"):
        two = read_back(exported).make_source("train")[0]
    for field in ("boxes", "labels", "masks", "iscrowd", "area"):
        np.testing.assert_array_equal(two[field], sample[field])


def test_semantic_masks_as_coco_and_unsupported_ones(tmp_path):
    data = scenes("semantic_segmentation")
    back = read_back(export_data(data, "coco", tmp_path / "out"))
    assert back.class_names == data.class_names
    for split, size in SIZES.items():
        for index in range(size):
            np.testing.assert_array_equal(
                back.make_source(split)[index]["mask"], data.make_source(split)[index]["mask"]
            )
    ignored = {"image": noise(4, 2), "mask": np.array([[0, 1, 1, 255]] * 2, np.uint8)}
    with pytest.raises(ValueError, match=r"sample 0 of train \(Handmade\): mask: .*ignored"):
        export_data(Handmade([ignored], ["background", "a"]), "coco", tmp_path / "no")
    with pytest.raises(ValueError, match="format: coco needs 'background'.*got 'road'"):
        export_data(Handmade([ignored], ["road", "a"]), "coco", tmp_path / "no")
    assert not list(tmp_path.glob("no*"))


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_localization_is_detection_with_one_object(tmp_path, format):
    data = scenes("localization")
    exported = export_data(data, format, tmp_path / "out", ["val"])
    assert exported.task == "localization" and exported.counts == {"val": 4}
    source = data.make_source("val")
    for index in range(4):
        if format == "yolo":
            lines = (tmp_path / "out" / "labels" / "val" / f"val_{index:06d}.txt").read_text().splitlines()
            assert len(lines) == 1 and int(lines[0].split()[0]) == source[index]["label"]
        else:
            back = read_back(exported)
            sample = back.make_source("val")[index]
            assert type(back).__name__ == {"coco": "CocoLocalization", "voc": "VOCLocalization"}[format]
            assert back.class_names == data.class_names and sample["label"] == source[index]["label"]
            np.testing.assert_array_equal(sample["box"], source[index]["box"])


def test_voc_boxes_with_our_reader_and_torchvisions(tmp_path):
    data = scenes("detection")
    exported = export_data(data, "voc", tmp_path / "out", ["train", "val"])
    assert exported.lost == {"images re-encoded as JPEG (pixels differ slightly)": 16}
    back = read_back(exported)
    folder = tmp_path / "out" / "VOCdevkit" / "VOC2012"
    names = [
        (folder / "ImageSets" / "Main" / f"{name}.txt").read_text().split() for name in ("train", "val", "trainval")
    ]
    assert names[0] + names[1] == names[2] and names[2] == [f"2012_{number:06d}" for number in range(16)]
    reference = torchvision.datasets.VOCDetection(str(tmp_path / "out"), "2012", "val")
    assert len(reference) == 4
    for split in ("train", "val"):
        for index in range(SIZES[split]):
            one, two = data.make_source(split)[index], back.make_source(split)[index]
            np.testing.assert_array_equal(two["boxes"], one["boxes"])
            np.testing.assert_array_equal(two["labels"], one["labels"])
            difference = np.abs(two["image"].astype(int) - one["image"])
            assert difference.mean() < 3 and np.quantile(difference, 0.99) < 16
            if split == "val":
                objects = reference[index][1]["annotation"].get("object", [])
                theirs = [[int(o["bndbox"][k]) for k in ("xmin", "ymin", "xmax", "ymax")] for o in objects]
                np.testing.assert_array_equal(np.array(theirs).reshape(-1, 4), one["boxes"] + [1, 1, 0, 0])


def test_voc_preserves_fractions_and_flags_and_counts_losses(tmp_path):
    sample = overlapping()
    data = Handmade([{key: value for key, value in sample.items() if key != "masks"}], ["cat", "dog & <co>"])
    exported = export_data(data, "voc", tmp_path / "out")
    found = read_back(exported).make_source("val")[0]
    np.testing.assert_array_equal(found["boxes"], sample["boxes"])
    assert found["labels"].tolist() == [1, 0, 1] and found["difficult"].tolist() == [True, False, True]
    assert exported.lost["crowds (not part of VOC; written as `difficult` objects)"] == 2


@pytest.mark.filterwarnings("ignore:.* classes will not be learned")  # these few scenes do not have all digits
def test_voc_semantic_masks_by_torchvisions_reader(tmp_path):
    data = scenes("semantic_segmentation")
    exported = export_data(data, "voc", tmp_path / "out", ["train"])
    back = read_back(exported)
    assert back.class_names == data.class_names
    reference = torchvision.datasets.VOCSegmentation(str(tmp_path / "out"), "2012", "train")
    assert len(reference) == 12
    for index in range(12):
        mask = reference[index][1]
        assert mask.mode == "P" and mask.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        assert mask.getpalette()[-3:] == [224, 224, 192]  # the color of VOC's borders
        np.testing.assert_array_equal(np.asarray(mask), data.make_source("train")[index]["mask"])
        np.testing.assert_array_equal(back.make_source("train")[index]["mask"], np.asarray(mask))


def test_voc_instances_are_numbered_in_the_order_of_the_objects(tmp_path):
    data = scenes("instance_segmentation")
    back = read_back(export_data(data, "voc", tmp_path / "out", ["val"]))
    folder = tmp_path / "out" / "VOCdevkit" / "VOC2012"
    for index in range(4):
        sample = data.make_source("val")[index]
        numbers = np.asarray(Image.open(folder / "SegmentationObject" / f"2012_{index:06d}.png"))
        classes = np.asarray(Image.open(folder / "SegmentationClass" / f"2012_{index:06d}.png"))
        assert numbers.max(initial=0) == len(sample["masks"])
        for place, mask in enumerate(sample["masks"]):
            np.testing.assert_array_equal(numbers == place + 1, mask != 0)
            assert set(classes[mask != 0].tolist()) == {int(sample["labels"][place]) + 1}
        assert not classes[numbers == 0].any()
        found = back.make_source("val")[index]
        for field in ("masks", "labels", "boxes"):
            np.testing.assert_array_equal(found[field], sample[field])
    assert (folder / "ImageSets" / "Segmentation" / "val.txt").read_text().count("\n") == 4


def test_voc_has_the_smaller_mask_on_top_and_counts_covered_ones(tmp_path):
    sample = overlapping()
    exported = export_data(Handmade([sample], ["cat", "dog"]), "voc", tmp_path / "out", ["val"])
    file = tmp_path / "out" / "VOCdevkit" / "VOC2012" / "SegmentationObject" / "2012_000000.png"
    numbers = np.asarray(Image.open(file))
    # the first has 170 pixels, the second 150, so the second is on top; the crowd is below both
    assert numbers[9, 17] == 2 and numbers[5, 5] == 1 and numbers[0, 0] == 3
    assert exported.lost["masks partly or fully covered by others (VOC has one object per pixel)"] == 2


def test_yolo_lines_and_round_trip(tmp_path):
    assert yolo_lines([2], [[0, 5, 10, 25]], (100, 40, 3)) == ["2 0.125 0.15 0.25 0.2"]
    data = scenes("detection")
    reader = read_back(export_data(data, "yolo", tmp_path / "out"))
    assert reader.class_names == data.class_names
    content = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert content["names"] == {k: str(k) for k in range(10)} and content["test"] == "images/test"
    for split, size in SIZES.items():
        images = sorted((tmp_path / "out" / content[split]).iterdir())
        assert len(images) == size
        for image, sample in zip(images, map(data.make_source(split).__getitem__, range(size)), strict=True):
            np.testing.assert_array_equal(read_image(image), sample["image"])
            text = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt").read_text()
            found = np.array([list(map(float, line.split())) for line in text.splitlines()]).reshape(-1, 5)
            assert found[:, 0].tolist() == sample["labels"].tolist()
            cx, cy, w, h = (found[:, 1:] * 48).T
            back = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
            np.testing.assert_allclose(back, sample["boxes"], rtol=0, atol=1e-9)
        for index in range(size):
            one, two = data.make_source(split)[index], reader.make_source(split)[index]
            np.testing.assert_allclose(two["boxes"], one["boxes"], rtol=0, atol=1e-5)
            np.testing.assert_array_equal(two["labels"], one["labels"])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.05, 1), st.integers(0, 10**6))
def test_a_filled_outline_is_its_mask(height, width, share, seed):
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    mask[0, 0] = 1
    corners = outline(mask)
    np.testing.assert_array_equal(rle.decode(rle.fr_poly(corners.ravel().tolist(), height, width)), mask)
    # the area by the shoelace formula: connecting lines enclose no area, and holes are subtracted
    x, y = corners.T
    assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() == 2 * mask.sum()


def test_yolo_masks_round_trip_is_exact(tmp_path):
    sample = overlapping()
    sample["masks"][0, 5:7, 6:9] = 0  # a hole
    sample["masks"][1, 0:2, 0:3] = 1  # a second part
    exported = export_data(Handmade([sample], ["cat", "dog"]), "yolo", tmp_path / "out", ["val"])
    assert exported.task == "instance_segmentation" and exported.lost["crowds (not part of YOLO; omitted)"] == 1
    lines = (tmp_path / "out" / "labels" / "val" / "val_000000.txt").read_text().splitlines()
    assert len(lines) == 2
    for line, mask, label in zip(lines, sample["masks"], "10", strict=False):
        first, *numbers = line.split()
        corners = (np.array(numbers, float).reshape(-1, 2) * [31, 20]).ravel().tolist()
        assert first == label
        np.testing.assert_array_equal(rle.decode(rle.fr_poly(corners, 20, 31)), mask)
    np.testing.assert_array_equal(read_back(exported).make_source("val")[0]["masks"], sample["masks"][:2])


def test_yolo_omits_and_counts_crowds(tmp_path):
    sample = {key: value for key, value in overlapping().items() if key != "masks"}
    exported = export_data(Handmade([sample], ["cat", "dog"]), "yolo", tmp_path / "out", ["train"])
    lines = (tmp_path / "out" / "labels" / "train" / "train_000000.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "0"]
    assert exported.lost == {"crowds (not part of YOLO; omitted)": 1, "`difficult` flags (not part of YOLO)": 1}


def test_round_trip_of_masks_with_ignored_pixels(tmp_path):
    mask = np.array([[0, 1, 255, 1], [2, 2, 0, 255]], np.uint8)
    data = Handmade([{"image": noise(4, 2, 1), "mask": mask}] * 2, ["sky", "road", "car"])
    back = read_back(export_data(data, "masks", tmp_path / "out"))
    assert back.class_names == ["sky", "road", "car"]
    for split in ("train", "val"):
        np.testing.assert_array_equal(back.make_source(split)[1]["mask"], mask)
        np.testing.assert_array_equal(back.make_source(split)[1]["image"], noise(4, 2, 1))
    assert (tmp_path / "out" / "classes.txt").read_text() == "sky\nroad\ncar\n"


def test_round_trip_of_class_folders(tmp_path):
    data = DigitScenes(image_size=32, train_size=80, val_size=20, test_size=5, num_workers=0)
    exported = export_data(data, "folder", tmp_path / "out")
    assert not exported.lost
    back = read_back(exported)
    assert back.class_names == data.class_names
    for split in ("train", "val", "test"):
        ours, theirs = data.make_source(split), back.make_source(split)
        expected = sorted((ours[k]["label"], k) for k in range(len(ours)))
        assert theirs.labels.tolist() == [label for label, _ in expected]
        for index in (0, len(expected) - 1):
            np.testing.assert_array_equal(theirs[index]["image"], ours[expected[index][1]]["image"])


def test_class_folders_count_classes_that_change(tmp_path):
    samples = [{"image": noise(4, 4, k), "label": k} for k in (0, 2)]
    exported = export_data(Handmade(samples, ["top/shirt", "coat", ".bag"]), "folder", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "train").iterdir()) == ["_.bag", "top_shirt"]
    assert exported.lost == {
        "class names changed to valid folder names": 2,
        "classes without a training image (unknown to readers)": 1,
        "classes numbered differently by readers (alphabetical order)": 2,
    }
    with pytest.raises(ValueError, match="class_names: .*unique"):
        export_data(Handmade(samples, ["a/b", "c", "A_b"]), "folder", tmp_path / "no")


def test_files_that_the_format_accepts_are_copied(tmp_path):
    write_voc(tmp_path / "in")
    data = datamodules.VOCDetection(str(tmp_path / "in"), "2007", num_workers=0)
    original = (tmp_path / "in/VOCdevkit/VOC2007/JPEGImages/000005.jpg").read_bytes()
    export_data(data, "coco", tmp_path / "coco", ["val"])
    assert (tmp_path / "coco" / "val2017" / "000005.jpg").read_bytes() == original
    exported = export_data(data, "voc", tmp_path / "voc")
    assert (tmp_path / "voc/VOCdevkit/VOC2012/JPEGImages/000005.jpg").read_bytes() == original
    # the same two images in three splits get distinct names
    assert (tmp_path / "voc/VOCdevkit/VOC2012/JPEGImages/000005-3.jpg").is_file()
    assert not {key for key in exported.lost if "JPEG" in key}


@pytest.mark.parametrize("kind", ["16 bits", "EXIF"])
def test_files_that_readers_would_decode_differently_are_re_encoded(tmp_path, kind):
    pixels = noise(6, 4, 3)
    if kind == "16 bits":
        path = write_image(tmp_path / "in" / "a.png", pixels[..., 0].astype(np.uint16) * 257)
    else:
        path = tmp_path / "in" / "a.jpg"
        path.parent.mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).save(path, exif=exif)
    image = read_image(path, options=ReadOptions("full"))
    sample = {"image": image, "mask": np.zeros(image.shape[:2], np.uint8), "path": str(path)}
    back = read_back(export_data(Handmade([sample], ["a"]), "masks", tmp_path / "out"))
    assert (tmp_path / "out" / "train" / "images" / "a.png").read_bytes() != path.read_bytes()
    np.testing.assert_array_equal(back.make_source("train")[0]["image"], sample["image"])


def test_output_does_not_depend_on_workers(tmp_path):
    trees = []
    for workers in (0, 2):
        data = scenes("detection")
        data.num_workers = workers
        export_data(data, "coco", tmp_path / str(workers), ["val"])
        files = sorted((tmp_path / str(workers)).rglob("*.*"))
        trees.append({path.name: path.read_bytes() for path in files if path.name != "striate.yaml"})
    assert trees[0] == trees[1] and len(trees[0]) == 5


def test_an_interrupted_export_leaves_no_files(tmp_path):
    def stop(samples, split, size):
        for index, sample in enumerate(samples):
            if index == 2:
                assert list((tmp_path / "out.partial").rglob("*.png")) and not (tmp_path / "out").exists()
                raise KeyboardInterrupt
            yield sample

    with pytest.raises(KeyboardInterrupt):
        export_data(scenes("detection"), "coco", tmp_path / "out", track=stop)
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_not_overwritten(tmp_path):
    data = scenes("classification")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "other.partial").mkdir()
    with pytest.raises(FileExistsError, match="folder: .*full', a folder with files"):
        export_data(data, "folder", tmp_path / "full")
    with pytest.raises(FileExistsError, match="folder: .*file', a file"):
        export_data(data, "folder", tmp_path / "file")
    with pytest.raises(FileExistsError, match="folder: .*other.partial' exists"):
        export_data(data, "folder", tmp_path / "other")
    (tmp_path / "other.partial" / ".striate-export").touch()  # left by a killed export
    (tmp_path / "other.partial" / "old.png").touch()
    (tmp_path / "other").mkdir()
    export_data(data, "folder", tmp_path / "other")
    assert {path.name for path in (tmp_path / "other").iterdir()} == {"train", "val", "test", "striate.yaml"}
    assert (tmp_path / "full" / "mine.txt").is_file() and not list(tmp_path.glob("*.partial"))


def test_invalid_arguments_and_unsupported_tasks_are_rejected(tmp_path):
    num_tasks = {"coco": 4, "voc": 4, "yolo": 3, "masks": 1, "folder": 1}
    assert {name: len(kind.tasks) for name, kind in FORMATS.items()} == num_tasks
    with pytest.raises(ValueError, match="format: masks .*semantic_segmentation, got .*detection"):
        export_data(scenes("detection"), "masks", tmp_path / "out")
    with pytest.raises(ValueError, match="format: .*got 'coc'.*'coco'"):
        export_data(scenes("detection"), "coc", tmp_path / "out")
    with pytest.raises(ValueError, match="splits: .*got 'validation'"):
        export_data(scenes("detection"), "coco", tmp_path / "out", ["validation"])
    with pytest.raises(ValueError, match="quality: .*got 101"):
        export_data(scenes("detection"), "voc", tmp_path / "out", quality=101)
    with pytest.raises(ValueError, match="splits: Handmade .*got 'test'"):
        export_data(Handmade([], ["a"]), "coco", tmp_path / "out", ["test"])
    bad = {"image": noise(9, 9), "label": 3}
    with pytest.raises(ValueError, match=r"sample 1 of train \(Handmade\): label: .*got 3"):
        export_data(Handmade([bad | {"label": 0}, bad], ["a", "b"]), "folder", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unreadable_images_are_counted_or_stop_a_strict_export(tmp_path):
    good = {"image": noise(9, 9), "label": 0}
    samples = [good, ImageError("b.jpg", "the file is empty"), good | {"label": 1}]
    exported = export_data(Handmade(samples, ["a", "b"]), "folder", tmp_path / "out", ["train"])
    assert exported.counts == {"train": 2} and exported.lost == {"unreadable images omitted": 1}
    with pytest.raises(ImageError, match="b.jpg: the file is empty"):
        export_data(Handmade(samples, ["a", "b"], strict=True), "folder", tmp_path / "strict")
    with pytest.raises(ValueError, match="data: .*got 2 unreadable"):
        export_data(Handmade(samples[1:2], ["a", "b"]), "folder", tmp_path / "none")


def test_absent_splits_are_reported(tmp_path):
    for split in ("train", "val"):
        make_folder(tmp_path / "in" / split, 2)
    exported = export_data(ImageFolder(str(tmp_path / "in"), num_workers=0), "folder", tmp_path / "out")
    assert exported.counts == {"train": 4, "val": 4} and "no folder" in exported.absent["test"]


def test_special_characters_in_file_names_are_replaced(tmp_path):
    path = write_image(tmp_path / "in" / "a, b (1).png", noise(8, 8))
    sample = {"image": read_image(path), "boxes": [[0, 0, 4, 4]], "labels": [0], "path": str(path)}
    export_data(Handmade([sample, sample], ["x"]), "coco", tmp_path / "out", ["train"])
    content = json.loads((tmp_path / "out" / "annotations" / "instances_train2017.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a_b_1_.png", "a_b_1_-2.png"]
    twice = [sample | {"image_id": 4}] * 2
    with pytest.raises(ValueError, match="sample 1 of train .*: image_id: .*got 4"):
        export_data(Handmade(twice, ["x"]), "coco", tmp_path / "no")
