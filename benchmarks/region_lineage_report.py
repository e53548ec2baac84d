"""The table and the bar charts of `region_lineage`, with the figures of the papers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Measured = Mapping[str, Mapping[str, Any]]
STAGES = ("proposals", "network", "features", "SVMs, boxes")
"""Stages of training, in order."""

PUBLISHED_PROPOSALS = 1.51
"""Seconds of selective search per image (Ren et al., 2015, Table 5)."""


class Published(NamedTuple):
    """Figures of a paper: VGG-16 on Pascal VOC 2007, one GPU (Nvidia K40).

    Attributes:
        hours: Training time without proposals; None: not published.
        seconds: Test time per image; without proposals, except for Faster R-CNN, which computes its own.
        ap: mAP at an IoU of 0.5, in percent.
    """

    hours: float | None
    seconds: float
    ap: float


PUBLISHED = {
    "rcnn": Published(84, 47.0, 66.0),
    "spp": Published(25.5, 2.3, 63.1),
    "fast_rcnn": Published(9.5, 0.32, 66.9),
    "faster_rcnn": Published(None, 0.198, 69.9),
}
"""Girshick, "Fast R-CNN", 2015, Tables 1 and 4 (R-CNN, SPP-net and Fast R-CNN); Ren et al., 2015, Tables 3 and 5."""

_COLORS = {"proposals": "#c9c9c9", "network": "#3b73b9", "features": "#e0a13a", "SVMs, boxes": "#8d5a9e"}


def training(found: Measured, name: str, needs: Sequence[str]) -> dict[str, float]:
    """Seconds of each stage of the training of a detector."""
    stages: dict[str, float] = dict(found[f"train-{name}"]["stages"])
    return {"proposals": found["proposals"]["seconds"] if name in needs else 0.0} | stages


def with_proposals(found: Measured, kind: str, name: str, needs: Sequence[str]) -> float | None:
    """Seconds of a test image with its proposals; None: not measured."""
    result = found.get(f"{kind}-{name}")
    if result is None:
        return None
    shared = found.get(f"{kind}-proposals", {}).get("proposals", 0.0)
    return float(result["network"]) + (result.get("proposals", shared) if name in needs else 0.0)


def table(found: Measured, labels: Mapping[str, str], needs: Sequence[str]) -> str:
    """The tables of training, test, and the ratios to R-CNN, in Markdown."""
    rows = [["training", *STAGES, "sum", "on disk", "AP50", "paper: training", "paper: mAP"]]
    for name, label in labels.items():
        stages, paper = training(found, name, needs), PUBLISHED.get(name)
        size = found[f"train-{name}"]["bytes"] + (found["proposals"]["bytes"] if name in needs else 0)
        cells = [f"{stages[stage]:.0f} s" if stages.get(stage) else "" for stage in STAGES]
        published = ["", ""] if paper is None else [f"{paper.hours} h" if paper.hours else "", f"{paper.ap} %"]
        ap = f"{found[f'train-{name}']['ap50']:.3f}"
        rows.append([label, *cells, f"{sum(stages.values()):.0f} s", f"{size / 1e6:.1f} MB", ap, *published])
    lines = [_markdown(rows)]
    for kind, what in (("test", "DigitScenes, 64 pixels"), ("large", "VGG-16, 500 x 375 pixels")):
        rows = [[f"test: {what}", "per image", "R-CNN / it", "with proposals", "paper: per image", "paper: R-CNN / it"]]
        for name, label in labels.items():
            result, paper = found.get(f"{kind}-{name}"), PUBLISHED.get(name)
            if result is None:
                continue
            ratio = found[f"{kind}-rcnn"]["network"] / result["network"]
            total = with_proposals(found, kind, name, needs)
            published = ["", ""] if paper is None else [f"{paper.seconds} s", _times(47.0 / paper.seconds)]
            rows.append([label, _seconds(result["network"]), _times(ratio), _seconds(total or 0), *published])
        lines += [_markdown(rows)] if len(rows) > 1 else []
    return "\n".join(lines)


def draw(found: Measured, labels: Mapping[str, str], needs: Sequence[str], path: Path) -> None:
    """Draw training times and test times, above those of the papers, into a PNG file."""
    figure = Figure(figsize=(12.6, 6.2), layout="constrained")
    axes = figure.subplots(2, 3)
    _draw_training(axes[0, 0], {label: training(found, name, needs) for name, label in labels.items()})
    _draw_tests(axes[0, 1], "DigitScenes: test", found, "test", labels, needs)
    _draw_tests(axes[0, 2], "500 x 375 pixels, VGG-16: test", found, "large", labels, needs)
    papers = {labels[name]: figures for name, figures in PUBLISHED.items()}
    hours = {label: figures.hours for label, figures in papers.items() if figures.hours}
    _bars(axes[1, 0], "Papers: training without proposals (VGG-16)", hours, "h")
    seconds = {label: figures.seconds for label, figures in papers.items()}
    extra = {labels[name]: PUBLISHED_PROPOSALS for name in PUBLISHED if name in needs}
    _bars(axes[1, 1], "Papers: test (VGG-16, one GPU)", seconds, "s per image", extra)
    ap = {label: 100 * found[f"train-{name}"]["ap50"] for name, label in labels.items()}
    _bars(axes[1, 2], "DigitScenes: AP50 after equally many steps", ap, "%")
    figure.savefig(path, dpi=80, metadata={"Software": None}, pil_kwargs={"optimize": True})


def _draw_training(axes: Axes, stages: Mapping[str, Mapping[str, float]]) -> None:
    left = dict.fromkeys(stages, 0.0)
    for stage in STAGES:
        widths = [stages[label].get(stage, 0.0) for label in stages]
        title = "training of the network" if stage == "network" else stage
        axes.barh(list(stages), widths, left=list(left.values()), color=_COLORS[stage], label=title)
        left = {label: start + width for (label, start), width in zip(left.items(), widths, strict=True)}
    for row, total in enumerate(left.values()):
        axes.text(total, row, f" {total:.0f}", va="center", fontsize=8.5)
    axes.legend(fontsize=8, loc="lower right")
    _style(axes, "DigitScenes: training by stage", "s, CPU, one thread", max(left.values()) * 1.6)


def _draw_tests(
    axes: Axes, title: str, found: Measured, kind: str, labels: Mapping[str, str], needs: Sequence[str]
) -> None:
    unit, factor = ("ms", 1e3) if kind == "test" else ("s", 1.0)
    values, extra = dict[str, float](), dict[str, float]()
    for name, label in labels.items():
        total = with_proposals(found, kind, name, needs)
        if total is not None:
            values[label] = factor * found[f"{kind}-{name}"]["network"]
            if name in needs:
                extra[label] = factor * total - values[label]
    _bars(axes, title, values, f"{unit} per image, CPU, one thread", extra)


def _bars(
    axes: Axes, title: str, values: Mapping[str, float], unit: str, extra: Mapping[str, float] | None = None
) -> None:
    """Bars of values; with `extra`, on a logarithmic axis, and behind each the sum with the time of its proposals."""
    if not values:
        axes.set_axis_off()
        return
    extra = extra or {}
    height = 0.4 if extra else 0.7
    for row, (label, value) in enumerate(values.items()):
        axes.barh(row, value, height, color=_COLORS["network"], label="without proposals" if row == 0 else None)
        axes.text(value, row, f" {_short(value)}", va="center", fontsize=8.5)
        if label in extra:
            total, first = value + extra[label], label == next(iter(extra))
            name = "with selective search" if first else None
            axes.barh(row + height, total, height, color=_COLORS["proposals"], label=name)
            axes.text(total, row + height, f" {_short(total)}", va="center", fontsize=8.5)
    axes.set_yticks(range(len(values)), list(values))
    largest = max(value + extra.get(label, 0) for label, value in values.items())
    if extra:
        axes.set_xscale("log")
        axes.set_xlim(min(values.values()) / 3)
        axes.legend(fontsize=8, loc="lower right")
    _style(axes, title, unit, largest * (25 if extra else 1.15))


def _style(axes: Axes, title: str, unit: str, right: float) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(unit, fontsize=9)
    axes.tick_params(labelsize=9)
    axes.set_xlim(right=right)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.1f} ms"


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 20 else f"{ratio:.1f}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], [" --- "] * len(rows[0]), *rows[1:]]
    return "".join("|" + "|".join(cell if cell == " --- " else f" {cell} " for cell in line) + "|\n" for line in lines)
