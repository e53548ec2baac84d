"""Runs ``striate`` in forks of a process that has imported everything, and has done nothing else.

A fork of the process of the tests itself could wait forever for threads of libraries that only the parent has. Requests
are lines of JSON on standard input; the reply to each is its exit code.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import hotcoco  # noqa: F401 - imported once, for all forks
import torch

import striate.callbacks
import striate.datamodules
import striate.experiments.launcher.cli
import striate.models
import striate.tasks  # noqa: F401
from striate.experiments.launcher.main import main


def serve() -> None:
    """Answer requests until the input ends."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(_run(**json.loads(line)), flush=True)


def _run(arguments: list[str], folder: str, log: str, terminal: bool, environment: dict[str, str]) -> int:
    """Run one command line in a fork, with its output in a file or on a terminal, and return its exit code."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    reader, writer = os.openpty() if terminal else (-1, file)
    pid = os.fork()
    if pid == 0:
        os.environ.clear()
        os.environ.update(environment)
        end_as_striate(arguments, folder, writer)
    if terminal:
        os.close(writer)
        while chunk := _read_terminal(reader):
            os.write(file, chunk)
    os.close(file)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _read_terminal(reader: int) -> bytes:
    """The next output on a terminal; empty when no process has it open any more, which Linux reports as an error."""
    try:
        return os.read(reader, 65536)
    except OSError:
        os.close(reader)
        return b""


def end_as_striate(
    arguments: Sequence[str], folder: str | Path, descriptor: int, run: Callable[[], None] = main
) -> NoReturn:
    """In a fork, replace output and arguments as a new interpreter has them, run, and end the process.

    Args:
        arguments: The command line after ``striate``.
        folder: Working folder.
        descriptor: Where output and errors go.
        run: Called without arguments; default: the command line.
    """
    code = 1
    try:
        for target in (1, 2):
            os.dup2(descriptor, target)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8", buffering=1)  # noqa: SIM115
        for logger in (logging.root, *map(logging.getLogger, logging.root.manager.loggerDict)):
            for handler in logger.handlers:  # those made at import write to the stream of the server
                if isinstance(handler, logging.StreamHandler):
                    handler.stream = sys.stderr
        os.chdir(folder)
        sys.argv = ["striate", *arguments]
        run()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
