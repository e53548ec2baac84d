"""``python -m benchmarks gpu``: checks and benchmarks for a machine with a GPU, at most eight minutes, no network.

Each part runs in a process of its own with a time limit, so that an error, a lack of memory or a hang ends this part
alone. Rows are printed and written as they are measured. Parts whose packages are not installed are skipped by name,
and striate itself need not be installed: start the command in the checkout. On a CPU, ``--device cpu --small`` shows
that the script works.
"""

import argparse
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from striate.benchmarks.harness import Goal, Row, markdown

ROOT = Path(__file__).parents[1]
LIMIT = 480
"""Seconds that all parts may take together."""
_MARK = "ROW "


@dataclass(frozen=True)
class Part:
    """A part of the script.

    Attributes:
        what: What it does, for the list.
        limit: Maximum number of seconds.
        function: Module and name of the function that yields its rows.
        arguments: Arguments of the function before the settings.
        needs: Packages without which it is skipped.
    """

    what: str
    limit: int
    function: tuple[str, str]
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()


PARTS = {
    "networks": Part("outputs, losses and gradients against the CPU's", 80, ("gpu_networks", "networks")),
    "precision": Part("channels-last and bfloat16 against float32", 60, ("gpu_networks", "precision")),
    "objects": Part("memory with 1,000 and 5,000 objects", 50, ("gpu_steps", "objects")),
    "ddp": Part("one-process DDP", 40, ("gpu_steps", "ddp")),
    "faster_rcnn": Part("step, inference and memory", 65, ("gpu_steps", "steps"), ("Faster R-CNN",)),
    "mask_rcnn": Part("step, inference and memory", 65, ("gpu_steps", "steps"), ("Mask R-CNN",)),
    "resnet50": Part("images per second; peer: timm", 65, ("gpu_steps", "resnet50"), needs=("timm",)),
    "compile": Part("compiled trunks against eager ones", 55, ("gpu_networks", "compiled")),
}
"""The parts in the order in which they run; their limits add up to `LIMIT`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts given on the command line; none: all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"parts to run: {', '.join(PARTS)}; none: all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes, to test the script on a CPU")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to FILE, as it grows")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # this is the process of one part
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"PART: no part {name!r}; choose from {', '.join(PARTS)}")
    if options.inside:
        run_inside(options.parts[0], options.device, options.small)
        return
    if options.device == "cuda" and not _has_gpu():
        parser.error("--device: no GPU was found, got cuda; pass --device cpu --small to test the script on a CPU")
    rows: list[Row] = []
    print(markdown([]), end="", flush=True)
    for row in measure(options.parts or list(PARTS), options.device, options.small):
        rows.append(row)
        print(row.markdown(), flush=True)
        if options.markdown:
            options.markdown.write_text(f"{markdown(rows)}\n{describe(options.device)}\n", encoding="utf-8")
    print(f"\n{describe(options.device)}")
    if failed := [row.what for row in rows if row.failed]:
        sys.exit(f"failed with the errors above: {'; '.join(failed)}")


def measure(names: Sequence[str], device: str, small: bool) -> Iterator[Row]:
    """Run parts one after the other; yield each row as soon as it is measured. On a GPU, time is limited."""
    end = time.monotonic() + (LIMIT if device == "cuda" else 10 * LIMIT)
    options = ["--inside", "--device", device, *(["--small"] if small else [])]
    for name in names:
        part = PARTS[name]
        if absent := [package for package in part.needs if importlib.util.find_spec(package) is None]:
            yield Row(f"{name}: {part.what}", f"skipped: needs {', '.join(absent)}; pip install {' '.join(absent)}")
            continue
        left = end - time.monotonic()
        if left < 1:
            yield Row(name, f"skipped: the {LIMIT} s of all parts are over")
            continue
        sys.stderr.write(f"{name}: {part.what} …\n")
        begin = time.monotonic()
        limit = min(part.limit, left) if device == "cuda" else left
        yield from run_process(name, [sys.executable, "-m", "benchmarks", "gpu", name, *options], limit)
        sys.stderr.write(f"{name}: {time.monotonic() - begin:.0f} s\n")


def run_process(name: str, command: Sequence[str], limit: float) -> Iterator[Row]:
    """Run a part in a process, and yield its rows as they come; an error or the end of its time becomes a row.

    Args:
        name: Name of the part.
        command: The command, which prints each row as `print_row` does.
        limit: Seconds after which the process, and all that it started, is ended.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True, cwd=ROOT
        ) as process,
    ):
        expired = threading.Event()
        timer = threading.Timer(limit, partial(_stop, process, expired.set))
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(_MARK):
                    yield read_row(line)
            code = process.wait()
        finally:
            timer.cancel()
            _stop(process)
        if expired.is_set():
            yield Row(name, f"failed: stopped after {limit:.0f} s, its time limit", failed=True)
        elif code:
            errors.seek(0)
            last = next((line.strip() for line in reversed(errors.readlines()) if line.strip()), "")
            yield Row(name, f"failed: exit code {code}: {last[:200]}", failed=True)


def _stop(process: "subprocess.Popen[str]", first: Callable[[], None] = lambda: None) -> None:
    """End a process and all that it started, such as the workers of a compiler."""
    first()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def print_row(row: Row) -> None:
    """Print a row for `run_process`."""
    print(_MARK + json.dumps(asdict(row)), flush=True)


def read_row(line: str) -> Row:
    """Read a row that `print_row` printed."""
    fields = json.loads(line.removeprefix(_MARK))
    goal = fields.pop("goal")
    return Row(**fields, goal=None if goal is None else Goal(**goal))


def run_inside(name: str, device: str, small: bool) -> None:
    """Run one part in this process, and print its rows for `run_process`."""
    from striate.benchmarks.gpu_settings import Settings, guarded

    part = PARTS[name]
    module, function = part.function
    rows = getattr(importlib.import_module(f"striate.benchmarks.{module}"), function)
    for row in guarded(name, partial(rows, *part.arguments, Settings(device, small))):
        print_row(row)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def describe(device: str) -> str:
    """Describe the device, the machine and the versions of Python and torch."""
    import torch

    from striate.benchmarks.harness import versions

    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads, no GPU used"
    return f"{versions()}, {name}"


if __name__ == "__main__":
    main()
