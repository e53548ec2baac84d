"""ADE20K: classes and names by hand, and errors for files that do not match."""

import albumentations as A
import numpy as np
import pytest

from striate.datamodules import ADE20K
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.fixtures import noise, write_gray, write_image

VALUES = np.array([[0, 1, 2, 150], [149, 59, 131, 0]], np.uint8)
FIRST = {1: "wall", 2: "building, edifice", 3: "screen, silver screen", 4: "screen, crt screen", 5: "bed "}


def table(names=None, heading="Idx\tRatio\tTrain\tVal\tStuff\tName", count=150):
    names = FIRST if names is None else names
    rows = [
        f"{k}{' ' * (k == 22)}\t0.1\t11664\t1172\t1\t{names.get(k, f'thing {k}, object')}" for k in range(1, count + 1)
    ]
    return "\n".join([heading, *rows, ""])


def tree(root, count=3, flat=False):
    base = root if flat else root / "ADEChallengeData2016"
    for part, name in (("training", "train"), ("validation", "val")):
        for number in range(1, count + 1):
            write_image(base / "images" / part / f"ADE_{name}_{number:08d}.jpg", noise(4, 2, number))
            write_gray(
                base / "annotations" / part / f"ADE_{name}_{number:08d}.png", np.roll(VALUES, number - 1, axis=1)
            )
    (base / "objectInfo150.txt").write_text(table())
    return base


def module(root, **options):
    return ADE20K(str(root), **{"num_workers": 0, "batch_size": 2} | options)


@pytest.mark.parametrize("flat", [False, True])
def test_values_become_classes_and_zero_is_ignored(tmp_path, flat):
    tree(tmp_path, flat=flat)
    data = module(tmp_path)
    data.setup("fit")
    expected = np.array([[255, 0, 1, 149], [148, 58, 130, 255]])
    for number in range(3):
        np.testing.assert_array_equal(data.datasets["train"][number]["mask"], np.roll(expected, number, axis=1))
    assert "ADE_train_00000002.jpg" in data.datasets["train"].source[1]["path"]
    batch = next(iter(data.val_dataloader()))
    assert batch["mask"].shape == (2, 2, 4) and batch["image"].shape == (2, 3, 2, 4)
    assert [s["path"] for s in data.make_source("test")] == [s["path"] for s in data.make_source("val")]


def test_names_are_the_first_synonyms(tmp_path):
    base = tree(tmp_path)
    names = module(tmp_path).class_names
    assert names[:6] == ["wall", "building", "screen, silver screen", "screen, crt screen", "bed", "thing 6"]
    assert len(names) == len(set(names)) == 150 and names[21] == "thing 22"
    # as in the publisher's repository, without a column for stuff
    rows = [line.split("\t") for line in table().splitlines()]
    (base / "objectInfo150.txt").write_bytes("\r\n".join("\t".join(row[:4] + row[5:]) for row in rows).encode())
    assert module(tmp_path).class_names == names


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"objectInfo150.txt, line 1: .*'Idx', got \[\]"),
        (table(heading="Idx\tRatio\tTrain\tVal\tStuff\tLabel"), r"line 1: .*'Name', got \['Idx', .*'Label'\]"),
        (table({2: ""}), r"line 3: .*class 2.*got \['2', .*, ''\]"),
        (table().replace("\n3\t", "\n4\t"), r"line 4: .*class 3.*got \['4', .*\]"),
        (table().replace("3\t0.1\t", "3 0.1 ", 1), r"line 4: .*class 3"),
        (table(count=149), "objectInfo150.txt: .*150 classes, got 149"),
    ],
)
def test_bad_lists_of_names(tmp_path, text, message):
    (tree(tmp_path) / "objectInfo150.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        module(tmp_path).setup("fit")


def test_missing_files_show_the_expected_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)images/training'.*ADE20K.*ADE_train_00000001.png"):
        module(tmp_path).make_source("train")
    base = tree(tmp_path)
    (base / "annotations" / "validation" / "ADE_val_00000002.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"validation: 1 of 3 masks.*\n.*ADE_val_00000002.png$"):
        module(tmp_path).make_source("val")
    (base / "objectInfo150.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"Info150.txt'.*ADE20K expects"):
        module(tmp_path).setup("fit")
    for file in (base / "images" / "training").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no images in '.*images/training'"):
        module(tmp_path).make_source("train")


def test_bad_masks(tmp_path):
    folder = tree(tmp_path) / "annotations" / "training"
    source = module(tmp_path).make_source("train")
    write_gray(folder / "ADE_train_00000001.png", np.full((2, 4), 151, np.uint8))
    with stops_at("label-outside", r"ADE_train_00000001.png: .*151 \(\d+ pixels?\)"):
        source[0]
    write_gray(folder / "ADE_train_00000001.png", np.ones((4, 2), np.uint8))
    with pytest.raises(ImageError, match=r"image is 4x2, .*ADE_train_00000001.png' is 2x4"):
        source[0]
    write_image(folder / "ADE_train_00000001.png", noise(4, 2))
    with pytest.raises(ImageError, match="palette.*RGB"):
        source[0]


@pytest.mark.parametrize("size", [(1, 1), (20_000, 20)])
def test_augmentation_of_extreme_sizes(tmp_path, size):
    base = tree(tmp_path, count=1)
    write_image(base / "images" / "training" / "ADE_train_00000001.jpg", noise(*size))
    write_gray(base / "annotations" / "training" / "ADE_train_00000001.png", np.full(size[::-1], 150, np.uint8))
    data = module(tmp_path, train_transform=[A.SmallestMaxSize(4), A.CenterCrop(4, 4)])
    data.setup("fit")
    assert (data.datasets["train"][0]["mask"] == 149).all() and data.datasets["train"][0]["image"].shape == (4, 4, 3)
