"""ILSVRC CLS-LOC in Kaggle's layout and in that of the publisher's archives."""

import numpy as np
import pytest

from striate.datamodules import ImageNetLocalization
from striate.datamodules.imagenet.classification import read_synset_mapping, read_synsets
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.coco_voc import voc_xml
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise
from striate.tests.helpers.mnist_cifar_imagenet import write_devkit, write_jpeg

TENCH, CRANE, HOIST = WNIDS = ["n01440764", "n02012849", "n03126707"]
MAPPING = f"{CRANE} crane\n{TENCH} tench, Tinca tinca\n{HOIST} crane, hoist\n"
SIZE = (60, 40)
# objects of each file: name, xmin ymin xmax ymax, from 0 and with the last pixel; None: no file
TRAIN = {
    f"{TENCH}/{TENCH}_10": [(TENCH, (0, 0, 59, 39))],
    f"{TENCH}/{TENCH}_7": [(TENCH, (5, 6, 9, 9)), (TENCH, (20, 10, 49, 29))],
    f"{CRANE}/{CRANE}_1": None,
    f"{CRANE}/{CRANE}_2": [(TENCH, (1, 1, 50, 30)), (CRANE, (3, 4, 3, 4))],
    f"{HOIST}/{HOIST}_1": [(HOIST, (30, 20, 60, 40))],
    f"{HOIST}/{HOIST}_2": [("n09999999", (1, 1, 5, 5))],
}
FIRST = {
    f"{TENCH}_10": (0, [0, 0, 60, 40]),
    f"{TENCH}_7": (0, [5, 6, 10, 10]),
    f"{CRANE}_2": (1, [3, 4, 4, 5]),  # one pixel; the tench is not a crane
    f"{HOIST}_1": (2, [30, 20, 60, 40]),
}
VAL = {
    "ILSVRC2012_val_00000001": [(HOIST, (85, 1, 499, 272)), (HOIST, (0, 0, 499, 374))],
    "ILSVRC2012_val_00000002": [(TENCH, (131, 0, 499, 254))],
}
VAL_FIRST = {"ILSVRC2012_val_00000001": (2, [85, 1, 500, 273]), "ILSVRC2012_val_00000002": (0, [131, 0, 500, 255])}
LEFT_OUT = rf"2 of 6 images left out: .*\(first: {CRANE}/{CRANE}_1.JPEG\)"


def write_split(images, boxes, content, size, in_folders=True, drawn=None):
    for number, (name, objects) in enumerate(content.items()):
        own = "" if in_folders else f"{objects[0][0]}/"
        write_jpeg(images / f"{own}{name}.JPEG", noise(*size, number))
        if objects is not None:
            file = boxes / f"{name}.xml"
            file.parent.mkdir(parents=True, exist_ok=True)
            xml = voc_xml(name.rsplit("/")[-1], drawn or size, [(label, box, 0) for label, box in objects])
            file.write_text(xml)


def write_kaggle(root, train=None, drawn=None):
    (root / "LOC_synset_mapping.txt").write_text(MAPPING)
    images, boxes = root / "ILSVRC/Data/CLS-LOC", root / "ILSVRC/Annotations/CLS-LOC"
    write_split(images / "train", boxes / "train", TRAIN if train is None else train, SIZE, drawn=drawn)
    write_split(images / "val", boxes / "val", VAL, (500, 375))
    return images, boxes


def write_archives(root, val_sorted=False):
    write_devkit(root)
    write_split(root / "train", root / "bbox/train", TRAIN, SIZE)
    content = VAL | {"ILSVRC2012_val_00000003": [(CRANE, (0, 0, 9, 9))]}
    write_split(root / "val", root / "bbox/val", content, (500, 375), in_folders=not val_sorted)


def module(root, **options):
    return ImageNetLocalization(str(root), num_workers=0, **{"objects": "first", **options})


def samples(source):
    return {s["path"].rsplit("/", 1)[1].split(".")[0]: (s["label"], s["box"].tolist()) for s in source}


def test_the_layout_of_kaggle_by_hand(tmp_path):
    write_kaggle(tmp_path)
    data = module(tmp_path)
    assert data.class_names == ["tench", "crane (n02012849)", "crane (n03126707)"]
    with pytest.warns(UserWarning, match=LEFT_OUT):
        train = data.make_source("train")
    assert samples(train) == FIRST and train.labels.dtype == np.int64 and train.boxes.dtype == np.float32
    assert samples(data.make_source("val")) == samples(data.make_source("test")) == VAL_FIRST


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("val_sorted", [False, True])
def test_the_archives_layout_by_hand(tmp_path, val_sorted):
    write_archives(tmp_path, val_sorted)
    data = module(tmp_path)
    data.setup("fit")
    assert samples(data.datasets["train"].source) == FIRST
    third = {"ILSVRC2012_val_00000003": (1, [0, 0, 10, 10])}
    assert samples(data.datasets["val"].source) == VAL_FIRST | third
    batch = next(iter(data.val_dataloader()))
    assert batch["box"].shape == (3, 4) and batch["image"].shape == (3, 3, 375, 500)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_several_objects(tmp_path):
    write_kaggle(tmp_path)
    largest = samples(module(tmp_path, objects="largest").make_source("train"))
    assert largest == FIRST | {f"{TENCH}_7": (0, [20, 10, 50, 30])}
    one = samples(module(tmp_path, objects="one").make_source("train"))
    assert one == {name: sample for name, sample in FIRST.items() if name != f"{TENCH}_7"}
    assert samples(module(tmp_path, objects="one").make_source("val")).keys() == {"ILSVRC2012_val_00000002"}
    default = samples(ImageNetLocalization(str(tmp_path)).make_source("val"))
    assert default["ILSVRC2012_val_00000001"] == (2, [0, 0, 500, 375])


@pytest.mark.filterwarnings("ignore:.*left out")
def test_boxes_for_another_size_are_scaled(tmp_path):
    write_kaggle(tmp_path, {f"{w}/{w}_1": [(w, (30, 20, 89, 59))] for w in WNIDS}, drawn=(120, 160))
    for _, box in samples(module(tmp_path).make_source("train")).values():
        assert box == [15, 5, 45, 15]  # the image is 60x40: half as wide, a quarter as high


@pytest.mark.filterwarnings("ignore:.*no box of their class")
@pytest.mark.parametrize(
    "box, code",
    [
        ((10, 20, 8, 30), "box-inverted"),
        ((60, 20, 70, 30), "box-outside"),
        ((1, "nan", 70, 30), "box-not-finite"),
    ],
)
def test_unusable_boxes(tmp_path, box, code):
    write_kaggle(tmp_path, TRAIN | {f"{HOIST}/{HOIST}_1": [(HOIST, box)], f"{TENCH}/{TENCH}_7": [(TENCH, box)] * 2})
    with warns_of(code, f"image {TENCH}/{TENCH}_7.JPEG", 3):
        assert samples(module(tmp_path).make_source("train")).keys() == {f"{TENCH}_10", f"{CRANE}_2"}
    with stops_at(code, rf"train, image {TENCH}/.*_7.JPEG \(and 2 more\): "):
        module(tmp_path, strict=True).make_source("train")


def test_missing_boxes_do_not_stop_a_strict_run(tmp_path):
    write_kaggle(tmp_path)
    with pytest.warns(UserWarning, match=LEFT_OUT):
        assert samples(module(tmp_path, strict=True).make_source("train")) == FIRST


def test_both_lists_of_classes_agree(tmp_path):
    (tmp_path / "m.txt").write_text(MAPPING)
    kaggle, devkit = read_synset_mapping(tmp_path / "m.txt"), read_synsets(write_devkit(tmp_path) / "meta.mat")
    assert (kaggle.wnids, kaggle.names) == (devkit.wnids, devkit.names) == (WNIDS, kaggle.names)
    for line in ("n0144 tench", f"{TENCH}", f"{HOIST} crane", ""):
        (tmp_path / "m.txt").write_text(MAPPING + line + "\n")
        with pytest.raises(ValueError, match=f"m.txt, line 4: .*got '{line}'"):
            read_synset_mapping(tmp_path / "m.txt")


def test_malformed_xml(tmp_path):
    _, boxes = write_kaggle(tmp_path)
    file = boxes / "train" / TENCH / f"{TENCH}_7.xml"
    text = file.read_text()
    file.write_text(text[:150])
    line = text[:150].count("\n") + 1
    with pytest.raises(ValueError, match=rf"{TENCH}_7.xml, line {line}, column \d+: .*XML"):
        module(tmp_path).make_source("train")
    file.write_text(text.replace("<xmax>9<", "<xmax>nine<"))
    with pytest.raises(ValueError, match=f"{TENCH}_7.xml, object 1: bndbox/xmax.*'nine'"):
        module(tmp_path).make_source("train")
    file.write_text(text.replace("<width>60<", "<width>0<"))
    with pytest.raises(ValueError, match=f"{TENCH}_7.xml: size/width.*'0'"):
        module(tmp_path).make_source("train")


@pytest.mark.filterwarnings("ignore:.*left out")
def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)train'. ImageNetLocalization expects.*ROOT/bbox/val"):
        module(tmp_path).make_source("train")
    images, boxes = write_kaggle(tmp_path)
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    with pytest.raises(FileNotFoundError, match="root: .*LOC_synset_mapping.txt' nor '.*meta.mat'"):
        module(tmp_path).make_source("train")
    (tmp_path / "LOC_synset_mapping.txt").write_text(MAPPING)
    (images / "train" / CRANE).rename(images / "train" / "n09999999")
    with pytest.raises(ValueError, match="no class 'n09999999'"):
        module(tmp_path).make_source("train")
    (images / "train" / "n09999999").rename(images / "train" / CRANE)
    (boxes / "val").rename(boxes / "away")
    (boxes / "val").mkdir()
    with pytest.raises(ValueError, match="val: no box for any of the 2 images"):
        module(tmp_path).make_source("val")
    (boxes / "val").rmdir()
    with pytest.raises(FileNotFoundError, match=r"no folder '.*Annotations/CLS-LOC/val'"):
        module(tmp_path).make_source("val")
    (images / "val").rename(images / "away")
    (images / "val").mkdir()
    (boxes / "val").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no images in '.*Data/CLS-LOC/val'"):
        module(tmp_path).make_source("val")


@pytest.mark.filterwarnings("ignore:.*left out")
def test_an_unreadable_image(tmp_path):
    images, _ = write_kaggle(tmp_path)
    (images / "train" / TENCH / f"{TENCH}_10.JPEG").write_bytes(b"")
    data = module(tmp_path)
    with pytest.raises(ImageError, match=f"{TENCH}_10.JPEG: the file is empty"):
        data.make_source("train")[0]
    with pytest.raises(ValueError, match="objects.*got 'frist'; did you mean 'first'"):
        module(tmp_path, objects="frist")
