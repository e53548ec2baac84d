"""Writing a corrected copy of a data set, with a log of each change."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..annotations.fault_kinds import KINDS
from ..base import VisionDataModule
from .collecting import Report
from .fix_any import fix_any
from .fixes import Change, Fixer, Log
from .formats import format_of


@dataclass
class Fix:
    """A corrected copy.

    Attributes:
        folder: where it is.
        log: what was changed, and what was not.
        init_args: arguments of the data module with which it reads the copy; None: it cannot.
        class_path: the data module that reads it.
    """

    folder: Path
    log: Log
    init_args: dict[str, Any] | None
    class_path: str


def write_fix(report: Report, folder: str | Path) -> Fix:
    """Write a corrected copy of the annotations of a data set that was checked, and a log of each change.

    Args:
        report: of the whole set.
        folder: new or empty, and not within the data set.

    Raises:
        FileExistsError: for a folder with something in it.
        ValueError: for a folder within the data set, or a check that was interrupted.
    """
    if report.interrupted:
        raise ValueError("the check was interrupted: a corrected copy is written from a complete one")
    folder = Path(folder)
    check_folder(report.data, folder)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    log, known = Log(), format_of(report.data)
    fixer: Fixer = known.fix if known is not None and known.fix is not None else fix_any
    init_args = fixer(report, folder, log)
    class_path = f"{type(report.data).__module__}.{type(report.data).__qualname__}"
    if class_path.startswith("striate.datamodules."):
        class_path = f"striate.datamodules.{type(report.data).__name__}"
    if init_args is not None:
        class_path = init_args.pop("class_path", class_path)
    for code in report.findings.codes():
        count = report.findings.counts[code]
        if not KINDS[code].fixed and KINDS[code].severity != "note":
            log.left.append(f"{KINDS[code].title} ({count:,}): {KINDS[code].advice}")
    fix = Fix(folder, log, init_args, class_path)
    _write_log(fix)
    return fix


def check_folder(data: VisionDataModule, folder: Path) -> None:
    """Raise where a corrected copy must not go; see `write_fix`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"--fix {folder}: there is something already; name a new folder")
    root = getattr(data, "root", None)
    if isinstance(root, str | Path) and Path(root).is_dir():
        inside = Path(root).resolve()
        if folder.resolve().is_relative_to(inside):
            raise ValueError(
                f"--fix {folder}: lies in the data set ({inside}); name a folder outside, to leave that as it is"
            )


def _write_log(fix: Fix) -> None:
    with (fix.folder / "fixes.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(Change._fields)
        rows.writerows(fix.log.changes)
    lines = ["# What was corrected", ""]
    for (kind, action), count in fix.log.counts().most_common():
        lines.append(f"- {KINDS[kind].title}: {count:,} {action}")
    if not fix.log.changes:
        lines.append("Nothing had to be." if fix.init_args is not None else "Nothing: there is no corrected copy.")
    lines += ["", "`fixes.csv` has each change with its file and place. The originals are as they were."]
    if fix.log.left:
        lines += ["", "# What is left to you", "", *(f"- {text}" for text in fix.log.left)]
    (fix.folder / "FIXES.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if fix.init_args is not None:
        section = {"data": {"class_path": fix.class_path, "init_args": fix.init_args}}
        text = "# Reads the corrected copy: give it behind your own, --config YOURS --config THIS\n"
        text += yaml.safe_dump(section, sort_keys=False, allow_unicode=True)
        (fix.folder / "fixed.yaml").write_text(text, encoding="utf-8")
