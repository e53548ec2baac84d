"""Data sets on disk: finding the tree a reader expects, saying what is missing, fetching what may be fetched."""

import os
import textwrap
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from ..images.read import IMAGE_SUFFIXES
from .annotation_errors import collected


def expectation(what: str, reader: str, tree: str, root: Path) -> str:
    """A message for data that is not there: what is wrong, the tree the reader expects, and what was found.

    Args:
        what: what is wrong, one sentence without its full stop.
        reader: the data module's name.
        tree: the expected files, one a line, below ``ROOT``.
        root: the folder looked into; where it does not exist, the nearest folder above it is listed.
    """
    base = root
    while not base.is_dir() and base != base.parent:
        base = base.parent
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in base.iterdir())
    listing = ", ".join(entries[:12]) + (", …" if len(entries) > 12 else "") if entries else "nothing"
    shown = textwrap.indent(textwrap.dedent(tree).strip("\n"), "    ")
    return f"{what}. {reader} expects\n{shown}\nand {str(base)!r} holds: {listing}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest spelling among `known`, or nothing."""
    near = get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def subfolders(folder: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())


def image_names(folder: Path) -> list[str]:
    """Names of the visible image files directly in a folder, by suffix, sorted; no file is touched."""
    return sorted(
        name
        for name in os.listdir(folder)  # noqa: PTH208 - names alone: no object a file, no stat
        if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != "."
    )


def as_bytes(paths: Iterable[str]) -> np.ndarray:
    """Paths as one array of bytes, which forked workers share; ``os.fsdecode`` gives one back."""
    return np.array([os.fsencode(path) for path in paths], np.bytes_)


def missing(root: Path, names: Iterable[str]) -> list[str]:
    """Which of some files are not there; folders are listed, files not touched.

    Args:
        root: what the names are relative to.
        names: with ``/`` between folder and file.
    """
    listed: dict[str, set[str]] = {}
    absent = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in listed:
            where = root / folder
            listed[folder] = set(os.listdir(where)) if where.is_dir() else set()  # noqa: PTH208 - names alone
        if file not in listed[folder]:
            absent.append(name)
    return absent


def check_there(root: Path, names: Sequence[str], asked_by: str, what: str = "images") -> None:
    """Look whether each file is there.

    Args:
        root: what the names are relative to.
        names: see `missing`.
        asked_by: the file or the argument that speaks of them; the message begins with it.
        what: what they are.

    Raises:
        FileNotFoundError: if not: how many, and the first five.
    """
    absent = missing(root, names)
    paths = [str(root / name) for name in absent]
    if absent and not collected(Path(asked_by), "an image that is not there", absent, what, paths.__getitem__):
        first = "".join(f"\n    {name}" for name in absent[:5])
        more = f"\n    and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise FileNotFoundError(
            f"{asked_by}: {len(absent)} of {len(names)} {what} are not in {str(root)!r}:{first}{more}"
        )


def class_files(folder: Path, folders: Sequence[str]) -> list[np.ndarray]:
    """The image files of each class, relative to `folder`.

    Args:
        folder: holds one folder a class.
        folders: the classes' folders, in the order of the classes.

    Returns:
        For each class its paths (``CLASS/FILE``), sorted, as an array of bytes.

    Raises:
        ValueError: for a class without images.
    """
    files = [
        np.array([os.fsencode(f"{name}/{file}") for file in image_names(folder / name)], dtype=np.bytes_)
        for name in folders
    ]
    if empty := [name for name, found in zip(folders, files, strict=True) if not len(found)]:
        raise ValueError(
            f"{folder}: no images in the class folder(s) {', '.join(map(repr, empty[:5]))}"
            f"{f' and {len(empty) - 5} more' if len(empty) > 5 else ''}; looked for {', '.join(IMAGE_SUFFIXES)}"
        )
    return files


def fetch(dataset: str, root: Path) -> None:
    """Have torchvision download one of its data sets.

    Args:
        dataset: a class of ``torchvision.datasets`` that takes ``download``.
        root: where to.

    Raises:
        RuntimeError: when the download fails; the message names the data set, the folder and torchvision's reason.
    """
    import torchvision.datasets  # slow to import, and needed by nobody who has the files

    try:
        getattr(torchvision.datasets, dataset)(str(root), download=True)
    except Exception as error:  # URLError, RuntimeError for a checksum, OSError for a full disk …
        raise RuntimeError(
            f"data.init_args.download: torchvision could not fetch {dataset} into {str(root)!r} ({error}). "
            "Fetch the files by hand from their publisher, put them there, and set data.init_args.download: false"
        ) from error
