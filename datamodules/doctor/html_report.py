"""The report as one self-contained page with pictures and charts, and as a table."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader

from ..annotations.annotation_table import write_csv
from ..annotations.fault_kinds import KINDS
from ..images.bit_depth import ReadOptions
from ..images.decoder_warnings import quiet_decoders
from ..images.read import read_image
from .charts import class_bars, histogram, recall_curves
from .findings import BoxRow, Finding, box_rows
from .formatting import split_table, strip_root, verdict
from .pictures import data_uri, overlay, thumbnail
from .report import Report
from .statistics import Statistics

MAX_PICTURES = 12  # of a kind
MAX_ROWS = 200  # of a kind, on the page; the table beside it has all findings that are kept


def write_html(report: Report, file: str | Path) -> Path:
    """Write the page, and beside it, with the same name, a CSV table of all findings.

    Args:
        report: The report.
        file: The page; its folder is created.

    Returns:
        The path of the table.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    table = file.with_suffix(".csv")
    rows_of_findings = [
        (KINDS[one.code].severity, one.code, one.split, one.location, one.detail, one.image, one.index)
        for one in report.findings
    ]
    write_csv(table, ("severity", "kind", "split", "location", "detail", "image", "sample"), rows_of_findings)
    gallery = _Gallery(report)
    with quiet_decoders():
        sections = [_section(report, code, gallery) for code in report.findings.codes()]
    bars, charts = _charts(report.statistics)
    page = (
        Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
        .get_template("report.html")
        .render(
            report=report,
            verdict=verdict(report),
            worst="error" if report.findings.total("error") else "warning" if not report.clean else "clean",
            splits=split_table(report.statistics),
            sections=sections,
            bars=bars,
            charts=charts,
            table=table.name,
            max_rows=MAX_ROWS,
        )
    )
    file.write_text(page, encoding="utf-8")
    return table


def _section(report: Report, code: str, gallery: "_Gallery") -> dict[str, Any]:
    """The findings of a kind, as the template shows them."""
    findings = report.findings.of(code)
    root = report.root if code != "unopened-split" else None  # the root itself may be wrong
    rows = [(one.split, strip_root(one.location, root), strip_root(one.detail, root)) for one in findings[:MAX_ROWS]]
    count = report.findings.counts[code]
    return {"code": code, "kind": KINDS[code], "count": count, "figures": gallery.of(findings), "rows": rows}


class _Figure(NamedTuple):
    """The picture or the two pictures of findings in one sample: URI, width and height of each; and the caption."""

    pictures: list[tuple[str, int, int]]
    splits: str
    name: str
    detail: str


class _Gallery:
    """Pictures of samples, which are read again."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.records = {record.name: record for record in report.records}

    def of(self, findings: Sequence[Finding]) -> list[_Figure]:
        """Show the first findings that have a picture; findings in one image share it."""
        groups: dict[tuple[object, ...], list[Finding]] = {}
        for finding in findings:
            key = (finding.split, finding.image if finding.image is not None else finding.index, finding.other)
            if key in groups or len(groups) < 4 * MAX_PICTURES:
                groups.setdefault(key, []).append(finding)
        figures = (self._figure(group) for group in groups.values())
        return list(itertools.islice((figure for figure in figures if figure.pictures), MAX_PICTURES))

    def _figure(self, findings: list[Finding]) -> _Figure:
        """The figure of findings in one sample, or in one pair; without pictures if no image can be read."""
        one = findings[0]
        boxes = [box for finding in findings for box in finding.boxes]
        masks: list[BoxRow] = []
        if one.code == "mask-box":  # pairs of a box and that of its mask
            boxes, masks = boxes[::2], boxes[1::2]
        images = [self._picture(one.split, one.index, one.image, boxes, masks)]
        if one.other is not None:
            images.append(self._picture(*one.other, None))
        name = strip_root(one.image or f"sample {one.index}", self.report.root)
        splits = f"{one.split} | {one.other[0]}" if one.other else one.split
        detail = strip_root(one.detail, self.report.root)
        detail += f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        pictures = [(data_uri(image), image.shape[1], image.shape[0]) for image in images if image is not None]
        return _Figure(pictures, splits, name, detail)

    def _picture(
        self,
        split: str,
        index: int | None,
        path: str | None,
        boxes: Sequence[BoxRow] = (),
        masks: Sequence[BoxRow] = (),
    ) -> np.ndarray | None:
        """A thumbnail ``[h, w, 3]``; None if the image cannot be read."""
        record = self.records.get(split)
        if record is not None and index is None and boxes and path in record.paths:
            index = record.paths.index(path)
        try:
            if record is not None and index is not None:
                table = record.objects()
                valid = box_rows(table.boxes[(table.image == index) & np.isfinite(table.boxes).all(axis=1)])
                raw = self.report.sources[split][index]
                image = np.asarray(raw["image"])
                if "mask" in raw and raw["mask"].shape == image.shape[:2]:
                    image = overlay(image, np.asarray(raw["mask"], np.uint8))
                return thumbnail(image, boxes, [box for box in valid if box not in boxes], masks)
        except Exception:  # the image of a sample that its source rejects may still be readable
            pass
        try:
            return thumbnail(read_image(path, options=ReadOptions("percentile", 0)), boxes) if path else None
        except Exception:
            return None


def _charts(statistics: Statistics) -> tuple[list[str], list[str]]:
    """The charts of the classes, which may be tall, and the others; a chart without values is empty."""
    splits, kind = [split for split in statistics.splits if split.readable], statistics.kind
    if not splits:
        return [], []
    bars = []
    if kind in ("labels", "boxes", "pixels"):
        unit = {"boxes": "objects", "labels": "images", "pixels": "pixels"}[kind]
        bars.append(class_bars(statistics.class_names, [(s.name, s.counts) for s in splits], unit))
    if kind in ("boxes", "pixels"):  # one class may have most of the objects, or of the pixels
        bars.append(class_bars(statistics.class_names, [(s.name, s.images_with) for s in splits], "images with it"))
    sizes = [(s.name, np.sqrt(s.widths.astype(np.float64) * s.heights)) for s in splits]
    shapes = [(s.name, s.widths / np.maximum(s.heights, 1)) for s in splits]
    charts = [
        histogram(sizes, "Size of images", "square root of width x height, pixels"),
        histogram(shapes, "Shape of images", "width / height", log=True),
    ]
    if kind == "boxes":
        sides = [(s.name, s.box_sides) for s in splits]
        ratios = [(s.name, s.box_widths / np.maximum(s.box_heights, 1e-6)) for s in splits]
        charts += [
            histogram([(s.name, s.per_image) for s in splits], "Objects per image", "objects", whole=True),
            histogram(sides, "Size of objects", "square root of the area, pixels", log=True),
            histogram(ratios, "Shape of objects", "width / height", log=True),
        ]
    return bars, [*charts, recall_curves(statistics.proposals)]
