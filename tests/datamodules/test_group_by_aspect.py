"""Batches of similar aspect ratio, for each reader of objects."""

import numpy as np
import pytest

from striate.datamodules import DetectionManifest, InstanceMasks, VOCInstances, YoloDetection
from striate.tests.helpers.fixtures import noise, write_image

SHAPES = [(40, 20), (20, 40)] * 4  # wide and tall in turn


def shaped_yolo(root):
    for number, size in enumerate(SHAPES):
        write_image(root / f"images/{number}.png", noise(*size, number))
    (root / "labels").mkdir()
    (root / "labels/0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("names: [a]\ntrain: images\nval: images\n")
    return {"root": str(root)}


def shaped_table(root):
    rows = []
    for number, size in enumerate(SHAPES):
        write_image(root / f"{number}.png", noise(*size, number))
        rows.append(f"{number}.png,a,1,1,10,10\n")
    (root / "a.csv").write_text("path,label,x1,y1,x2,y2\n" + "".join(rows))
    return {"train": str(root / "a.csv"), "val": str(root / "a.csv")}


def shaped_ids(root):
    for number, (width, height) in enumerate(SHAPES):
        for split in ("train", "val"):
            write_image(root / f"{split}/images/{number}.png", noise(width, height, number))
            write_image(root / f"{split}/masks/{number}.png", np.ones((height, width), np.uint16))
    return {"root": str(root)}


def shaped_voc(root):
    folder = root / "VOCdevkit/VOC2012"
    for number, (width, height) in enumerate([*SHAPES, (40, 20)]):
        write_image(folder / f"JPEGImages/{number}.jpg", noise(width, height, number))
        for part in ("SegmentationClass", "SegmentationObject"):
            write_image(folder / f"{part}/{number}.png", np.ones((height, width), np.uint8))
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    (folder / "ImageSets/Segmentation/train.txt").write_text("".join(f"{number}\n" for number in range(len(SHAPES))))
    (folder / "ImageSets/Segmentation/val.txt").write_text(f"{len(SHAPES)}\n")
    return {"root": str(root)}


@pytest.mark.parametrize(
    "reader, write",
    [
        (YoloDetection, shaped_yolo),
        (DetectionManifest, shaped_table),
        (InstanceMasks, shaped_ids),
        (VOCInstances, shaped_voc),
    ],
)
def test_each_reader_of_objects_groups_by_aspect(tmp_path, reader, write):
    options = write(tmp_path) | {"batch_size": 4, "num_workers": 0}
    shapes = {}
    for grouped in (False, True):
        data = reader(**options, group_by_aspect=grouped)
        data.setup("fit")
        batches = list(data.train_dataloader())
        assert sorted(index for batch in batches for index in batch["index"].tolist()) == list(range(8))
        shapes[grouped] = [{tuple(image.shape[1:]) for image in batch["image"]} for batch in batches]
    assert sorted(map(sorted, shapes[True])) == [[(20, 40)], [(40, 20)]]
    assert any(len(batch_shapes) == 2 for batch_shapes in shapes[False])
