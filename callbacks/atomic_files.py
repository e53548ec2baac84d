"""Writing of files such that there is always the old one or the new one, and never half a file."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
"""Ends the name of a file that is being written, which begins with a dot."""


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` for writing, which replaces it at the end, with all its data on the disk.

    Args:
        path: The file to replace or to create. It is unchanged if the context ends with an error.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Write a text file with `replace_file`."""
    with replace_file(path) as file:
        file.write(text.encode())


def remove_partial(folder: Path) -> None:
    """Remove what killed processes have left in a folder."""
    for left in folder.glob(f".*{PARTIAL}"):
        left.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a renamed file last, where the system can do so for folders."""
    with contextlib.suppress(OSError):  # Windows, and some network file systems
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
