"""A corrected copy of a data set in YOLO's format."""

import codecs
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ..annotations.validity import box_faults
from ..yolo.labels import (
    SLIVER,
    UNKNOWN_SIZE,
    Defect,
    corners_of_label,
    label_defect,
    label_path,
    parse_label,
    pixels_of,
)
from .fixes import ACTIONS, Log, excluded, link, list_excluded

if TYPE_CHECKING:
    from .collecting import Report
_SIDES = np.array([[-1, 0], [0, -1], [1, 0], [0, 1]])  # corners @ this: width and height


def yolo_notes(data: Any, split: str, images: Sequence[str]) -> Iterator[str]:
    """How many images have no label file, which may be meant or not."""
    root = _root(data)
    bare = [path for path in images if not Path(label_path(root, os.path.relpath(path, root))).is_file()]
    if bare:
        yield (
            f"{split}: {len(bare):,} of {len(images):,} images have no label file, and count as images without "
            f"objects; the first: {os.path.relpath(bare[0], root)}"
        )


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
        sizes = dict(zip(record.paths, map(tuple, record.sizes.tolist()), strict=True))
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
                _write_labels(Path(own), Path(copy), len(names), with_masks, log, sizes[path])
        (folder / f"{record.name}.txt").write_text("".join(f"{name}\n" for name in listed), encoding="utf-8")
        described[record.name] = f"{record.name}.txt"
    described |= {split: described[other] for split, other in report.aliases.items() if split in content.splits}
    (folder / "data.yaml").write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8")
    list_excluded(folder, left_out)
    return {"root": str(folder / "data.yaml")}


def _write_labels(
    file: Path, copy: Path, classes: int, with_masks: bool, log: Log, size: tuple[int, int] = UNKNOWN_SIZE
) -> None:
    if not file.is_file():
        return
    kept, seen = [], set()
    # bytes, without a byte order mark, are what the reader splits into lines
    for number, raw in enumerate(file.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if not (line := raw.decode(errors="replace")).strip():
            continue
        code, text = mend_line(line, classes, with_masks, size)
        if text is not None and text in seen:
            code, text = "duplicate-object", None
        if code:
            log.add(file, f"line {number}", code, "dropped" if text is None else ACTIONS[code], line.strip()[:80])
        if text is not None:
            kept.append(text)
            seen.add(text)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def mend_line(
    line: str, classes: int, with_masks: bool = False, size: tuple[int, int] = UNKNOWN_SIZE
) -> tuple[str, str | None]:
    """What is wrong with a line of a label file, as a code or nothing, and the line put right; None: drop it.

    Args:
        line: as it is written.
        classes: how many there are.
        with_masks: masks are asked for, and a box alone is of no use.
        size: width and height of the image, pixels: what reaches beyond it by less than one is left as it is.

    >>> mend_line("0 0.5 0.5 -0.2 0.1", 3)
    ('box-inverted', '0 0.5 0.5 0.2 0.1')
    >>> mend_line("7 0.5 0.5 0.2 0.1", 3)
    ('label-outside', None)
    >>> mend_line("0 0.875 0.5 0.5 0.5", 3)
    ('box-beyond', '0 0.8125 0.5 0.375 0.5')
    """
    words = line.split()
    parsed = parse_label(words, classes)
    if isinstance(parsed, Defect):
        return parsed.code, None
    numbers = parsed[1]
    if defect := label_defect(numbers, with_masks):
        return defect.code, None
    corners, whole, pixel = np.array([corners_of_label(numbers)]), np.ones((1, 2)), pixels_of([size])
    code, text = str(box_faults(corners, whole, pixel)[0]), " ".join(words)
    if code == "box-inverted":
        text = " ".join([*words[:3], *(word.lstrip("-") for word in words[3:])])
        numbers = [float(word) for word in text.split()[1:]]
        corners = np.array([corners_of_label(numbers)])
    if (after := str(box_faults(corners, whole, pixel)[0])) not in ("", "box-beyond"):
        return code, None
    if (np.clip(corners, 0, 1) @ _SIDES < SLIVER).any():
        return code if code == "box-inverted" else "box-outside", None
    if after == "box-beyond":
        text = " ".join([words[0], *(f"{number:.8g}" for number in _clipped(numbers))])
    return code, text


def _clipped(numbers: Sequence[float]) -> list[float]:
    """A box or a polygon of a label without what lies beyond the image."""
    if len(numbers) != 4:
        return clip_polygon(np.reshape(numbers, (-1, 2))).ravel().tolist()
    x1, y1, x2, y2 = np.clip(corners_of_label(numbers), 0, 1).tolist()
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]


def clip_polygon(points: np.ndarray) -> np.ndarray:
    """The part of a polygon within the unit square, side by side of it.

    Where the polygon is concave, parts of the result may hang together by an edge along the border, which covers
    nothing.

    Shape:
        - points: ``[N, 2]``.
        - Output: ``[M, 2]``.

    Reference: Sutherland and Hodgman, "Reentrant Polygon Clipping", Communications of the ACM 17 (1), 1974.
    """
    for axis, limit, sign in ((0, 0.0, 1), (0, 1.0, -1), (1, 0.0, 1), (1, 1.0, -1)):
        inside = sign * (points[:, axis] - limit) >= 0
        kept: list[np.ndarray] = []
        for number, (point, within) in enumerate(zip(points, inside, strict=True)):
            before = points[number - 1]
            if within != inside[number - 1]:
                share = (limit - before[axis]) / (point[axis] - before[axis])
                crossing = before + share * (point - before)
                crossing[axis] = limit
                kept.append(crossing)
            if within:
                kept.append(point)
        points = np.array(kept).reshape(-1, 2)
    return points
