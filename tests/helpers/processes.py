"""Run ``striate`` in processes of their own."""

import logging
import os
import shlex
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from striate.experiments.launcher.main import main


def forked_striate(arguments: str, folder: Path) -> tuple[int, str]:
    """Run ``striate`` in a fork of this process, which has imported everything already.

    Args:
        arguments: The command line after ``striate``.
        folder: Working folder.

    Returns:
        The exit code, and standard output and error together.
    """
    log = folder.parent / "output.txt"
    pid = os.fork()
    if pid == 0:
        _run_and_exit(arguments, folder, log)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), log.read_text(encoding="utf-8", errors="replace")


def _run_and_exit(arguments: str, folder: Path, log: Path) -> None:
    """The child: replace its output, warnings and arguments as a new interpreter has them, run, and end."""
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for target in (1, 2):
            os.dup2(descriptor, target)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8", buffering=1)  # noqa: SIM115
        for logger in (logging.root, *map(logging.getLogger, logging.root.manager.loggerDict)):
            for handler in logger.handlers:  # those made at import write to the streams of pytest
                if isinstance(handler, logging.StreamHandler):
                    handler.setStream(sys.stderr)
        warnings.resetwarnings()
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = _print_warning  # pytest records them
        os.chdir(folder)
        sys.argv = ["striate", *shlex.split(arguments)]
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
