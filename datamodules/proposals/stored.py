"""The file of stored proposals: a plain, uncompressed ``.npz``, of which the boxes are mapped into memory.

Anyone can read it with ``numpy.load``. Its arrays, for N images and T boxes of all images together:

- ``boxes``: ``[T, 4]``, x1, y1, x2, y2 in pixels, image by image, best first; int16 if that is exact, else float32.
- ``offsets``: int64 ``[N + 1]``; the boxes of image i are those from ``offsets[i]`` up to ``offsets[i + 1]``.
- ``sizes``: int32 ``[N, 2]``, width and height of each image; 0, 0 if it could not be read.
- ``names``: ``[N]`` text, the last two parts of each image's path, or the split and the number of the sample.
- ``settings``: JSON, with the name of the data, its splits (name, number of images, fingerprint) and the method.

`numpy.load` would read all boxes into memory. So the position of an array in the file is taken from the archive, which
is a zip file without compression, and mapped. Loader workers share it.
"""

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations.annotation_errors import DataError, Fault

FORMAT = "striate proposals 1"
AGAIN = "compute it again with `striate data proposals`"


@dataclass(frozen=True, eq=False)
class ProposalTable:
    """Proposals of N images, from a file of ours or of others.

    Attributes:
        path: The file.
        names: ``[N]`` text, names of the images.
        offsets: int64 ``[N + 1]``, where the boxes of each image begin.
        boxes: ``[T, 4]``, x1, y1, x2, y2 in pixels.
        sizes: int32 ``[N, 2]``, width and height of each image; None: the file does not have them.
        settings: What the file says of itself; empty if it is not ours.
    """

    path: Path
    names: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray | None
    settings: Mapping[str, Any]

    def __reduce__(self) -> Any:
        # a worker that is not forked maps the file again instead of receiving a copy of its boxes
        if isinstance(self.boxes, np.memmap):
            return read_proposals, (self.path,)
        return ProposalTable, (self.path, self.names, self.offsets, self.boxes, self.sizes, self.settings)

    @property
    def splits(self) -> dict[str, tuple[int, int]]:
        """Fingerprint of each split of a file of ours, with the rows of its images: first, and behind the last."""
        rows, first = {}, 0
        for split in self.settings.get("splits", ()):
            rows[split["fingerprint"]] = (first, first + split["images"])
            first += split["images"]
        return rows


def read_proposals(path: str | Path) -> ProposalTable:
    """Map a file of ours into memory.

    Raises:
        DataError: It is damaged, or not a file of ours.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name: _member(path, archive, name) for name in ("boxes", "offsets", "sizes", "names", "settings")}
        settings = json.loads(str(arrays.pop("settings")))
        table = ProposalTable(path, arrays["names"], arrays["offsets"], arrays["boxes"], arrays["sizes"], settings)
        consistent = settings["format"] == FORMAT and len(table.names) == len(table.offsets) - 1 == len(arrays["sizes"])
        if not consistent or int(table.offsets[-1]) != len(table.boxes) or table.boxes.shape[1:] != (4,):
            raise ValueError("its arrays do not fit together")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise unusable(path, f"{' '.join(str(error).split())}", AGAIN) from error
    return table


def is_ours(path: Path) -> bool:
    """Whether a file is a zip archive with our settings."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "settings.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def unusable(path: Path, found: str, remedy: str) -> DataError:
    """Return the error for a file of proposals that cannot be used."""
    return DataError.of(
        Fault("proposals-file", path, ["proposals"], "entry", found, remedy), f"proposals: {path}: {found}; {remedy}"
    )


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array ``[...]`` of an archive; one with boxes is mapped, others are read."""
    info = archive.getinfo(f"{name}.npy")
    if name != "boxes" or info.compress_type != zipfile.ZIP_STORED:
        with archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)  # the lengths of the name and of the extra field, behind which data begin
        lengths = np.frombuffer(file.read(4), "<u2")
        file.seek(info.header_offset + 30 + int(lengths.sum()))
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if not shape[0]:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape)


def write_proposals(
    path: Path,
    boxes: Iterable[np.ndarray],
    counts: Sequence[int],
    sizes: np.ndarray,
    names: Sequence[str],
    settings: Mapping[str, Any],
    whole: bool = False,
) -> None:
    """Write a file, which exists completely or not at all.

    Args:
        path: The file; one that exists is replaced.
        boxes: Boxes of each image in turn.
        counts: Their numbers.
        sizes: Width and height of each image.
        names: Name of each image.
        settings: ``data``, ``splits`` and the method; ``format`` is added.
        whole: Whether all coordinates are whole numbers of at most 32767, which are stored as int16.

    Shape:
        - boxes: N times ``[P_i, 4]``
        - sizes: ``[N, 2]``
    """
    dtype = np.dtype("<i2" if whole else "<f4")
    offsets = np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))]).astype(np.int64)
    rest: dict[str, np.ndarray] = {
        "offsets": offsets,
        "sizes": np.asarray(sizes, np.int32).reshape(-1, 2),
        "names": np.asarray(names, np.str_),
        "settings": np.asarray(json.dumps({"format": FORMAT, **settings})),
    }
    unfinished = path.with_name(f"{path.name}.tmp")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("boxes.npy", "w", force_zip64=True) as member:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
            np.lib.format.write_array_header_1_0(member, {**header, "shape": (int(offsets[-1]), 4)})
            for rows in boxes:
                member.write(np.ascontiguousarray(rows, dtype).tobytes())
        for name, array in rest.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    unfinished.replace(path)
