"""Extreme input to the readers of objects: images of 1 and of 20,000 pixels, wrong run lengths, paths that lead out."""

import json

import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as oracle

from striate.datamodules import CocoDetection, InstanceMasks, VOCDetection, YoloDetection
from striate.datamodules.annotations.mask_files import read_ids
from striate.datamodules.annotations.object_masks import ObjectMasksBuilder
from striate.datamodules.images.read import ImageError, image_size, read_image
from striate.tests.helpers.coco_voc import runs_of, voc_xml, write_coco, write_voc
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise, write_image

# pycocotools 2.0.11 passes arrays to numpy 2 as to numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

# -- images of one pixel, and very long images -------------------------------------------------------

EXTREME = {
    (1, 1): [(0, 0, 1, 1)],
    (20000, 20): [(0, 0, 20000, 20), (19990, 5, 20000, 15), (100, 3, 101, 4)],  # the last is one pixel
    (20, 20000): [(0, 0, 20, 20000), (5, 19990, 15, 20000)],
}


def corners(box):
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def extreme_coco(root, task):
    images, annotations = [], []
    for number, (size, boxes) in enumerate(EXTREME.items()):
        write_image(root / "train2017" / f"{number}.png", noise(*size))
        images.append({"id": number, "file_name": f"{number}.png", "width": size[0], "height": size[1]})
        for place, (x1, y1, x2, y2) in enumerate(boxes):
            mask = np.ones(size[::-1], np.uint8, order="F")
            runs = {"size": list(size[::-1]), "counts": oracle.encode(mask)["counts"].decode()}
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                | {"segmentation": [corners((x1, y1, x2, y2))] if place else runs}
            )
    (root / "annotations").mkdir()
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    file = root / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(content))
    return CocoDetection(str(root), task, val_annotations=str(file), val_images="train2017", num_workers=0)


def extreme_voc(root, task):
    folder = root / "VOCdevkit" / "VOC2007"
    for part in ("Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    for number, (size, boxes) in enumerate(EXTREME.items()):
        write_image(folder / "JPEGImages" / f"00000{number}.jpg", noise(*size))
        objects = [("cat", (x1 + 1, y1 + 1, x2, y2), 0) for x1, y1, x2, y2 in boxes]
        (folder / "Annotations" / f"00000{number}.xml").write_text(voc_xml("a", size, objects))
    for split in ("train", "val"):
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("000000\n000001\n000002\n")
    return VOCDetection(str(root), "2007", num_workers=0)


def extreme_yolo(root, task):
    (root / "labels").mkdir(parents=True)
    for number, ((width, height), boxes) in enumerate(EXTREME.items()):
        write_image(root / "images" / f"{number}.png", noise(width, height))
        lines = []
        for x1, y1, x2, y2 in boxes:
            if task == "detection":
                numbers = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            else:
                numbers = np.array(corners((x1, y1, x2, y2))) / ([width, height] * 4)
            lines.append(" ".join(["0", *(f"{number:.6f}" for number in numbers)]))
        (root / "labels" / f"{number}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("names: [a]\ntrain: images\nval: images\n")
    return YoloDetection(str(root), task, num_workers=0)


def extreme_ids(root, task):
    for number, (size, boxes) in enumerate(EXTREME.items()):
        write_image(root / "val" / "images" / f"{number}.png", noise(*size))
        ids = np.zeros(size[::-1], np.uint16)
        for place, (x1, y1, x2, y2) in enumerate(boxes, start=1):
            ids[y1:y2, x1:x2] = place
        write_image(root / "val" / "masks" / f"{number}.png", ids)
    return InstanceMasks(str(root), num_workers=0)


FORMATS = [
    (extreme_coco, "detection"),
    (extreme_coco, "instance_segmentation"),
    (extreme_voc, "detection"),
    (extreme_yolo, "detection"),
    (extreme_yolo, "instance_segmentation"),
    (extreme_ids, "instance_segmentation"),
]


@pytest.mark.filterwarnings("ignore:.*one pixel wide or high")
@pytest.mark.parametrize("make, task", FORMATS)
def test_images_of_one_pixel_and_very_long_ones(tmp_path, make, task):
    data = make(tmp_path, task)
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    assert not batch["unreadable"] and [tuple(image.shape[:0:-1]) for image in batch["image"]] == list(EXTREME)
    for target, boxes in zip(batch["target"], EXTREME.values(), strict=True):
        np.testing.assert_allclose(target["boxes"], boxes, atol=0.02)  # YOLO's six decimals of 20,000
        assert (target["boxes"] >= 0).all()
        if "masks" in target:
            areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes]
            if make is extreme_ids:  # its masks do not overlap
                areas[0] -= sum(areas[1:])
            assert target["masks"].sum(dim=(1, 2)).tolist() == areas


@pytest.mark.filterwarnings("ignore:.*one pixel wide or high")
@pytest.mark.parametrize("make, task", FORMATS)
@pytest.mark.parametrize(
    "steps, sizes",
    [
        ([A.HorizontalFlip(p=1)], list(EXTREME)),
        ([A.Resize(64, 64)], [(64, 64)] * 3),
        ([A.PadIfNeeded(16, 16), A.RandomCrop(16, 16)], [(16, 16)] * 3),
        ([A.LongestMaxSize(500)], [(500, 500), (500, 1), (1, 500)]),
    ],
)
def test_augmentation_of_extreme_sizes(tmp_path, make, task, steps, sizes):
    data = make(tmp_path, task)
    data.val_transform = steps
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    assert [tuple(image.shape[:0:-1]) for image in batch["image"]] == sizes
    for target, (width, height), annotated in zip(batch["target"], sizes, EXTREME.values(), strict=True):
        boxes = target["boxes"]
        assert len(boxes) == len(annotated)  # evaluation counts every object; those of which nothing is left are 0
        lost = (boxes == 0).all(1)
        assert not lost.all() and ((boxes[:, :2] < boxes[:, 2:]).all(1) | lost).all() and (boxes >= 0).all()
        assert (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
    if len(steps) == 1 and isinstance(steps[0], A.HorizontalFlip):  # without rounding
        for target, (width, _), given_boxes in zip(batch["target"], EXTREME, EXTREME.values(), strict=True):
            expected = [(width - x2, y1, width - x1, y2) for x1, y1, x2, y2 in given_boxes]
            np.testing.assert_allclose(target["boxes"], expected, atol=0.02)


# -- run lengths -------------------------------------------------------------------------------------


def packed(counts):
    """Return COCO's compressed run lengths of any numbers, even if they do not add up to the image."""
    text = ""
    for place, count in enumerate(counts):
        rest, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            five, rest = rest & 31, rest >> 5
            more = rest != (-1 if five & 16 else 0)
            text += chr(48 + five + 32 * more)
    return text


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6), st.integers(-40, 40))
def test_run_lengths_must_add_up_to_the_image(height, width, seed, wrong):
    mask = (np.random.default_rng(seed).random((height, width)) < 0.3).astype(np.uint8)
    runs = runs_of(mask)
    assert packed(runs) == oracle.encode(np.asfortranarray(mask))["counts"].decode()
    runs[-1] += wrong
    for counts in (packed(runs), packed(runs).encode(), *([runs] if runs[-1] >= 0 else [])):
        problem = ObjectMasksBuilder().add({"size": [height, width], "counts": counts}, height, width)
        assert problem is None if wrong == 0 else "do not add up" in problem


@pytest.mark.parametrize("counts", [packed([2399]), packed([100, 50])[:-1], packed([5, 6, 7]), "0", "é", "\x01", "~~"])
def test_short_run_lengths(tmp_path, counts):
    from striate.tests.helpers.coco_voc import coco_content

    content = coco_content()
    content["annotations"][0]["segmentation"] = {"size": [40, 60], "counts": counts}
    write_coco(tmp_path, content)
    with warns_of("bad-mask", "annotation 1"):
        source = CocoDetection(str(tmp_path), "instance_segmentation").make_source("train")
    assert source[0]["labels"].tolist() == [1, 0]


def test_a_mask_without_pixels_is_never_trained_on_and_is_missed_in_evaluation(tmp_path):
    from striate.tests.helpers.coco_voc import coco_content

    content = coco_content()
    content["annotations"][0]["segmentation"] = {"size": [40, 60], "counts": [2400]}
    write_coco(tmp_path, content)
    data = CocoDetection(str(tmp_path), "instance_segmentation", num_workers=0)
    data.setup("fit")
    assert len(data.make_source("val")[0]["labels"]) == 3  # as annotated, for the check of the data
    counted = data.datasets["val"][0]
    assert counted["labels"].tolist() == [0, 1, 0] and counted["masks"].any(axis=(1, 2)).tolist() == [False, True, True]
    sample = data.datasets["train"][0]
    assert sample["labels"].tolist() == [1, 0] and sample["area"].tolist() == [391.5, 360]
    assert sample["masks"].shape == (2, 40, 60) and sample["masks"].any(axis=(1, 2)).all()
    assert sample["iscrowd"].tolist() == [False, True] and len(sample["boxes"]) == len(sample["difficult"]) == 2


# -- COCO and VOC ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_coco_numbers_that_are_not_finite(tmp_path, number):
    file = write_coco(tmp_path)
    file.write_text(file.read_text().replace("[10.5, 5.25, 20.25, 14.76]", f"[10.5, 5.25, {number}, 14.76]", 1))
    with warns_of("box-not-finite"):
        assert len(CocoDetection(str(tmp_path)).make_source("train").objects.labels) == 4


def test_coco_that_is_not_json(tmp_path):
    write_coco(tmp_path).write_bytes(b'{"images": "\xff"}')
    with pytest.raises(ValueError, match="instances_train2017.json: .*UTF-8"):
        CocoDetection(str(tmp_path)).make_source("train")
    write_coco(tmp_path).write_text("")
    with pytest.raises(ValueError, match="line 1, column 1: malformed JSON"):
        CocoDetection(str(tmp_path)).make_source("train")


def test_coco_without_a_single_object(tmp_path):
    content = json.loads(write_coco(tmp_path).read_text()) | {"annotations": []}
    write_coco(tmp_path, content)
    for task in ("detection", "instance_segmentation"):
        sample = CocoDetection(str(tmp_path), task).make_source("train")[0]
        assert sample["boxes"].shape == (0, 4)
    assert sample["masks"].shape == (0, 40, 60)
    assert not CocoDetection(str(tmp_path), "semantic_segmentation").make_source("train")[0]["mask"].any()


@pytest.mark.parametrize("box", [("inf", 2, 3, 4), (1, 2, "-inf", 4), (1, 2, "1e999", 4)])
def test_voc_numbers_that_are_not_finite(tmp_path, box):
    write_voc(tmp_path, {"000005": [("car", box, 0)]})
    with warns_of("box-not-finite"):
        source = VOCDetection(str(tmp_path), "2007").make_source("train")
    assert source[0]["boxes"].shape == (0, 4)


@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_a_voc_box_partly_outside_is_clipped(tmp_path):
    write_voc(tmp_path, {"000005": [("car", (-3, 370, 20, 400), 0)]})
    assert VOCDetection(str(tmp_path), "2007").make_source("train")[0]["boxes"].tolist() == [[0, 369, 20, 375]]


@pytest.mark.parametrize("line", ["../../../out", "/etc/out", "..\\out"])
def test_a_voc_image_set_that_leads_out_of_its_folder(tmp_path, line):
    devkit = write_voc(tmp_path)
    with (devkit / "VOC2007" / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write(f"{line}\n")
    with stops_at("bad-target", r"train.txt, image .*out: "):
        VOCDetection(str(tmp_path), "2007").make_source("train")


def test_a_voc_image_of_another_size_is_unreadable(tmp_path):
    devkit = write_voc(tmp_path)
    write_image(devkit / "VOC2007" / "JPEGImages" / "000005.jpg", noise(50, 37))
    with pytest.raises(ImageError, match="000005.jpg: .*50x37, .*annotations.* 500x375"):
        VOCDetection(str(tmp_path), "2007").make_source("train")[0]


# -- sizes without decoding --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".gif"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"icc_profile": bytes(5000)}, {"orientation": 8}])
def test_image_size_is_that_of_the_image_read(tmp_path, suffix, options):
    options = dict(options)
    path = tmp_path / f"a{suffix}"
    if turn := options.pop("orientation", None):
        exif = Image.Exif()
        exif[0x0112] = turn
        options["exif"] = exif
    image = Image.fromarray(noise(41, 23))
    (image.convert("CMYK") if suffix == ".jpg" and not options else image).save(path, **options)
    height, width, _ = read_image(path).shape
    assert image_size(path) == (width, height) and {width, height} == {41, 23}


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_gray_tiff_is_rotated(tmp_path, compression):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    levels = np.array([[0, 10], [20, 30], [40, 50]], np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.tif", exif=exif, compression=compression)
    assert read_image(tmp_path / "a.tif")[..., 0].tolist() == [[40, 20, 0], [50, 30, 10]]
    assert read_ids(tmp_path / "a.tif").tolist() == [[40, 20, 0], [50, 30, 10]]


def test_image_size_of_bad_files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in ("a.jpg", "b.png", "c.jpg"):
        with pytest.raises(ImageError, match=name):
            image_size(tmp_path / name)
