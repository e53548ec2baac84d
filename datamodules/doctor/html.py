"""The report as one page that holds all it shows: style, figures and pictures."""

import csv
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from ..annotations.fault_kinds import KINDS
from ..images.read import read_image
from .charts import class_bars, histogram
from .collecting import Report
from .findings import Finding, rows
from .page import PAGE
from .pictures import data_uri, overlay, thumbnail
from .reading import quiet_decoders
from .statistics import Statistics, box_sides
from .words import counted, relative, split_cells, split_headings, verdict

PICTURES = 12  # of a kind
ROWS = 200  # of a kind, in the page; the table beside it has all that are kept


def write_html(report: Report, file: str | Path) -> Path:
    """Write the page, and beside it, of the same name, a CSV table of all findings.

    Args:
        report: what to show.
        file: the page; its folder is made.

    Returns:
        The table.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    table = file.with_suffix(".csv")
    with table.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("severity", "kind", "split", "where", "detail", "image", "sample"))
        for one in report.findings:
            number = "" if one.index is None else one.index
            writer.writerow(
                (KINDS[one.code].severity, one.code, one.split, one.where, one.detail, one.image or "", number)
            )
    body = [_head(report), _splits(report), _notes(report)]
    if report.findings.counts:
        body.append("<h2>Findings</h2>")
        gallery = _Gallery(report)
        with quiet_decoders():
            body += [_kind(report, code, gallery, table.name) for code in report.findings.codes()]
    body += [_suggestions(report.statistics), _figures(report.statistics)]
    title = escape(f"Data check: {report.name}")
    file.write_text(PAGE.replace("{title}", title).replace("{body}", "\n".join(body)), encoding="utf-8")
    return table


def _head(report: Report) -> str:
    worst = "error" if report.findings.total("error") else "warning" if not report.clean else "clean"
    counts = report.findings.counts
    chips = "".join(
        f'<a class="chip {KINDS[code].severity}" href="#{code}">{escape(KINDS[code].title)}: {counts[code]:,}</a>'
        for code in report.findings.codes()
    )
    return (
        f"<header><h1>{escape(report.name)}</h1><p class='verdict {worst}'>{escape(verdict(report))}</p>"
        f"<nav>{chips}</nav></header>"
    )


def _splits(report: Report) -> str:
    lines = [split_cells(split, report.statistics) for split in report.statistics.splits]
    return _table(split_headings(report.statistics), lines, "splits")


def _notes(report: Report) -> str:
    if not report.notes:
        return ""
    return "<ul class='notes'>" + "".join(f"<li>{escape(note)}</li>" for note in report.notes) + "</ul>"


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]], kind: str) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _kind(report: Report, code: str, gallery: "_Gallery", table: str) -> str:
    kind, found, count = KINDS[code], report.findings.of(code), report.findings.counts[code]
    root = getattr(report.data, "root", None)
    root = root if code != "unopened-split" else None  # it may be the root that is wrong
    lines = [(finding.split, relative(finding.where, root), relative(finding.detail, root)) for finding in found[:ROWS]]
    more = f"<p class='dim'>The first {ROWS} of {count:,}; {escape(table)} has more.</p>" if count > ROWS else ""
    fixed = f"<p class='dim'>--fix: {escape(kind.fixed)}.</p>" if kind.fixed else ""
    listing = _table(("split", "where", "what"), lines, "findings")
    return (
        f'<section id="{code}"><h3><span class="chip {kind.severity}">{kind.severity}</span> '
        f"{escape(kind.title)}: {count:,} <code>{code}</code></h3><p>{escape(kind.advice)}</p>{fixed}"
        f"{gallery.of(found)}<details{' open' if count <= 10 else ''}><summary>{counted(min(count, ROWS), 'place')}"
        f"</summary>{listing}{more}</details></section>"
    )


class _Gallery:
    """Pictures of samples, read again."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.records = {record.name: record for record in report.records}
        self.root = getattr(report.data, "root", None)

    def of(self, findings: Sequence[Finding]) -> str:
        """The first findings that have a picture; those of one image share it."""
        together: dict[tuple[str, object, object], list[Finding]] = {}
        for finding in findings:
            key = (finding.split, finding.image if finding.image is not None else finding.index, finding.other)
            if key in together or len(together) < 4 * PICTURES:
                together.setdefault(key, []).append(finding)
        figures: list[str] = []
        for own in together.values():
            if len(figures) == PICTURES:
                break
            if figure := self._figure(own):
                figures.append(figure)
        return f'<div class="gallery">{"".join(figures)}</div>' if figures else ""

    def _figure(self, findings: list[Finding]) -> str:
        one = findings[0]
        bad = [box for finding in findings for box in finding.boxes]
        masks = bad[1::2] if one.code == "mask-box" else []  # a box and its mask's, in turn
        pictures = [self._picture(one.split, one.index, one.image, bad[::2] if masks else bad, masks)]
        if one.other is not None:
            pictures.append(self._picture(*one.other, None))
        shown = "".join(
            f'<img src="{data_uri(picture)}" width="{picture.shape[1]}" height="{picture.shape[0]}" alt="">'
            for picture in pictures
            if picture is not None
        )
        if not shown:
            return ""
        name = relative(one.image or f"sample {one.index}", self.root)
        splits = f"{one.split} | {one.other[0]}" if one.other else one.split
        what = relative(one.detail, self.root) + (f" (and {len(findings) - 1} more)" if len(findings) > 1 else "")
        return (
            f"<figure><div>{shown}</div><figcaption><b>{escape(splits)}</b> {escape(name)}<br>"
            f"<span>{escape(what)}</span></figcaption></figure>"
        )

    def _picture(
        self,
        split: str,
        index: int | None,
        path: str | None,
        bad: Sequence[Sequence[float]] = (),
        masks: Sequence[Sequence[float]] = (),
    ) -> np.ndarray | None:
        record = self.records.get(split)
        others: Sequence[Sequence[float]] = ()
        try:
            if record is not None and index is None and path is not None and bad:
                index = record.paths.index(path) if path in record.paths else None
            if record is not None and index is not None:
                table = record.objects()
                own = table.boxes[(table.image == index) & np.isfinite(table.boxes).all(axis=1)]
                others = [box for box in rows(own) if box not in [tuple(map(float, one)) for one in bad]]
                raw = self.report.sources[split][index]
                image = np.asarray(raw["image"])
                if "mask" in raw and raw["mask"].shape == image.shape[:2]:
                    image = overlay(image, np.asarray(raw["mask"], np.uint8))
                return thumbnail(image, bad, others, masks)
        except Exception:  # a sample that its source refuses may still have an image to show
            if path is None:
                return None
        try:
            return thumbnail(read_image(path), bad, others) if path is not None else None
        except Exception:
            return None


def _suggestions(statistics: Statistics) -> str:
    if not statistics.suggestions:
        return ""
    items = []
    for suggestion in statistics.suggestions:
        yaml = f"<pre>{escape(suggestion.yaml)}</pre>" if suggestion.yaml else ""
        items.append(f"<section><h3>{escape(suggestion.title)}</h3><p>{escape(suggestion.text)}</p>{yaml}</section>")
    return "<h2>Suggestions</h2>" + "".join(items)


def _figures(statistics: Statistics) -> str:
    splits = [split for split in statistics.splits if split.readable]
    if not splits:
        return ""
    unit = {"boxes": "objects", "labels": "images", "pixels": "pixels"}.get(statistics.kind, "images")
    charts = []
    if statistics.kind in ("labels", "boxes", "pixels"):
        charts.append(class_bars(statistics.class_names, [(split.name, split.counts) for split in splits], unit))
    if statistics.kind in ("boxes", "pixels"):  # one class may have most of the objects, or of the pixels
        charts.append(class_bars(statistics.class_names, [(s.name, s.images_with) for s in splits], "images with it"))
    sizes = [(split.name, np.sqrt(split.widths.astype(np.float64) * split.heights)) for split in splits]
    shapes = [(split.name, split.widths / np.maximum(split.heights, 1)) for split in splits]
    charts.append(histogram(sizes, "Size of images", "square root of width x height, pixels"))
    charts.append(histogram(shapes, "Shape of images", "width / height", log=True))
    if statistics.kind == "boxes":
        charts.append(histogram([(s.name, s.per_image) for s in splits], "Objects per image", "objects", whole=True))
        boxes = [(s.name, box_sides(s)) for s in splits]
        charts.append(histogram(boxes, "Size of objects", "square root of the area, pixels", log=True))
        ratios = [(s.name, s.box_widths / np.maximum(s.box_heights, 1e-6)) for s in splits]
        charts.append(histogram(ratios, "Shape of objects", "width / height", log=True))
    return (
        "<h2>Figures</h2><div class='charts'>" + "".join(f"<div>{chart}</div>" for chart in charts if chart) + "</div>"
    )
