"""Run ``striate`` in processes of their own."""

import atexit
import functools
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HANG = 600
"""Seconds after which a process counts as hanging. Tests wait for events; this only bounds the wait."""

FIXED = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "NO_ALBUMENTATIONS_UPDATE": "1"}
ENVIRONMENT = {**os.environ, **FIXED}


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
        start_new_session=True,
        preexec_fn=restore_interrupts,
        **{"env": ENVIRONMENT, **pipes, **options},
    )


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something has happened, such as the creation of a file, while a process runs."""
    deadline = time.monotonic() + HANG
    while not happened():
        assert process.poll() is None, f"ended too early:\n{process.communicate()}"
        assert time.monotonic() < deadline, "hangs"
        time.sleep(0.05)


def wait_for_end(process: subprocess.Popen[str]) -> str:
    """Wait until a process ends, as long as it prints something now and then, and return its output."""
    assert process.stdout is not None
    parts = []
    with process.stdout as stdout:
        while select.select([stdout], [], [], HANG)[0]:
            if not (part := os.read(stdout.fileno(), 65536)):
                process.wait()
                return b"".join(parts).decode(errors="replace")
            parts.append(part)
    process.kill()
    raise AssertionError(f"hangs:\n{b''.join(parts).decode(errors='replace')}")


def forked_striate(arguments: str | Sequence[str], folder: Path, terminal: bool = False) -> tuple[int, str]:
    """Run ``striate`` in a fork of a server that has imported everything already (`fork_server`).

    Args:
        arguments: The command line after ``striate``, as text or as words.
        folder: Working folder.
        terminal: Whether output and errors go to a terminal, and not to a file.

    Returns:
        The exit code, and standard output and error together.
    """
    words = shlex.split(arguments) if isinstance(arguments, str) else [str(word) for word in arguments]
    log = folder.parent / "output.txt"
    server = _fork_server()
    assert server.stdin is not None and server.stdout is not None
    request = {"arguments": words, "folder": str(folder), "log": str(log), "terminal": terminal}
    server.stdin.write(json.dumps({**request, "environment": {**os.environ, **FIXED}}))
    server.stdin.write("\n")
    server.stdin.flush()
    ready, _, _ = select.select([server.stdout], [], [], HANG)
    reply = server.stdout.readline() if ready else ""
    if not reply:
        server.kill()
        _fork_server.cache_clear()
    content = log.read_bytes().decode(errors="replace") if log.is_file() else ""  # with \r
    assert reply, f"{words} hangs, or ended the server:\n{content}"
    return int(reply), content


@functools.cache
def _fork_server() -> subprocess.Popen[str]:
    """The server, which ends when its input is closed."""
    command = [sys.executable, "-m", "striate.tests.helpers.fork_server"]
    server = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


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
