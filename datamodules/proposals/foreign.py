"""Proposal files of others: the MATLAB files of R-CNN's author, COCO's JSON of results, and ``.npz``."""

import functools
import itertools
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .stored import ProposalTable, is_ours, read_proposals, unusable

_NPZ = "boxes [T, 4], offsets [N + 1] and names [N]"
_PICKLES = (".pkl", ".pickle", ".pk", ".npy", ".pt", ".pth", ".joblib")


def read_any_proposals(path: str | Path) -> ProposalTable:
    """Read a file of ours, or one of others by its suffix: ``.mat``, ``.json``, ``.npz``.

    Raises:
        DataError: It does not exist, cannot be read, or has another format; the message says how to convert it.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if not path.is_file():
        raise unusable(
            path, "there is no such file", "write it with `striate data proposals --out`, or correct the path"
        )
    if suffix in _PICKLES:
        fix = "load it where you trust it, and save it with numpy.savez(FILE.npz, boxes=…, offsets=…, names=…)"
        raise unusable(path, f"a pickle could run any code when it is read, got {suffix}", f"{fix}: {_NPZ}")
    if suffix not in READERS:
        raise unusable(path, f"the format must be one of {', '.join(READERS)}, got {suffix!r}", "convert the file")
    if suffix == ".npz" and is_ours(path):
        return read_proposals(path)
    return _read_foreign(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)  # every split asks for the file
def _read_foreign(path: Path, modified: int) -> ProposalTable:
    """Read a file of others; `modified` is when it was, so that another content is read again."""
    suffix = path.suffix.lower()
    try:
        names, boxes = READERS[suffix](path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError, zipfile.BadZipFile) as error:
        if isinstance(error, NotImplementedError):  # scipy's, for MATLAB's HDF5
            error = ValueError("it is a MATLAB file of version 7.3; save it with save(…, '-v7')")
        text = " ".join(str(error).split()) or type(error).__name__
        raise unusable(
            path, f"it cannot be read ({text})", f"see docs/regions.md for the layout of {suffix}"
        ) from error
    if not names:
        raise unusable(path, "it has no image", "check that it is a file of proposals")
    offsets = np.cumsum([0, *map(len, boxes)])
    merged = np.concatenate(boxes).astype(np.float32) if offsets[-1] else np.zeros((0, 4), np.float32)
    return ProposalTable(path, np.asarray(names, np.str_), offsets.astype(np.int64), merged, None, {})


def _read_matlab(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """Read ``boxes`` (cells ``[P, 4]`` of y1, x1, y2, x2, from 1, inclusive) and ``images`` (cells of names)."""
    import scipy.io  # a dependency of scikit-learn; slow to import

    content = scipy.io.loadmat(str(path), variable_names=["boxes", "images"])
    if missing := [name for name in ("boxes", "images") if name not in content]:
        raise ValueError(f"it has no variable {' and no variable '.join(missing)}")
    names = [_text(cell) for cell in content["images"].ravel()]
    cells = list(content["boxes"].ravel())
    if len(names) != len(cells):
        raise ValueError(f"{len(cells)} cells of boxes for {len(names)} images")
    return names, [_from_matlab(cell) for cell in cells]


def _text(cell: Any) -> str:
    """The text in a cell, which scipy wraps in arrays."""
    while isinstance(cell, np.ndarray):
        cell = cell.ravel()[0]
    return str(cell)


def _from_matlab(cell: np.ndarray) -> np.ndarray:
    """Boxes ``[P, 4]`` of a cell: pixels from 1, both ends included, become edges from 0."""
    boxes = np.asarray(cell, np.float32).reshape(-1, 4)
    return boxes[:, [1, 0, 3, 2]] - np.array([1, 1, 0, 0], np.float32)


def _read_json(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """Read boxes ``[P, 4]`` of COCO's list of results: ``image_id``, ``bbox`` (x, y, width, height) and ``score``."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise ValueError("it must be a list of results: image_id, bbox and score")
    by_image: dict[str, list[tuple[float, list[float]]]] = {}
    for number, one in enumerate(content):
        if "image_id" not in one or len(one.get("bbox", ())) != 4:
            raise ValueError(f"result {number} has no image_id and bbox of four numbers, got {str(one)[:80]}")
        by_image.setdefault(str(one["image_id"]), []).append((float(one.get("score", 0.0)), one["bbox"]))
    boxes = []
    for results in by_image.values():
        order = sorted(range(len(results)), key=lambda index: -results[index][0])
        corners = np.asarray([results[index][1] for index in order], np.float64)
        corners[:, 2:] += corners[:, :2]
        boxes.append(corners)
    return list(by_image), boxes


def _read_npz(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """Read ``boxes``, ``offsets`` and ``names``, or one array of boxes ``[P, 4]`` under the name of each image."""
    with np.load(path, allow_pickle=False) as content:
        keys = list(content.keys())
        if "boxes" in keys and {"offsets", "names"} <= set(keys):
            names, offsets = content["names"].astype(str).tolist(), content["offsets"].tolist()
            boxes = content["boxes"].reshape(-1, 4)
            if len(offsets) != len(names) + 1 or offsets[-1] != len(boxes) or sorted(offsets) != offsets:
                raise ValueError(f"offsets do not fit {len(names)} names and {len(boxes)} boxes")
            return names, [boxes[first:last] for first, last in itertools.pairwise(offsets)]
        arrays = {key: content[key] for key in keys}
    if wrong := [key for key, array in arrays.items() if array.ndim != 2 or array.shape[1] != 4]:
        raise ValueError(
            f"it needs {_NPZ}, or boxes [P, 4] under the name of each image, got {wrong[0]!r} of "
            f"{list(arrays[wrong[0]].shape)}"
        )
    return keys, list(arrays.values())


READERS: dict[str, Callable[[Path], tuple[list[str], Sequence[Any]]]] = {
    ".npz": _read_npz,
    ".mat": _read_matlab,
    ".json": _read_json,
}
"""Suffix -> function that returns the names of the images and the boxes ``[P, 4]`` of each."""
