"""A corrected copy of a data set in YOLO's format."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from .fixes import Log, excluded, link, list_excluded

if TYPE_CHECKING:
    from .collecting import Report
_PIXELS = 2.0  # numbers beyond are pixels, and not parts of the image


def label_of(path: str) -> str:
    """The label file of an image: in ``labels`` in place of the last ``images`` on its path, or beside it.

    >>> label_of("/data/pets/images/train/a.jpg")
    '/data/pets/labels/train/a.txt'
    """
    folder, _, name = path.rpartition("/")
    parts = folder.split("/")
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return "/".join([*parts, name.rpartition(".")[0] + ".txt"])


def label_files(data: Any, images: Iterable[str]) -> set[str]:
    """The label files that belong to images, whether they are there or not."""
    return {label_of(path) for path in images}


def fix_yolo(report: "Report", folder: Path, log: Log) -> dict[str, Any] | None:
    """``FOLDER/data.yaml``, lists of images, corrected ``labels``, and ``images`` linked."""
    content: Any = report.data.content  # type: ignore[attr-defined]
    root, names = Path(os.path.abspath(content.root)), list(content.class_names)  # noqa: PTH100
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
                _write_labels(Path(label_of(path)), Path(label_of(str(folder / inner))), len(names), with_masks, log)
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
            action = "dropped" if text is None else "corners put in order"
            log.add(file, f"line {number}", code, action, line.strip()[:80])
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
        label, numbers = float(words[0]), np.array([float(word) for word in words[1:]])
    except ValueError:
        return "unusable-annotation", None
    if len(numbers) < 4 or (len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2)):
        return "unusable-annotation", None
    if not label.is_integer() or not 0 <= label < classes:
        return "label-outside", None
    if not np.isfinite(numbers).all():
        return "box-not-finite", None
    if with_masks and len(numbers) == 4:
        return "bad-mask", None
    if np.abs(numbers).max() > _PIXELS:
        return "unusable-annotation", None
    code, text = "", " ".join(words)
    if len(numbers) == 4:
        if (numbers[2:] < 0).any():
            code, text = "box-inverted", " ".join([*words[:3], *(word.lstrip("-") for word in words[3:])])
        centre, half = numbers[:2], np.abs(numbers[2:]) / 2
        corners = np.concatenate([centre - half, centre + half])
    else:
        corners = np.concatenate([numbers.reshape(-1, 2).min(axis=0), numbers.reshape(-1, 2).max(axis=0)])
    if (corners[2:] <= corners[:2]).any():
        return "box-zero-area", None
    inside = np.clip(corners, 0, 1)
    if (inside[2:] - inside[:2] < 1e-6).any():
        return "box-outside", None
    return code, text
