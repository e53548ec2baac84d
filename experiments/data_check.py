"""``striate data check``: what is wrong with a data set, on the terminal, as a page, and by the exit code."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .main import did_you_mean, fail, find_config

if TYPE_CHECKING:
    from ..datamodules import VisionDataModule
    from ..datamodules.doctor.collecting import Progress

_EPILOG = """\
    striate data check --config quickstart
    striate data check --config mine.yaml --data.root data/pets --fix data/pets-fixed
    striate data check --format coco data/coco
    striate data check --format coco data/annotations.json
    striate data check --format masks data/cells --data.class_names "[background, cell]"

Exit code: 0 clean, 1 problems found, 2 the call is wrong."""


class _Arguments(argparse.ArgumentParser):
    """Errors in striate's one line."""

    def error(self, message: str) -> NoReturn:
        """Say it, and exit with 2."""
        fail(f"data check: {message}")
        raise AssertionError  # fail has exited


def check(arguments: Sequence[str]) -> int:
    """Check a data set.

    Args:
        arguments: behind ``striate data check``.

    Returns:
        0: clean; 1: problems found, or interrupted. A wrong call exits with 2.
    """
    own, overrides = divide(arguments)
    given, unknown = _parser().parse_known_args(own)
    if wrong := next(iter(unknown), None):
        hint = did_you_mean(wrong, ["--config", "--format", "--output", "--fix", "--splits", "--workers", "--ignore"])
        fail(f"data check: unknown argument {wrong!r}{hint}; arguments of the data module are --data.KEY VALUE")
    from rich.console import Console

    from ..datamodules.doctor import check as examine
    from ..datamodules.doctor import print_report, write_fix, write_html
    from ..datamodules.doctor.fixing import check_folder

    _check_choices(given)
    data, name = _load(given, overrides)
    if given.fix is not None:
        try:
            check_folder(data, given.fix)
        except (ValueError, OSError) as error:
            fail(f"data check: {error}")
    console = Console()
    with _bar() as progress:
        report = examine(data, given.splits, given.workers, given.ignore, name, progress)
    print_report(report, console)
    page = given.output or Path("runs") / "data_check" / f"{name.replace('/', '_').replace(' ', '_')}.html"
    table = write_html(report, page)
    console.print(f"{page} has the pictures and figures, {table} each finding.", highlight=False, soft_wrap=True)
    if given.fix is not None and not report.interrupted:
        fix = write_fix(report, given.fix)
        console.print(
            f"{fix.folder}: {len(fix.log.changes):,} changes, listed in fixes.csv", highlight=False, soft_wrap=True
        )
        for text in fix.log.left:
            console.print(f"  left to you: {text}", highlight=False, markup=False)
        if fix.init_args is not None:
            console.print(
                f"To read the copy: add --config {fix.folder / 'fixed.yaml'}", highlight=False, soft_wrap=True
            )
    return 0 if report.clean else 1


def divide(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's own arguments, and those of the data module.

    >>> divide(["--fix", "a", "--data.root", "b", "--data.seed=1", "c"])
    (['--fix', 'a', 'c'], ['--data.root', 'b', '--data.seed=1'])
    """
    own: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--data."):
            own.append(argument)
            continue
        overrides.append(argument)
        if "=" not in argument and (value := next(rest, None)) is not None:
            overrides.append(value)
    return own, overrides


def _parser() -> _Arguments:
    parser = _Arguments(
        "striate data check",
        description="Read a whole data set, and say what is wrong with it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("path", nargs="?", help="the data set, with --format")
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="an experiment; its data: is read"
    )
    parser.add_argument("--format", metavar="NAME", help="coco, voc, yolo, masks, folder, manifest, …")
    parser.add_argument("--output", type=Path, metavar="FILE.html", help="the page (runs/data_check/NAME.html)")
    parser.add_argument(
        "--fix", type=Path, metavar="DIR", help="write a corrected copy of the annotations to a new folder"
    )
    parser.add_argument("--splits", nargs="+", default=["train", "val", "test"], metavar="SPLIT", help="train val test")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (as many as there are cores)")
    parser.add_argument("--ignore", nargs="+", default=[], metavar="KIND", help="kinds of findings to pass over")
    return parser


def _check_choices(given: argparse.Namespace) -> None:
    """Exit with 2 for a kind, a split or a number that there is not."""
    from ..datamodules.doctor import KINDS
    from ..datamodules.doctor.collecting import SPLITS

    for option, values, known in (("--ignore", given.ignore, list(KINDS)), ("--splits", given.splits, list(SPLITS))):
        for value in values:
            if value not in known:
                fail(f"data check: {option} {value}: not one of {', '.join(known)}{did_you_mean(value, known)}")
    if given.workers is not None and given.workers < 0:
        fail(f"data check: --workers {given.workers}: give 0 (this process alone) or more")
    if given.output is not None and given.output.suffix != ".html":
        fail(f"data check: --output {given.output}: the page's name ends in .html")


def _load(given: argparse.Namespace, overrides: list[str]) -> "tuple[VisionDataModule, str]":
    """The data module that the call names, and what to call it."""
    if bool(given.config) == bool(given.format):
        fail("data check: name the data by --config FILE, or by --format NAME PATH")
    if given.config:
        if given.path is not None:
            fail(f"data check: {given.path!r} beside --config: the configuration names the data (or --data.root PATH)")
        return load_data([_config(name) for name in given.config], overrides), Path(given.config[-1]).stem
    from ..datamodules.doctor import FORMATS

    known = FORMATS.get(given.format)
    if known is None:
        fail(
            f"data check: --format {given.format}: there are {', '.join(FORMATS)}{did_you_mean(given.format, FORMATS)}"
        )
        raise AssertionError
    if given.path is None:
        fail(f"data check: --format {given.format} needs a path")
    path = Path(given.path).expanduser()
    if not path.exists():
        fail(f"data check: no file or folder {given.path!r}")
    from .. import datamodules

    if not hasattr(datamodules, known.reader):
        fail(f"data check: --format {given.format}: this version of striate has no {known.reader}")
    arguments = {known.argument: str(path)} | known.guess(path)
    given.splits = arguments.pop("splits", given.splits)
    section = {"class_path": f"striate.datamodules.{known.reader}", "init_args": arguments}
    return load_data([section], overrides), path.resolve().stem


def _config(name: str) -> dict[str, Any]:
    """The ``data`` section of a configuration file."""
    import yaml

    try:
        file = find_config(name)
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        fail(f"data check: {error}")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        fail(f"data check: {name}: {' '.join(str(error).split())}")
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
        fail(f"data check: {file}: no section data: in it")
    return content["data"]


def load_data(sections: Sequence[dict[str, Any]], overrides: Sequence[str]) -> "VisionDataModule":
    """The data module of ``data`` sections, the later over the earlier, and of ``--data.KEY VALUE``.

    Exits with 2 where that does not make one.
    """
    import json
    import os

    sys.path.append(str(Path.cwd()))  # so that a YAML can name the classes of a file lying here
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from jsonargparse import ArgumentError, ArgumentParser

    from ..datamodules import VisionDataModule
    from .explain import condense

    parser = ArgumentParser(prog="striate data check", exit_on_error=False)
    parser.add_subclass_arguments(VisionDataModule, "data", required=True)
    try:
        given = [argument for section in sections for argument in ("--data", json.dumps(section))]
        config = parser.parse_args([*given, *overrides])
        data = parser.instantiate_classes(config).data
    except (ArgumentError, ValueError, TypeError, OSError, ImportError) as error:
        fail(f"data check: {condense(str(error))}")
    assert isinstance(data, VisionDataModule)  # the parser has seen to that
    return data


@contextmanager
def _bar() -> "Iterator[Progress]":
    """A progress bar on the error stream; on no terminal, nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("opening", total=1)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=max(total, 1))

        yield advance
