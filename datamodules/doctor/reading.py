"""All samples of all splits, read once, in parallel processes, of which one may die without taking the others along."""

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import cv2

from ..loading.loader import prepare_worker
from ..loading.sources import Source
from .findings import Finding
from .samples import Looked, look_at

# what libjpeg and libpng say of a file that they nevertheless decode; "extraneous bytes" lie behind the picture
_DAMAGE = re.compile(
    r"premature end|bad huffman|corrupt jpeg|invalid|not enough data|crc error|libpng error", re.IGNORECASE
)
_HARMLESS = re.compile(r"extraneous bytes", re.IGNORECASE)


class Work(NamedTuple):
    """A split to read: its samples, their files where known, and the classes."""

    source: Source
    paths: Sequence[str] | None
    class_names: Sequence[str] | None


class Task(NamedTuple):
    """Samples ``start`` up to ``stop`` of the split of that number."""

    split: int
    start: int
    stop: int


class Complaints:
    """What decoders write to the error stream: kept off the terminal, and asked for after each sample.

    OpenCV's decoders say there, and nowhere else, that the data of an image is damaged.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._before = os.dup(2)
        os.dup2(self._file.fileno(), 2)

    def __call__(self) -> str:
        """What was said of damage since the last time, in one line."""
        number = self._file.fileno()
        size = os.lseek(number, 0, os.SEEK_CUR)
        if not size:
            return ""
        text = os.pread(number, min(size, 10_000), 0).decode(errors="replace")
        os.ftruncate(number, 0)
        os.lseek(number, 0, os.SEEK_SET)
        lines = [line.strip() for line in text.splitlines() if _DAMAGE.search(line) and not _HARMLESS.search(line)]
        return "; ".join(dict.fromkeys(lines))

    def close(self) -> None:
        """Give the stream back."""
        os.dup2(self._before, 2)
        os.close(self._before)
        self._file.close()


@contextlib.contextmanager
def quiet_decoders() -> Iterator[Complaints]:
    """Keep what decoders say off the terminal."""
    sys.stderr.flush()
    complaints = Complaints()
    try:
        yield complaints
    finally:
        complaints.close()


_works: list[Work] = []  # of this process; inherited, or handed over at its start
_complaints: Callable[[], str] = str  # says nothing


def _prepare(works: list[Work]) -> None:
    """Make a worker process: one thread, deaf to Ctrl-C, which its parent answers."""
    global _works, _complaints
    _works = works
    prepare_worker(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _complaints = Complaints()


def _run(task: Task) -> list[Looked]:
    work = _works[task.split]
    return [_look(work, index) for index in range(task.start, task.stop)]


def _look(work: Work, index: int) -> Looked:
    path = work.paths[index] if work.paths else None
    try:
        return look_at(work.source, index, path, work.class_names, _complaints)
    except Exception as error:  # a sample so strange that it cannot even be examined
        what = f"{type(error).__name__}: {error}"
        return Looked(path, findings=[Finding("bad-target", path or f"sample {index}", what, image=path, index=index)])


def read_all(works: list[Work], processes: int) -> Iterator[tuple[Task, list[Looked]]]:
    """Look at every sample of every split.

    Args:
        works: the splits.
        processes: how many to read with; 0: this one alone.

    Yields:
        A few samples at a time, in whatever order they are ready. The iterator may be closed at any time.
    """
    tasks = deque(_tasks(works, max(processes, 1)))
    if not processes:
        yield from _read_here(works, tasks)
        return
    while tasks:
        suspects: list[Task] = []
        yield from _read_in_pool(works, processes, tasks, suspects)
        # a process died at one of these, and the pool with it: each of them is read alone, to find out which
        for task in suspects:
            yield from _read_alone(works, task)


def _tasks(works: list[Work], processes: int) -> Iterator[Task]:
    for number, work in enumerate(works):
        size = len(work.source)
        chunk = min(max(size // (processes * 8), 1), 64)
        yield from (Task(number, start, min(start + chunk, size)) for start in range(0, size, chunk))


def _read_here(works: list[Work], tasks: deque[Task]) -> Iterator[tuple[Task, list[Looked]]]:
    global _works, _complaints
    threads = cv2.getNumThreads()
    for task in tasks:
        with quiet_decoders() as complaints:
            _works, _complaints = works, complaints
            try:
                done = _run(task)
            finally:
                _works, _complaints = [], str
        yield task, done
    cv2.setNumThreads(threads)


def _context() -> multiprocessing.context.BaseContext:
    # forked workers share the annotations; elsewhere each gets a copy
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


@contextlib.contextmanager
def _pool(works: list[Work], processes: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(processes, _context(), _prepare, (works,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, task: Task) -> Future[list[Looked]]:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forking beside threads; no lock of ours is held by another one
        warnings.filterwarnings("ignore", ".*use of fork.*", DeprecationWarning)
        return pool.submit(_run, task)


def _read_in_pool(
    works: list[Work], processes: int, tasks: deque[Task], suspects: list[Task]
) -> Iterator[tuple[Task, list[Looked]]]:
    """Work through `tasks` until none is left, or a process dies; then `suspects` are those that were being read."""
    running: dict[Future[list[Looked]], Task] = {}
    with _pool(works, processes) as pool:
        while tasks or running:
            try:
                while tasks and len(running) < 3 * processes:
                    running[_submit(pool, tasks[0])] = tasks[0]
                    tasks.popleft()
            except BrokenProcessPool:
                pass  # the futures say so too
            ready = wait(running, return_when=FIRST_COMPLETED).done
            broken = False
            for future in ready:
                try:
                    done = future.result()
                except BrokenProcessPool:
                    broken = True
                    continue
                yield running.pop(future), done
            if broken or (tasks and not running):
                suspects += running.values() or [tasks.popleft()]
                return


def _read_alone(works: list[Work], task: Task) -> Iterator[tuple[Task, list[Looked]]]:
    """Read a task in a process of its own; where that dies, its halves, until one sample is left to blame."""
    try:
        with _pool(works, 1) as pool:
            done = _submit(pool, task).result()
    except BrokenProcessPool:
        if task.stop - task.start == 1:
            yield task, [_crashed(works[task.split], task.start)]
            return
        middle = (task.start + task.stop) // 2
        yield from _read_alone(works, task._replace(stop=middle))
        yield from _read_alone(works, task._replace(start=middle))
        return
    yield task, done


def _crashed(work: Work, index: int) -> Looked:
    path = work.paths[index] if work.paths else None
    what = "the process that read it died: a crash of the decoder, or no memory left"
    return Looked(path, findings=[Finding("crash", path or f"sample {index}", what, image=path, index=index)])
