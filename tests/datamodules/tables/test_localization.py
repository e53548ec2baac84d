"""Tables of images, labels and boxes: valid content, and errors with their line."""

import warnings

import numpy as np
import pytest

from striate.datamodules import LocalizationManifest
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise, write_image

HEAD = "path,label,x1,y1,x2,y2\n"
SIZES = {"a": (60, 40), "b": (33, 50), "c": (1, 1), "d": (20000, 20), "e": (30, 30), "f": (30, 30)}


@pytest.fixture
def folder(tmp_path):
    for name, size in SIZES.items():
        write_image(tmp_path / "data" / f"{name}.png", noise(*size))
    return tmp_path / "data"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def table(folder, rows, head=HEAD):
    return write(folder / "t.csv", head + rows)


def write_parquet(file, /, **columns):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table(columns), file)
    return str(file)


@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_boxes_labels_and_images_of_every_shape(folder):
    rows = "a.png,dog,10.5,5,30.25,20\nb.png,cat,-3,0,100,50\nc.png,dog,0,0,1,1\nd.png,cat,19990,5,20000,20\n"
    data = LocalizationManifest(table(folder, rows))
    source = data.make_source("train")
    assert data.class_names == ["cat", "dog"] and source.labels.tolist() == [1, 0, 1, 0]
    expected = [[10.5, 5, 30.25, 20], [0, 0, 33, 50], [0, 0, 1, 1], [19990, 5, 20000, 20]]
    assert [sample["box"].tolist() for sample in source] == expected
    assert [sample["image"].shape[1::-1] for sample in source] == list(SIZES.values())[:4]


def test_parquet_and_custom_headings(folder):
    columns = {"file": ["a.png", "b.png"], "cls": [1, 0], "l": [1.5, 0.0], "t": [2, 3], "r": [9, 33], "b": [8, 50]}
    file = write_parquet(folder / "t.parquet", **columns)
    options = {"path_column": "file", "label_column": "cls", "box_columns": ["l", "t", "r", "b"]}
    source = LocalizationManifest(file, **options).make_source("train")
    assert [sample["box"].tolist() for sample in source] == [[1.5, 2, 9, 8], [0, 3, 33, 50]]
    assert source.labels.tolist() == [1, 0]


def test_held_out_rows_and_batches(folder):
    for number in range(10):
        write_image(folder / f"{number}.png", noise(8, 8, number))
    rows = "".join(f"{number}.png,{number % 2},{number % 4},1,8,7\n" for number in range(10))
    data = LocalizationManifest(table(folder, rows), val_fraction=0.4, num_workers=0, batch_size=6)
    data.setup("fit")
    train, val = (data.datasets[split].source for split in ("train", "val"))
    assert sorted([*train.paths, *val.paths]) == [f"{n}.png".encode() for n in range(10)]
    assert np.bincount(train.labels).tolist() == [3, 3] and np.bincount(val.labels).tolist() == [2, 2]
    (batch,) = data.val_dataloader()
    numbers = [int(path.split(b".")[0]) for path in val.paths]
    assert batch["box"].tolist() == [[n % 4, 1, 8, 7] for n in numbers]
    assert batch["label"].tolist() == [n % 2 for n in numbers]


UNUSABLE = [
    ("nan,0,5,5", "box-not-finite"),
    ("0,0,inf,5", "box-not-finite"),
    ("5,0,5,5", "box-zero-area"),
    ("5,5,9,2", "box-inverted"),
    ("60,0,70,5", "box-outside"),  # the image is 60 wide
    ("0,-9,9,0", "box-outside"),
]


@pytest.mark.parametrize("box, code", UNUSABLE)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_unusable_boxes(folder, box, code, kind):
    if kind == "csv":
        file, where = table(folder, f"b.png,0,0,0,33,50\na.png,1,{box}\n"), "line 3"
    else:
        corners = {n: [0.0, float(v)] for n, v in zip(("x1", "y1", "x2", "y2"), box.split(","), strict=True)}
        corners |= {"x2": [33.0, corners["x2"][1]], "y2": [50.0, corners["y2"][1]]}
        file, where = write_parquet(folder / "t.parquet", path=["b.png", "a.png"], label=[0, 1], **corners), "row 2"
    with warns_of(code, where):
        source = LocalizationManifest(file).make_source("train")
    assert source.paths.tolist() == [b"b.png"] and source.labels.tolist() == [0] and len(source.boxes) == 1
    with stops_at(code, rf"t.{kind}, {where}: "):
        LocalizationManifest(file, strict=True).make_source("train")


def test_several_faults_are_counted_in_one_warning(folder):
    rows = "a.png,0,1,1,1,9\nb.png,0,0,0,33,50\nc.png,0,5,5,9,9\ne.png,0,3,3,2,9\nf.png,0,nan,3,2,9\n"
    with pytest.warns(UserWarning, match=r"^4 .*box-not-finite.*box-inv.*box-zero.*line 2.*box-out") as warned:
        assert len(LocalizationManifest(table(folder, rows)).make_source("train")) == 1
    assert len(warned) == 1


def test_no_usable_row(folder):
    file = table(folder, "a.png,0,1,1,1,9\n")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="t.csv: .*usable box.*1 rows"):
        LocalizationManifest(file).make_source("train")
    with pytest.raises(ValueError, match="t.csv: .*at least one row"):
        LocalizationManifest(table(folder, "")).make_source("train")


def test_an_unreadable_image_is_reported_with_its_sample(folder):
    (folder / "a.png").write_bytes(b"no image")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = LocalizationManifest(table(folder, "a.png,0,1,1,7,9\nb.png,0,0,0,33,50\n"), test=str(folder / "t.csv"))
        data.setup("test")
    (message,) = data.datasets["test"][0]["unreadable"]
    assert message.startswith(f"{folder / 'a.png'}: not a readable image") and "box" not in data.datasets["test"][0]
    with pytest.raises(ImageError, match="a.png"):
        data.datasets["test"].source[0]


@pytest.mark.parametrize(
    "rows, message",
    [
        ("a.png,0,1,1,7,9\nb.png,0,1,1,x,9\n", "line 3: x2 must be a number, got 'x'"),
        ("a.png,0,1,,7,9\n", "line 2: y1 must be a number, got ''"),
        ("a.png,0,1,2,3\n", ", line 2: a row must have 6 cells, as the heading, got 5"),
        ("a.png,,1,2,3,4\n", ", line 2: annotation is missing: label"),
        (
            "a.png,0,1,1,7,9\nb.png,0,1,1,7,9\na.png,0,1,1,7,9\n",
            ", line 4: image is listed before, got 'a.png' again (line 2)",
        ),
        ("a.png,1,1,1,7,9\n", ", line 2: labels must count from 0 without gaps, got '1'"),
    ],
)
def test_bad_rows(folder, rows, message):
    with pytest.raises(ValueError) as caught:
        LocalizationManifest(table(folder, rows)).make_source("train")
    assert str(caught.value).startswith(str(folder / "t.csv")) and message in str(caught.value)


def test_a_parquet_row_without_a_coordinate(folder):
    file = write_parquet(
        folder / "t.parquet", path=["a.png", "b.png"], label=[0, 0], x1=[1.0, None], y1=[1, 1], x2=[4, 4], y2=[4, 4]
    )
    with pytest.raises(ValueError, match="t.parquet, row 2: x1 must be a number"):
        LocalizationManifest(file).make_source("train")


def test_missing_columns(folder):
    file = table(folder, "a.png,0,1,1,7,9\n", "path,label,x1,y1,xx,y2\n")
    with pytest.raises(ValueError, match=r"t.csv: .*'x2' \(box_columns\[2\]\), got .*'xx', 'y2'"):
        LocalizationManifest(file).make_source("train")
    with pytest.raises(ValueError, match=r"box_columns: .*four.*got \['x', 'y', 'w'\]"):
        LocalizationManifest(file, box_columns=["x", "y", "w"])


@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_paths_outside_the_root_and_missing_images(folder, tmp_path):
    write_image(tmp_path / "x.png", noise(8, 8))
    for path in ("../x.png", f"{tmp_path}/x.png"):
        file = table(folder, f"a.png,0,1,1,7,9\n{path},0,1,1,7,9\n")
        with stops_at("bad-target", r"t.csv, line 3: .*x.png'.*root"):
            LocalizationManifest(file, root=str(folder)).make_source("train")
    free = LocalizationManifest(file).make_source("train")  # without root, any path is valid
    assert free[1]["image"].shape == (8, 8, 3)
    with pytest.raises(FileNotFoundError, match="1 of 1 images do not exist"):
        LocalizationManifest(table(folder, "gone.png,0,1,1,7,9\n")).make_source("train")
