"""Run ``striate`` in processes of their own."""

import logging
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from striate.experiments.launcher.main import main

HANG = 600
"""Seconds after which a process counts as hanging. Tests wait for events; this only bounds the wait."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "NO_ALBUMENTATIONS_UPDATE": "1"}


def restore_interrupts() -> None:
    """Let this process react to Ctrl-C.

    A shell that runs the tests in the background has its children ignore SIGINT, which they would hand on.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start_striate(folder: Path, *arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """Start ``striate`` in a process group of its own; output and errors go to one pipe.

    Args:
        folder: Working folder.
        arguments: The command line after ``striate``.
        options: Further options of `subprocess.Popen`.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        [sys.executable, "-m", "striate", *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT,
        start_new_session=True,
        preexec_fn=restore_interrupts,
        **{**pipes, **options},
    )


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something has happened, such as the creation of a file, while a process runs."""
    deadline = time.monotonic() + HANG
    while not happened():
        assert process.poll() is None, f"ended too early:\n{process.communicate()}"
        assert time.monotonic() < deadline, "hangs"
        time.sleep(0.05)


def forked_striate(arguments: str | Sequence[str], folder: Path, terminal: bool = False) -> tuple[int, str]:
    """Run ``striate`` in a fork of this process, which has imported everything already.

    Args:
        arguments: The command line after ``striate``, as text or as words.
        folder: Working folder.
        terminal: Whether output and errors go to a terminal, and not to a file.

    Returns:
        The exit code, and standard output and error together.
    """
    log = folder.parent / "output.txt"
    reader, writer = os.openpty() if terminal else (-1, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    pid = os.fork()
    if pid == 0:
        _run_and_exit(arguments, folder, writer)
    os.close(writer)
    content = b""
    while terminal and (chunk := _read_terminal(reader)):
        content += chunk
    _, status = os.waitpid(pid, 0)
    content = content if terminal else log.read_bytes()
    return os.waitstatus_to_exitcode(status), content.decode(errors="replace")


def _read_terminal(reader: int) -> bytes:
    """The next output on a terminal; empty when no process has it open any more, which Linux reports as an error."""
    try:
        return os.read(reader, 65536)
    except OSError:
        os.close(reader)
        return b""


def _run_and_exit(arguments: str | Sequence[str], folder: Path, descriptor: int) -> None:
    """The child: replace its output, warnings and arguments as a new interpreter has them, run, and end."""
    code = 1
    try:
        for target in (1, 2):
            os.dup2(descriptor, target)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8", buffering=1)  # noqa: SIM115
        for logger in (logging.root, *map(logging.getLogger, logging.root.manager.loggerDict)):
            for handler in logger.handlers:  # those made at import write to the streams of pytest
                if isinstance(handler, logging.StreamHandler):
                    handler.stream = sys.stderr  # setStream would flush a stream that pytest may have closed
        warnings.resetwarnings()
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = _print_warning  # pytest records them
        os.chdir(folder)
        sys.argv = ["striate", *(shlex.split(arguments) if isinstance(arguments, str) else arguments)]
        main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _print_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    """Write a warning to the error stream, as Python does without pytest."""
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


def shell(command: str, folder: Path) -> tuple[int, str]:
    """Run a command line in bash, with ``striate`` and ``python`` those of this environment.

    Args:
        command: The command line.
        folder: Working folder.

    Returns:
        The exit code (that of the first part of a pipe that fails), and standard output and error together.
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return result.returncode, result.stdout
