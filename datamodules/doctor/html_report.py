"""The report as one self-contained page with pictures and charts, and as a table."""

import csv
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from ..annotations.fault_kinds import KINDS
from ..images.bit_depth import ReadOptions
from ..images.read import read_image
from .charts import class_bars, histogram
from .findings import BoxRow, Finding, box_rows
from .formatting import pluralize, split_table, strip_root, verdict
from .pictures import data_uri, overlay, thumbnail
from .reading import quiet_decoders
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
    with table.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("severity", "kind", "split", "location", "detail", "image", "sample"))
        for one in report.findings:
            row = (KINDS[one.code].severity, one.code, one.split, one.location, one.detail, one.image, one.index)
            writer.writerow(["" if cell is None else cell for cell in row])
    headings, *rows = split_table(report.statistics)
    body = [_head(report), _table(headings, rows, "splits")]
    if report.notes:
        body.append("<ul class='notes'>" + "".join(f"<li>{escape(note)}</li>" for note in report.notes) + "</ul>")
    if report.findings.counts:
        body.append("<h2>Findings</h2>")
        gallery = _Gallery(report)
        with quiet_decoders():
            body += [_kind_section(report, code, gallery, table.name) for code in report.findings.codes()]
    body += [_suggestions(report.statistics), _charts(report.statistics)]
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    page = template.substitute(title=escape(f"Data check: {report.name}"), body="\n".join(body))
    file.write_text(page, encoding="utf-8")
    return table


def _head(report: Report) -> str:
    worst = "error" if report.findings.total("error") else "warning" if not report.clean else "clean"
    chips = "".join(
        f'<a class="chip {KINDS[code].severity}" href="#{code}">'
        f"{escape(KINDS[code].title)}: {report.findings.counts[code]:,}</a>"
        for code in report.findings.codes()
    )
    return (
        f"<header><h1>{escape(report.name)}</h1><p class='verdict {worst}'>{escape(verdict(report))}</p>"
        f"<nav>{chips}</nav></header>"
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], css_class: str) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<table class="{css_class}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _kind_section(report: Report, code: str, gallery: "_Gallery", table: str) -> str:
    kind, findings, count = KINDS[code], report.findings.of(code), report.findings.counts[code]
    root = report.root if code != "unopened-split" else None  # the root itself may be wrong
    rows = [(one.split, strip_root(one.location, root), strip_root(one.detail, root)) for one in findings[:MAX_ROWS]]
    more = f"<p class='dim'>The first {MAX_ROWS} of {count:,}; {escape(table)} has more.</p>" * (count > MAX_ROWS)
    fixed = f"<p class='dim'>--fix: {escape(kind.fixed)}.</p>" if kind.fixed else ""
    return (
        f'<section id="{code}"><h3><span class="chip {kind.severity}">{kind.severity}</span> '
        f"{escape(kind.title)}: {count:,} <code>{code}</code></h3><p>{escape(kind.advice)}</p>{fixed}"
        f"{gallery.of(findings)}<details{' open' if count <= 10 else ''}>"
        f"<summary>{pluralize(min(count, MAX_ROWS), 'location')}</summary>"
        f"{_table(('split', 'location', 'detail'), rows, 'findings')}{more}</details></section>"
    )


class _Gallery:
    """Pictures of samples, which are read again."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.records = {record.name: record for record in report.records}

    def of(self, findings: Sequence[Finding]) -> str:
        """Show the first findings that have a picture; findings in one image share it."""
        groups: dict[tuple[object, ...], list[Finding]] = {}
        for finding in findings:
            key = (finding.split, finding.image if finding.image is not None else finding.index, finding.other)
            if key in groups or len(groups) < 4 * MAX_PICTURES:
                groups.setdefault(key, []).append(finding)
        figures: list[str] = []
        for group in groups.values():
            if len(figures) < MAX_PICTURES and (figure := self._figure(group)):
                figures.append(figure)
        return f'<div class="gallery">{"".join(figures)}</div>' if figures else ""

    def _figure(self, findings: list[Finding]) -> str:
        """The picture or the two pictures of findings, with a caption; empty if no image can be read."""
        one = findings[0]
        boxes = [box for finding in findings for box in finding.boxes]
        masks: list[BoxRow] = []
        if one.code == "mask-box":  # pairs of a box and that of its mask
            boxes, masks = boxes[::2], boxes[1::2]
        pictures = [self._picture(one.split, one.index, one.image, boxes, masks)]
        if one.other is not None:
            pictures.append(self._picture(*one.other, None))
        images = "".join(
            f'<img src="{data_uri(picture)}" width="{picture.shape[1]}" height="{picture.shape[0]}" alt="">'
            for picture in pictures
            if picture is not None
        )
        if not images:
            return ""
        name = strip_root(one.image or f"sample {one.index}", self.report.root)
        splits = f"{one.split} | {one.other[0]}" if one.other else one.split
        detail = strip_root(one.detail, self.report.root)
        detail += f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        return (
            f"<figure><div>{images}</div><figcaption><b>{escape(splits)}</b> {escape(name)}<br>"
            f"<span>{escape(detail)}</span></figcaption></figure>"
        )

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
            return (
                thumbnail(read_image(path, options=ReadOptions("percentile", 0)), boxes) if path is not None else None
            )
        except Exception:
            return None


def _suggestions(statistics: Statistics) -> str:
    sections = []
    for suggestion in statistics.suggestions:
        yaml = f"<pre>{escape(suggestion.yaml)}</pre>" if suggestion.yaml else ""
        sections.append(f"<section><h3>{escape(suggestion.title)}</h3><p>{escape(suggestion.text)}</p>{yaml}</section>")
    return "<h2>Suggestions</h2>" + "".join(sections) if sections else ""


def _charts(statistics: Statistics) -> str:
    splits, kind = [split for split in statistics.splits if split.readable], statistics.kind
    if not splits:
        return ""
    charts = []
    if kind in ("labels", "boxes", "pixels"):
        unit = {"boxes": "objects", "labels": "images", "pixels": "pixels"}[kind]
        charts.append(class_bars(statistics.class_names, [(s.name, s.counts) for s in splits], unit))
    if kind in ("boxes", "pixels"):  # one class may have most of the objects, or of the pixels
        charts.append(class_bars(statistics.class_names, [(s.name, s.images_with) for s in splits], "images with it"))
    charts = [f'<div class="tall">{chart}</div>' for chart in charts]
    sizes = [(s.name, np.sqrt(s.widths.astype(np.float64) * s.heights)) for s in splits]
    shapes = [(s.name, s.widths / np.maximum(s.heights, 1)) for s in splits]
    charts.append(histogram(sizes, "Size of images", "square root of width x height, pixels"))
    charts.append(histogram(shapes, "Shape of images", "width / height", log=True))
    if kind == "boxes":
        charts.append(histogram([(s.name, s.per_image) for s in splits], "Objects per image", "objects", whole=True))
        sides = [(s.name, s.box_sides) for s in splits]
        charts.append(histogram(sides, "Size of objects", "square root of the area, pixels", log=True))
        ratios = [(s.name, s.box_widths / np.maximum(s.box_heights, 1e-6)) for s in splits]
        charts.append(histogram(ratios, "Shape of objects", "width / height", log=True))
    return (
        "<h2>Charts</h2><div class='charts'>" + "".join(f"<div>{chart}</div>" for chart in charts if chart) + "</div>"
    )
