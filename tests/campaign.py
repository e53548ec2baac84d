"""``make faults``: stop a training at random moments, resume it, and compare it with one that was left alone.

The faults are SIGTERM, SIGINT and SIGKILL in training steps, in validation, while files are replaced, and at any time;
a full disk while checkpoints, metrics and plots are written; a ``last.ckpt`` that is cut off; and a server of W&B that
begins to fail. After each, resuming must give the same ``metrics.csv``, byte for byte, the same weights, and each step
of W&B's history once. Runs are forks of this process, which has imported everything.
"""

import argparse
import contextlib
import csv
import errno
import functools
import itertools
import json
import os
import random
import signal
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import wandb  # noqa: F401 - imported once, for all forks
from PIL import Image

from striate.callbacks import atomic_files
from striate.callbacks.tracking import wandb_connection
from striate.callbacks.tracking.wandb_records import STEP, read_rows
from striate.experiments.launcher.compat import MetricsWriter
from striate.experiments.launcher.main import main as run_striate
from striate.tasks import Classification
from striate.tests.helpers.fork_server import end_as_striate
from striate.tests.helpers.processes import FIXED, HANG, restore_interrupts
from striate.tests.helpers.wandb_server import WandbServer, wandb_server

RUN = ["fit", "--config", "classification/lenet_digits_fast", "--run.name", "run"]
RUN += ["--data.train_size", "64", "--data.val_size", "48", "--data.batch_size", "8", "--data.eval_batch_size", "16"]
RUN += ["--data.num_workers", "0", "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu"]
RUN += ["--trainer.log_every_n_steps", "3", "--trainer.num_sanity_val_steps", "0"]

TARGETS: dict[str, tuple[Any, str]] = {
    "training": (Classification, "training_step"),
    "validation": (Classification, "validation_step"),
    "replacing a file": (atomic_files.os, "fsync"),
    "checkpoint": (torch, "save"),
    "metrics": (MetricsWriter, "save"),
    "plots": (Image.Image, "save"),
}
"""Functions whose calls are moments: what they are for, and where they are."""

SIGNALS = ("SIGTERM", "SIGINT", "SIGKILL")
SERVER: dict[str, str | int] = {"server answers 500": 500, "server hangs": "hang", "server drops": "drop"}
Kind = tuple[str, str]

KINDS: dict[Kind, int] = {
    **{(name, "training"): 2 for name in SERVER},
    ("cut off", "last.ckpt"): 3,
    **{("full disk", where): 3 for where in ("checkpoint", "metrics", "plots")},
    **{(name, where): 5 for where in ("training", "validation", "replacing a file", "any time") for name in SIGNALS},
}
"""Faults, where they occur, and how many are drawn."""

CODES = {"SIGTERM": {143, -signal.SIGTERM}, "SIGINT": {130}, "SIGKILL": {-signal.SIGKILL}, "full disk": {1}}
"""Exit codes to expect; 0 is right too where a signal has come after the last step."""


class Outcome(NamedTuple):
    """What a process has left: its exit code, and what it has printed."""

    code: int
    output: str


class Fault(NamedTuple):
    """What happens in a run: in the call `number` of a target, and after that as long as it `lasts`."""

    target: str
    number: int
    happen: Callable[..., None]
    lasts: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the campaign, and print a table with one row per kind of fault."""
    parser = argparse.ArgumentParser(prog="python -m striate.tests.campaign", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only the kinds whose names contain it")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="without the first N faults, to go on")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wandb_connection.CONNECT_SECONDS = HANG  # a slow machine is not a server that fails
    os.environ.update(FIXED)
    failed: Counter[Kind] = Counter()
    tried: Counter[Kind] = Counter()
    started, before = time.monotonic(), os.times()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        os.environ["TMPDIR"] = tempfile.tempdir = scratch  # killed processes leave files there
        campaign = Campaign(Path(scratch))
        for kind, number in itertools.islice(moments(options.only), options.skip, None):
            draw = random.Random(f"{options.seed} {kind} {number}")
            problem = campaign.try_fault(str(tried.total()), kind, draw)
            tried[kind] += 1
            failed[kind] += problem is not None
            print(f"{', '.join(kind)} {number}: {problem or 'same'}", flush=True)
    after = os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    print(f"{table(tried, failed)}\n{tried.total()} faults, {time.monotonic() - started:.0f} s, CPU time {cpu:.0f} s")
    raise SystemExit(int(any(failed.values())))


def moments(only: str) -> Iterator[tuple[Kind, int]]:
    """The faults whose names contain a text, each kind once before any is there again."""
    for number in range(max(KINDS.values())):
        yield from ((kind, number) for kind in KINDS if number < KINDS[kind] and only in ", ".join(kind))


def table(tried: Counter[Kind], failed: Counter[Kind]) -> str:
    """The results as a table in Markdown."""
    rows = [f"| {name} | {where} | {tried[name, where]} | {failed[name, where]} |" for name, where in tried]
    return "\n".join(["| fault | when | times | not as without it |", "| --- | --- | --- | --- |", *rows])


class Campaign:
    """A run without faults, which those with faults are compared with.

    Args:
        scratch: Folder for all runs.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.whole = scratch, scratch / "whole"
        started = time.monotonic()
        done = start(self.whole, [])
        assert done.code == 0, done.output
        self.seconds = time.monotonic() - started
        self.calls: dict[str, int] = json.loads((self.whole / "calls.json").read_text())
        problem = self.compare(self.whole, done)
        assert problem is None, problem

    def try_fault(self, folder_name: str, kind: Kind, draw: random.Random) -> str | None:
        """Train with a fault, resume, and compare; return what is wrong.

        Args:
            folder_name: Name of the working folder.
            kind: One of `KINDS`.
            draw: Draws the moment.
        """
        (name, where), folder = kind, self.scratch / folder_name
        if name == "cut off":
            return self.try_cut(folder, draw)
        if name in SERVER:
            return self.try_server(folder, SERVER[name], draw)
        if where == "any time":
            first = start(folder, [], delay=(signal.Signals[name], draw.random() * self.seconds))
        else:
            number = draw.randint(1, self.calls[where])
            if name == "full disk":
                first = start(folder, [], Fault(where, number, fill_disk, lasts=True))
            else:
                first = start(folder, [], Fault(where, number, functools.partial(send, signal.Signals[name])))
        # a signal has come after the last step, or only pictures for W&B were lost
        if first.code == 0 and (name in SIGNALS or where == "plots"):
            return self.compare(folder, first)
        if first.code not in CODES[name] or "Traceback" in first.output:
            return f"exit code {first.code}: {first.output[-1500:]}"
        has_checkpoint = (newest(folder) / "checkpoints" / "last.ckpt").is_file()
        return self.compare(folder, start(folder, ["--ckpt_path", "last"] if has_checkpoint else []))

    def try_cut(self, folder: Path, draw: random.Random) -> str | None:
        """Cut ``last.ckpt`` off: it must be refused in a line that names another one, which is then resumed."""
        interrupted = start(
            folder, [], Fault("training", self.calls["training"], functools.partial(send, signal.SIGTERM))
        )
        last = newest(folder) / "checkpoints" / "last.ckpt"
        last.write_bytes(last.read_bytes()[: draw.randrange(last.stat().st_size)])
        refused = start(folder, ["--ckpt_path", "last"])
        if refused.code != 1 or "best.ckpt" not in refused.output or "Traceback" in refused.output:
            return f"not refused in one line: {interrupted} {refused}"
        return self.compare(folder, start(folder, ["--ckpt_path", str(last.with_name("best.ckpt"))]))

    def try_server(self, folder: Path, mode: str | int, draw: random.Random) -> str | None:
        """Let W&B's server fail from a moment on: training ends well, and resuming completes the record."""
        with wandb_server() as server:
            number = draw.randint(1, self.calls["training"])
            request = urllib.request.Request(f"{server.url}/fail", json.dumps({"mode": mode}).encode())
            fail = functools.partial(urllib.request.urlopen, request, timeout=HANG)
            first = start(folder, ["--wandb.timeout", "2"], Fault("training", number, fail), server=server)
            if "the record is not complete on the server" not in first.output:
                return f"says nothing of the record: {first}"
            if problem := self.compare(folder, first, history=False):
                return problem
            server.fail("normal")
            last = start(folder, ["--ckpt_path", "last"], server=server)
            return self.compare(folder, last, server)

    def compare(
        self, folder: Path, last: Outcome, server: WandbServer | None = None, history: bool = True
    ) -> str | None:
        """What differs from the run without faults, or is half written; None: nothing.

        Args:
            folder: Working folder of the run.
            last: How the run has ended.
            server: Where its W&B history is; None: on the disk.
            history: Whether the history must be complete.
        """
        if last.code != 0:
            return f"exit code {last.code} at the end: {last.output[-1500:]}"
        runs = [newest(one) for one in (folder, self.whole)]
        if len({(run / "metrics.csv").read_bytes() for run in runs}) > 1:
            return "metrics.csv differs"
        for name in ("last.ckpt", "best.ckpt"):
            weights = [torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"] for run in runs]
            if any(not torch.equal(value, weights[1][key]) for key, value in weights[0].items()):
                return f"{name} differs"
        if left := sorted(path.name for path in runs[0].rglob("*.partial")):
            return f"left {', '.join(left)}"
        if not history:
            return None
        return compare_history(server.history() if server else stored_history(runs[0]), runs[0] / "metrics.csv")


def compare_history(rows: Sequence[dict[str, Any]], metrics: Path) -> str | None:
    """What differs between W&B's history and ``metrics.csv``: steps, or values of the metrics.

    A step has two rows if the run was stopped in between, but each of its metrics only once.
    """
    with metrics.open(newline="", encoding="utf-8") as file:
        expected = {int(row["step"]): row for row in csv.DictReader(file)}
    steps = [row[STEP] for row in rows]
    if steps != sorted(steps) or set(steps) != expected.keys():
        return f"W&B's history has the steps {steps}, not {list(expected)}"
    for step, line in expected.items():
        for key in (key for key, value in line.items() if value and key not in ("step", "epoch", "lr")):
            values = [row[key] for row in rows if row[STEP] == step and key in row]
            if len(values) != 1 or abs(values[0] - float(line[key])) > 1e-4:
                return f"W&B's history has {values} for {key} of step {step}, not {line[key]}"
    return None


def stored_history(run: Path) -> list[dict[str, Any]]:
    """The rows that all offline runs in the folder of a run hold, in the order in which they are synced."""
    files = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    return [row for file in files for row in read_rows(file) if STEP in row]


def send(number: signal.Signals) -> None:
    """Send a signal to this process."""
    os.kill(os.getpid(), number)


def fill_disk(*arguments: Any) -> None:
    """Fail as a write to a full disk does, after a part of it."""
    for argument in arguments:
        if hasattr(argument, "fileno"):
            argument.write(b"half of it")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def newest(folder: Path) -> Path:
    """The folder of the newest run; one that does not exist if there is none."""
    runs = sorted((folder / "runs" / "run").glob("fit-*"), key=lambda path: int(path.name[4:]))
    return runs[-1] if runs else folder / "none"


def start(
    folder: Path,
    more: list[str],
    fault: Fault | None = None,
    delay: tuple[int, float] | None = None,
    server: WandbServer | None = None,
) -> Outcome:
    """Run ``striate fit`` in a fork.

    Args:
        folder: Working folder.
        more: More arguments.
        fault: What happens in the run.
        delay: Signal to send, and seconds to wait before, from when the run has its folder.
        server: W&B's server; None: W&B records offline.
    """
    folder.mkdir(exist_ok=True)
    log = folder / "output.txt"
    process = os.fork()
    if process == 0:
        os.environ.update(server.environment if server else {})
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        end_as_striate([*RUN, *more], folder, descriptor, functools.partial(run_counted, folder, fault))
    if delay is not None:
        deadline = time.monotonic() + HANG
        while not (newest(folder) / "config.yaml").is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay[1])
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, delay[0])
    _, status = os.waitpid(process, 0)
    return Outcome(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))


def run_counted(folder: Path, fault: Fault | None) -> None:
    """Run the command line of this process, let the fault happen, and write how often each target was called."""
    restore_interrupts()
    calls: Counter[str] = Counter()
    for name, (owner, function) in TARGETS.items():
        setattr(owner, function, counted(name, getattr(owner, function), calls, fault))
    run_striate()
    (folder / "calls.json").write_text(json.dumps(calls))


def counted(name: str, real: Callable[..., Any], calls: Counter[str], fault: Fault | None) -> Callable[..., Any]:
    """A function that counts its calls, and lets the fault happen in one of them."""

    @functools.wraps(real)
    def function(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        if fault is not None and fault.target == name:
            late = calls[name] - fault.number
            if late == 0 or (late > 0 and fault.lasts):
                fault.happen(*(args if fault.lasts else ()))
        return real(*args, **kwargs)

    return function


if __name__ == "__main__":
    main()
