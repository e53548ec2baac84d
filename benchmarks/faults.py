"""``python -m benchmarks faults``: stop a training at random moments, resume it, and compare it with one left alone.

The faults are SIGTERM, SIGINT and SIGKILL at random times and while checkpoints are written, a full disk while
checkpoints, metrics and plots are written, and a ``last.ckpt`` that is cut off. After each, resuming must give the same
``metrics.csv``, byte for byte, and the same weights. Runs are forks of this process, which has imported everything.
"""

import argparse
import errno
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

import striate.experiments.launcher.cli  # noqa: F401 - imported once, for all forks
from striate.callbacks import atomic_files
from striate.experiments.launcher.compat import MetricsWriter
from striate.experiments.launcher.main import main as striate_main

RUN = ["fit", "--config", "classification/lenet_digits_fast", "--run.name", "run"]
RUN += ["--data.train_size", "96", "--data.val_size", "48", "--data.batch_size", "8", "--data.num_workers", "0"]
RUN += ["--trainer.max_epochs", "3", "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "5"]
RUN += ["--wandb.mode", "off"]

TARGETS: dict[str, tuple[Any, str]] = {
    "checkpoint": (torch, "save"),
    "metrics": (MetricsWriter, "save"),
    "plots": (Image.Image, "save"),
    "write": (atomic_files.os, "fsync"),
}
"""Functions whose calls are moments: what they are for, and where they are."""

KINDS = [
    *((name, "any time") for name in ("SIGTERM", "SIGINT", "SIGKILL")),
    *((name, "write") for name in ("SIGTERM", "SIGINT", "SIGKILL")),
    *(("full disk", name) for name in ("checkpoint", "metrics", "plots")),
    ("cut off", "last.ckpt"),
]
"""Faults, and where they occur."""

CODES = {"SIGTERM": {143, -signal.SIGTERM}, "SIGINT": {1}, "SIGKILL": {-signal.SIGKILL}, "full disk": {1}}
"""Exit codes to expect; 0 is right too where a signal has come after the last step."""


class Outcome(NamedTuple):
    """What a process has left: its exit code, and what it has printed."""

    code: int
    output: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the campaign, and print a table with one row per kind of fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks faults", description=__doc__)
    parser.add_argument("--moments", type=int, default=60, help="number of faults (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        started = time.monotonic()
        assert start(whole, []).code == 0, (whole / "output.txt").read_text()
        seconds = time.monotonic() - started
        calls = json.loads((whole / "calls.json").read_text())
        tried: Counter[tuple[str, str]] = Counter()
        failed: Counter[tuple[str, str]] = Counter()
        for number in range(options.moments):
            kind = KINDS[number % len(KINDS)]
            draw = random.Random(f"{options.seed} {number}")
            problem = try_fault(Path(scratch) / str(number), kind, draw, calls, seconds, whole)
            tried[kind] += 1
            failed[kind] += problem is not None
            print(f"{number}: {', '.join(kind)}: {problem or 'same'}", flush=True)
    print(table(tried, failed))
    raise SystemExit(int(any(failed.values())))


def table(tried: Counter[tuple[str, str]], failed: Counter[tuple[str, str]]) -> str:
    """The results as a table in Markdown."""
    rows = [f"| {name} | {where} | {tried[name, where]} | {failed[name, where]} |" for name, where in tried]
    return "\n".join(
        ["| fault | while writing, or when | times | not as without it |", "| --- | --- | --- | --- |", *rows]
    )


def try_fault(
    folder: Path, kind: tuple[str, str], draw: random.Random, calls: dict[str, int], seconds: float, whole: Path
) -> str | None:
    """Train with a fault, resume, and compare; return what is wrong.

    Args:
        folder: Working folder.
        kind: One of `KINDS`.
        draw: Draws the moment.
        calls: Number of calls of each target in the run without faults.
        seconds: Duration of that run.
        whole: Its working folder.
    """
    name, where = kind
    if name == "cut off":
        first = start(folder, [])
        last = newest(folder) / "checkpoints" / "last.ckpt"
        last.write_bytes(last.read_bytes()[: draw.randrange(last.stat().st_size)])
        refused = start(folder, ["--ckpt_path", "last"])
        if refused.code != 1 or "best.ckpt" not in refused.output or "Traceback" in refused.output:
            return f"not refused in one line: {refused}"
        best = str(last.with_name("best.ckpt"))
        return compare(folder, whole, start(folder, ["--ckpt_path", best]))
    if where == "any time":
        first = start(folder, [], delay=(signal.Signals[name], draw.random() * seconds))
    else:
        action = (lambda: os.kill(os.getpid(), signal.Signals[name])) if name != "full disk" else fill_disk
        first = start(folder, [], fault=(where, draw.randint(1, calls[where]), action))
    if first.code == 0 and "SIG" in name:  # it came after the last step
        return compare(folder, whole, first)
    if first.code not in CODES[name] or "Traceback" in first.output:
        return f"exit code {first.code}: {first.output[-1500:]}"
    has_checkpoint = (newest(folder) / "checkpoints" / "last.ckpt").is_file()
    return compare(folder, whole, start(folder, ["--ckpt_path", "last"] if has_checkpoint else []))


def fill_disk() -> None:
    """Fail as a write to a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def newest(folder: Path) -> Path:
    """The folder of the newest run; one that does not exist if there is none."""
    runs = sorted((folder / "runs" / "run").glob("fit-*"), key=lambda path: int(path.name[4:]))
    return runs[-1] if runs else folder / "none"


def compare(folder: Path, whole: Path, last: Outcome) -> str | None:
    """What differs from the run without faults in metrics and weights, or is half written; None: nothing.

    Args:
        folder: Working folder of the run.
        whole: That of the run without faults.
        last: How the run has ended.
    """
    if last.code != 0:
        return f"exit code {last.code} at the end: {last.output[-1500:]}"
    runs = [newest(one) for one in (folder, whole)]
    if len({(run / "metrics.csv").read_bytes() for run in runs}) > 1:
        return "metrics.csv differs"
    for name in ("last.ckpt", "best.ckpt"):
        weights = [torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"] for run in runs]
        if any(not torch.equal(value, weights[1][key]) for key, value in weights[0].items()):
            return f"{name} differs"
    if left := sorted(path.name for path in runs[0].rglob("*.partial")):
        return f"left {', '.join(left)}"
    return None


def start(
    folder: Path,
    more: list[str],
    delay: tuple[int, float] | None = None,
    fault: tuple[str, int, Callable[[], None]] | None = None,
) -> Outcome:
    """Run ``striate fit`` in a fork.

    Args:
        folder: Working folder.
        more: More arguments.
        delay: Signal to send, and seconds to wait before, from when the run has its folder.
        fault: Target, number of the call, and what happens then.
    """
    folder.mkdir(exist_ok=True)
    log = folder / "output.txt"
    process = os.fork()
    if process == 0:
        run_child(folder, log, [*RUN, *more], fault)
    if delay is not None:
        deadline = time.monotonic() + 600
        while not (newest(folder) / "config.yaml").is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay[1])
        os.kill(process, delay[0])
    _, status = os.waitpid(process, 0)
    return Outcome(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))


def run_child(folder: Path, log: Path, words: list[str], fault: tuple[str, int, Callable[[], None]] | None) -> None:
    """Run the command line in this process, count the calls of the targets, and end."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for target in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), target)
        sys.stdout = sys.stderr = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
        os.chdir(folder)
        calls: Counter[str] = Counter()
        for name, (owner, function) in TARGETS.items():
            setattr(owner, function, counted(name, getattr(owner, function), calls, fault))
        sys.argv = ["striate", *words]
        striate_main()
        (folder / "calls.json").write_text(json.dumps(calls))
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def counted(
    name: str, real: Callable[..., Any], calls: Counter[str], fault: tuple[str, int, Callable[[], None]] | None
) -> Callable[..., Any]:
    """A function that counts its calls, and lets the fault happen in one of them."""

    def function(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        if fault is not None and fault[0] == name:
            _, number, happen = fault
            if calls[name] == number or (happen is fill_disk and calls[name] > number):  # a disk remains full
                happen()
        return real(*args, **kwargs)

    return function
