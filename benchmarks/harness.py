"""Shared by all benchmarks: interleaved runs, medians, peak memory, and the table of results.

This module imports only the standard library, so that it adds no memory to a process that is measured.
"""

import contextlib
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
COLUMNS = ("measurement", "striate", "peer", "ratio", "goal", "reached")


@dataclass(frozen=True)
class Goal:
    """Bound on the ratio of striate to its peer.

    Attributes:
        bound: Bound of the ratio.
        at_least: True for a lower bound (throughput), False for an upper bound (time, memory).
    """

    bound: float
    at_least: bool

    def met(self, ratio: float) -> bool:
        """Return whether `ratio` satisfies the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        return f"at {'least' if self.at_least else 'most'} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One row of the table of results.

    Attributes:
        what: What was measured.
        ours: Result of striate.
        peer: Result of the peer.
        ratio: Ratio of the two; None: there is no peer.
        goal: Bound of the ratio; None: the row is for information.
        failed: Whether nothing could be measured; `ours` is the reason.
    """

    what: str
    ours: str
    peer: str = ""
    ratio: float | None = None
    goal: Goal | None = None
    failed: bool = False

    def cells(self) -> tuple[str, ...]:
        """Return the cells as text, in the order of `COLUMNS`."""
        ratio = "" if self.ratio is None else f"{self.ratio:.3f}"
        return self.what, self.ours, self.peer, ratio, str(self.goal or ""), self._reached()

    def _reached(self) -> str:
        if self.goal is None or self.ratio is None:
            return "NO" if self.failed else ""
        return "yes" if self.goal.met(self.ratio) else "NO"

    def markdown(self) -> str:
        """Return the row as a line of a Markdown table."""
        return f"| {' | '.join(cell.replace('|', '/') for cell in self.cells())} |"


class Clock(NamedTuple):
    """A clock reading, or the difference of two readings.

    Attributes:
        wall: Wall time in seconds.
        cpu: CPU time of this process in seconds, summed over its threads.
    """

    wall: float
    cpu: float


def read_clock() -> Clock:
    """Return the current wall and CPU time."""
    return Clock(time.perf_counter(), time.process_time())


def elapsed(readings: Sequence[Clock]) -> list[Clock]:
    """Return the differences between consecutive readings."""
    return [Clock(after.wall - before.wall, after.cpu - before.cpu) for before, after in itertools.pairwise(readings)]


def median_clock(times: Sequence[Clock]) -> Clock:
    """Return the medians of wall time and CPU time, each on its own."""
    return Clock(statistics.median(t.wall for t in times), statistics.median(t.cpu for t in times))


def time_call(call: Callable[[], object]) -> Clock:
    """Measure the duration of one call."""
    return elapsed([read_clock(), (call(), read_clock())[1]])[0]


def interleave(sides: Mapping[str, Callable[[], T]], repetitions: int, warm_up: int = 1) -> dict[str, list[T]]:
    """Measure the sides alternately, A B C A B C …, so that a slow phase of the machine affects all of them.

    Args:
        sides: Functions that make one measurement each.
        repetitions: Number of measurements per side to keep.
        warm_up: Number of rounds to discard first.
    """
    measured: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(warm_up + repetitions):
        for name, measure in sides.items():
            measured[name].append(measure())
    return {name: values[warm_up:] for name, values in measured.items()}


def median_ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """Return the median ratio of adjacent runs: a disturbance of both runs cancels, unlike in a ratio of medians."""
    return statistics.median(a / b for a, b in zip(ours, peer, strict=True))


def resident_mb() -> float:
    """Return the current memory of this process in MB (2**20 bytes); on systems other than Linux, its peak so far."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Return the peak memory of this process in MB (2**20 bytes).

    On Linux, a process inherits ``ru_maxrss`` from its parent, so that the child of a large process appears to be as
    large. ``VmHWM`` does not have this problem.
    """
    return _status_mb("VmHWM")


def reset_peak() -> None:
    """Forget the peak memory so far, so that `peak_mb` is that of what follows; without effect where this fails."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measure_child(call: Callable[[], Mapping[str, float]]) -> None:
    """Call a function once, in a process that `run_fresh` started, and print its values and measurements as JSON.

    Measured are ``seconds``, ``cpu`` (seconds), and ``rise``: the peak memory in MB during the call, above that before
    it.
    """
    values: dict[str, float] = {}
    reset_peak()  # of imports and data
    before = resident_mb()
    clock = time_call(lambda: values.update(call()))
    print(json.dumps({**values, "seconds": clock.wall, "cpu": clock.cpu, "rise": max(peak_mb() - before, 0.1)}))


def compare(what: str, ours: Sequence[Clock], peer: Sequence[Clock], goal: Goal | None = None) -> list[Row]:
    """Return rows for wall time and, as a check, for CPU time."""
    rows = []
    for field, unit in (("wall", ""), ("cpu", ", CPU time")):
        mine, theirs = ([getattr(time, field) for time in times] for times in (ours, peer))
        shown = [f"{1e3 * statistics.median(times):.1f} ms" for times in (mine, theirs)]
        bound = goal if field == "wall" else None
        rows.append(Row(what + unit, shown[0], shown[1], median_ratio(mine, theirs), bound))
    return rows


def _status_mb(field: str) -> float:
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def run_fresh(module: str, *arguments: str) -> dict[str, float]:
    """Run a module in a new process, and return the JSON object in the last line of its output.

    Raises:
        RuntimeError: If the process fails; the message contains its stderr.
    """
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"python -m {module} {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def versions() -> str:
    """Return the versions of Python and torch, and the kind of machine."""
    import torch

    return f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}"


def markdown(rows: Sequence[Row]) -> str:
    """Return the table of results in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}", *(row.markdown() for row in rows)]
    return "".join(f"{line}\n" for line in lines)
