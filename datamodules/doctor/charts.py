"""Charts of the page: SVG by matplotlib, in the colors of the page's style sheet, so that they suit light and dark."""

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from ..images.fonts import TextFont, chart_fonts, shorten
from ..proposals.recall import RECALL_IOUS, ProposalRecall

# placeholders, which stand for the page's variables in the finished SVG
_TEXT, _GRID, _ERROR = "#010101", "#020202", "#030303"
_SERIES = ("#040404", "#050505", "#060606")  # train, val, test
_VARIABLES = {_TEXT: "dim", _GRID: "line", _ERROR: "error"} | dict(
    zip(_SERIES, ("first", "second", "third"), strict=True)
)
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "striate", "font.size": 8.5}
MAX_CLASSES = 60

Series = Sequence[tuple[str, np.ndarray]]


@mpl.rc_context(_STYLE)
def histogram(series: Series, title: str, unit: str, bins: int = 30, log: bool = False, whole: bool = False) -> str:
    """Chart how often values occur, in percent of each series.

    Args:
        series: Name and values ``[N]`` of each series.
        title, unit: Heading, and label of the axis.
        bins: Maximum number of bins.
        log: Space the bins evenly on a logarithmic axis.
        whole: The values are counts, with one bin each if they are few.

    Returns:
        HTML; empty without values.
    """
    series = [(name, np.asarray(values, np.float64)) for name, values in series if len(values)]
    if not series:
        return ""
    pooled = np.concatenate([values for _, values in series])
    if pooled.min() == pooled.max():
        return f"<h4>{escape(title)}</h4><p>{short_number(float(pooled[0]))} throughout ({escape(unit)})</p>"
    edges = bin_edges(pooled, bins, log, whole)
    figure, axes = _figure(2.1)
    for (name, values), color in zip(series, _SERIES * len(series), strict=False):
        fractions = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
        if color == _SERIES[0]:
            axes.stairs(fractions, edges, fill=True, color=color, alpha=0.25)
        axes.stairs(fractions, edges, color=color, label=name, linewidth=1.2)
    axes.set_xlabel(unit, color=_TEXT, parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    if log and edges[0] > 0:
        axes.set_xscale("log")
        wide = edges[-1] >= 8 * edges[0]
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.set_xlim(edges[0], edges[-1])
    return _render(figure, axes, title, len(series))


def bin_edges(values: np.ndarray, bins: int, log: bool = False, whole: bool = False) -> np.ndarray:
    """Return the edges ``[B + 1]`` of at most `bins` bins for values ``[N]``; outliers fall into the last bin."""
    low, high = float(values.min()), float(values.max())
    # otherwise the last percent would compress all others
    typical = float(np.quantile(values, 0.995))
    if low < typical < high / 2:
        high = typical
    if whole:
        step = int(np.ceil((high - low + 1) / bins)) if high - low >= bins else 1
        return np.arange(np.floor(low), np.ceil(high) + step + 1, step) - 0.5
    return np.geomspace(low, high, bins + 1) if log and low > 0 else np.linspace(low, high, bins + 1)


@mpl.rc_context(_STYLE)
def class_bars(names: Sequence[str], series: Series, unit: str) -> str:
    """Chart how often each class occurs, most frequent first, in percent of each series.

    Of more than `MAX_CLASSES` classes the first and the last are shown.

    Args:
        names: Names of the K classes.
        series: Name of each split, and its counts ``[K]``.
        unit: What is counted.
    """
    if not names or not series:
        return ""
    order = np.argsort(-series[0][1], kind="stable")
    hidden, head = len(order) - MAX_CLASSES, MAX_CLASSES * 2 // 3
    if hidden > 0:
        order = np.concatenate([order[:head], order[head - MAX_CLASSES :]])
    rows, font = np.arange(len(order)), TextFont(13)
    labels = [shorten(names[label], font, 180) for label in order]
    if hidden > 0:  # a row for the hidden classes
        rows[head:] += 1
        labels.insert(head, f"… {hidden} more …")
    with chart_fonts(labels):  # they measure the text, which the browser draws with its own
        figure, axes = _figure(0.5 + 0.17 * len(labels))
        height = 0.8 / len(series)
        for number, ((name, counts), color) in enumerate(zip(series, _SERIES * len(series), strict=False)):
            fractions = counts[order] / max(counts.sum(), 1)
            axes.barh(rows - 0.4 + height * (number + 0.5), fractions, height * 0.85, color=color, label=name)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        for row, label in zip(rows, order, strict=True):
            amounts = " / ".join(short_number(int(counts[label])) for _, counts in series)
            color = _TEXT if series[0][1][label] else _ERROR
            axes.text(1.01, float(row), amounts, color=color, va="center", transform=axes.get_yaxis_transform())
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        return _render(figure, axes, f"Classes ({unit})", len(series))


@mpl.rc_context(_STYLE)
def recall_curves(splits: Sequence[ProposalRecall]) -> str:
    """Chart the recall of proposals by their number per image: a full line at IoU 0.5, a dashed one at 0.7."""
    splits = [split for split in splits if split.ranks.shape[1] and split.counts.max(initial=0)]
    if not splits:
        return ""
    figure, axes = _figure(2.1)
    for split, color in zip(splits, _SERIES * len(splits), strict=False):
        numbers = np.unique(np.geomspace(1, split.counts.max(), 60).round().astype(int))
        for recall, iou, style in zip(split.recall(numbers), RECALL_IOUS, ("-", "--"), strict=True):
            label = f"{split.name}, IoU {iou}"
            axes.plot(numbers, recall, style, color=color, label=label, linewidth=1.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("proposals per image", color=_TEXT)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return _render(figure, axes, "Recall of proposals", 2 * len(splits))


def short_number(value: float) -> str:
    """Format a number in a few characters.

    >>> short_number(1500.0), short_number(0.25), short_number(2000000)
    ('1.5k', '0.25', '2M')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure((5, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(colors=_TEXT, length=2)
    axes.spines[:].set_visible(False)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _render(figure: Figure, axes: Axes, title: str, series: int) -> str:
    """The heading and the SVG of a chart."""
    if series > 1:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=min(series, 4),
            borderaxespad=0,
            frameon=False,
            labelcolor=_TEXT,
        )
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<svg (?:width|height)="[^"]*" ', "<svg ", re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2))
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
    return f"<h4>{escape(title)}</h4>{svg}"
