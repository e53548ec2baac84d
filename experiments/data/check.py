"""``striate data check``: what is wrong with a data set, on the terminal, as a page, and by the exit code."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..launcher.messages import did_you_mean, fail

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from ...datamodules.base import VisionDataModule
    from ...datamodules.doctor.check import Progress
    from .section import NamedData

USAGE = """\
usage: striate data check --config FILE [--KEY VALUE …]
       striate data check --format FORMAT PATH [--KEY VALUE …]
       striate data check NAME [--KEY VALUE …]              NAME: a data module, such as digit_scenes

Reads a whole data set, and says what is wrong with it: on the terminal, and as a page with pictures.

    --format coco         of the data in PATH: coco, voc, yolo, masks, folder, manifest, … (a wrong name lists them)
    --output FILE.html    the page; default: runs/data_check/NAME.html
    --fix DIR             write a corrected copy of the annotations to a new folder
    --splits train,val    some of them; default: train,val,test
    --ignore KIND,KIND    kinds of findings to pass over
    --workers 4           processes that read; default: as many as there are cores
    --KEY VALUE           any key of the YAML's data section: --root data/pets, or --data.root data/pets

    striate data check --config mine.yaml --root data/pets --fix data/pets-fixed
    striate data check --format coco data/annotations.json
    striate data check --format masks data/cells --class_names "[background, cell]"

Exit code: 0 clean, 1 problems found, 2 the call is wrong, 130 interrupted."""


def check(arguments: Sequence[str]) -> int:
    """Check a data set.

    Args:
        arguments: behind ``striate data check``.

    Returns:
        0: clean; 1: problems found; 130: interrupted. A wrong call exits with 2.
    """
    from .section import Option, parse_data_command

    options = {
        "format": Option(str | None),
        "output": Option(str | None),
        "fix": Option(str | None),
        "splits": Option(str, "train,val,test"),
        "ignore": Option(str, ""),
        "workers": Option(int | None),
    }
    call = parse_data_command(arguments, options, _by_format)
    if call.positionals:
        fail(f"{call.positionals[0]}: unexpected argument; the path of the data is given by --root PATH")
    _check_choices(call.options)
    with call.one_line_errors("interrupted before anything was read", code=2):
        return _examine(call.build_vision(), call.name, call.options)
    raise AssertionError  # an error exits


def _examine(data: "VisionDataModule", name: str, chosen: "Namespace") -> int:
    """Check a data module, print and write the findings, and return the exit code."""
    from rich.console import Console

    from ...datamodules.doctor import check as examine
    from ...datamodules.doctor import print_report, write_fix, write_html
    from ...datamodules.doctor.fixing import check_folder
    from ...datamodules.doctor.formats import format_name
    from ...datamodules.doctor.formatting import pluralize
    from ..launcher.error_reports import INTERRUPTED

    fix_folder = None if chosen.fix is None else Path(chosen.fix).expanduser()
    if fix_folder is not None:
        try:
            check_folder(data, fix_folder)
        except (ValueError, FileExistsError) as error:
            fail(str(error).replace("folder:", "--fix:", 1))
    root = getattr(data, "root", None)
    if format_name(data) and root is not None and not Path(root).exists() and not getattr(data, "download", False):
        raise FileNotFoundError(f"data.init_args.root: no file or folder {str(root)!r}")
    console = Console()
    splits, ignored = _listed(chosen.splits), _listed(chosen.ignore)
    with _bar() as progress:
        report = examine(data, splits, chosen.workers, ignored, name, progress)
    print_report(report, console)
    page = Path(chosen.output or f"runs/data_check/{name.replace('/', '_').replace(' ', '_')}.html").expanduser()
    table = write_html(report, page)
    console.print(f"{page} has the pictures and figures, {table} each finding.", highlight=False, soft_wrap=True)
    if report.interrupted:
        return INTERRUPTED
    if fix_folder is not None:
        fix = write_fix(report, fix_folder)
        said = [f"{fix.folder}: {pluralize(len(fix.log.changes), 'change')}, listed in fixes.csv"]
        if fix.init_args is None and not fix.log.changes:
            said = [f"{fix.folder}: no corrected copy"]
        said += [f"  left to you: {text}" for text in fix.log.remaining]
        if fix.init_args is not None:
            said.append(f"To read the copy: add --config {fix.folder / 'fixed.yaml'}")
        for text in said:
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    return 0 if report.clean else 1


def _by_format(given: Mapping[str, str], positionals: list[str]) -> "NamedData | None":
    """The data that ``--format FORMAT PATH`` names."""
    if (format := given.get("format")) is None:
        return None
    from ... import datamodules
    from ...datamodules.doctor import FORMATS
    from .guesses import GUESSES, guess_tables
    from .section import NamedData

    if {"config", "c", "data"} & given.keys():
        fail("--format beside --config: the configuration names the data, and where it lies (--root PATH)")
    known = FORMATS.get(format)
    if known is None or not hasattr(datamodules, known.reader):
        fail(f"--format {format}: there are {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    if not positionals:
        fail(f"--format {format} needs a path: striate data check --format {format} PATH")
    path = Path(positionals.pop(0)).expanduser()
    if not path.exists():
        fail(f"no file or folder {str(path)!r}")
    guess = GUESSES.get(format, lambda path, given: {})
    argument = "train" if guess is guess_tables else "root"
    arguments = {argument: str(path)} | guess(path, {key.rpartition(".")[2] for key in given})
    splits = {"splits": ",".join(arguments.pop("splits"))} if "splits" in arguments else {}
    return NamedData(path.resolve().stem, f"striate.datamodules.{known.reader}", arguments, splits)


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _check_choices(chosen: "Namespace") -> None:
    """Exit with 2 for a kind, a split or a number that there is not."""
    from ...datamodules.doctor import KINDS
    from ...datamodules.doctor.report import SPLITS

    for option, text, known in (("--ignore", chosen.ignore, list(KINDS)), ("--splits", chosen.splits, list(SPLITS))):
        for value in _listed(text):
            if value not in known:
                fail(f"{option} {value}: not one of {', '.join(known)}{did_you_mean(value, known)}")
    if chosen.workers is not None and chosen.workers < 0:
        fail(f"--workers {chosen.workers}: give 0 (this process alone) or more")
    if chosen.output is not None and not chosen.output.endswith(".html"):
        fail(f"--output {chosen.output}: the page's name ends in .html")


@contextmanager
def _bar() -> "Iterator[Progress]":
    """A progress bar on the error stream; without a terminal it prints nothing."""
    from .progress import progress_bar

    with progress_bar() as bar:
        task = bar.add_task("opening", total=1)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=max(total, 1))

        yield advance
