"""The command line of ``striate sweep``."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence

from ..launcher.catalogue import find_config
from ..launcher.gpus import visible_gpus
from ..launcher.messages import OneLineParser, did_you_mean, fail, notice
from ..launcher.trust import VARIABLE, limit_class_paths, take_trusted_modules
from .spec import Sweep, fill_command, read_sweep

USAGE = """\
usage: striate sweep FILE [--trials N] [--KEY VALUE …]

Runs a sweep file of W&B without an account and without a network connection. FILE is a path, or the name of a packaged
sweep (`striate experiments` lists them). Each trial is a run of its own: `striate fit` with the values of the trial.

    --trials N            number of trials, those of all processes and of earlier calls together; default: run_cap of
                          FILE, or the whole grid
    --jobs J              trials at a time; default: one per GPU, or 1 without GPUs
    --resume              continue the newest sweep of this name: interrupted trials go on from their last checkpoint
    --storage STORAGE     journal file or URL of a database, such as sqlite:///study.db, that several processes share
    --name NAME           name of the sweep; default: name of FILE
    --root FOLDER         folder of all runs; default: runs
    --seed N              seed of the values; default: 0
    --trusted_modules LIST  packages that class paths may name; FILE must then run `striate fit`
    --wandb               register the sweep with W&B, and start an agent for it instead
    --KEY VALUE           any other dotted key is passed on to all trials, such as --trainer.max_epochs 2

    striate sweep sweeps/classification_digits --trials 20
    striate sweep sweeps/classification_digits --trials 40 --resume

Trials and results are in ROOT/NAME/sweep-NUMBER. Exit code: 0 done, 1 no trial has finished, 2 wrong call, 130 after
Ctrl-C, 143 after SIGTERM."""

OPTIONS = ("trials", "jobs", "resume", "storage", "name", "root", "seed", "wandb")


def sweep(arguments: Sequence[str]) -> int:
    """Run ``striate sweep``.

    Args:
        arguments: The command line behind ``striate sweep``.

    Returns:
        The exit code. A wrong call exits with 2.
    """
    trusted, rest = take_trusted_modules(arguments)
    with limit_class_paths(trusted):
        code = run(rest, limited=VARIABLE in os.environ)
    if code > 128:
        words = [*(word for word in arguments if word != "--resume"), "--resume"]
        notice(f"interrupted; to continue: striate sweep {shlex.join(words)}")
    return code


def run(arguments: Sequence[str], limited: bool) -> int:
    """Read a sweep, and search or start W&B's agents.

    Args:
        arguments: The command line behind ``striate sweep``.
        limited: Whether class paths are limited to some packages, so that the file may start nothing but runs.

    Returns:
        The exit code. A wrong call exits with 2.
    """
    options, extra = parse(arguments)
    try:
        path = find_config(options.file, "sweep")
    except FileNotFoundError as error:
        fail(str(error))
    try:
        read = read_sweep(path)
        words = fill_command(read, {}, sys.executable)
        if limited and words[words[:1] == ["/usr/bin/env"] :][:4] != [sys.executable, "-m", "striate", "fit"]:
            raise ValueError(
                f"command: must be striate fit with --trusted_modules, got {shlex.join(words)!r}; a sweep file can "
                "start any program"
            )
        points = len(read.grid()) if read.method == "grid" else None
    except (OSError, ValueError) as error:
        fail(f"{options.file}: {error}")
    name = options.name or path.stem
    if options.wandb:
        from .agents import run_agents

        return run_agents(read, options, extra)
    limits = [limit for limit in (options.trials, read.run_cap, points) if limit is not None]
    if not limits:
        fail(f"--trials: missing; a {read.method} search has no end; give the number of trials")
    return search(read, name, min(limits), options, extra)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split the command line into its options and the arguments that are passed on to the trials."""
    parser = OneLineParser("striate sweep", add_help=False, allow_abbrev=False)
    parser.add_argument("file", nargs="?")
    for name in ("trials", "jobs"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", default="runs")
    for name in ("storage", "name"):
        parser.add_argument(f"--{name}")
    for name in ("resume", "wandb"):
        parser.add_argument(f"--{name}", action="store_true")
    options, rest = parser.parse_known_args(split_passed_on(arguments)[0])
    if rest:
        hint = did_you_mean(rest[0].lstrip("-").split("=")[0], OPTIONS, otherwise="; see `striate sweep --help`")
        fail(f"sweep: unknown argument, got {rest[0]}{hint}")
    if options.file is None:
        fail("sweep: needs the file of a sweep, such as sweeps/classification_digits; see `striate sweep --help`")
    for name in ("trials", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            fail(f"--{name}: must be at least 1, got {value}")
    if options.name is not None and not re.fullmatch(r"(?!\.+$)[\w.-]+", options.name):
        fail(f"--name: must be letters, digits, '.', '-' and '_', got {options.name!r}")
    return options, split_passed_on(arguments)[1]


def split_passed_on(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off the dotted keys with their values, which are for the trials."""
    own: list[str] = []
    passed: list[str] = []
    target = own
    for word in arguments:
        if word.startswith("--"):
            target = passed if "." in word.partition("=")[0] else own
            target.append(word)
            if "=" in word:
                target = own
        else:
            target.append(word)
            target = own
    return own, passed


def search(read: Sweep, name: str, limit: int, options: argparse.Namespace, extra: Sequence[str]) -> int:
    """Run the trials of a sweep, and write the report."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    from .folders import open_study
    from .report import write_report
    from .runner import Runner

    try:
        shared = open_study(read, name, options)
    except ValueError as error:
        fail(str(error))
    done = len(shared.trials())
    if done >= limit and not shared.running():
        notice(
            f"all {done} trials of {name} have run; for more, add --resume --trials {done + 10}, or start a new sweep"
        )
    jobs = options.jobs or max(len(visible_gpus()), 1)
    try:
        number = Runner(shared, limit, jobs, extra).run()
        write_report(shared)
    except (OSError, OptunaError, SQLAlchemyError) as error:  # a full disk, a database that has gone
        reason = str(error).strip().split("\n")[0]
        fail(f"sweep {name}: stopped ({reason}); its trials save their state, and --resume continues them", 1)
    if number is not None:
        return 128 + number
    return 0 if any(trial.value is not None for trial in shared.trials()) else 1
