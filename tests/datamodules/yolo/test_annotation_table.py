"""Lines of YOLO's labels, repaired: each fault has the name that the reader gives it."""

import numpy as np
import pytest

from striate.datamodules.annotations.annotation_errors import record_faults
from striate.datamodules.annotations.objects import ImageTable
from striate.datamodules.yolo.annotation_table import clip_polygon, read_yolo_table
from striate.datamodules.yolo.labels import read_labels
from striate.tests.helpers.small_datasets import repaired_line


@pytest.mark.parametrize(
    "line, code, text",
    [
        ("1 0.5 0.5 0.2 0.1", "", "1 0.5 0.5 0.2 0.1"),
        ("3 0.5 0.5 0.2 0.1", "label-outside", None),
        ("0 0.5 0.5 -0.2 0.1", "box-inverted", "0 0.5 0.5 0.2 0.1"),
        ("0 0.5 0.5 0 0.1", "box-zero-area", None),
        ("0 1.5 0.5 0.2 0.1", "box-outside", None),
        ("0 nan 0.5 0.2 0.1", "box-not-finite", None),
        ("0 50 50 20 10", "unusable-annotation", None),
        ("0 0.5 0.5 0.2", "unusable-annotation", None),
        ("cat 0.5 0.5 0.2 0.1", "unusable-annotation", None),
        ("0 0.1 0.1 0.9 0.1 0.9 0.9", "", "0 0.1 0.1 0.9 0.1 0.9 0.9"),
        ("0 0.1 0.1 0.9 0.1 0.9 0.1", "box-zero-area", None),
        ("0 0.1 0.1 0.9 0.1 0.9", "unusable-annotation", None),
    ],
)
def test_repaired_lines(line, code, text):
    assert repaired_line(line, 3) == (code, text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_in_encodings_with_a_mark(tmp_path, encoding):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_bytes("0 0.5 0.5 0.2 0.1\n1 0.5 0.5 0.2 0.2\n".encode(encoding))
    table = read_yolo_table({str(tmp_path / "images/a.jpg"): (40, 20)}, str(tmp_path), 2, with_masks=False)
    assert [(entry.label, entry.fault, entry.name) for entry in table.objects] == [
        (0, None, "line 1"),
        (1, None, "line 2"),
    ]


LINES = [
    "0 0.5 0.5 0.2 0.1", "0 0.5 0.5 0 0.1", "0 0.5 0.5 -0.2 0.1", "0 0.5 nan 0.2 0.1", "0 nan 0.5 20 0.1",
    "0 5 5 2 nan",
    "0 1.5 0.5 0.2 0.1", "0 3 0.5 0.2 0.1", "7 0.5 0.5 0.2", "0 0.5 0.5 0.2", "0 0.5 0.5",
    "0 0.1 0.1 0.3 0.1 0.3 0.4",
    "0 0.1 0.1 nan 0.1 0.3 0.4", "0 1.1 0.1 1.3 0.1 1.3 0.4", "0 0.1 0.1 0.3 0.1 0.3 0.1", "0 a b c d", "0.5 1 1 1 1",
    "0 -5 0.5 0.2 0.1", "0 0.5 0.5 1e-9 0.1", "0 0.9999999 0.5 1e-6 0.1", "0",
]  # fmt: skip


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("line", LINES)
def test_reader_and_repair_name_the_same_fault(tmp_path, line, masks):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(line)
    table = ImageTable(tmp_path, np.array([b"images/a.jpg"]), np.zeros((1, 2), np.int32), np.zeros(1, np.int64))
    with record_faults() as faults:
        objects, _ = read_labels(table, ["cat", "dog"], masks)
    names = [fault.code for fault in faults]
    code, text = repaired_line(line, 2, masks)
    assert names == ([code] if code else [])
    assert (text is None) == (not len(objects.labels)) or code == "box-inverted"


def test_a_polygon_is_clipped_to_its_image():
    """A diamond of half the square around a corner: a quarter of it is left. Concave: the area is that of the parts."""

    def area(points):
        x, y = points.T
        return abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2

    quarter = clip_polygon(np.array([[1.5, 1], [1, 1.5], [0.5, 1], [1, 0.5]]))
    assert area(quarter) == pytest.approx(0.125) and quarter.min() == 0.5 and quarter.max() == 1
    comb = np.array([[0.2, 0.2], [1.2, 0.2], [1.2, 0.4], [0.4, 0.4], [0.4, 0.6], [1.2, 0.6], [1.2, 0.8], [0.2, 0.8]])
    assert area(clip_polygon(comb)) == pytest.approx(0.8 * 0.2 * 2 + 0.2 * 0.2)
    assert clip_polygon(comb + 2).shape == (0, 2)
