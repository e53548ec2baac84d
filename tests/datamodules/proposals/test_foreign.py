"""Tests of proposal files of others: MATLAB's, COCO's JSON, npz; and what is refused with the way to convert it."""

import json
import pickle

import numpy as np
import pytest

from striate.datamodules.annotations.annotation_errors import DataError
from striate.datamodules.proposals.foreign import read_any_proposals


def boxes_by_name(path):
    table = read_any_proposals(path)
    rows = [table.boxes[first:last].tolist() for first, last in zip(table.offsets, table.offsets[1:], strict=False)]
    return dict(zip(table.names.tolist(), rows, strict=True))


def test_matlab_files_have_y_first_and_pixels_from_1(tmp_path):
    import scipy.io

    boxes = np.empty((1, 2), object)
    # the first pixel alone; rows 3 to 10 of columns 5 to 6
    boxes[0, 0], boxes[0, 1] = np.array([[1, 1, 1, 1], [3, 5, 10, 6]], np.float64), np.zeros((0, 4))
    images = np.empty((2, 1), object)
    images[:, 0] = ["000005", "000007"]
    scipy.io.savemat(tmp_path / "p.mat", {"boxes": boxes, "images": images})
    assert boxes_by_name(tmp_path / "p.mat") == {"000005": [[0, 0, 1, 1], [4, 2, 6, 10]], "000007": []}


def test_matlab_files_without_images(tmp_path):
    import scipy.io

    scipy.io.savemat(tmp_path / "p.mat", {"boxes": np.zeros((1, 2))})
    with pytest.raises(
        DataError, match=r"p\.mat: it cannot be read \(it has no variable images\); see docs/regions\.md"
    ):
        read_any_proposals(tmp_path / "p.mat")


def test_json_has_corner_and_size_and_is_sorted_by_score(tmp_path):
    results = [
        {"image_id": 7, "bbox": [1, 2, 10, 20], "score": 0.1, "category_id": 1},
        {"image_id": 7, "bbox": [0, 0, 5, 5], "score": 0.9},
        {"image_id": 3, "bbox": [4, 4, 1, 1]},
    ]
    (tmp_path / "p.json").write_text(json.dumps(results))
    assert boxes_by_name(tmp_path / "p.json") == {"7": [[0, 0, 5, 5], [1, 2, 11, 22]], "3": [[4, 4, 5, 5]]}


@pytest.mark.parametrize("content", [{"images": []}, [{"bbox": [1, 2, 3, 4]}], [{"image_id": 1, "bbox": [1, 2]}], [3]])
def test_other_json(tmp_path, content):
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"p\.json: it cannot be read .*image_id.*bbox"):
        read_any_proposals(tmp_path / "p.json")


def test_npz_with_offsets_or_one_array_per_image(tmp_path):
    np.savez(tmp_path / "a.npz", boxes=np.arange(12).reshape(3, 4), offsets=[0, 1, 3], names=["x.jpg", "y.jpg"])
    np.savez(tmp_path / "b.npz", **{"x.jpg": np.arange(4)[None], "y.jpg": np.arange(4, 12).reshape(2, 4)})
    expected = {"x.jpg": [[0, 1, 2, 3]], "y.jpg": [[4, 5, 6, 7], [8, 9, 10, 11]]}
    assert boxes_by_name(tmp_path / "a.npz") == boxes_by_name(tmp_path / "b.npz") == expected


def test_npz_of_another_shape(tmp_path):
    np.savez(tmp_path / "a.npz", boxes=np.zeros((3, 4)), offsets=[0, 4], names=["x.jpg"])
    np.savez(tmp_path / "b.npz", **{"x.jpg": np.zeros((3, 5))})
    np.savez(tmp_path / "c.npz", **{"x.jpg": np.array([None, {}])})
    with pytest.raises(DataError, match="offsets do not fit 1 names and 3 boxes"):
        read_any_proposals(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"got 'x\.jpg' of \[3, 5\]"):
        read_any_proposals(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"c\.npz: it cannot be read .*allow_pickle"):
        read_any_proposals(tmp_path / "c.npz")


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".pth"])
def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(pickle.dumps({"boxes": []}))
    with pytest.raises(DataError, match=rf"p\{suffix}: a pickle could run any code.*numpy\.savez\(FILE\.npz, boxes="):
        read_any_proposals(path)


def test_unknown_and_absent_files(tmp_path):
    (tmp_path / "p.txt").write_text("")
    with pytest.raises(DataError, match=r"p\.txt: the format must be one of \.npz, \.mat, \.json, got '\.txt'"):
        read_any_proposals(tmp_path / "p.txt")
    with pytest.raises(DataError, match=r"q\.npz: there is no such file"):
        read_any_proposals(tmp_path / "q.npz")
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(DataError, match=r"r\.json: it has no image"):
        read_any_proposals(tmp_path / "r.json")
