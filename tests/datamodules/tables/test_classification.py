"""Tables of images and labels: valid content, and errors with their line."""

import builtins
import sys

import numpy as np
import pytest

from striate.datamodules import Manifest
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.fixtures import noisy_image, write_image

CSV = "path,label\na/0.png,dog\na/1.png,cat\nb/2.png,dog\nb/3.png,cat\nb/4.png,cat\n"


@pytest.fixture
def folder(tmp_path):
    for number, place in enumerate(["a/0", "a/1", "b/2", "b/3", "b/4"]):
        write_image(tmp_path / "data" / f"{place}.png", noisy_image(number % 2, number, 8))
    return tmp_path / "data"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def write_parquet(path, columns):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def test_names_become_sorted_classes(folder):
    data = Manifest(write(folder / "train.csv", CSV), val=write(folder / "val.csv", "path,label\na/0.png,dog\n"))
    data.setup("fit")
    assert data.class_names == ["cat", "dog"]
    source = data.datasets["train"].source
    assert source.labels.tolist() == [1, 0, 1, 0, 0] and source.labels.dtype == np.int64
    assert source.paths.tolist() == [b"a/0.png", b"a/1.png", b"b/2.png", b"b/3.png", b"b/4.png"]
    np.testing.assert_array_equal(source[3]["image"], noisy_image(1, 3, 8))
    assert data.datasets["val"].source.labels.tolist() == [1]


@pytest.mark.parametrize(
    "labels, class_names, expected, names",
    [
        (["1", "0", "2"], None, [1, 0, 2], ["0", "1", "2"]),
        (["1", "0", "1"], ["cat", "dog", "elk"], [1, 0, 1], ["cat", "dog", "elk"]),  # a class without images
        (["elk", "dog", "cat"], ["elk", "cat", "dog"], [0, 2, 1], ["elk", "cat", "dog"]),  # in their order, not sorted
        (["7", "5", "7"], ["5", "7"], [1, 0, 1], ["5", "7"]),  # names that look like numbers
        (["01", "x", "1"], None, [0, 2, 1], ["01", "1", "x"]),  # one name makes all of them names
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_and_numbers(folder, labels, class_names, expected, names, kind):
    paths = ["a/0.png", "a/1.png", "b/2.png"]
    if kind == "csv":
        rows = "".join(f"{path},{label}\n" for path, label in zip(paths, labels, strict=True))
        file = write(folder / "t.csv", f"path,label\n{rows}")
    else:
        file = write_parquet(folder / "t.parquet", {"path": paths, "label": labels})
    data = Manifest(file, class_names=class_names)
    assert data.make_source("train").labels.tolist() == expected and data.class_names == names


def test_parquet_with_numbers_and_other_columns(folder):
    columns = {"id": [9, 9, 9], "target": [0, 2, 1], "file": ["a/0.png", "a/1.png", "b/2.png"]}
    file = write_parquet(folder / "t.PARQUET", columns)
    data = Manifest(file, path_column="file", label_column="target")
    source = data.make_source("train")
    assert source.labels.tolist() == [0, 2, 1] and source.paths.tolist()[2] == b"b/2.png"
    assert data.class_names == ["0", "1", "2"]


def test_csv_as_spreadsheets_write_it(folder):
    text = '\ufeffnote,label,path\r\n"two\r\nlines",cat,a/0.png\r\n\r\n,dog ,"b/2.png"\r\n'
    source = Manifest(write(folder / "t.csv", text)).make_source("train")
    assert source.paths.tolist() == [b"a/0.png", b"b/2.png"] and source.labels.tolist() == [0, 1]
    with stops_at("label-outside", r"t.csv, line 5: .*'dog'; .* 1 class"):
        Manifest(str(folder / "t.csv"), class_names=["cat"]).make_source("train")


def test_paths_are_relative_to_the_table_or_to_root(folder, tmp_path):
    (tmp_path / "lists").mkdir()
    free = write(tmp_path / "lists" / "t.csv", f"path,label\n../data/a/0.png,0\n{folder}/b/2.png,1\n")
    source = Manifest(free).make_source("train")
    np.testing.assert_array_equal(source[0]["image"], noisy_image(0, 0, 8))
    np.testing.assert_array_equal(source[1]["image"], noisy_image(0, 2, 8))
    text = f"path,label\na/0.png,0\nb/../a/1.png,1\n{folder}/b/2.png,1\n"
    rooted = Manifest(write(tmp_path / "lists" / "r.csv", text), root=str(folder)).make_source("train")
    np.testing.assert_array_equal(rooted[1]["image"], noisy_image(1, 1, 8))
    np.testing.assert_array_equal(rooted[2]["image"], noisy_image(0, 2, 8))


def test_paths_outside_the_root(folder, tmp_path):
    write_image(tmp_path / "data2" / "x.png", noisy_image(0, 0, 8))
    for path in ("../data2/x.png", f"{tmp_path}/data2/x.png", "a/../../data2/x.png", "/etc/passwd"):
        file = write(folder / "t.csv", f"path,label\na/0.png,0\n{path},0\n")
        with stops_at("bad-target", r"t.csv, line 3: .*root is '.*data'"):
            Manifest(file, root=str(folder)).make_source("train")
    with pytest.raises(FileNotFoundError, match="root: no folder '.*gone'"):
        Manifest(file, root=str(tmp_path / "gone")).make_source("train")


def test_missing_images(folder):
    rows = "".join(f"gone/{number}.png,0\n" for number in range(7))
    file = write(folder / "t.csv", f"path,label\na/0.png,0\n{rows}")
    message = r"(?s)t.csv: 7 of 8 images do not exist.*line 3: gone/0.png\n.*line 7: gone/4.png\n    and 2 more$"
    with pytest.raises(FileNotFoundError, match=message):
        Manifest(file, val_fraction=0.5).setup("fit")


def test_missing_columns(folder):
    file = write(folder / "t.csv", "path,lable\na/0.png,0\n")
    with pytest.raises(ValueError, match=r"t.csv: .*\(label_column\), got 'path', .*mean 'lable'"):
        Manifest(file).make_source("train")
    parquet = write_parquet(folder / "t.parquet", {"image": ["a/0.png"], "label": [0]})
    with pytest.raises(ValueError, match=r"'path' \(path_column\), got 'image', 'label'$"):
        Manifest(parquet).make_source("train")
    with pytest.raises(ValueError, match="got none"):
        Manifest(write(folder / "t.csv", "")).make_source("train")


@pytest.mark.parametrize(
    "rows, class_names, message",
    [
        ("a/0.png,cta\n", ["cat", "dog"], "line 2: label is not a class, got 'cta'; there are 2 classes; did you mean"),
        ("a/0.png,1\na/1.png,2\n", ["x", "y"], ", line 3: label is not a class, got '2'; classes are 0 to 1"),
        ("a/0.png,0\na/1.png,-1\n", ["x", "y"], ", line 3: label is not a class, got '-1'; classes are 0 to 1"),
        ("a/0.png,1\na/1.png,2\n", None, ", line 2: labels must count from 0 without gaps, got '1'; no image has 0 ("),
        ("a/0.png,1\na/1.png,0\na/0.png,4\na/0.png,5\n", None,
         ", line 4: labels must count from 0 without gaps, got '4'; no image has 2, 3 (labels are 0 to 5)"),
        ("a/0.png,0\na/1.png,-1\n", None,
         "got '-1'; labels must not be negative (labels are -1 to 0)"),
        ("a/0.png,0\na/0.png,0\na/1.png,-1\na/1.png,2\n", None, "line 4: labels must count from 0 without gaps, got"),
        ("a/0.png\n", None, ", line 2: a row must have 2 cells, as the heading, got 1: ['a/0.png']"),
        ("a/0.png,\n", None, ", line 2: annotation is missing: label must be text"),
        ("a/0.png,cat\n ,cat\n", None, ", line 3: annotation is missing: path must be a path, got ''"),
        ("", None, ": must have at least one row"),
    ],
)  # fmt: skip
def test_bad_rows(folder, rows, class_names, message):
    file = write(folder / "t.csv", f"path,label\n{rows}")
    with pytest.raises(ValueError) as caught:
        Manifest(file, class_names=class_names).make_source("train")
    assert message in str(caught.value) and str(caught.value).startswith(file)


def test_bad_parquet(folder):
    (folder / "t.parquet").write_bytes(b"path,label\n")
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=r"t.parquet: not a Parquet file"):
        Manifest(str(folder / "t.parquet")).make_source("train")
    for labels in ([1.5, 0.0], [None, 1], [True, False]):
        file = write_parquet(folder / "t.parquet", {"path": ["a/0.png", "a/1.png"], "label": labels})
        with pytest.raises(ValueError, match="t.parquet, row 1: .*label must be text or a whole number"):
            Manifest(file).make_source("train")
    file = write_parquet(folder / "t.parquet", {"path": ["a/0.png", "a/1.png"], "label": [0, 2]})
    with stops_at("label-outside", r"t.parquet, row 2: .*got 2; classes are 0 to 1"):
        Manifest(file, class_names=["x", "y"]).make_source("train")
    file = write_parquet(folder / "t.parquet", {"path": ["a/0.png", ""], "label": [0, 1]})
    with pytest.raises(ValueError, match="t.parquet, row 2: .*path must be a path, got ''"):
        Manifest(file).make_source("train")


def test_parquet_without_pyarrow(folder, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.split(".")[0] == "pyarrow":
            raise ImportError("no pyarrow")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"t.parquet: .*pip install pyarrow"):
        (folder / "t.parquet").touch()
        Manifest(str(folder / "t.parquet")).make_source("train")


def test_other_files(folder):
    with pytest.raises(ValueError, match="t.txt: .*got '.txt'"):
        Manifest(write(folder / "t.txt", CSV)).make_source("train")
    with pytest.raises(FileNotFoundError, match="train: no file '.*gone.csv'"):
        Manifest(str(folder / "gone.csv")).make_source("train")
    (folder / "t.csv").write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match=r"t.csv, line 2: must be UTF-8, got the byte 0xff"):
        Manifest(str(folder / "t.csv")).make_source("train")


def test_held_out_rows(folder):
    file = write(folder / "t.csv", CSV)
    data = Manifest(file, val_fraction=0.5)
    data.setup("fit")
    train, val = (data.datasets[split].source for split in ("train", "val"))
    assert sorted([*train.paths, *val.paths]) == [b"a/0.png", b"a/1.png", b"b/2.png", b"b/3.png", b"b/4.png"]
    assert np.bincount(train.labels).tolist() == [2, 1]  # half of 3 cats and 2 dogs, rounded to 2 in all
    assert np.bincount(val.labels).tolist() == [1, 1]
    np.testing.assert_array_equal(val[0]["image"].shape, (8, 8, 3))
    with pytest.raises(ValueError, match="val: .*got null.*val_fraction"):
        Manifest(file).setup("fit")
    with pytest.raises(ValueError, match="test: .*got null"):
        data.setup("test")


def test_bad_arguments():
    with pytest.raises(ValueError, match="val_fraction: .*0.1 and 'v.csv'"):
        Manifest("t.csv", val="v.csv", val_fraction=0.1)
    with pytest.raises(ValueError, match="val_fraction: .*got 1"):
        Manifest("t.csv", val_fraction=1)
    with pytest.raises(ValueError, match="class_names: .*got 'cat' more"):
        Manifest("t.csv", class_names=["cat", "dog", "cat"])


def test_labels_that_mean_the_same(tmp_path):
    for number, label in enumerate(("Cat", "cat", "dog")):
        write_image(tmp_path / f"{number}.png", noisy_image(0, number))
        with (tmp_path / "train.csv").open("a") as file:
            file.write(f"{'path,label' if number == 0 else ''}{chr(10) * (number == 0)}{number}.png,{label}\n")
    (tmp_path / "val.csv").write_text("path,label\n0.png,CAT\n2.png,dog\n")
    tables = [str(tmp_path / name) for name in ("train.csv", "val.csv")]
    with stops_at("similar-classes", r"train.csv, column label: .*got 'Cat' and 'cat'; .*merge_similar_classes: true"):
        Manifest(*tables).make_source("train")
    data = Manifest(*tables, merge_similar_classes=True)
    assert data.class_names == ["Cat", "dog"]
    assert [data.make_source(split).labels.tolist() for split in ("train", "val")] == [[0, 0, 1], [0, 1]]
