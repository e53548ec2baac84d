"""Datasets on disk: list files, report what is missing beside the expected layout, and download."""

import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from inspect import cleandoc
from pathlib import Path

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..images.file_names import FileNames, composed
from ..images.listing import SUPPORTED, is_system, list_folder
from .annotation_errors import Fault, MissingFileError, record_error, record_warning, recording
from .skipped_files import report_skipped

_LAYOUT = re.compile(r"^Expected layout\b.*::\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)

_SPLIT_OF_NAME = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def expected_layout(reader: type) -> str:
    """Return the directory tree that a data module documents: the block below ``Expected layout`` in its docstring."""
    blocks = (_LAYOUT.search(cleandoc(cls.__doc__ or "")) for cls in reader.__mro__)
    return next((textwrap.dedent(block[1]).strip("\n") for block in blocks if block), "")


def layout_error(
    problem: str, reader: type, root: Path, error: type[MissingFileError] = MissingFileError
) -> MissingFileError:
    """Return the error for missing data: the problem, the expected layout, and the contents of the folder.

    Args:
        problem: Sentence without its full stop.
        reader: Data module whose docstring has the layout.
        root: Folder to list; where it does not exist, its closest existing parent.
        error: `AbsentSplitError` for a split that datasets of this layout may lack.
    """
    while not root.is_dir() and root != root.parent:
        root = root.parent
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    listing = ", ".join(entries[:12]) + (", …" if len(entries) > 12 else "") if entries else "nothing"
    layout = textwrap.indent(expected_layout(reader), "    ")
    problem += "" if problem.endswith("?") else "."
    return error(f"{problem} {reader.__name__} expects this layout:\n{layout}\nand {str(root)!r} contains: {listing}")


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without those of systems and tools."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not is_system(entry.name) and entry.is_dir())


def image_names(folder: Path) -> list[str]:
    """Return the names of the image files directly in a folder, by suffix, sorted; no file is opened."""
    listing = list_folder(folder, recursive=False)
    report_skipped([listing])
    return listing.images


def split_of_name(name: str) -> str | None:
    """Return the split of a folder or list with this name; None: it is not a split.

    >>> split_of_name("Validation"), split_of_name("cats")
    ('val', None)
    """
    return _SPLIT_OF_NAME.get(name.lower())


def split_folders(root: Path) -> dict[str, str]:
    """Return the folder of each split that has one, by its usual names: ``train``, ``Training``, ``valid``, ….

    Raises:
        ValueError: Two folders are named like the same split.
    """
    folders: dict[str, str] = {}
    for name in subfolders(root) if root.is_dir() else ():
        if (split := split_of_name(name)) is None:
            continue
        if split in folders:
            raise ValueError(f"root: must have one folder for {split}, got {folders[split]!r} and {name!r}; rename one")
        folders[split] = name
    return folders


def encode_paths(paths: Iterable[str | Path]) -> np.ndarray:
    """Return paths as one array of bytes ``[N]``, which worker processes share; ``os.fsdecode`` restores a path.

    A list of Python strings would be copied into each forked worker, because reading a string updates its reference
    count.
    """
    return np.array([os.fsencode(path) for path in paths], np.bytes_)


def missing(root: Path, names: Iterable[str]) -> list[str]:
    """Return the files that do not exist. Folders are listed; no file is opened.

    Args:
        root: Folder that the names are relative to.
        names: File names with ``/`` between folder and file.
    """
    listed: dict[str, set[str]] = {}
    absent = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in listed:
            path = root / folder
            listed[folder] = set(os.listdir(path)) if path.is_dir() else set()  # noqa: PTH208 - names alone
        if file not in listed[folder]:
            absent.append(name)
    return absent


def check_files_exist(root: Path, names: Sequence[str], asked_by: str, kind: str = "images") -> None:
    """Check that files exist.

    Args:
        root: Folder that the names are relative to.
        names: File names, see `missing`.
        asked_by: File or argument that lists them, with which the message begins.
        kind: Kind of the files, in the plural.

    Raises:
        MissingFileError: Some do not; the message has their number and the first five.
    """
    if absent := missing(root, names):
        fault = Fault("missing-image", Path(asked_by), absent, kind, images=[str(root / name) for name in absent])
        files = FileNames(root)
        first = "".join(f"\n    {name}{files.hint(name)}" for name in absent[:5])
        more = f"\n    and {len(absent) - 5} more" if len(absent) > 5 else ""
        record_error(fault, f"{asked_by}: {len(absent)} of {len(names)} {kind} are not in {str(root)!r}:{first}{more}")


def warn_about_repeated_files(file: Path, names: Sequence[str], consequence: str) -> None:
    """Warn of images that are listed more than once; ``striate data check`` finds them by their pixels.

    Args:
        file: File that lists them.
        names: Name of each image.
        consequence: What it means, for the message.
    """
    if len(distinct := set(names)) == len(names) or recording():
        return
    first = next(name for name, count in Counter(names).items() if count > 1)
    rank_zero_warn(
        f"{len(names) - len(distinct)} of {len(names)} images are listed more than once, {consequence} ({file}, first: "
        f"{first!r}); run striate data check --fix to merge the entries"
    )


def warn_of_same_stems(folder: Path, names: Iterable[str], consequence: str) -> None:
    """Warn of images whose names differ only in the suffix, so that they share an annotation file.

    Args:
        folder: Folder that the names are relative to.
        names: Image files, each once or more.
        consequence: What is done about them, for the message.
    """
    by_stem: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        by_stem.setdefault(composed(os.path.splitext(name)[0]), []).append(name)  # noqa: PTH122
    groups = [group for group in by_stem.values() if len(group) > 1]
    if not groups:
        return
    pairs = [" and ".join(group) for group in groups]
    found = f"names differ only in the suffix, {consequence}"
    message = f"{len(groups)} annotation files belong to several images, {consequence} ({folder}, first: {pairs[0]})"
    record_warning(Fault("same-stem", folder, pairs, "entry", found), f"{message}: keep one of each, or rename it")


def images_by_class(folder: Path, class_folders: Sequence[str]) -> list[np.ndarray]:
    """List the image files of each class.

    Args:
        folder: Folder with one folder per class.
        class_folders: Folder names in the order of the classes.

    Returns:
        For each class, its ``[N]`` paths relative to `folder` (``CLASS/FILE``), sorted, encoded by `encode_paths`.

    Raises:
        ValueError: A class has no images.
    """
    listings = [list_folder(folder / name, recursive=False) for name in class_folders]
    report_skipped(listings)
    files = [
        encode_paths(f"{name}/{file}" for file in listing.images)
        for name, listing in zip(class_folders, listings, strict=True)
    ]
    if empty := [name for name, paths in zip(class_folders, files, strict=True) if not len(paths)]:
        raise ValueError(
            f"{folder}: no images in the class folder(s) {', '.join(map(repr, empty[:5]))}"
            f"{f' and {len(empty) - 5} more' if len(empty) > 5 else ''}; searched for {SUPPORTED}"
        )
    return files


def download_dataset(name: str, root: Path) -> None:
    """Download a dataset with torchvision.

    Args:
        name: Class of ``torchvision.datasets`` that takes ``download``.
        root: Destination folder.

    Raises:
        RuntimeError: The download failed; the message names the dataset, the folder and torchvision's reason.
    """
    import torchvision.datasets  # slow to import, and only needed for a download

    try:
        getattr(torchvision.datasets, name)(str(root), download=True)
    except Exception as error:  # URLError, RuntimeError for a checksum, OSError for a full disk …
        raise RuntimeError(
            f"download: torchvision could not download {name} into {str(root)!r} ({error}); download the files from "
            "their publisher by hand, put them there, and set download: false"
        ) from error
