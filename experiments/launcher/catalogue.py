"""The packaged experiments, and configuration files by path or by name."""

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path

from .messages import fail

EXPERIMENTS = Path(__file__).parents[1]


SWEEPS = "sweeps/"
"""Start of the names of packaged sweeps."""


def packaged_names() -> list[str]:
    """Names of all packaged experiments and sweeps."""
    return sorted(path.relative_to(EXPERIMENTS).with_suffix("").as_posix() for path in EXPERIMENTS.rglob("*.yaml"))


def experiment_names() -> list[str]:
    """Names of the packaged experiments, such as ``classification/resnet18_digits``."""
    return [name for name in packaged_names() if not name.startswith(SWEEPS)]


def sweep_names() -> list[str]:
    """Names of the packaged sweeps, such as ``sweeps/classification_digits``."""
    return [name for name in packaged_names() if name.startswith(SWEEPS)]


def describe_experiments() -> str:
    """One line per experiment and per sweep: its name and the first comment of its file."""
    names = [*experiment_names(), *sweep_names()]
    width = max(map(len, names), default=0)
    lines = []
    for name in names:
        with (EXPERIMENTS / f"{name}.yaml").open(encoding="utf-8") as file:
            title = file.readline().lstrip("# ").rstrip()
        lines.append(f"{name:<{width}}  {title}")
    return "\n".join(lines)


def run_experiments(arguments: Sequence[str]) -> None:
    """Run ``striate experiments``: list all experiments; with a name, print its file or copy it.

    Exits with 2 for a wrong call.
    """
    parser = argparse.ArgumentParser(
        "striate experiments", description="List the packaged experiments, or print one of them."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="experiment to print, such as quickstart")
    parser.add_argument("--copy", type=Path, metavar="FILE", help="write the experiment to FILE, to edit it")
    options = parser.parse_args(arguments)
    if options.name is None:
        if options.copy is not None:
            fail("--copy: needs the name of an experiment; `striate experiments` lists them")
        print(describe_experiments())  # noqa: T201
        return
    try:
        text = find_config(options.name, "experiments").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        fail(str(error))
    if options.copy is None:
        print(text, end="")  # noqa: T201
        return
    target = options.copy / f"{Path(options.name).stem}.yaml" if options.copy.is_dir() else options.copy
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        fail(f"--copy: file exists, got {target}; choose another name, or remove the file", 1)
    except OSError as error:
        fail(f"--copy: cannot write there ({error.strerror or error}), got {target}", 1)
    command = "sweep" if options.name.startswith(SWEEPS) else "fit --config"
    print(f"{target}: edit it, then run `striate {command} {target}`")  # noqa: T201


def find_config(name: str, argument: str = "--config") -> Path:
    """Find a configuration file by its path, or a packaged one by its name.

    Args:
        name: The path or the name.
        argument: Argument that messages name.

    Raises:
        FileNotFoundError: If there is neither; the message suggests the nearest name.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    packaged = EXPERIMENTS / f"{name.removesuffix('.yaml').removeprefix('experiments/')}.yaml"
    if packaged.is_file():
        return packaged
    names = sweep_names() if argument == "sweep" else experiment_names()
    by_stem = {known.rsplit("/", 1)[-1]: known for known in names}
    stem = name.removesuffix(".yaml").rsplit("/", 1)[-1]
    nearest = difflib.get_close_matches(stem, by_stem, n=1, cutoff=0.5)
    hint = f"did you mean {by_stem[nearest[0]]!r}?" if nearest else "`striate experiments` lists the packaged ones"
    raise FileNotFoundError(f"{argument} {name}: no such file and no packaged experiment of this name; {hint}")


def resolve_config(name: str) -> str:
    """Absolute path of the configuration that `name` stands for; exits with 2 if there is none.

    Absolute, because jsonargparse reads a file from within its folder.
    """
    try:
        return str(find_config(name).resolve())
    except FileNotFoundError as error:
        fail(str(error))


def resolve_configs(arguments: Sequence[str]) -> list[str]:
    """Replace each ``--config NAME`` of a command line by the absolute path of the file."""
    resolved: list[str] = []
    expects_value = False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        is_flag = argument in ("--config", "-c") and not expects_value
        if expects_value:
            argument = resolve_config(argument)
        elif flag == "--config" and equals:
            argument = f"{flag}={resolve_config(value)}"
        expects_value = is_flag
        resolved.append(argument)
    return resolved
