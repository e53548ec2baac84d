"""Reads all samples of all splits once, in parallel processes; a process that dies costs one sample."""

import contextlib
import multiprocessing
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from ..images.decoder_warnings import DecoderWarnings, quiet_decoders
from ..loading.loader import prepare_worker
from ..loading.sources import Source
from .findings import Finding
from .samples import SampleSummary, inspect_sample


class Work(NamedTuple):
    """A split to read: its samples, their files if known, and the classes."""

    source: Source
    paths: Sequence[str] | None
    class_names: Sequence[str] | None


class Task(NamedTuple):
    """Samples ``start`` up to ``stop`` of the split with an index in the list of splits."""

    split: int
    start: int
    stop: int


# state of a worker process, set at its start
_works: list[Work] = []
_decoder_warnings: Callable[[], str] = str  # no warnings


def _prepare(works: list[Work]) -> None:
    """Set up a worker process: one thread, and no reaction to Ctrl-C, which the parent handles."""
    global _works, _decoder_warnings
    _works = works
    prepare_worker(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the pool ends its processes so when one of them has died
    _decoder_warnings = DecoderWarnings()


def _run(task: Task) -> list[SampleSummary]:
    return _summaries(_works, task, _decoder_warnings)


def _summaries(works: list[Work], task: Task, decoder_warnings: Callable[[], str]) -> list[SampleSummary]:
    return [_inspect(works[task.split], index, decoder_warnings) for index in range(task.start, task.stop)]


def _inspect(work: Work, index: int, decoder_warnings: Callable[[], str]) -> SampleSummary:
    path = work.paths[index] if work.paths else None
    try:
        return inspect_sample(work.source, index, path, work.class_names, decoder_warnings)
    except Exception as error:  # a sample that cannot even be inspected
        return _failed(work, index, "bad-target", f"{type(error).__name__}: {error}")


def read_all(works: list[Work], processes: int) -> Iterator[tuple[Task, list[SampleSummary]]]:
    """Inspect every sample of every split.

    Args:
        works: The splits.
        processes: Number of worker processes; 0: this process alone.

    Yields:
        A few samples at a time, as they become ready. The iterator may be closed at any time.
    """
    tasks = deque(_tasks(works, max(processes, 1)))
    if not processes:
        yield from _read_here(works, tasks)
        return
    while tasks:
        suspects: list[Task] = []
        yield from _read_in_pool(works, processes, tasks, suspects)
        # a process died at one of these, and the pool with it: read each of them alone, to find out at which
        for task in suspects:
            yield from _read_alone(works, task)


def _tasks(works: list[Work], processes: int) -> Iterator[Task]:
    for number, work in enumerate(works):
        size = len(work.source)
        chunk = min(max(size // (processes * 8), 1), 64)
        yield from (Task(number, start, min(start + chunk, size)) for start in range(0, size, chunk))


def _read_here(works: list[Work], tasks: deque[Task]) -> Iterator[tuple[Task, list[SampleSummary]]]:
    for task in tasks:
        with quiet_decoders() as decoder_warnings:
            summaries = _summaries(works, task, decoder_warnings)
        yield task, summaries


@contextlib.contextmanager
def _pool(works: list[Work], processes: int) -> Iterator[ProcessPoolExecutor]:
    # forked workers share the annotations; elsewhere each gets a copy
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(processes, context, _prepare, (works,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, task: Task) -> Future[list[SampleSummary]]:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forking beside threads; no other thread holds a lock that is needed here
        warnings.filterwarnings("ignore", ".*use of fork.*", DeprecationWarning)
        return pool.submit(_run, task)


def _read_in_pool(
    works: list[Work], processes: int, tasks: deque[Task], suspects: list[Task]
) -> Iterator[tuple[Task, list[SampleSummary]]]:
    """Read `tasks` until none is left or a process dies; then `suspects` receives those that were being read."""
    running: dict[Future[list[SampleSummary]], Task] = {}
    with _pool(works, processes) as pool:
        while tasks or running:
            try:
                while tasks and len(running) < 3 * processes:
                    running[_submit(pool, tasks[0])] = tasks[0]
                    tasks.popleft()
            except BrokenProcessPool:
                pass  # the futures raise it too
            broken = False
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                try:
                    summaries = future.result()
                except BrokenProcessPool:
                    broken = True
                    continue
                yield running.pop(future), summaries
            if broken or (tasks and not running):
                suspects += running.values() or [tasks.popleft()]
                return


def _read_alone(works: list[Work], task: Task) -> Iterator[tuple[Task, list[SampleSummary]]]:
    """Read a task in a separate process; if that dies, read its halves, until one sample is left."""
    try:
        with _pool(works, 1) as pool:
            summaries = _submit(pool, task).result()
    except BrokenProcessPool:
        if task.stop - task.start == 1:
            detail = "the process that read it died: a crash of the decoder, or no memory left"
            yield task, [_failed(works[task.split], task.start, "crash", detail)]
            return
        middle = (task.start + task.stop) // 2
        yield from _read_alone(works, task._replace(stop=middle))
        yield from _read_alone(works, task._replace(start=middle))
        return
    yield task, summaries


def _failed(work: Work, index: int, code: str, detail: str) -> SampleSummary:
    path = work.paths[index] if work.paths else None
    finding = Finding(code, path or f"sample {index}", detail, image=path, index=index)
    return SampleSummary(path, findings=[finding])
