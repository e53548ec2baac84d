"""Corrected copies of data sets that are folders: links to the files that are sound, and lists."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .fix_any import fix_any
from .fixes import Log, excluded, link, list_excluded, log_excluded, write_rows

if TYPE_CHECKING:
    from .collecting import Report


def fix_class_folders(report: "Report", folder: Path, log: Log) -> dict[str, Any] | None:
    """The tree of class folders, with links; ``manifest_SPLIT.csv`` (path, label); ``excluded.csv``."""
    left_out = excluded(report, log)
    root = Path(os.path.abspath(report.data.root))  # type: ignore[attr-defined]  # noqa: PTH100
    names = report.data.class_names
    for record in report.records:
        labels, rows = record.labels(), []
        for index, path in enumerate(record.paths):
            if path is not None and path not in left_out[record.name]:
                inner = _link_below(path, root, folder)
                label = int(report.sources[record.name].labels[index]) if labels is None else int(labels[index])  # type: ignore[attr-defined]
                rows.append((inner, names[label] if 0 <= label < len(names) else ""))
        write_rows(folder / f"manifest_{record.name}.csv", ("path", "label"), rows)
    list_excluded(folder, left_out)
    log_excluded(left_out, root, log)
    return {"root": str(folder)}


def fix_mask_folders(report: "Report", folder: Path, log: Log) -> dict[str, Any] | None:
    """The tree of images and masks, with links; ``manifest_SPLIT.csv`` (image, mask); ``excluded.csv``."""
    left_out = excluded(report, log)
    root = Path(os.path.abspath(report.data.root))  # type: ignore[attr-defined]  # noqa: PTH100
    for record in report.records:
        source: Any = report.sources[record.name]
        rows = []
        for index, path in enumerate(record.paths):
            if path is not None and path not in left_out[record.name]:
                mask = os.path.abspath(root / os.fsdecode(source.masks[index]))  # noqa: PTH100
                rows.append((_link_below(path, root, folder), _link_below(mask, root, folder)))
        write_rows(folder / f"manifest_{record.name}.csv", ("image", "mask"), rows)
    list_excluded(folder, left_out)
    log_excluded(left_out, root, log)
    return {"root": str(folder)}


def fix_image_trees(report: "Report", folder: Path, log: Log) -> dict[str, Any] | None:
    """The whole tree, with links, without the images that are to be left out."""
    data: Any = report.data
    if getattr(data, "class_file", None) is not None:  # it may name images that would be gone
        return fix_any(report, folder, log)
    left_out = excluded(report, log)
    gone = {path for own in left_out.values() for path in own}
    for path in _files_below(os.path.abspath(data.root)):  # noqa: PTH100
        if path not in gone:
            _link_below(path, Path(os.path.abspath(data.root)), folder)  # noqa: PTH100
    list_excluded(folder, left_out)
    log_excluded(left_out, data.root, log)
    return {"root": str(folder)}


def _files_below(folder: str) -> Iterator[str]:
    """All files of a tree, through links to folders too."""
    for base, _, names in os.walk(folder, followlinks=True):
        yield from (os.path.join(base, name) for name in names)  # noqa: PTH118 - a hundred thousand times


def _link_below(path: str, root: Path, folder: Path) -> str:
    """Link a file to the same place below `folder`, and say which that is."""
    inner = os.path.relpath(path, root)
    if not (folder / inner).exists():
        link(path, folder / inner)
    return inner
