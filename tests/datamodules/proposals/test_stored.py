"""Tests of the file of proposals: mapped, readable by anyone, complete or absent."""

import json
import pickle

import numpy as np
import pytest

from striate.datamodules.annotations.annotation_errors import DataError
from striate.datamodules.proposals import ProposalTable, read_proposals, write_proposals

BOXES = [np.array([[0, 0, 30, 20], [5, 6, 25, 30]]), np.zeros((0, 4)), np.array([[1, 2, 3, 4]])]
SETTINGS = {"data": "Mine", "splits": [{"name": "train", "images": 3, "fingerprint": "f"}], "method": {"mode": "fast"}}


def write(path, boxes=BOXES, **options):
    sizes = np.array([[60, 40]] * len(boxes))
    names = [f"images/é{number}.png" for number in range(len(boxes))]
    write_proposals(path, iter(boxes), list(map(len, boxes)), sizes, names, SETTINGS, **options)
    return path


@pytest.mark.parametrize("whole", [False, True])
def test_round_trip_with_mapped_boxes(tmp_path, whole):
    table = read_proposals(write(tmp_path / "p.npz", whole=whole))
    assert isinstance(table.boxes, np.memmap) and table.boxes.dtype == ("int16" if whole else "float32")
    for index, boxes in enumerate(BOXES):
        np.testing.assert_array_equal(table.boxes[slice(*table.offsets[index : index + 2])], boxes)
    assert table.names.tolist() == ["images/é0.png", "images/é1.png", "images/é2.png"]
    assert table.sizes.tolist() == [[60, 40]] * 3 and table.settings["method"] == {"mode": "fast"}
    assert table.splits == {"f": (0, 3)}


def test_numpy_reads_the_same(tmp_path):
    with np.load(write(tmp_path / "p.npz")) as content:
        assert set(content) == {"boxes", "offsets", "sizes", "names", "settings"}
        np.testing.assert_array_equal(content["boxes"], np.concatenate(BOXES))
        assert json.loads(str(content["settings"]))["data"] == "Mine"


def test_a_file_without_boxes(tmp_path):
    table = read_proposals(write(tmp_path / "p.npz", [np.zeros((0, 4))] * 2))
    assert table.boxes.shape == (0, 4) and table.offsets.tolist() == [0, 0, 0]


def test_a_worker_maps_the_file_again_instead_of_receiving_the_boxes(tmp_path):
    table = read_proposals(write(tmp_path / "p.npz", [np.ones((5000, 4))]))
    sent = pickle.dumps(table)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent).boxes, table.boxes)
    held = ProposalTable(table.path, table.names, table.offsets, np.ones((1, 4)), None, {})
    assert pickle.loads(pickle.dumps(held)).boxes.tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, fraction):
    path = write(tmp_path / "p.npz")
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    with pytest.raises(DataError, match=r"proposals: .*p\.npz: .*; compute it again with `striate data proposals`"):
        read_proposals(path)


def test_arrays_that_do_not_fit_together(tmp_path):
    arrays = dict(np.load(write(tmp_path / "p.npz")))
    np.savez(tmp_path / "q.npz", **{**arrays, "offsets": arrays["offsets"] + 1})
    with pytest.raises(DataError, match=r"q\.npz: its arrays do not fit together"):
        read_proposals(tmp_path / "q.npz")


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = write(tmp_path / "p.npz")
    before = path.read_bytes()

    def failing():
        yield BOXES[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_proposals(path, failing(), [2, 1], np.zeros((2, 2)), ["a", "b"], SETTINGS)
    assert path.read_bytes() == before
