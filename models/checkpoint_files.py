"""Checkpoint files on disk: reading them without running code, damage, and what else could be read instead."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch


class UnsafeCheckpointError(ValueError):
    """The file holds more than tensors and plain values, and could run code when it is loaded."""


class DamagedCheckpointError(ValueError):
    """The file is cut off or changed, or is no checkpoint at all."""


def read_file(path: Path, mmap: bool = False) -> Any:
    """Read a checkpoint to the CPU, without running code from the file.

    Args:
        path: A file written by `torch.save`.
        mmap: Map tensors into memory where that is possible, instead of reading them.

    Raises:
        UnsafeCheckpointError: Reading the file would run code from it.
        DamagedCheckpointError: The file is damaged. Files of `torch.save` have checksums, so that a single bit is
            noticed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about TorchScript archives before it rejects them
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can raise anything
        if changed_part(path):
            raise DamagedCheckpointError("cut off or changed") from error
        if isinstance(error, pickle.UnpicklingError) and re.search(r"global|unsupported class", str(error), re.I):
            raise UnsafeCheckpointError(first_line(error)) from error
        raise DamagedCheckpointError(f"{type(error).__name__}: {first_line(error)}") from error
    if name := changed_part(path):
        raise DamagedCheckpointError(f"the checksum of {name} differs")
    return content


def first_line(error: Exception) -> str:
    """The cause of an error of `torch.load` in one line, without its advice to load the file unsafely."""
    text = str(error)
    cause = re.search(r"WeightsUnpickler error: (.*)", text)
    return (cause.group(1) if cause else text.strip().split("\n", 1)[0])[:200]


def changed_part(path: Path) -> str | None:
    """Name of a part of a checkpoint that differs from its checksum; None if there is none.

    A file in which every part differs was written without checksums (`torch.serialization.set_crc32_options`).
    """
    if not path.is_file() or not zipfile.is_zipfile(path):  # a file of PyTorch before 1.6, or none
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [part for part in archive.infolist() if part.file_size]
            changed = [part.filename for part in parts if not _is_intact(archive, part)]
    except (zipfile.BadZipFile, ValueError, OSError):
        return "its directory"
    return changed[0] if changed and len(changed) < len(parts) else None


def _is_intact(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(part) as file:
            while file.read(1 << 20):
                pass
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError):
        return False
    return True


def usable_checkpoint(path: Path) -> Path | None:
    """The newest checkpoint that can be read, in the folder of a damaged one or of an earlier run; None: there is none.

    Args:
        path: The damaged checkpoint, such as ``runs/digits/fit-2/checkpoints/last.ckpt``.
    """
    folder = path.parent
    runs = (folder / "../..").resolve().glob("*/checkpoints/*.ckpt") if folder.resolve().name == "checkpoints" else ()
    return newest_readable(folder.glob("*.ckpt"), path) or newest_readable(runs, path)


def newest_readable(paths: Iterable[Path], other_than: Path | None = None) -> Path | None:
    """The checkpoint that was written last, of those that can be read; None: there is none.

    Args:
        paths: Files. Hidden ones, which are being written, do not count.
        other_than: A file that does not count.
    """
    excluded = other_than and other_than.resolve()
    files = [path for path in paths if not path.name.startswith(".") and path.resolve() != excluded]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            read_file(path, mmap=True)
        except ValueError:
            continue
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return None
