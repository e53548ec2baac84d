"""One trial: a process of its own with an ordinary run folder, its metrics and its end."""

import csv
import ctypes
import fcntl
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from optuna.trial import Trial

from .parameters import as_float
from .spec import Metric

KILL_DELAY = 30.0
"""Seconds between SIGTERM and SIGKILL, as with W&B's agent. A run saves a checkpoint in this time."""

OUTPUT = "output.txt"
"""File in the folder of a trial with all that its process has printed."""


class FolderLock:
    """A lock that claims a trial: held by the process of the sweep and by that of the trial until both have ended.

    Args:
        folder: Folder of the trial; it is created.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file: TextIO = (folder / "lock").open("a")

    def acquire(self) -> bool:
        """Take the lock, unless another process holds it.

        Raises:
            OSError: The file system has no locks.
        """
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            return False
        return True

    def release(self) -> None:
        """Give up the lock; a child process that still runs keeps it."""
        self.file.close()


@dataclass
class History:
    """The values of a metric in the table of a run, which grows while the run continues.

    Attributes:
        folder: Folder of the trial, with the runs in it.
        metric: Name of the metric.
        values: The values that have been logged, in the order of their steps.
        columns: Names of all metrics.
    """

    folder: Path
    metric: str
    values: list[float] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    _seen: tuple[int, int] = (0, 0)

    def update(self) -> bool:
        """Read the table again if it has changed, and say whether there are more values."""
        table = newest(self.folder, "metrics.csv")
        if table is None:
            return False
        state = table.stat()
        if (state.st_mtime_ns, state.st_size) == self._seen:
            return False
        self._seen = (state.st_mtime_ns, state.st_size)
        before = len(self.values)
        self.columns, self.values = read_values(table.read_text(encoding="utf-8", errors="replace"), self.metric)
        return len(self.values) > before


def read_values(text: str, metric: str) -> tuple[list[str], list[float]]:
    """The names of all metrics, and the finite values of one; an incomplete last line is skipped.

    Args:
        text: Content of ``metrics.csv``.
        metric: Name of the metric.
    """
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    values: dict[str, float] = {}
    for number, row in enumerate(reader):
        value = as_float(row.get(metric) or "")
        if value is not None and abs(value) != float("inf") and value == value:
            values[row.get("step") or f"row {number}"] = value  # a repeated validation replaces its first value
    return list(reader.fieldnames or []), list(values.values())


def newest(folder: Path, name: str) -> Path | None:
    """A file of the newest run in the folder of a trial; None if there is none."""
    runs = sorted(folder.glob("fit-*"), key=lambda path: (len(path.name), path.name))
    return next((run / name for run in reversed(runs) if (run / name).is_file()), None)


@dataclass
class RunningTrial:
    """A trial whose process runs.

    Attributes:
        trial: Optuna's trial.
        values: Values of the parameters.
        folder: Folder of the trial.
        lock: The lock of the folder.
        process: The process.
        history: The values of the metric.
        started: Time of the start.
        reported: Number of values in the study.
        stopping: Time of SIGTERM; None: it was not sent.
        pruned: Whether it was stopped early.
    """

    trial: Trial
    values: dict[str, Any]
    folder: Path
    lock: FolderLock
    process: subprocess.Popen[bytes]
    history: History
    started: float
    reported: int = 0
    stopping: float | None = None
    pruned: bool = False

    @property
    def number(self) -> int:
        """Number of the trial in its study."""
        return self.trial.number

    def report(self) -> bool:
        """Store the values that were logged since the last call, and say whether there were any."""
        if not self.history.update():
            return False
        known, self.reported = self.reported, len(self.history.values)
        for step in range(known, self.reported):
            self.trial.report(self.history.values[step], step)
        return self.reported > known

    def terminate(self) -> None:
        """Ask the process to save and end."""
        if self.stopping is None:
            self.stopping = time.monotonic()
            if self.process.poll() is None:
                self.process.terminate()

    def enforce(self) -> None:
        """Kill a process that has not ended in time, with those it has started."""
        if self.stopping is not None and time.monotonic() > self.stopping + KILL_DELAY:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self.process.kill()

    def error(self) -> str:
        """Why the process failed: its last line, or its signal."""
        code = self.process.returncode
        if code < 0:
            return f"ended by {signal.Signals(-code).name}; see {self.folder / OUTPUT}"
        lines = (self.folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
        own = [line.removeprefix("striate: ") for line in lines if line.startswith("striate: ")]
        last = [line.strip() for line in lines if line.strip()]
        return (own or last or [f"exit code {code}; see {self.folder / OUTPUT}"])[-1]


def missing_metric(metric: Metric, columns: Sequence[str]) -> str:
    """The message for a metric that a run has not logged."""
    from ..launcher.messages import did_you_mean

    logged = [name for name in columns if name not in ("step", "epoch")]
    hint = did_you_mean(metric.name, logged, otherwise=f"; it logged {', '.join(sorted(logged)[:12]) or 'nothing'}")
    return f"metric.name: the run has not logged it, got {metric.name!r}{hint}"


def start_process(words: Sequence[str], folder: Path, lock: FolderLock) -> subprocess.Popen[bytes]:
    """Start the process of a trial in its own process group; its output goes to a file.

    On Linux it gets SIGTERM when this process is killed. The lock is inherited.

    Args:
        words: The command line.
        folder: Folder of the trial.
        lock: The lock of the folder.
    """
    environment = {"WANDB_MODE": "offline", **os.environ, "STRIATE_SWEEP": str(folder)}
    # a trial is a program of its own, also where the sweep is one of several tasks of a SLURM job
    if "SLURM_JOB_ID" in environment and "srun" not in words:
        environment["SLURM_JOB_NAME"] = "interactive"
    with (folder / OUTPUT).open("ab") as output:
        output.write(f"$ {shlex.join(words)}\n".encode())
        output.flush()
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
            pass_fds=[lock.file.fileno()],
            preexec_fn=end_with_parent(),
        )


def end_with_parent() -> Callable[[], None] | None:
    """What a child must call so that Linux sends it SIGTERM when its parent ends; None on other systems."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def request() -> None:
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it has ended already
            os.kill(os.getpid(), signal.SIGTERM)

    return request


def prepare_folder(folder: Path) -> list[str]:
    """Arguments that continue an interrupted trial from its last checkpoint; none for a new one.

    What an interrupted trial without a checkpoint has left is removed, since the trial starts anew.
    """
    checkpoint = newest(folder, "checkpoints/last.ckpt")
    if checkpoint is not None:
        return [f"--ckpt_path={checkpoint}"]
    for run in folder.glob("fit-*"):
        shutil.rmtree(run)
    return []
