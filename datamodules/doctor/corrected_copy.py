"""Writes a corrected copy of a data set, with a log of each change."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..annotations.annotation_table import write_csv
from ..annotations.fault_kinds import KINDS
from ..base import VisionDataModule
from .format_fixers import FIXERS, fix_samples
from .formats import format_name
from .repair import Change, Exclusions, RepairLog, find_exclusions
from .report import Report


@dataclass
class Fix:
    """A corrected copy.

    Attributes:
        folder: Its folder.
        log: What was changed, and what was not.
        init_args: Arguments with which the data module reads the copy; None: there is no copy to read.
        class_path: The data module that reads it.
    """

    folder: Path
    log: RepairLog
    init_args: dict[str, Any] | None
    class_path: str


def write_fix(report: Report, folder: str | Path) -> Fix:
    """Write a corrected copy of the annotations of a checked data set, and a log of each change.

    Args:
        report: Report on the whole data set.
        folder: New or empty folder outside the data set.

    Raises:
        FileExistsError: For a folder that is not empty.
        ValueError: For a folder within the data set, or an interrupted check.
    """
    if report.interrupted:
        raise ValueError("report: the check was interrupted; write a corrected copy from a complete one")
    folder = Path(folder)
    check_folder(report.data, folder)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    log = RepairLog()
    exclusions = find_exclusions(report, log)
    init_args = FIXERS.get(format_name(report.data) or "", fix_samples)(report, exclusions, folder, log)
    cls = type(report.data)
    class_path = f"{cls.__module__}.{cls.__qualname__}"
    if class_path.startswith("striate.datamodules."):
        class_path = f"striate.datamodules.{cls.__name__}"
    if init_args is not None:
        class_path = init_args.pop("class_path", class_path)
    for code in report.findings.codes():
        kind = KINDS[code]
        if not kind.fixed and kind.severity != "note":
            log.remaining.append(f"{kind.title} ({report.findings.counts[code]:,}): {kind.advice}")
    fix = Fix(folder, log, init_args, class_path)
    _write_log(fix, exclusions)
    return fix


def check_folder(data: VisionDataModule, folder: Path) -> None:
    """Raise an error for a folder that a corrected copy must not be written to; see `write_fix`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"folder: must be new or empty, got {str(folder)!r}")
    root = getattr(data, "root", None)
    if isinstance(root, str | Path) and Path(root).is_dir():
        inside = Path(root).resolve()
        if folder.resolve().is_relative_to(inside):
            raise ValueError(f"folder: must be outside the data set ({inside}), got {str(folder)!r}")


def _write_log(fix: Fix, exclusions: Exclusions) -> None:
    write_csv(fix.folder / "fixes.csv", Change._fields, list(fix.log.changes))
    rows = [(split, path, *reason) for split, reasons in exclusions.items() for path, reason in reasons.items()]
    write_csv(fix.folder / "excluded.csv", ("split", "path", "kind", "reason"), rows)
    lines = ["# Corrections", ""]
    for (kind, action), count in fix.log.counts().most_common():
        lines.append(f"- {KINDS[kind].title}: {count:,} {action}")
    if not fix.log.changes:
        lines.append("None were needed." if fix.init_args is not None else "None: there is no corrected copy.")
    lines += ["", "`fixes.csv` lists each change with its file and location. The originals are unchanged."]
    if fix.log.remaining:
        lines += ["", "# Left to you", "", *(f"- {text}" for text in fix.log.remaining)]
    (fix.folder / "FIXES.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if fix.init_args is not None:
        section = {"data": {"class_path": fix.class_path, "init_args": fix.init_args}}
        text = "# Reads the corrected copy. Pass it after your own configuration: --config YOURS --config THIS\n"
        text += yaml.safe_dump(section, sort_keys=False, allow_unicode=True)
        (fix.folder / "fixed.yaml").write_text(text, encoding="utf-8")
