"""Compute the proposals of a data set in parallel processes; an interrupted computation is resumed.

Every result is appended to a journal beside the file, ``FILE.partial``: a line of JSON with the settings, and for each
image a header (row, width and height, number of boxes, checksum) with its boxes as float32. A process may be killed at
any moment: a record that is incomplete or damaged, and all behind it, is cut off when the computation is resumed. The
file itself is written at the end, from the journal, and renamed when it is complete.
"""

import json
import multiprocessing
import os
import signal
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..images.read import ImageError
from ..loading.loader import prepare_worker
from ..loading.sources import Source
from .attach import image_fingerprint, image_names
from .stored import read_proposals, write_proposals

_RECORD = struct.Struct("<qiiiI")
_BOX_BYTES = 16
_MAX_WHOLE = 32767

Propose = Callable[[np.ndarray], np.ndarray]
"""From an image uint8 ``[H, W, 3]`` to its boxes ``[P, 4]``, best first. Workers receive a copy, so it must pickle."""


@dataclass
class ProposalJob:
    """What is computed: the splits of a data set, and how.

    Attributes:
        data: Name of the data.
        sources: Samples of each split. Splits with the same images are computed once.
        method: Settings of the method as plain values, for the file.
        fingerprints: Of each split, `image_fingerprint`; computed here.
    """

    data: str
    sources: Mapping[str, Source]
    method: Mapping[str, Any]
    fingerprints: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        prints = {split: image_fingerprint(source) for split, source in self.sources.items()}
        first = {key: split for split, key in reversed(prints.items())}
        self.fingerprints = {split: key for split, key in prints.items() if first[key] == split}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the file states."""
        splits = [
            {"name": split, "images": len(self.sources[split]), "fingerprint": key}
            for split, key in self.fingerprints.items()
        ]
        return {"data": self.data, "splits": splits, "method": dict(self.method)}

    def samples(self) -> list[tuple[str, int]]:
        """Return split and index of each image, in the order of the file's rows."""
        return [(split, index) for split in self.fingerprints for index in range(len(self.sources[split]))]

    def names(self) -> list[str]:
        """Return the name of each image, in the order of the file's rows."""
        return [name for split in self.fingerprints for name in image_names(self.sources[split], split)]


class _Journal:
    """The results so far, in a file to which they are appended.

    Attributes:
        positions: Row -> position of its boxes in the file, their number and checksum.
        sizes: Row -> width and height of its image.
        whole: Whether all coordinates so far are whole numbers that fit into 16 bits.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.positions: dict[int, tuple[int, int, int]] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.whole = True
        header = json.dumps(settings).encode() + b"\n"
        end = self._read(header) if path.exists() and path.stat().st_size else 0
        self.file = path.open("r+b" if path.exists() else "w+b")
        self.file.truncate(end)
        self.file.seek(end)
        if not end:
            self.file.write(header)
            self.file.flush()

    def _read(self, header: bytes) -> int:
        """Read what is complete, and return where it ends; 0: not even the header is complete.

        Raises:
            ValueError: It was begun with other settings.
        """
        with self.path.open("rb") as file:
            found = file.readline()
            if not found.endswith(b"\n"):
                return 0
            if found != header:
                raise ValueError(
                    f"out: must be new for other settings, but {self.path} was begun with "
                    f"{_difference(found, header)}; delete it, or give the same settings to resume"
                )
            end = file.tell()
            while len(head := file.read(_RECORD.size)) == _RECORD.size:
                row, width, height, count, checksum = _RECORD.unpack(head)
                content = file.read(count * _BOX_BYTES) if 0 <= count < 1 << 24 else b""
                if len(content) != count * _BOX_BYTES or zlib.crc32(head[:-4] + content) != checksum:
                    break
                self._keep(row, (width, height), end + _RECORD.size, content, checksum)
                end = file.tell()
        return end

    def _keep(self, row: int, size: tuple[int, int], position: int, content: bytes, checksum: int) -> None:
        boxes = np.frombuffer(content, "<f4")
        self.whole &= bool(((boxes == np.round(boxes)) & (np.abs(boxes) <= _MAX_WHOLE)).all())
        self.positions[row], self.sizes[row] = (position, len(boxes) // 4, checksum), size

    def append(self, row: int, size: tuple[int, int], boxes: np.ndarray) -> None:
        """Add the boxes ``[P, 4]`` of an image."""
        content = np.ascontiguousarray(boxes, "<f4").tobytes()
        head = _RECORD.pack(row, *size, len(boxes), 0)[:-4]
        checksum = zlib.crc32(head + content)
        position = self.file.tell() + _RECORD.size
        self.file.write(head + struct.pack("<I", checksum) + content)
        self.file.flush()
        self._keep(row, size, position, content, checksum)

    def boxes(self, row: int) -> np.ndarray:
        """Return the boxes of an image: ``[P, 4]`` float32."""
        position, count, _ = self.positions[row]
        self.file.seek(position)
        return np.frombuffer(self.file.read(count * _BOX_BYTES), "<f4").reshape(-1, 4)


def _difference(found: bytes, header: bytes) -> str:
    """What differs between two headers: ``mode 'fast' instead of 'quality'``."""
    try:
        old, new = json.loads(found), json.loads(header)
    except ValueError:
        return "other contents"
    pairs = {**{key: (old.get(key), new[key]) for key in ("data", "splits")}}
    pairs |= {key: (old.get("method", {}).get(key), value) for key, value in new["method"].items()}
    name, (before, now) = next(
        ((key, pair) for key, pair in pairs.items() if pair[0] != pair[1]), ("settings", ("", ""))
    )
    return "other images" if name == "splits" else f"{name} {before!r} instead of {now!r}"


def compute_proposals(
    job: ProposalJob,
    propose: Propose,
    out: Path,
    processes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Compute the proposals of all images, and write the file.

    Args:
        job: Images and settings.
        propose: Computes the proposals of an image.
        out: The file. One that has these proposals already is kept.
        processes: Number of worker processes; 0: this process alone.
        progress: Called with the number of finished images and their total.

    Returns:
        ``path: reason`` of each image that could not be read, which has no proposals.

    Raises:
        ValueError: ``out`` or its journal has other settings.
        RuntimeError: A worker process died.
    """
    partial = out.with_name(f"{out.name}.partial")
    settings = json.loads(json.dumps(job.settings))
    if out.exists():
        existing = {key: value for key, value in read_proposals(out).settings.items() if key != "format"}
        if existing != settings:
            difference = _difference(json.dumps(existing).encode(), json.dumps(settings).encode())
            raise ValueError(f"out: must be a new file, got {str(out)!r}, which has {difference}; delete it")
        partial.unlink(missing_ok=True)
        return []
    samples, unreadable = job.samples(), []
    journal = _Journal(partial, settings)
    try:
        todo = [row for row in range(len(samples)) if row not in journal.positions]
        progress(len(samples) - len(todo), len(samples))
        for result in _results(job, propose, samples, todo, processes):
            row, size, boxes, error = result
            unreadable += [error] if error else []
            journal.append(row, size, boxes)
            progress(len(journal.positions), len(samples))
        rows = range(len(samples))
        counts = [journal.positions[row][1] for row in rows]
        sizes = np.array([journal.sizes[row] for row in rows], np.int32)
        write_proposals(out, map(journal.boxes, rows), counts, sizes, job.names(), settings, journal.whole)
    finally:
        journal.file.close()
    partial.unlink()
    return unreadable


Result = tuple[int, tuple[int, int], np.ndarray, str]
"""Row, width and height of its image, its boxes ``[P, 4]``, and why it could not be read."""

_state: list[Any] = []  # job, propose and samples of a worker process


def _prepare(*state: Any) -> None:
    """Set up a worker process, which does not react to Ctrl-C: the parent does. It ends with its parent."""
    _state[:] = state
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare_worker(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_with_parent() -> None:
    """Wait for the parent to end, and end this process: one that is killed cannot tell its workers."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _run(rows: Sequence[int]) -> list[Result]:
    job, propose, samples = _state
    return [_compute(job, propose, samples, row) for row in rows]


def _compute(job: ProposalJob, propose: Propose, samples: Sequence[tuple[str, int]], row: int) -> Result:
    split, index = samples[row]
    try:
        image = job.sources[split][index]["image"]
    except ImageError as error:
        return row, (0, 0), np.zeros((0, 4), np.float32), str(error)
    return row, (image.shape[1], image.shape[0]), np.asarray(propose(image), np.float32).reshape(-1, 4), ""


def _results(
    job: ProposalJob, propose: Propose, samples: Sequence[tuple[str, int]], todo: Sequence[int], processes: int
) -> Iterator[Result]:
    """Yield the results of the rows `todo`, as they become ready."""
    if not processes or len(todo) < 2:
        yield from (_compute(job, propose, samples, row) for row in todo)
        return
    chunk = min(max(len(todo) // (processes * 8), 1), 16)
    chunks = iter([todo[first : first + chunk] for first in range(0, len(todo), chunk)])
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(min(processes, len(todo)), context, _prepare, (job, propose, samples))
    running: set[Future[list[Result]]] = set()
    try:
        while True:
            running |= set(_submit(pool, chunks, 3 * processes - len(running)))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    except BrokenProcessPool:
        raise RuntimeError(
            "jobs: a worker process died, probably for lack of memory; run the command again to resume, with fewer jobs"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, chunks: Iterable[Sequence[int]], count: int) -> Iterator[Future[list[Result]]]:
    """Submit up to `count` chunks of rows."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forking beside threads; no other thread holds a lock that is needed here
        warnings.filterwarnings("ignore", ".*use of fork.*", DeprecationWarning)
        for _, rows in zip(range(count), chunks, strict=False):
            yield pool.submit(_run, rows)
