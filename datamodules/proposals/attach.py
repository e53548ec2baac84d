"""Stored proposals of the samples of a source: which rows of the file are theirs, and whether they can be."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..annotations.annotation_errors import DataError, Fault, record_warning
from ..annotations.objects import ObjectSource
from ..images.read import reduced_sizes
from ..loading.fingerprint import fingerprint
from ..loading.sources import HasFiles, HasPath, HasSizes, Source, source_sizes
from .foreign import read_any_proposals
from .stored import AGAIN, ProposalTable, unusable

Paths = str | Path | Sequence[str]
"""A file of proposals, or several."""

TOLERANCE = 1.0
"""Pixels by which a box may leave its image, as rounding in other tools makes it do; it is clipped."""


class SampleProposals:
    """Stored proposals ``[P, 4]`` of each of the N samples of a source.

    Args:
        table: The file.
        rows: ``[N]`` int64, the row of each sample in it; -1: it has none.
        sizes: ``[N, 2]``, width and height of the images that the boxes belong to; 0, 0: not known.
        names: Name of each sample, for messages.
    """

    def __init__(self, table: ProposalTable, rows: np.ndarray, sizes: np.ndarray, names: Sequence[str]) -> None:
        # rows [N], sizes [N, 2]
        self.table, self.rows, self.sizes, self.names = table, rows, sizes, names

    def __len__(self) -> int:
        return len(self.rows)

    def raw_boxes(self, index: int) -> np.ndarray:
        """Return the boxes of a sample as they are stored: ``[P, 4]`` float32."""
        row = int(self.rows[index])
        if row < 0:
            return np.zeros((0, 4), np.float32)
        first, last = self.table.offsets[row : row + 2].tolist()
        return np.array(self.table.boxes[first:last], np.float32)

    def boxes(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """Return the boxes of a sample, in pixels of its image.

        Args:
            index: Index of the sample.
            size: Width and height of its image, which may have been decoded at reduced size.

        Shape:
            - Output: ``[P, 4]`` float32, inside the image.

        Raises:
            ValueError: They belong to an image of another size, or a box lies outside it.
        """
        boxes = self.raw_boxes(index)
        width, height = self.sizes[index].tolist()
        if width and (width, height) != tuple(size):
            if tuple(size) not in reduced_sizes(width, height):
                raise ValueError(
                    f"proposals: those of {self.names[index]} in {self.table.path} are for {width}x{height} pixels, "
                    f"got an image of {size[0]}x{size[1]}; {AGAIN}"
                )
            boxes *= np.tile(np.divide(size, (width, height)), 2).astype(np.float32)
        if (wrong := outside(boxes, size)).any():
            number = int(wrong.argmax())
            raise ValueError(
                f"proposals: box {number} of {self.names[index]} in {self.table.path} is not inside its image of "
                f"{size[0]}x{size[1]} pixels, got {[round(float(side), 2) for side in boxes[number]]}; correct the "
                "file, of which striate data check lists all such boxes"
            )
        return boxes.clip(0, np.tile(size, 2)).astype(np.float32)


def outside(boxes: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return which boxes ``[P, 4]`` are not inside an image of this width and height, or have no area: bool ``[P]``."""
    # comparisons with NaN are false, so it is rejected
    inside = (boxes[:, :2] >= -TOLERANCE) & (boxes[:, 2:] <= np.add(size, TOLERANCE)) & (boxes[:, :2] < boxes[:, 2:])
    clipped = boxes.clip(0, np.tile(size, 2))
    return np.logical_not(np.all(inside & (clipped[:, :2] < clipped[:, 2:]), axis=1))


def image_fingerprint(source: Source) -> str:
    """Hash which images a source has, in order: their names, or all that a source without files knows.

    Labels and boxes do not count where images are files, so that a change of the annotations keeps the proposals.
    Neither does the folder above the last.

    Returns:
        16 hexadecimal digits.
    """
    if not isinstance(source, HasFiles):
        return fingerprint(source)
    return hashlib.blake2b("\0".join(image_names(source, "")).encode(), digest_size=8).hexdigest()


def image_names(source: Source, split: str) -> list[str]:
    """Return the last two parts of each image's path, ``JPEGImages/000005.jpg``, or split and number, ``val/7``."""
    if isinstance(source, HasFiles):
        return ["/".join(str(path).replace("\\", "/").rsplit("/", 2)[-2:]) for path in source.files()]
    return [f"{split}/{index}" for index in range(len(source))]


def open_proposals(paths: Paths, source: Source, split: str, data: str) -> SampleProposals:
    """Open the file of the proposals of a split, and find those of its samples.

    A file of ours must have a split of the same images (`image_fingerprint`), or all images of the source by name. In a
    file of others, images are found by the name or the number of their file; those that it lacks have no proposals,
    which is a counted warning.

    Args:
        paths: The file, or several, such as one per split; the one with the most images of the source is used.
        source: The samples.
        split: Its name, for messages.
        data: Name of the data module, for messages.

    Raises:
        DataError: The file cannot be used, or belongs to another data set.
    """
    names = image_names(source, split)
    table, rows = _fitting_table(paths, source, names)
    if table.sizes is not None:
        if (rows < 0).any():
            raise _other_data(table, split, data, image_fingerprint(source), len(names))
        return SampleProposals(table, rows, table.sizes[rows], names)
    if not isinstance(source, HasFiles):
        raise unusable(table.path, f"images are found by their file names, but {data} has no files", AGAIN)
    _report_missing(table, rows, names, split, data)
    known = isinstance(source, HasPath | HasSizes)
    return SampleProposals(table, rows, source_sizes(source) if known else np.zeros((len(names), 2), np.int64), names)


def open_for_prediction(paths: Paths, source: Source) -> SampleProposals | None:
    """Open a file of proposals for images to predict; None, with a warning, if it lacks some of them or does not exist.

    Raises:
        DataError: The file cannot be used.
    """
    listed = [paths] if isinstance(paths, str | Path) else paths
    if absent := [str(path) for path in listed if not Path(path).expanduser().is_file()]:
        rank_zero_warn(f"proposals of all images to predict are computed: there is no file {absent[0]!r}")
        return None
    names = image_names(source, "predict")
    table, rows = _fitting_table(paths, source, names)
    if (rows < 0).any():
        lacking = np.flatnonzero(rows < 0)
        rank_zero_warn(
            f"proposals of all {len(rows)} images to predict are computed: {table.path} has none of {len(lacking)} of "
            f"them, such as {names[lacking[0]]}"
        )
        return None
    sizes = table.sizes[rows] if table.sizes is not None else np.zeros((len(rows), 2), np.int64)
    return SampleProposals(table, rows, sizes, names)


def _fitting_table(paths: Paths, source: Source, names: Sequence[str]) -> tuple[ProposalTable, np.ndarray]:
    """Return the file that has the most images, and the row of each ``[N]`` in it; -1: it lacks the image.

    Raises:
        ValueError: No file is given.
    """
    best: tuple[ProposalTable, np.ndarray] | None = None
    for path in [paths] if isinstance(paths, str | Path) else paths:
        table = read_any_proposals(path)
        if table.sizes is None:
            rows = _rows_by_key(table, source) if isinstance(source, HasFiles) else np.full(len(names), -1)
        elif (key := image_fingerprint(source)) in table.splits:
            rows = np.arange(*table.splits[key])
        else:
            rows = _rows_by_name(table, names) if isinstance(source, HasFiles) else np.full(len(names), -1)
        if best is None or (rows >= 0).sum() > (best[1] >= 0).sum():
            best = table, rows
    if best is None:
        raise ValueError("proposals: must be a file or several, got an empty list; omit it")
    return best


def _rows_by_name(table: ProposalTable, names: Sequence[str]) -> np.ndarray:
    """Row of each image ``[N]`` by its whole name; -1 where the file has none."""
    known = {name: row for row, name in enumerate(table.names.tolist())}
    return np.array([known.get(name, -1) for name in names], np.int64)


def _other_data(table: ProposalTable, split: str, data: str, key: str, count: int) -> DataError:
    """The error for a file of another data set; names both."""
    theirs = ", ".join(
        f"{one['name']} ({one['images']} images, {one['fingerprint']})" for one in table.settings.get("splits", ())
    )
    found = (
        f"it has the proposals of another data set: {table.settings.get('data', 'unknown')}, {theirs}, but not of "
        f"{data}, {split} ({count} images, {key})"
    )
    return unusable(table.path, found, "compute those of this configuration with `striate data proposals`")


def _rows_by_key(table: ProposalTable, source: HasFiles) -> np.ndarray:
    """Row of each image ``[N]`` by its name, the stem of its file, or the number in it; -1 where the file has none."""
    known: dict[str, int] = {}
    for row, name in enumerate(table.names.tolist()):
        for key in _keys(name):
            known.setdefault(key, row)
    numbers = _image_ids(source)
    rows = []
    for index, path in enumerate(source.files()):
        keys = [*_keys(path), *([] if numbers is None else [f"#{numbers[index]}"])]
        rows.append(next((known[key] for key in keys if key in known), -1))
    return np.array(rows, np.int64)


def _keys(name: str) -> list[str]:
    """Names under which an image may be listed, most certain first; a number is one without leading zeros."""
    parts = name.replace("\\", "/").rsplit("/", 2)
    stem = os.path.splitext(parts[-1])[0]  # noqa: PTH122
    number = [f"#{int(stem)}"] if stem.isascii() and stem.isdigit() else []
    return ["/".join(parts[-2:]), parts[-1], stem, *number]


def _image_ids(source: object) -> list[int] | None:
    """The source's own numbers of its images, such as COCO's, if it has them."""
    return source.images.ids[source.selected].tolist() if isinstance(source, ObjectSource) else None


def _report_missing(table: ProposalTable, rows: np.ndarray, names: Sequence[str], split: str, data: str) -> None:
    """Count and name the images without proposals, those with a row ``[N]`` of -1; reject a file that has none of them.

    Raises:
        DataError: No image of the split is in the file.
    """
    missing = np.flatnonzero(rows < 0).tolist()
    if len(missing) == len(rows):
        listed = ", ".join(map(repr, table.names[:3].tolist()))
        found = (
            f"it has none of the {len(rows)} images of {data}, {split}, such as {names[0]!r}; its images are {listed}"
        )
        raise unusable(table.path, found, "use the file of this data set")
    if missing:
        first = ", ".join(names[index] for index in missing[:3]) + (" …" if len(missing) > 3 else "")
        fault = Fault("missing-proposals", table.path, [names[index] for index in missing], "entry")
        record_warning(
            fault,
            f"{len(missing)} of {len(rows)} images of {split} without proposals in {table.path}: {first}; nothing is "
            "detected in them, and only their ground truth is trained on; run striate data check to list all",
        )
