"""Image files below a folder, by suffix, and the files beside them that are left out."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# fmt: off
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".jp2", ".jpe", ".jfif", ".apng",
    ".dib", ".pbm", ".pnm", ".j2k", ".jpx", ".tga", ".avif", ".qoi",
)
# fmt: on
"""Suffixes of the image files that are read."""
SUPPORTED = ", ".join(IMAGE_SUFFIXES[:9]) + ", …"
"""The most frequent of them, for messages."""

# beside images: annotations, lists and notes, which nobody takes for images
# fmt: off
_TEXT_SUFFIXES = frozenset((
    ".txt", ".xml", ".json", ".jsonl", ".csv", ".tsv", ".yaml", ".yml", ".md", ".rst", ".html", ".pdf", ".log", ".py",
    ".ipynb", ".parquet", ".cache", ".lock", ".sha256", ".md5", ".ini", ".cfg", ".toml", ".db", ".pbtxt", ".names",
    ".data", ".url", ".doc", ".docx", ".xls", ".xlsx",
))
_SYSTEM_NAMES = frozenset((
    "@eadir", "@tmp", "#recycle", "@recycle", "__macosx", "__pycache__", "lost+found", "$recycle.bin", "thumbs.db",
    "system volume information", "ehthumbs.db", "desktop.ini", "icon\r",
))
# fmt: on
_RUN_FOLDERS = frozenset(("runs", "wandb", "lightning_logs", "mlruns", "checkpoints"))


class Skipped(NamedTuple):
    """A file or folder that is left out.

    Attributes:
        path: Path relative to the folder that was listed.
        reason: ``system``: hidden, or written by a system or a tool; ``text``: no image; ``format``: perhaps an image
            or a video, but of a format that is not read; ``link``: a link to a folder that is listed already;
            ``folder``: a folder that is not searched.
    """

    path: str
    reason: str


class Listing(NamedTuple):
    """The content of a folder.

    Attributes:
        folder: The folder.
        images: Paths of the image files relative to it, with ``/``, sorted.
        skipped: What is left out, sorted.
    """

    folder: Path
    images: list[str]
    skipped: list[Skipped]

    def paths(self) -> list[Path]:
        """Return the image files with their folder."""
        return [self.folder / name for name in self.images]


def is_system(name: str) -> bool:
    """Return whether a file or folder is hidden, or written by a system or a tool.

    >>> is_system("._a.jpg"), is_system("@eaDir"), is_system("Thumbs.db"), is_system("cat")
    (True, True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def is_image(name: str) -> bool:
    """Return whether a file has the suffix of an image and is no file of a system."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_system(name)


def list_folder(folder: str | Path, recursive: bool = True) -> Listing:
    """List the image files in a folder by their suffix; no file is opened.

    Links to folders are followed. A folder that several links lead to is listed once, so that no image counts twice
    and no circle of links is endless.

    Args:
        folder: The folder.
        recursive: Whether to include the folders in it.
    """
    images: list[str] = []
    skipped: list[Skipped] = []
    visited: set[tuple[int, int]] = set()
    folders: list[str] = [""]
    links: list[str] = []  # followed last: a folder that is listed anyway keeps its own path
    while folders or links:
        links.sort(reverse=True)
        below = folders.pop() if folders else links.pop()
        if (identity := _identity(os.path.join(folder, below))) in visited:  # noqa: PTH118 - a million times
            skipped.append(Skipped(f"{below}/", "link"))
            continue
        visited.add(identity)
        for name, is_folder, is_link in _entries(os.path.join(folder, below)):  # noqa: PTH118
            path = f"{below}/{name}" if below else name
            if is_system(name):
                skipped.append(Skipped(path + "/" * is_folder, "system"))
            elif is_folder and not recursive:
                skipped.append(Skipped(f"{path}/", "folder"))
            elif is_folder:
                (links if is_link else folders).append(path)
            elif name.lower().endswith(IMAGE_SUFFIXES):
                images.append(path)
            else:
                suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
                skipped.append(Skipped(path, "text" if suffix in _TEXT_SUFFIXES else "format"))
    # by folder, as paths are sorted: "a/1.png" is before "a-b/1.png"
    return Listing(Path(folder), sorted(images, key=lambda path: path.split("/")), sorted(skipped))


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _entries(folder: str | Path) -> Iterator[tuple[str, bool, bool]]:
    """Yield name, whether it is a folder, and whether it is a link, of each entry."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name, entry.is_dir(), entry.is_symlink()


def is_run_folder(name: str) -> bool:
    """Return whether a folder has the name of a folder of training runs, in any case.

    >>> is_run_folder("runs"), is_run_folder("running")
    (True, False)
    """
    return name.lower() in _RUN_FOLDERS


def list_images(folder: str | Path) -> list[Path]:
    """List the image files below a folder, sorted; see `list_folder`."""
    return list_folder(folder).paths()


def find_images(images: str | Path) -> list[Path]:
    """Find the image files that a file, folder or glob pattern names.

    Args:
        images: A file, a folder (searched recursively) or a glob pattern (``**`` allowed).

    Returns:
        The files, sorted. A single file is returned with any suffix.

    Raises:
        FileNotFoundError: There are none.
    """
    path = Path(images).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        if not (files := list_images(path)):
            raise FileNotFoundError(
                f"images: no image files in the folder {str(path)!r} or below; supported: {SUPPORTED}"
            )
        return files
    matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = sorted(Path(match) for match in matches if Path(match).is_file())
    if not files:
        raise FileNotFoundError(f"images: no such file or folder, and no matches as a glob, got {str(images)!r}")
    return files
