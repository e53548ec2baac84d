"""What all benchmarks share: taking turns, medians, peak memory, and the table.

Only the standard library is imported here (``rich`` when the table is drawn), so that a process whose memory is
measured carries nothing of the harness.
"""

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")
COLUMNS = ("what", "ours", "peer", "ratio", "goal", "ok?")


@dataclass(frozen=True)
class Goal:
    """The bound that a ratio is to keep.

    Attributes:
        bound: of the ratio, ours over the peer's.
        at_least: whether the ratio is to reach the bound (throughput), or to stay within it (time, memory).
    """

    bound: float
    at_least: bool

    def met(self, ratio: float) -> bool:
        """Whether `ratio` keeps the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        return f"at {'least' if self.at_least else 'most'} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One line of the table; without a goal it only informs."""

    what: str
    ours: str
    peer: str
    ratio: float
    goal: Goal | None = None

    def cells(self) -> tuple[str, ...]:
        """The line as text, in the order of `COLUMNS`."""
        met = "" if self.goal is None else "yes" if self.goal.met(self.ratio) else "NO"
        return self.what, self.ours, self.peer, f"{self.ratio:.3f}", str(self.goal or ""), met


class Clock(NamedTuple):
    """A reading, or a difference of two.

    Attributes:
        wall: seconds that passed.
        cpu: seconds that this process computed, all its threads together.
    """

    wall: float
    cpu: float


def read_clock() -> Clock:
    """The time now."""
    return Clock(time.perf_counter(), time.process_time())


def elapsed(readings: Sequence[Clock]) -> list[Clock]:
    """From one reading to the next."""
    return [Clock(after.wall - before.wall, after.cpu - before.cpu) for before, after in itertools.pairwise(readings)]


def median_clock(times: Sequence[Clock]) -> Clock:
    """The median of each of the two times by itself."""
    return Clock(statistics.median(t.wall for t in times), statistics.median(t.cpu for t in times))


def time_call(call: Callable[[], object]) -> Clock:
    """How long one call takes."""
    return elapsed([read_clock(), (call(), read_clock())[1]])[0]


def interleave(sides: Mapping[str, Callable[[], T]], repetitions: int, warm_up: int = 1) -> dict[str, list[T]]:
    """Measure the sides in turn, A B C A B C …, so that a slow spell of the machine falls upon all of them.

    Args:
        sides: each measures itself once when called.
        repetitions: how many measurements of each are kept.
        warm_up: how many rounds before them are thrown away.
    """
    measured: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(warm_up + repetitions):
        for name, measure in sides.items():
            measured[name].append(measure())
    return {name: values[warm_up:] for name, values in measured.items()}


def median_ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """Median of the ratios of neighbours: what disturbs both of a pair cancels, which a ratio of medians would keep."""
    return statistics.median(a / b for a, b in zip(ours, peer, strict=True))


def resident_mb() -> float:
    """Memory that this process holds now, in MB (2**20 bytes); on other systems than Linux, its peak so far."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """The most memory that this process has held, in MB (2**20 bytes).

    Linux hands ``ru_maxrss`` on from the process that started this one, so that a child of a large process would
    seem as large; ``VmHWM`` is the same figure without that.
    """
    return _status_mb("VmHWM")


def _status_mb(field: str) -> float:
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def run_fresh(module: str, *arguments: str) -> dict[str, float]:
    """Run a module in a process of its own, and read the JSON in the last line that it prints.

    Raises:
        RuntimeError: when the process fails; the message holds what it wrote to stderr.
    """
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"python -m {module} {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS)
    for row in rows:
        colour = "" if row.goal is None else "green" if row.goal.met(row.ratio) else "red"
        table.add_row(*row.cells(), style=colour)
    Console().print(table)


def markdown(rows: Sequence[Row]) -> str:
    """The same table for a document."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
