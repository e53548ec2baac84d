"""``striate data check``: report what is wrong with a data set, on the terminal, as a page and by the exit code."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..launcher.messages import did_you_mean, fail

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from ...datamodules.base import VisionDataModule
    from ...datamodules.doctor.check import Progress
    from .build_data import NamedData

USAGE = """\
usage: striate data check --config FILE [--KEY VALUE …]
       striate data check --format FORMAT PATH [--KEY VALUE …]
       striate data check NAME [--KEY VALUE …]              NAME: a data module, such as digit_scenes

Reads a whole data set, and reports what is wrong with it, on the terminal and as a page with figures.

    --format coco         format of PATH: coco, voc, yolo, masks, folder, manifest, … (an unknown one lists them all)
    --output FILE.html    page to write; default: runs/data_check/NAME.html
    --fix DIR             write a corrected copy of the annotations to a new folder
    --splits train,val    splits to check; default: train,val,test
    --ignore KIND,KIND    kinds of findings to ignore
    --workers 4           number of processes that read; default: the number of cores
    --KEY VALUE           any key of the data section: --root data/pets, or --data.root data/pets

    striate data check --config mine.yaml --root data/pets --fix data/pets-fixed
    striate data check --format coco data/annotations.json
    striate data check --format masks data/cells --class_names "[background, cell]"

Exit code: 0 clean, 1 problems found, 2 wrong call, 130 interrupted."""


def check(arguments: Sequence[str]) -> int:
    """Run ``striate data check``.

    Args:
        arguments: The command line behind ``striate data check``.

    Returns:
        The exit code: 0 for a clean data set, 1 if there are problems, 130 if interrupted. A wrong call exits with 2.
    """
    from .build_data import Option, parse_data_command

    options = {
        "format": Option(str | None),
        "output": Option(str | None),
        "fix": Option(str | None),
        "splits": Option(str, "train,val,test"),
        "ignore": Option(str, ""),
        "workers": Option(int | None),
    }
    call = parse_data_command(arguments, options, data_by_format)
    if call.positionals:
        fail(f"{call.positionals[0]}: unexpected argument; the path of the data is given by --root PATH")
    check_options(call.options)
    with call.one_line_errors("interrupted before anything was read", code=2):
        return examine_data(call.build_vision(), call.name, call.options)
    raise AssertionError  # an error exits


def examine_data(data: "VisionDataModule", name: str, options: "Namespace") -> int:
    """Check a data module, print and write the findings, and return the exit code."""
    from rich.console import Console

    from ...datamodules.doctor import check as examine
    from ...datamodules.doctor import print_report, write_fix, write_html
    from ...datamodules.doctor.corrected_copy import check_folder
    from ...datamodules.doctor.formats import format_name
    from ...datamodules.doctor.formatting import pluralize
    from ..launcher.error_reports import INTERRUPTED

    fix_folder = None if options.fix is None else Path(options.fix).expanduser()
    if fix_folder is not None:
        try:
            check_folder(data, fix_folder)
        except (ValueError, FileExistsError) as error:
            fail(str(error).replace("folder:", "--fix:", 1))
    root = getattr(data, "root", None)
    if format_name(data) and root is not None and not Path(root).exists() and not getattr(data, "download", False):
        raise FileNotFoundError(f"root: no file or folder {str(root)!r}")
    console = Console()
    splits, ignored = split_list(options.splits), split_list(options.ignore)
    with reading_progress() as progress:
        report = examine(data, splits, options.workers, ignored, name, progress)
    print_report(report, console)
    page = Path(options.output or f"runs/data_check/{name.replace('/', '_').replace(' ', '_')}.html").expanduser()
    table = write_html(report, page)
    console.print(f"{page}: images and charts; {table}: all findings", highlight=False, soft_wrap=True)
    if report.interrupted:
        return INTERRUPTED
    if fix_folder is not None:
        fix = write_fix(report, fix_folder)
        lines = [f"{fix.folder}: {pluralize(len(fix.log.changes), 'change')}, listed in fixes.csv"]
        if fix.init_args is None and not fix.log.changes:
            lines = [f"{fix.folder}: no corrected copy"]
        lines += [f"  left to you: {text}" for text in fix.log.remaining]
        if fix.init_args is not None:
            lines.append(f"To read the copy: add --config {fix.folder / 'fixed.yaml'}")
        for text in lines:
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    return 0 if report.clean else 1


def data_by_format(values: Mapping[str, str], positionals: list[str]) -> "NamedData | None":
    """The data of ``--format FORMAT PATH``; None if the call does not use it."""
    if (format := values.get("format")) is None:
        return None
    from ... import datamodules
    from ...datamodules.doctor import FORMATS
    from .build_data import NamedData
    from .guesses import GUESSES, guess_tables

    if {"config", "data"} & values.keys():
        fail("--format: not allowed with --config, which names the data; set the folder with --root PATH")
    known = FORMATS.get(format)
    if known is None or not hasattr(datamodules, known.reader):
        fail(f"--format: must be one of {', '.join(FORMATS)}, got {format!r}{did_you_mean(format, FORMATS)}")
    if not positionals:
        fail(f"--format: no path given; write --format {format} PATH")
    path = Path(positionals.pop(0)).expanduser()
    if not path.exists():
        fail(f"no file or folder {str(path)!r}")
    guess = GUESSES.get(format, lambda path, given: {})
    argument = "train" if guess is guess_tables else "root"
    arguments = {argument: str(path)} | guess(path, {key.rpartition(".")[2] for key in values})
    splits = {"splits": ",".join(arguments.pop("splits"))} if "splits" in arguments else {}
    return NamedData(path.resolve().stem, f"striate.datamodules.{known.reader}", arguments, splits)


def split_list(text: str) -> list[str]:
    """Split a list at its commas, without spaces and empty items."""
    return [word.strip() for word in text.split(",") if word.strip()]


def check_options(options: "Namespace") -> None:
    """Exit with 2 if a kind, a split, a number or the name of the page is not valid."""
    from ...datamodules.doctor import KINDS
    from ...datamodules.doctor.report import SPLITS

    for option, text, known in (("--ignore", options.ignore, list(KINDS)), ("--splits", options.splits, list(SPLITS))):
        for value in split_list(text):
            if value not in known:
                hint = did_you_mean(value, known, otherwise=f"; use {', '.join(known)}")
                fail(f"{option}: unknown name {value!r}{hint}")
    if options.workers is not None and options.workers < 0:
        fail(f"--workers: must be >= 0 (0: no other process), got {options.workers}")
    if options.output is not None and not options.output.endswith(".html"):
        fail(f"--output: must end in .html, got {options.output!r}")


@contextmanager
def reading_progress() -> "Iterator[Progress]":
    """Yield a function that moves a progress bar: label, number of samples that are read, total."""
    from .progress import progress_bar

    with progress_bar() as bar:
        task = bar.add_task("opening", total=1)

        def advance(label: str, done: int, total: int) -> None:
            bar.update(task, description=label, completed=done, total=max(total, 1))

        yield advance
