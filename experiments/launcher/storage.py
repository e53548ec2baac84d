"""Explain that a run can no longer write to its folder: the disk is full, or the folder is gone or read-only."""

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...callbacks.resume import resume_command
from ...models.checkpoint_files import newest_readable

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a full disk, of a quota, and of a limit on the size of files."""

LOST = {errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV}
"""Errors of a disk or a network file system that cannot be written any more."""


class StorageError(OSError):
    """The folder of a run cannot be written any more."""


def explain_storage(error: BaseException, folder: Path, words: Sequence[str]) -> str | None:
    """Explain in one line that the folder of a run cannot be written, and name its last good checkpoint.

    Args:
        error: What has ended the training.
        folder: Folder of the run.
        words: The command line, to suggest how to resume.

    Returns:
        The message; None if the error has another cause.
    """
    cause = next((one for one in causes(error) if is_about(one, folder)), None)
    if cause is None:
        return None
    reason, name = cause.strerror, f", got {str(cause.filename)!r}" if cause.filename else ""
    advice = "free space" if cause.errno in FULL else "make the folder writable"
    if not folder.is_dir():
        return f"run.root: the folder of the run is gone ({folder}){name}; training stopped, start it anew"
    last = newest_readable((folder / "checkpoints").glob("*.ckpt"))
    then = f"resume from the last good checkpoint, {last}: {resume_command(words)}" if last else "start anew"
    return f"run.root: cannot write to {folder} ({reason}){name}; {advice}, then {then}"


def causes(error: BaseException) -> Iterator[OSError]:
    """Yield the errors of the operating system among an error and those that have led to it."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError):
            yield current
        current = current.__cause__ or current.__context__


def is_about(error: OSError, folder: Path) -> bool:
    """Whether an error means that a folder cannot be written any more."""
    if error.errno in FULL | LOST:
        return True
    if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR):
        return False
    name = error.filename
    return not folder.is_dir() or (isinstance(name, str) and Path(name).absolute().is_relative_to(folder.absolute()))
