"""A corrected copy of a data set in YOLO's format."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ..yolo_labels import SLIVER, corners_of_label, label_path, mistake
from .faults import code_of
from .findings import judge
from .fixes import ACTIONS, Log, excluded, link, list_excluded

if TYPE_CHECKING:
    from .collecting import Report


def label_files(data: Any, images: Iterable[str]) -> set[str]:
    """The label files that belong to images, whether they are there or not."""
    root = _root(data)
    return {label_path(root, os.path.relpath(path, root)) for path in images}


def _root(data: Any) -> str:
    return os.path.abspath(data.content.root)  # noqa: PTH100 - a link stays one


def fix_yolo(report: "Report", folder: Path, log: Log) -> dict[str, Any] | None:
    """``FOLDER/data.yaml``, lists of images, corrected ``labels``, and ``images`` linked."""
    content: Any = report.data.content  # type: ignore[attr-defined]
    root, names = _root(report.data), list(content.class_names)
    left_out = excluded(report, log)
    with_masks = getattr(report.data, "task", "detection") != "detection"
    described: dict[str, Any] = {"path": ".", "names": dict(enumerate(names)), "nc": len(names)}
    for record in report.records:
        listed = []
        for path in dict.fromkeys(path for path in record.paths if path is not None):
            if why := left_out[record.name].get(path):
                log.add(path, "the image", why.kind, "left out, with its objects", why.reason)
                continue
            # below `images`, so that its labels go below `labels`, wherever they were before
            inner = os.path.relpath(path, root)
            inner = inner if "images" in Path(inner).parts[:-1] else f"images/{inner}"
            listed.append(f"./{inner}")
            if not (folder / inner).exists():
                link(path, folder / inner)
                own, copy = label_path(root, os.path.relpath(path, root)), label_path(str(folder), inner)
                _write_labels(Path(own), Path(copy), len(names), with_masks, log)
        (folder / f"{record.name}.txt").write_text("".join(f"{name}\n" for name in listed), encoding="utf-8")
        described[record.name] = f"{record.name}.txt"
    described |= {split: described[other] for split, other in report.aliases.items() if split in content.splits}
    (folder / "data.yaml").write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8")
    list_excluded(folder, left_out)
    return {"root": str(folder / "data.yaml")}


def _write_labels(file: Path, copy: Path, classes: int, with_masks: bool, log: Log) -> None:
    if not file.is_file():
        return
    kept, seen = [], set()
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        code, text = mend_line(line, classes, with_masks)
        if text is not None and text in seen:
            code, text = "duplicate-object", None
        if code:
            log.add(file, f"line {number}", code, "dropped" if text is None else ACTIONS[code], line.strip()[:80])
        if text is not None:
            kept.append(text)
            seen.add(text)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def mend_line(line: str, classes: int, with_masks: bool = False) -> tuple[str, str | None]:
    """What is wrong with a line of a label file, as a code or nothing, and the line put right; None: drop it.

    With masks, a box alone is of no use.

    >>> mend_line("0 0.5 0.5 -0.2 0.1", 3)
    ('box-inverted', '0 0.5 0.5 0.2 0.1')
    >>> mend_line("7 0.5 0.5 0.2 0.1", 3)
    ('label-outside', None)
    """
    words = line.split()
    try:
        label, *numbers = (float(word) for word in words)
    except ValueError:
        return "unusable-annotation", None
    if not label.is_integer() or not 0 <= label < classes:
        return "label-outside", None
    if len(words) % 2 == 0 or len(words) == 1:
        return "unusable-annotation", None
    if wrong := mistake(numbers, with_masks):
        return code_of(wrong), None
    corners, whole = np.array([corners_of_label(numbers)]), np.ones((1, 2))
    code, text = str(judge(corners, whole)[0]), " ".join(words)
    if code == "box-inverted":
        text = " ".join([*words[:3], *(word.lstrip("-") for word in words[3:])])
        corners = np.array([corners_of_label([float(word) for word in text.split()[1:]])])
        if str(judge(corners, whole)[0]) not in ("", "box-beyond"):
            return code, None
    elif code not in ("", "box-beyond"):
        return code, None
    inside = np.clip(corners[0], 0, 1)
    if code == "box-beyond" and len(numbers) == 4:
        sides = [*(inside[:2] + inside[2:]) / 2, *(inside[2:] - inside[:2])]
        text = " ".join([words[0], *(f"{side:.8g}" for side in sides)])
    if (inside[2:] - inside[:2] < SLIVER).any():
        return code if code == "box-inverted" else "box-outside", None
    return code, text
