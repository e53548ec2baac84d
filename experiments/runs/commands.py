"""The command line of ``striate runs``."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..launcher.messages import OneLineParser, did_you_mean, fail, notice
from .listing import as_json, print_table
from .reading import find_runs, is_run, read_run

USAGE = """\
usage: striate runs [NAME …] [--root FOLDER] [--json]
       striate runs compare NAME NAME … [--output FILE] [--root FOLDER]

Lists the runs below a folder: state, epochs, best value of the monitored metric with its epoch, time, what differs in
the configuration from the first run of the experiment, and notes. Needs no W&B.

    NAME              experiment, sweep or run, such as quickstart or quickstart/fit-1; default: all
    --root FOLDER     folder of all runs; default: runs
    --json            print a list of objects, with all differences

compare writes one HTML page that needs no other file: the curves of 1 to 20 runs in one plot per metric, differences of
configuration, last and best metrics, and the last pictures side by side. NAME can also be a folder elsewhere.

    --output FILE     the page; default: ROOT/compare.html

    striate runs
    striate runs quickstart --json
    striate runs compare quickstart/fit-1 quickstart/fit-2

A run that was killed is listed as interrupted, and runs of earlier versions, which have no run_state.json, as unknown.
Exit code: 0 done, 2 wrong call."""

MAX_RUNS = 20
"""Maximum number of runs on a page."""


def run(arguments: Sequence[str]) -> None:
    """Run ``striate runs``.

    Args:
        arguments: The command line behind ``striate runs``. A wrong call exits with 2.
    """
    if {"-h", "--help"} & set(arguments):
        print(USAGE)  # noqa: T201
    elif arguments[:1] == ["compare"]:
        compare(arguments[1:])
    else:
        list_runs(arguments)


def list_runs(arguments: Sequence[str]) -> None:
    """List all runs, or those of some experiments."""
    parser = new_parser("striate runs")
    parser.add_argument("--json", action="store_true")
    options = parse(parser, arguments)
    root = Path(options.root).expanduser()
    if not root.is_dir():
        fail(f"--root: no such folder, got {options.root!r}; `striate fit --config quickstart` makes a first run")
    folders = find_runs(root)
    if options.names:
        selected = {folder for name in options.names for folder in select(name, folders, root, "runs")}
        folders = [folder for folder in folders if folder in selected]
    runs = [read_run(folder, folder.relative_to(root).as_posix()) for folder in folders]
    if options.json:
        print(as_json(runs))  # noqa: T201
    elif not runs:
        notice(f"no runs in {str(root)!r}; `striate fit --config quickstart` makes a first one")
    else:
        print_table(runs, expanded=bool(options.names))


def compare(arguments: Sequence[str]) -> None:
    """Write the page that compares runs."""
    parser = new_parser("striate runs compare")
    parser.add_argument("--output", type=Path)
    options = parse(parser, arguments)
    root = Path(options.root).expanduser()
    if not options.names:
        fail("compare: needs the names of runs, such as quickstart/fit-1 quickstart/fit-2; `striate runs` lists them")
    known = find_runs(root) if root.is_dir() else []
    folders = [folder for name in options.names for folder in select(name, known, root, "compare", elsewhere=True)]
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if len(folders) > MAX_RUNS:
        fail(f"compare: at most {MAX_RUNS} runs fit on a page, got {len(folders)}; name some of them")
    output = (options.output or root / "compare.html").expanduser()
    if output.suffix.lower() not in (".html", ".htm"):
        fail(f"--output: must end in .html, got {str(output)!r}")
    from .comparison import make_page

    runs = [read_run(folder, label(folder, root)) for folder in folders]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(make_page(runs), encoding="utf-8")
    except OSError as error:
        fail(f"--output: cannot write there ({error.strerror or error}), got {str(output)!r}", 1)
    for one in runs:
        for problem in one.problems:
            notice(f"{one.name}: {problem}")
    print(f"{output}: {len(runs)} run{'s' if len(runs) > 1 else ''}; open it in a browser")  # noqa: T201


def new_parser(name: str) -> argparse.ArgumentParser:
    """A parser with the arguments that both commands have."""
    parser = OneLineParser(name, add_help=False, allow_abbrev=False)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--root", default="runs")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; an unknown option exits with 2."""
    options, rest = parser.parse_known_args(arguments)
    if rest:
        known = [f"--{name}" for name in vars(options) if name != "names"]
        hint = did_you_mean(rest[0], known, otherwise="; see `striate runs --help`")
        fail(f"{parser.prog.removeprefix('striate ')}: unknown argument, got {rest[0]}{hint}")
    return options


def select(name: str, known: Sequence[Path], root: Path, argument: str, elsewhere: bool = False) -> list[Path]:
    """The folders of the runs that a name stands for: one run, or all of an experiment or sweep.

    To compare, of an experiment the training runs are meant, if it has any.

    Args:
        name: Name below the root, with or without the root in front.
        known: Folders of all runs below the root.
        root: Folder of all runs.
        argument: What a message names.
        elsewhere: The name may also be a folder outside of the root.
    """
    given = Path(name).expanduser()
    if given.resolve().is_relative_to(root.resolve()):
        given = root / given.resolve().relative_to(root.resolve())
    for folder in (root / name, given):
        inside = [one for one in known if one == folder or folder in one.parents]
        if not inside and elsewhere and folder.is_dir():
            inside = [folder] if is_run(folder) else find_runs(folder)
            if not inside:
                fail(f"{argument}: no runs in this folder, got {name!r}; `striate runs` lists the runs")
        if inside:
            training = [one for one in inside if one.name.startswith("fit-")]
            return (training or inside) if elsewhere and folder not in inside else inside
    hint = did_you_mean(name, names_of(known, root), otherwise="; `striate runs` lists the runs")
    fail(f"{argument}: no such run or experiment, got {name!r}{hint}")


def names_of(known: Iterable[Path], root: Path) -> set[str]:
    """Names of runs, and of the experiments and sweeps that they belong to."""
    relative = [folder.relative_to(root) for folder in known]
    return {path.as_posix() for one in relative for path in (one, *one.parents) if path.name}


def label(folder: Path, root: Path) -> str:
    """Name of a run on the page: below the root, or its path."""
    return (folder.relative_to(root) if folder.is_relative_to(root) else folder).as_posix()


