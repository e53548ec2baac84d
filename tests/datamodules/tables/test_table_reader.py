"""CSV as spreadsheets and people write it: read right, or refused with the line, never with rows swallowed."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.datamodules import DetectionManifest, LocalizationManifest, Manifest
from striate.datamodules.annotations.annotation_errors import record_faults
from striate.datamodules.tables.table_reader import read_table
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.fixtures import noise, write_image

NEEDED = {"path_column": "path", "label_column": "label"}


def table(tmp_path, data, needed=NEEDED):
    (tmp_path / "t.csv").write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_table(tmp_path / "t.csv", needed)


@pytest.mark.parametrize(
    "data",
    [
        "path,label\na b.png,cat\nü.png,dog\n",
        "path,label\r\na b.png,cat\r\n\r\nü.png,dog",
        "path,label\ra b.png,cat\rü.png,dog\r",
        "\ufeffpath,label\na b.png,cat\nü.png,dog\n",
        "path;label\na b.png;cat\nü.png;dog\n",
        "path\tlabel\na b.png\tcat\nü.png\tdog\n",
        "path|label\na b.png|cat\nü.png|dog\n",
        " path , label \n a b.png , cat \n ü.png\t, dog \n",
        '"path","label"\n"a b.png", "cat"\n"ü.png","dog"\n',
        "path,label\na b.png,cat\n,\nü.png,dog\n , \n",
        'path,label,note\na b.png,cat,"two\nlines"\nü.png,dog,\n',
        "path,label\na b.png,cat\nü.png,dog\n".encode("utf-16"),
    ],
)
def test_rows_are_read_in_any_common_form(tmp_path, data):
    read = table(tmp_path, data)
    assert read.values == {"path": ["a b.png", "ü.png"], "label": ["cat", "dog"]}


def test_lines_are_those_where_rows_begin(tmp_path):
    read = table(tmp_path, 'path,label,note\n\na,cat,"x\ny"\nb,dog,\n')
    assert read.lines.tolist() == [3, 5]


@pytest.mark.parametrize(
    "data, message",
    [
        ('path,label\na.png,"cat\nb.png,dog\nc.png,dog\n', "line 2: malformed CSV.*quote"),
        (
            'path,label\na.png,"cat\nb.png,dog"\nc.png,dog\n',
            r"line 2: a cell must be on one line, got 'cat\\nb.png,dog'",
        ),
        ('path,label\na.png,"cat"s\n', "line 2: malformed CSV"),
        ("path,label\na.png,catb.png,dog\n", "line 2: a row must have 2 cells, as the heading, got 3"),
        ("path,label\na.png,cat,\n", "line 2: a row must have 2 cells, as the heading, got 3"),
        ("path,label\na.png\n", "line 2: a row must have 2 cells, as the heading, got 1"),
        ("path,label,label\na.png,cat,dog\n", "must have one column 'label'.*got 2"),
        ("path:label\na.png:cat\n", r"no column 'path' \(path_column\), got 'path:label'"),
        ("path,label\né.png,cat\n".encode("cp1252"), "line 2: must be UTF-8.*Windows-1252"),
        ("path,label\n猫.png,狗\n".encode("gbk"), "line 2: must be UTF-8.*GBK"),
    ],
)
def test_swallowed_rows_and_other_damage(tmp_path, data, message):
    with pytest.raises(ValueError, match=rf"t\.csv(, |: ){message}"):
        table(tmp_path, data)


def test_a_manifest_refuses_what_a_detection_manifest_refuses(tmp_path):
    write_image(tmp_path / "a.png", noise(4, 4))
    for row in ("a.png,cat,surplus", "a.png", 'a.png,"cat\na.png,dog"'):
        (tmp_path / "t.csv").write_text(f"path,label\na.png,cat\n{row}\n")
        data = Manifest(str(tmp_path / "t.csv"), num_workers=0)
        with stops_at("unusable-annotation", r"t\.csv, line 3: "):
            data.make_source("train")
        with record_faults() as faults:
            assert len(data.make_source("train")) == 1
        assert [fault.names for fault in faults] == [[3]]


def test_spaces_and_other_unicode_forms_of_paths(tmp_path):
    write_image(tmp_path / "e\u0301 1.png", noise(20, 20))
    head, box = "path,label,x1,y1,x2,y2", ",1,2,8,9"
    for cls, cells in ((Manifest, ""), (LocalizationManifest, box), (DetectionManifest, box)):
        (tmp_path / "t.csv").write_text(f"{head if cells else 'path,label'}\n \u00e9 1.png , cat {cells}\n")
        data = cls(str(tmp_path / "t.csv"), num_workers=0)
        assert data.make_source("train").files() == [str(tmp_path / "e\u0301 1.png")] and data.class_names == ["cat"]


@pytest.mark.parametrize("label", ["9" * 30, "9" * 5000, "-" + "9" * 30])
def test_labels_beyond_int64(tmp_path, label):
    write_image(tmp_path / "a.png", noise(4, 4))
    (tmp_path / "t.csv").write_text(f"path,label\na.png,0\na.png,{label}\n")
    with pytest.raises(ValueError, match=r"t\.csv, line 3: labels must count from 0"):
        Manifest(str(tmp_path / "t.csv")).make_source("train")
    with stops_at("label-outside", r"t\.csv, line 3: "):
        Manifest(str(tmp_path / "t.csv"), class_names=["x", "y"]).make_source("train")


@pytest.mark.parametrize("text, hint", [("[1]", ""), ("1_0", ""), ("1,5", "; write decimals with a point"), ("x", "")])
def test_text_where_numbers_belong(tmp_path, text, hint):
    write_image(tmp_path / "a.png", noise(20, 20))
    (tmp_path / "t.csv").write_text(f"path;label;x1;y1;x2;y2\na.png;cat;{text};1;9;9\n")
    for cls in (DetectionManifest, LocalizationManifest):
        with pytest.raises(ValueError, match=rf"t\.csv, line 2: x1 must be a number, got .*'{hint}$"):
            cls(str(tmp_path / "t.csv")).make_source("train")


def test_a_flag_that_is_none(tmp_path):
    write_image(tmp_path / "a.png", noise(20, 20))
    (tmp_path / "t.csv").write_text("path,label,x1,y1,x2,y2,difficult\na.png,cat,1,1,9,9,2\n")
    with stops_at("unusable-annotation", r"t\.csv, line 2: difficult must be 0, 1, .*got '2'"):
        DetectionManifest(str(tmp_path / "t.csv")).make_source("train")


@pytest.mark.parametrize("cls", [DetectionManifest, LocalizationManifest])
def test_normalized_boxes(tmp_path, cls):
    write_image(tmp_path / "a.png", noise(40, 20))
    write_image(tmp_path / "b.png", noise(10, 20))
    rows = ["a.png,cat,0.25,0.5,0.75,1", "b.png,cat,0,0,1,0.5"]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,x1,y1,x2,y2", *rows]))
    path = str(tmp_path / "t.csv")
    with stops_at("box-normalized", r"t\.csv, x1, y1, x2, y2: .*all 2 lie in 0 to 1.*normalized_boxes: true"):
        cls(path).make_source("train")
    with record_faults() as faults:
        cls(path).make_source("train")
    assert [fault.code for fault in faults] == ["box-normalized"]
    source = cls(path, normalized_boxes=True).make_source("train")
    assert [source[k]["box" if cls is LocalizationManifest else "boxes"].reshape(-1).tolist() for k in range(2)] == [
        [10, 10, 30, 20],
        [0, 0, 10, 10],
    ]
    (tmp_path / "t.csv").write_text("path,label,x1,y1,x2,y2\na.png,cat,10,10,30,20\n")
    with stops_at("box-in-pixels", r"1 of 1 .*beyond 2, got 10, 10, 30, 20; set normalized_boxes: false"):
        cls(path, normalized_boxes=True).make_source("train")


@pytest.mark.parametrize("cls", [DetectionManifest, LocalizationManifest])
@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_boxes_in_mixed_units(tmp_path, cls):
    for name in "abc":
        write_image(tmp_path / f"{name}.png", noise(40, 20))
    rows = ["a.png,cat,0.25,0.5,0.75,1", "b.png,cat,0,0,1,0.5", "c.png,cat,0,0,8,4"]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,x1,y1,x2,y2", *rows]))
    for normalized, message in ((False, "2 of 3 lie in 0 to 1.*line 2"), (True, "1 of 3 have a coord.*line 4")):
        with pytest.warns(UserWarning, match=f"^{message}"):
            cls(str(tmp_path / "t.csv"), normalized_boxes=normalized).make_source("train")


ROWS = [["path", "label"], *([f"img/{number}.png", ("cat", "dog")[number % 2]] for number in range(6))]
DAMAGE = st.tuples(st.integers(0, 110), st.integers(0, 3), st.text('",;\t\n\r| \x00a9é', max_size=3))


@settings(max_examples=200, deadline=None)
@given(st.lists(DAMAGE, min_size=1, max_size=3))
def test_damaged_tables_are_read_right_or_reported_with_their_file(tmp_path_factory, damages):
    text = "".join(",".join(row) + "\n" for row in ROWS)
    for place, length, inserted in damages:
        text = text[:place] + inserted + text[place + length :]
    file = tmp_path_factory.getbasetemp() / "fuzz.csv"
    file.write_bytes(text.encode())
    try:
        read = read_table(file, NEEDED)
    except ValueError as error:
        assert str(file) in str(error), error
        return
    lines = list(csv.reader([line + "\n" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]))
    for path, label, line in zip(read.values["path"], read.values["label"], read.lines.tolist(), strict=True):
        assert "\n" not in path + label and path + label
        if '"' not in text and ";" not in text and "\t" not in text and "|" not in text and "\x00" not in text:
            cells = [cell.strip() for cell in lines[line - 1]]
            assert path in cells and label in cells
    if '"' not in text:
        filled = sum(any(cell.strip() for cell in row) for row in lines)
        assert len(read.lines) == filled - 1  # each line is a row: none is swallowed
