"""Tables of objects, as CSV and as Parquet: valid content, and errors with their line."""

import numpy as np
import pytest

from striate.datamodules import DetectionManifest
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise, write_image

SIZES = {"a/0.png": (40, 20), "a/1.jpg": (33, 50), "b/2.png": (8, 6)}
ROWS = [
    ("a/0.png", "dog", 10, 5, 30.5, 20),
    ("a/1.jpg", "cat", 0, 0, 33, 50),
    ("b/2.png", "", "", "", "", ""),
    ("a/0.png", "cat", -3, 2, 12, 100),  # clipped
]
HEAD = ("path", "label", "x1", "y1", "x2", "y2")


@pytest.fixture
def folder(tmp_path):
    for name, (width, height) in SIZES.items():
        write_image(tmp_path / "data" / name, noise(width, height))
    return tmp_path / "data"


def write(path, rows, head=HEAD):
    path.write_text("\n".join(",".join(map(str, row)) for row in [head, *rows]) + "\n", encoding="utf-8")
    return str(path)


def write_parquet(path, rows, head=HEAD):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns = {name: [None if row[k] == "" else row[k] for row in rows] for k, name in enumerate(head)}
    parquet.write_table(
        pyarrow.table({n: pyarrow.array(c, "double") if n[0] in "xy" else c for n, c in columns.items()}), path
    )
    return str(path)


def module(train, **options):
    return DetectionManifest(train, num_workers=0, batch_size=3, **options)


@pytest.mark.parametrize("writer", [write, write_parquet])
@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_rows_become_images_with_objects(folder, writer):
    table = writer(folder / f"t.{'csv' if writer is write else 'parquet'}", ROWS)
    data = module(table, val=table)
    data.setup("fit")
    assert data.class_names == ["cat", "dog"] and len(data.datasets["train"]) == 3
    first, second, empty = (data.datasets["train"][place] for place in range(3))
    assert first["boxes"].tolist() == [[10, 5, 30.5, 20], [0, 2, 12, 20]] and first["labels"].tolist() == [1, 0]
    assert first["area"].tolist() == [20.5 * 15, 12 * 18] and not first["difficult"].any()
    assert second["boxes"].tolist() == [[0, 0, 33, 50]] and second["image_id"] == 1
    assert empty["boxes"].shape == (0, 4) and empty["image"].shape == (6, 8, 3)
    batch = next(iter(data.val_dataloader()))
    assert [tuple(image.shape) for image in batch["image"]] == [(3, 20, 40), (3, 50, 33), (3, 6, 8)]
    assert [target["labels"].tolist() for target in batch["target"]] == [[1, 0], [0], []]


def test_flags_and_other_headings(folder):
    head = ("file", "difficult", "x", "y", "right", "bottom", "kind", "iscrowd", "note")
    rows = [("a/0.png", 1, 1, 2, 3, 4, 1, "", "x"), ("a/0.png", "", 1, 2, 3, 5, 0, "True", "")]
    data = module(
        write(folder / "t.csv", rows, head),
        path_column="file",
        label_column="kind",
        box_columns=["x", "y", "right", "bottom"],
    )
    sample = data.make_source("train")[0]
    assert sample["boxes"].tolist() == [[1, 2, 3, 4], [1, 2, 3, 5]] and sample["labels"].tolist() == [1, 0]
    assert sample["difficult"].tolist() == [True, False] and sample["iscrowd"].tolist() == [False, True]
    assert data.class_names == ["0", "1"]


@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
@pytest.mark.filterwarnings("ignore:.*may be percentages")
def test_sizes_in_the_table_are_used(folder):
    head = (*HEAD, "width", "height")
    rows = [("a/0.png", "dog", 10, 5, 30, 90, 41, 30), ("a/1.jpg", "dog", 10, 5, 30, 90, "", "")]
    source = module(write(folder / "t.csv", rows, head)).make_source("train")
    assert source.images.sizes.tolist() == [[41, 30], [33, 50]]
    assert source.objects.boxes.tolist() == [[10, 5, 30, 30], [10, 5, 30, 50]]
    with pytest.raises(ImageError, match="0.png: the image is 40x20, but its annotations are for 41x30"):
        source[0]
    with pytest.raises(ValueError, match="t.csv, line 2: width .*got 4.5"):
        module(write(folder / "t.csv", [(*rows[0][:6], 4.5, 3)], head)).make_source("train")


@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_images_are_held_out_whole_and_skip_empty_applies_to_training(folder):
    rows = [(f"a/{k}.png", "dog", 0, 0, 2, 2) for k in range(2, 12) for _ in range(k % 3)] + ROWS
    for k in range(2, 12):
        write_image(folder / "a" / f"{k}.png", noise(4, 4))
    table = write(folder / "t.csv", rows)
    data = module(table, val_fraction=0.3, skip_empty=True)
    train, val = data.make_source("train"), data.make_source("val")
    ids = {split: {source[k]["image_id"] for k in range(len(source))} for split, source in (("t", train), ("v", val))}
    assert not ids["t"] & ids["v"] and len(ids["v"]) == 3 and len(val) == 3
    whole = module(table, val=table).make_source("train")
    without = {whole[k]["image_id"] for k in range(len(whole)) if not len(whole[k]["labels"])}
    assert len(without) == 1 and ids["t"] | ids["v"] | without == set(range(len(whole))) and not ids["t"] & without
    with pytest.raises(ValueError, match="val: .*got null"):
        module(table).make_source("val")
    with pytest.raises(ValueError, match="test: .*got null"):
        module(table).make_source("test")


@pytest.mark.parametrize(
    "box, code",
    [
        ((5, 5, 5, 9), "box-zero-area"),
        ((9, 5, 5, 9), "box-inverted"),
        ((1, "nan", 5, 9), "box-not-finite"),
        ((1, 1, "inf", 9), "box-not-finite"),
        ((40, 1, 50, 9), "box-outside"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_unusable_boxes(folder, box, code):
    table = write(folder / "t.csv", [*ROWS, ("a/0.png", "dog", *box), ("b/2.png", "dog", 1, 1, 2, 2)])
    with warns_of(code, "line 6"):
        source = module(table).make_source("train")
    assert [source[k]["labels"].tolist() for k in range(3)] == [[1, 0], [0], [1]]
    with stops_at(code, "t.csv, line 6: "):
        module(table, strict=True).make_source("train")


def test_boxes_of_an_unreadable_image_are_kept(folder):
    (folder / "a" / "0.png").write_bytes(b"")
    source = module(write(folder / "t.csv", ROWS)).make_source("train")
    with pytest.raises(ImageError, match="0.png: the file is empty"):
        source[0]
    assert len(source[1]["boxes"]) == 1


@pytest.mark.parametrize(
    "row, code, message",
    [
        (("a/0.png", "dog", "", "", "", ""), "unusable-annotation", "line 3: label is 'dog', and 0 of x1"),
        (("a/0.png", "", 1, 2, 3, 4), "missing-annotation", "line 3: .*no label, and 4 of x1"),
        (("a/0.png", "dog", 1, 2, "", 4), "unusable-annotation", "line 3: label is 'dog', and 3 of"),
        (("a/0.png", "dog", 1, 2, "three", 4), None, "line 3: x2 .*'three'"),
        (("", "dog", 1, 2, 3, 4), "missing-annotation", "line 3: .*path must be a path, got ''"),
        (("a/0.png", "dog", 1, 2, 3), "unusable-annotation", r"line 3: .*6 cells.*got 5: \['a/0.png'"),
        (("a/0.png", "dgo", 1, 2, 3, 4), "label-outside", "line 3: .*'dgo'; .*2 classes; did you mean 'dog'"),
    ],
)
def test_bad_rows(folder, row, code, message):
    expected = stops_at(code, f"t.csv, {message}") if code else pytest.raises(ValueError, match=f"t.csv, {message}")
    with expected:
        module(write(folder / "t.csv", [ROWS[0], row]), class_names=["dog", "cat"]).make_source("train")


def test_parquet_rows_are_numbered(folder):
    table = write_parquet(folder / "t.parquet", [ROWS[0], ("a/0.png", "dog", 1, 2, 1, 3)])
    with stops_at("box-zero-area", "t.parquet, row 2: "):
        module(table, strict=True).make_source("train")
    with pytest.raises(ValueError, match="t.parquet: no column 'lable' .*did you mean 'label'"):
        module(table, label_column="lable").make_source("train")
    (folder / "t.parquet").write_bytes(b"PAR")
    with pytest.raises(ValueError, match="t.parquet: not a Parquet file"):
        module(table).make_source("train")


@pytest.mark.parametrize("path", ["../out.png", "/etc/out.png", "a/../../out.png"])
def test_paths_outside_the_root(folder, path):
    write_image(folder.parent / "out.png", noise(4, 4))
    table = write(folder / "t.csv", [ROWS[0], (path, "dog", 1, 1, 2, 2)])
    with stops_at("bad-target", rf"t.csv, line 3: .*'{path}'.*root"):
        module(table, root=str(folder)).make_source("train")


def test_missing_files(folder):
    with pytest.raises(FileNotFoundError, match="train: no file '.*t.csv'"):
        module(str(folder / "t.csv")).make_source("train")
    table = write(folder / "t.csv", [ROWS[0], ("a/9.png", "dog", 1, 1, 2, 2), ("a/9.png", "dog", 1, 1, 2, 3)])
    with pytest.raises(FileNotFoundError, match=r"t.csv: 1 of 2 images do not exist(?s:.*)line 3: a/9.png"):
        module(table).make_source("train")
    with pytest.raises(ValueError, match="t.csv: .*at least one row"):
        module(write(folder / "t.csv", [])).make_source("train")
    with pytest.raises(ValueError, match="t.csv: no column 'y2'"):
        module(write(folder / "t.csv", [ROWS[0][:5]], HEAD[:5])).make_source("train")
    with pytest.raises(ValueError, match="t.csv: no objects.*class_names"):
        module(write(folder / "t.csv", [ROWS[2]])).make_source("train")
    assert len(module(write(folder / "t.csv", [ROWS[2]]), class_names=["a"]).make_source("train")) == 1
    (folder / "t.csv").write_bytes(b"path,label,x1,y1,x2,y2\n\xff\xfe,")
    with pytest.raises(ValueError, match="t.csv, line 2: must be UTF-8"):
        module(table).make_source("train")
    with pytest.raises(ValueError, match="t.json: .*got '.json'"):
        module(write(folder / "t.json", ROWS)).make_source("train")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"box_columns": ["a", "b"]}, r"box_columns: .*four.*got \['a', 'b'\]"),
        ({"val_fraction": 1.0}, "val_fraction: .*got 1.0"),
        ({"val": "x.csv", "val_fraction": 0.1}, "set one"),
        ({"class_names": ["a", "a"]}, "class_names: .*got 'a'"),
        ({"class_names": ["a", " b"]}, "class_names: .*space, got ' b'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        module("x.csv", **options)


@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_boxes_refer_to_the_rotated_image(folder):
    import cv2
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # rotated: 30 x 10 as stored, 10 x 30 as displayed
    Image.fromarray(noise(30, 10)).save(folder / "turned.jpg", exif=exif)
    assert cv2.imread(str(folder / "turned.jpg")).shape == (30, 10, 3)
    source = module(write(folder / "t.csv", [("turned.jpg", "dog", 2, 3, 50, 50)])).make_source("train")
    assert source[0]["boxes"].tolist() == [[2, 3, 10, 30]] and np.shape(source[0]["image"]) == (30, 10, 3)
