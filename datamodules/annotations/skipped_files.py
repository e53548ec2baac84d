"""Counts and names the files that the readers of folders leave out."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePath

from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..images.listing import Listing, list_folder
from .annotation_errors import Fault, record, recording

_REASONS = {
    "system": "hidden, or written by a system or a tool",
    "text": "not an image",
    "link": "a link to a folder that is listed already",
    "run": "a folder of training runs",
    "folder": "a folder, which is not searched",
}


def report_skipped(listings: Iterable[Listing], labels_beside: bool = False) -> None:
    """Report the files that listings leave out: each to ``striate data check``, else one warning of possible images.

    Args:
        listings: What the folders contain; see `list_folder`.
        labels_beside: Whether text files beside the images are read as labels.
    """
    unread: Counter[str] = Counter()
    first, total = "", 0
    for listing in listings:
        total += len(listing.images) + len(listing.skipped)
        for path, reason in listing.skipped:
            if reason == "run" and not recording():
                _warn_of_run(listing.folder / path)
            if reason in ("format", "outside"):
                suffix = PurePath(path).suffix.lower()
                unread["images outside the class folders" if reason == "outside" else suffix or "no suffix"] += 1
                first = first or str(listing.folder / path)
        if recording():
            _record(listing, labels_beside)
    if unread and not recording():
        count = sum(unread.values())
        kinds = ", ".join(f"{number} x {suffix}" for suffix, number in unread.most_common(5))
        rank_zero_warn(
            f"{count} of {total} files left out ({kinds}; first: {first}): convert images to JPEG or PNG and move "
            "others away; run striate data check to list all of them"
        )


def _warn_of_run(folder: Path) -> None:
    """Warn of a folder of training runs with images directly in it, as a class has."""
    if count := len(list_folder(folder, recursive=False).images):
        rank_zero_warn(
            f"{count} images left out (the name of {folder} is that of training runs): if it is a class, name all "
            "classes in class_names; otherwise move it away"
        )


def _record(listing: Listing, labels_beside: bool) -> None:
    for reason in ("format", "outside", *_REASONS):
        paths = [path for path, why in listing.skipped if why == reason]
        if not paths or (reason == "text" and labels_beside):
            continue
        if reason == "format":
            for suffix in sorted({PurePath(path).suffix.lower() for path in paths}):
                group = [path for path in paths if PurePath(path).suffix.lower() == suffix]
                found = f"a file of the format {suffix}" if suffix else "a file without suffix"
                record(Fault("unread-file", listing.folder, group, "file", found))
        elif reason == "outside":
            record(Fault("unread-file", listing.folder, paths, "file", "an image outside the class folders"))
        else:
            record(Fault("skipped-file", listing.folder, paths, "file", _REASONS[reason]))
