"""Runs the trials of a sweep, several at a time, until the limit is reached."""

import json
import os
import select
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from optuna.trial import Trial, TrialState

from ..launcher.messages import notice
from ..runs.differences import short_names, show
from .spec import Sweep, fill_command
from .study import SharedStudy
from .trials import FolderLock, History, RunningTrial, missing_metric, prepare_folder, start_process

POLL_SECONDS = 0.2
"""Time between two looks at the metrics of the running trials. The end of a process is noticed at once."""

WRONG_CALL = 2
"""Exit code of a run whose configuration cannot be read."""

IDLE_SECONDS = 1.0
"""Time between two looks for a trial to start, while there is none."""


class Runner:
    """Runs trials of a study in processes of their own.

    Args:
        shared: The study.
        limit: Number of trials of the study, those of all processes together.
        jobs: Number of trials at a time in this process.
        extra: Further arguments of every trial.
    """

    def __init__(self, shared: SharedStudy, limit: int, jobs: int, extra: Sequence[str] = ()) -> None:
        self.shared, self.limit, self.jobs, self.extra = shared, limit, jobs, list(extra)
        self.running: list[RunningTrial] = []
        self.signal: int | None = None
        self.idle_until = 0.0
        self.hopeless = self.doubted = False
        shared.folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> int | None:
        """Run until the limit is reached.

        Returns:
            The signal that interrupted the sweep; None if it ended.
        """
        with self.signals() as wakeup, self.stopped_on_errors():
            while True:
                while self.signal is None and not self.hopeless and len(self.running) < self.jobs and self.starts():
                    pass
                if not self.running and (self.signal is not None or self.hopeless or not self.orphans()):
                    return self.signal
                select.select([wakeup], [], [], POLL_SECONDS)
                drain(wakeup)
                for running in list(self.running):
                    self.watch(running)

    @contextmanager
    def signals(self) -> Iterator[socket.socket]:
        """Handle SIGINT and SIGTERM, and yield a socket that becomes readable with each signal and ending process."""
        receiver, sender = socket.socketpair()
        receiver.setblocking(False)
        sender.setblocking(False)
        ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = {**dict.fromkeys(ends, self.stop), signal.SIGCHLD: lambda *_: None}
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        old = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            yield receiver
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in previous.items():
                signal.signal(number, handler)
            receiver.close()
            sender.close()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Let the running trials save and end; at a second signal, kill them."""
        first = self.signal is None
        self.signal = number
        for running in self.running:
            running.terminate()
            if not first:
                running.stopping = 0.0
                running.enforce()
        if first and self.running:
            notice("stopping: the running trials save their state; press Ctrl-C again to kill them")

    @contextmanager
    def stopped_on_errors(self) -> Iterator[None]:
        """Let the running trials save and end when this process cannot go on."""
        try:
            yield
        except BaseException:
            for running in self.running:
                running.terminate()
            raise

    def starts(self) -> bool:
        """Start a trial as `start_next` does, but look only now and then if there was none."""
        if time.monotonic() < self.idle_until:
            return False
        started = self.start_next()
        self.idle_until = 0.0 if started else time.monotonic() + IDLE_SECONDS
        return started

    def start_next(self) -> bool:
        """Start a trial: an interrupted one before a new one. False: there is none."""
        if self.shared.reached_target():
            return False
        own = {running.number for running in self.running}
        for number in self.shared.running():
            lock = None if number in own else self.lock(number)
            if lock is not None:
                if number in self.shared.running():  # it may have ended before it was locked
                    self.start(number, lock, "continues")
                    return True
                lock.release()
        while waiting := self.shared.waiting(self.limit):
            for number in waiting:
                # locked before it is claimed: a running trial without a lock is one whose processes have ended
                lock = self.lock(number)
                if lock is not None and self.shared.claim(number):
                    self.start(number, lock, "starts")
                    return True
                if lock is not None:
                    lock.release()
        return False

    def orphans(self) -> list[int]:
        """Trials that still run on this machine although the process of their sweep has been killed."""
        return [
            trial.number
            for trial in self.shared.trials()
            if trial.state == TrialState.RUNNING and is_dead(str(trial.user_attrs.get("host", "")))
        ]

    def folder(self, number: int) -> Path:
        """Folder of the trial with a number."""
        return self.shared.folder / f"trial-{number}"

    def lock(self, number: int) -> FolderLock | None:
        """The lock of a trial's folder; None if another process holds it."""
        lock = FolderLock(self.folder(number))
        return lock if lock.acquire() else None

    def start(self, number: int, lock: FolderLock, verb: str) -> None:
        """Start the process of a trial that this process has claimed."""
        sweep, folder = self.shared.sweep, self.folder(number)
        trial, values = self.shared.draw(number)
        continuation = prepare_folder(folder)
        if verb == "continues" and not continuation:
            verb = "starts again"
        trial.set_user_attr("values", values)
        trial.set_user_attr("folder", str(folder))
        trial.set_user_attr("host", f"{socket.gethostname()}:{os.getpid()}")
        words = fill_command(sweep, values, sys.executable)
        trial.set_user_attr("command", shlex.join([*reproducing_command(sweep, values), *self.extra]))
        run = [f"--run.root={self.shared.folder}", f"--run.name=trial-{number}"]
        words += [*self.extra, *run, *wandb_arguments(sweep.content, self.shared.study.study_name), *continuation]
        searched = {name: value for name, value in values.items() if name not in sweep.constants()}
        self.say(number, f"{verb}: {describe_values(searched)}")
        try:
            process = start_process(words, folder, lock)
        except OSError as error:
            self.fail(trial, f"command: cannot be started ({error.strerror or error}), got {words[0]!r}")
            lock.release()
            return
        history = History(folder, sweep.metric.name)
        known = self.shared.study.get_trials(deepcopy=False)[number].intermediate_values
        self.running.append(
            RunningTrial(trial, values, folder, lock, process, history, time.monotonic(), reported=len(known))
        )

    def watch(self, running: RunningTrial) -> None:
        """Report new values of a trial, stop it early if it is to be, and record its end."""
        ended = running.process.poll() is not None
        sweep = self.shared.sweep
        if running.report():
            value = running.history.values[-1]
            self.say(running.number, f"{sweep.metric.name} {value:.4g} ({len(running.history.values)})")
            signed = [sweep.metric.sign * value for value in running.history.values]
            others = self.shared.histories(running.number)
            if not running.stopping and not ended and sweep.early and sweep.early.stops(signed, others):
                running.pruned = True
                running.terminate()
        self.doubt(running)
        if not ended:
            running.enforce()
            return
        self.running.remove(running)
        self.idle_until = 0.0
        self.finish(running)
        running.lock.release()

    def finish(self, running: RunningTrial) -> None:
        """Record the end of a trial, unless it was interrupted: then it stays a running one, to be continued."""
        study, number = self.shared.study, running.number
        best = self.shared.sweep.metric.best(dict(enumerate(running.history.values)))
        seconds = running.trial.user_attrs.get("seconds", 0.0) + time.monotonic() - running.started
        running.trial.set_user_attr("seconds", round(seconds, 3))
        duration = f"{seconds:.0f} s"
        if running.pruned:
            study.tell(number, state=TrialState.PRUNED)
            self.say(number, f"stopped early after {duration}")
        elif self.signal is not None and (running.stopping or running.process.returncode):
            self.say(number, "interrupted")
        elif running.process.returncode:
            self.fail(running.trial, running.error(), certain=running.process.returncode == WRONG_CALL)
        elif best is None and self.shared.sweep.metric.name in running.history.columns:
            self.fail(running.trial, f"{self.shared.sweep.metric.name}: was NaN or infinite after every epoch")
        elif best is None:
            message = missing_metric(self.shared.sweep.metric, running.history.columns)
            self.fail(running.trial, message, certain=True)
        else:
            study.tell(number, best[1])
            self.say(number, f"ends with {self.shared.sweep.metric.name} {best[1]:.4g} at its best, after {duration}")

    def fail(self, trial: Trial, error: str, certain: bool = False) -> None:
        """Record a failed trial with its error.

        Args:
            trial: The trial.
            error: Its error.
            certain: Whether the sweep file or its command is wrong, so that no other trial is started, unless one has
                logged the metric.
        """
        trial.set_user_attr("error", error)
        self.shared.study.tell(trial.number, state=TrialState.FAIL)
        self.say(trial.number, f"failed: {error}")
        if certain and not self.hopeless and not any(one.intermediate_values for one in self.shared.trials()):
            self.hopeless = True
            notice(f"no more trials are started, since they would fail like trial {trial.number}; correct the file")

    def doubt(self, running: RunningTrial) -> None:
        """Say once, while a trial still runs, that it logs metrics of this split but not the one of the sweep."""
        metric, columns = self.shared.sweep.metric, running.history.columns
        split = metric.name.rpartition("/")[0]
        if not self.doubted and split and metric.name not in columns and any(c.startswith(split) for c in columns):
            self.doubted = True
            notice(f"trial {running.number} so far: {missing_metric(metric, columns)}")

    def say(self, number: int, text: str) -> None:
        """Print one line about a trial at once."""
        print(f"trial {number} {text}", flush=True)  # noqa: T201


def describe_values(values: Mapping[str, Any]) -> str:
    """The values of a trial in one line, with short names."""
    short = short_names(list(values))
    return ", ".join(f"{short[name]}={show(value)}" for name, value in values.items())


def reproducing_command(sweep: Sweep, values: Mapping[str, Any]) -> list[str]:
    """The command line of a trial as a user would type it, without the folders of the sweep."""
    readable = {name: json.dumps(one) if isinstance(one, dict | list) else one for name, one in values.items()}
    words = [word for word in fill_command(sweep, readable, "python") if word != "/usr/bin/env"]
    return ["striate", *words[3:]] if words[:3] == ["python", "-m", "striate"] else words


def wandb_arguments(content: Mapping[str, Any], name: str) -> list[str]:
    """Arguments that put the W&B run of a trial into the group of the sweep, and into its project."""
    group = str(content.get("name") or name)
    given = {"group": group, "project": content.get("project"), "entity": content.get("entity")}
    return [f"--wandb.{key}={value}" for key, value in given.items() if value is not None]


def is_dead(host: str) -> bool:
    """Whether ``HOST:PID`` names a process of this machine that has ended."""
    name, _, number = host.rpartition(":")
    if name != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def drain(receiver: socket.socket) -> None:
    """Read and discard all pending bytes of a socket."""
    try:
        while receiver.recv(4096):
            pass
    except BlockingIOError:
        pass
