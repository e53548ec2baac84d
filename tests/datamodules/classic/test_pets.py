"""Oxford-IIIT Pet: heads, breeds and species by hand and against torchvision."""

import numpy as np
import pytest
import torchvision

from striate.datamodules import OxfordPets
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.coco_voc import voc_xml
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise, write_image

SIZE = (60, 40)
# line of the list, and heads in VOC's form; None: no file
PETS = {
    "Abyssinian_100 1 1 1": [(15, 7, 33, 27)],
    "Abyssinian_1 1 1 1": [(1, 1, 60, 40)],
    "american_bulldog_10 2 2 1": [(3, 3, 10, 10), (21, 11, 50, 40)],
    "american_bulldog_2 2 2 1": [(2, 2, 9, 9)],
    "Bengal_5 6 1 2": [(9, 9, 20, 20)],
    "Bengal_7 6 1 2": [(5, 6, 7, 8)],
    "Bengal_11 6 1 2": None,
}
BOXES = {
    "Abyssinian_100": [14, 6, 33, 27],
    "Abyssinian_1": [0, 0, 60, 40],
    "american_bulldog_10": [20, 10, 50, 40],  # the larger head
    "american_bulldog_2": [1, 1, 9, 9],
    "Bengal_5": [8, 8, 20, 20],
    "Bengal_7": [4, 5, 7, 8],
}
NAMES = ["Abyssinian", "American Bulldog", "Bengal"]
LEFT_OUT = r"1 of 7 images left out: .*\(first: Bengal_11\)"


def write_pets(root, pets=None, folder=""):
    base = root / folder
    annotations = base / "annotations"
    (annotations / "xmls").mkdir(parents=True)
    pets = PETS if pets is None else pets
    (annotations / "trainval.txt").write_text("".join(f"{line}\n" for line in pets))
    (annotations / "test.txt").write_text("Abyssinian_9 1 1 1\n")
    for number, (line, heads) in enumerate(pets.items()):
        name, *_ = line.split()
        if heads is not None:
            kind = "cat" if name[0].isupper() else "dog"
            xml = voc_xml(name, SIZE, [(kind, head, 0) for head in heads])
            (annotations / "xmls" / f"{name}.xml").write_text(xml)
        write_image(base / "images" / f"{name}.jpg", noise(*SIZE, number))
    return base


def pets(root, **options):
    return OxfordPets(str(root), num_workers=0, **{"val_fraction": 0.5, **options})


def samples(data, *splits):
    result = {}
    for split in splits:
        for sample in data.make_source(split):
            result[sample["path"].rsplit("/", 1)[1][:-4]] = (sample["label"], sample["box"].tolist())
    return result


@pytest.mark.parametrize("folder", ["", "oxford-iiit-pet"])
def test_breeds_and_heads_by_hand(tmp_path, folder):
    write_pets(tmp_path, folder=folder)
    data = pets(tmp_path)
    with pytest.warns(UserWarning, match=LEFT_OUT) as warned:
        found = samples(data, "train", "val")
    assert len(warned) == 1 and data.class_names == NAMES
    labels = {name: NAMES.index(name.rpartition("_")[0].replace("_", " ").title()) for name in BOXES}
    assert found == {name: (labels[name], box) for name, box in BOXES.items()}


@pytest.mark.filterwarnings("ignore:.*left out")
def test_species_share_the_split_of_the_breeds(tmp_path):
    write_pets(tmp_path)
    data = pets(tmp_path, classes="species")
    assert data.class_names == ["cat", "dog"]
    assert samples(data, "train", "val") == {name: (int(name[0].islower()), box) for name, box in BOXES.items()}
    breeds = pets(tmp_path)
    for split in ("train", "val"):
        assert samples(data, split).keys() == samples(breeds, split).keys()
        assert sorted(label for label, _ in samples(breeds, split).values()) == [0, 1, 2]
    assert samples(data, "test") == samples(data, "val")


@pytest.mark.filterwarnings("ignore:.*left out")
def test_labels_and_names_against_torchvision(tmp_path):
    folder = write_pets(tmp_path, {line: heads for line, heads in PETS.items() if heads}, "oxford-iiit-pet")
    lines = (folder / "annotations" / "trainval.txt").read_text().replace(" 6 1 2", " 3 1 2")  # numbers without gaps
    (folder / "annotations" / "trainval.txt").write_text(lines)
    for classes, kind in (("breed", "category"), ("species", "binary-category")):
        theirs = torchvision.datasets.OxfordIIITPet(str(tmp_path), "trainval", kind)
        data = pets(tmp_path, classes=classes)
        ours = samples(data, "train", "val")
        assert {path.stem: label for path, (_, label) in zip(theirs._images, theirs, strict=True)} == {
            name: label for name, (label, _) in ours.items()
        }
        names = theirs.classes if classes == "breed" else [name.lower() for name in theirs.bin_classes]
        assert data.class_names == names


@pytest.mark.filterwarnings("ignore:.*no box is published")
def test_a_batch(tmp_path):
    write_pets(tmp_path)
    data = pets(tmp_path, batch_size=3)
    data.setup("fit")
    (batch,) = data.val_dataloader()
    assert batch["image"].shape == (3, 3, 40, 60) and sorted(batch["label"].tolist()) == [0, 1, 2]
    for label, box in zip(batch["label"].tolist(), batch["box"].tolist(), strict=True):
        assert box in [
            b for name, b in BOXES.items() if name.lower().startswith(NAMES[label].lower().replace(" ", "_"))
        ]


@pytest.mark.filterwarnings("ignore:.*no box is published")
@pytest.mark.parametrize(
    "head, code",
    [
        ((10, 20, 9, 40), "box-zero-area"),
        ((61, 20, 70, 40), "box-outside"),
        (("nan", 20, 70, 40), "box-not-finite"),
    ],
)
def test_unusable_boxes(tmp_path, head, code):
    write_pets(tmp_path, PETS | {"Bengal_12 6 1 2": [head], "american_bulldog_2 2 2 1": [head, (2, 2, 9, 9)]})
    with warns_of(code, "american_bulldog_2.xml", 2):
        found = samples(pets(tmp_path), "train", "val")
    assert {name: box for name, (_, box) in found.items()} == BOXES  # the other of two heads is left
    with stops_at(code, r"xmls/american_bulldog_2.xml \(and 1 more\): "):
        pets(tmp_path, strict=True).make_source("train")


def test_missing_boxes_do_not_stop_a_strict_run(tmp_path):
    write_pets(tmp_path)
    with pytest.warns(UserWarning, match=LEFT_OUT):
        assert len(pets(tmp_path, strict=True).make_source("train")) == 3


@pytest.mark.parametrize(
    "line, message",
    [
        ("Bengal_9 6 1", "got 'Bengal_9 6 1'"),
        ("Bengal_9 6 3 2", "got 'Bengal_9 6 3 2'"),
        ("Bengal_9 six 1 2", "got 'Bengal_9 six 1 2'"),
        ("../Bengal_9 6 1 2", "got '../Bengal_9 6 1 2'"),
        ("/etc/Bengal_9 6 1 2", "got '/etc/Bengal_9 6 1 2'"),
        ("Bengal_5 6 1 2", "got 'Bengal_5' more than once"),
        ("Birman_5 6 1 2", "breed 6.*'Bengal'.*got 'Birman'"),
    ],
)
def test_bad_lines(tmp_path, line, message):
    file = write_pets(tmp_path) / "annotations" / "trainval.txt"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ValueError, match=f"{file}, line 8: .*{message}"):
        pets(tmp_path).setup("fit")


def test_malformed_xml(tmp_path):
    file = write_pets(tmp_path) / "annotations" / "xmls" / "Bengal_5.xml"
    text = file.read_text()[:150]
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"Bengal_5.xml, line {1 + text.count(chr(10))}, column \d+: .*XML"):
        pets(tmp_path).setup("fit")
    file.write_text(voc_xml("Bengal_5", SIZE, [("cat", (1, 2, "x", 4), 0)]))
    with pytest.raises(ValueError, match="Bengal_5.xml, object 1: bndbox/xmax.*'x'"):
        pets(tmp_path).setup("fit")


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)trainval.txt'. OxfordPets expects.*ROOT/annotations/xmls"):
        pets(tmp_path).setup("fit")
    folder = write_pets(tmp_path, dict.fromkeys(PETS))
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="xmls: no box for any of the 7 images of trainval"):
        pets(tmp_path).setup("fit")
    (folder / "images" / "Bengal_5.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"trainval.txt: 1 of 7 images.*\n    Bengal_5.jpg"):
        pets(tmp_path).setup("fit")
    (folder / "annotations" / "xmls").rmdir()
    with pytest.raises(FileNotFoundError, match=r"(?s)xmls'.*contains: annotations/, images/"):
        pets(tmp_path).setup("fit")
    (folder / "annotations" / "trainval.txt").write_text("# nothing\n")
    (folder / "annotations" / "xmls").mkdir()
    with pytest.raises(ValueError, match="trainval.txt: .*empty"):
        pets(tmp_path).setup("fit")


@pytest.mark.filterwarnings("ignore:.*left out")
def test_an_image_of_another_size_than_annotated_is_unreadable(tmp_path):
    write_pets(tmp_path)
    source = pets(tmp_path).make_source("train")
    write_image(tmp_path / "images" / source.paths[0].decode(), noise(40, 60))
    with pytest.raises(ImageError, match="the image is 40x60, but its annotations are for 60x40"):
        source[0]
    assert source.labels.dtype == np.int64 and source.boxes.dtype == np.float32


def test_bad_options():
    with pytest.raises(ValueError, match="classes.*got 'breeds'; did you mean 'breed'"):
        pets("x", classes="breeds")
    with pytest.raises(ValueError, match="val_fraction.*0"):
        pets("x", val_fraction=0)
