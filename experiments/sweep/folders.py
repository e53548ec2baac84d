"""The folder of a sweep, and the study in it."""

import argparse
import re
from pathlib import Path

from .spec import Sweep
from .study import SharedStudy, open_storage

JOURNAL = "study.journal"
"""File of the study in the folder of a sweep."""


def open_study(sweep: Sweep, name: str, options: argparse.Namespace) -> SharedStudy:
    """Open the study of a sweep: a new one, the newest one with ``--resume``, or that of ``--storage``.

    Args:
        sweep: The sweep.
        name: Its name.
        options: The options ``root``, ``storage``, ``resume`` and ``seed``.

    Raises:
        ValueError: The folder or the storage cannot be used, or there is nothing to resume.
    """
    root = Path(options.root).expanduser() / name
    if options.storage is not None:
        return join_study(sweep, name, root, options)
    if options.resume:
        numbers = [number for number in sweep_numbers(root) if (root / f"sweep-{number}" / JOURNAL).is_file()]
        if not numbers:
            raise ValueError(f"--resume: no sweep in {str(root)!r}; start one without --resume, or give its --name")
        folder = root / f"sweep-{max(numbers)}"
    else:
        folder = new_folder(root)
    return SharedStudy.open(sweep, open_storage(str(folder / JOURNAL)), name, folder, options.seed)


def join_study(sweep: Sweep, name: str, root: Path, options: argparse.Namespace) -> SharedStudy:
    """Join the study of a shared storage, or create it with a new folder."""
    storage = open_storage(options.storage)
    known = name in {study.study_name for study in storage.get_all_studies()}
    if options.resume and not known:
        raise ValueError(
            f"--resume: no sweep named {name!r} in {options.storage!r}; start it without --resume, or give its --name"
        )
    folder = root / "sweep-0" if known else new_folder(root)
    shared = SharedStudy.open(sweep, storage, name, folder, options.seed)
    if shared.joined and not known:  # another process was faster
        folder.rmdir()
    return shared


def sweep_numbers(root: Path) -> list[int]:
    """Numbers of the sweeps in a folder."""
    entries = root.iterdir() if root.is_dir() else ()
    return [int(match[1]) for entry in entries if (match := re.fullmatch(r"sweep-(\d+)", entry.name))]


def new_folder(root: Path) -> Path:
    """Create the folder of a new sweep, with the next free number.

    Raises:
        ValueError: It cannot be created.
    """
    number = 1 + max(sweep_numbers(root), default=0)
    try:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                (root / f"sweep-{number}").mkdir()
                return root / f"sweep-{number}"
            except FileExistsError:
                number += 1
    except OSError as error:
        raise ValueError(f"--root: cannot write there ({error.strerror or error}), got {str(root.parent)!r}") from error
