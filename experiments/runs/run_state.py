"""Whether a run is running, finished, interrupted or failed: a small file in its folder, which survives a kill."""

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

STATE_FILE = "run_state.json"
"""File in the folder of a run."""

BEAT = 30.0
"""Seconds between two signs of life in the file."""

EXPIRED = 5 * BEAT
"""Age of the last sign of life, in seconds, at which a run on another machine counts as interrupted."""

State = Literal["running", "finished", "interrupted", "failed", "unknown"]


@dataclass(frozen=True)
class RunState:
    """What the file says about a run.

    Attributes:
        state: Its state; ``unknown`` for runs of earlier versions, which have no such file.
        seconds: Time that it has run for, all continuations together; None: not known.
        started: Time of the last start, in seconds since 1970; None: not known.
        error: First line of the error of a failed run.
        monitor: Name of the monitored metric; empty: not known.
        mode: Its better direction, ``max`` or ``min``.
        epochs: Number of completed epochs; None: not known.
    """

    state: State = "unknown"
    seconds: float | None = None
    started: float | None = None
    error: str = ""
    monitor: str = ""
    mode: str = "max"
    epochs: int | None = None

    @classmethod
    def load(cls, folder: Path) -> "RunState":
        """Read the file in the folder of a run; a process that is gone without a word was interrupted."""
        try:
            values = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            state, beat = values["state"], float(values["beat"])
            known = cls(
                "interrupted" if state == "running" and not is_alive(values) else state,
                float(values["earlier_seconds"]) + max(beat - float(values["started"]), 0.0),
                float(values["started"]),
                str(values["error"]),
                str(values["monitor"]),
                str(values["mode"]),
                values["epochs"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return cls()
        return known if known.state in ("running", "finished", "interrupted", "failed") else cls()


class StateWriter:
    """Keeps the file of a run: written at its start, every `BEAT` seconds, and at its end.

    A folder that has vanished or cannot be written to stops nothing.

    Args:
        folder: Folder of the run. If an earlier process ran it, its time is added.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / STATE_FILE
        before, now = RunState.load(folder), time.time()
        self._values: dict[str, Any] = {
            "state": "running",
            "started": now,
            "beat": now,
            "earlier_seconds": before.seconds or 0.0,
            "error": "",
            "monitor": before.monitor,
            "mode": before.mode,
            "epochs": None,
            "host": platform.node(),
            "machine": machine(),
            "pid": os.getpid(),
            "process_start": process_start(os.getpid()),
        }
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._write()
        threading.Thread(target=self._beat, daemon=True).start()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: weight averaging copies the model with all that it refers to, and a copy is not to write."""
        return {}

    def describe(self, monitor: str | None, mode: str) -> None:
        """Note the monitored metric and its better direction."""
        self._write(monitor=monitor or "", mode=mode)

    def close(self, error: BaseException | None, epochs: int | None = None) -> None:
        """Write the end of the run.

        Args:
            error: What has ended it; None: it has finished.
            epochs: Number of completed epochs.
        """
        self._ended.set()
        state, message = outcome(error)
        self._write(state=state, error=message, epochs=epochs, beat=time.time())

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._write(beat=time.time())

    def _write(self, **values: Any) -> None:
        """Replace the file as a whole, so that a reader never sees half of it."""
        with self._lock, suppress(OSError):
            if self._ended.is_set() and "state" not in values:
                return
            self._values |= values
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            temporary.write_text(json.dumps(self._values, indent=1) + "\n", encoding="utf-8")
            temporary.replace(self.path)


def outcome(error: BaseException | None) -> tuple[State, str]:
    """The state of a run that an exception has ended, and the first line of its message."""
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    for one in causes(error):
        stopped = isinstance(one, SystemExit) and one.code in (130, 143)
        if stopped or isinstance(one, KeyboardInterrupt | SIGTERMException):
            return "interrupted", ""
    if error is None or (isinstance(error, SystemExit) and error.code in (0, None)):
        return "finished", ""
    lines = str(error).strip().splitlines() or [""]
    return "failed", lines[0] if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {lines[0]}"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from or while handling."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def is_alive(values: dict[str, Any]) -> bool:
    """Whether the process of a run is there: by its number on this machine, by its last sign of life on others."""
    if values["machine"] == machine():
        return process_start(int(values["pid"])) == values["process_start"]
    return time.time() - float(values["beat"]) < EXPIRED


def machine() -> str:
    """What tells this machine since its last boot, and containers on it, from others."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    return platform.node()


def process_start(pid: int) -> str | None:
    """When a process on this machine was started, in the system's own unit; None: there is no such process.

    A later process may have the same number, but not the same start. Without ``/proc`` the start is not known.
    """
    if Path("/proc/self/stat").is_file():
        try:
            # "PID (NAME) STATE …", where the name may hold spaces and parentheses; the 22nd field is the start
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # it is another user's
        pass
    return ""
