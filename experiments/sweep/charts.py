"""Pictures of a sweep: importance of the parameters, and parallel coordinates of the trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runs.differences import short_names, show
from .parameters import LOGARITHMIC, Parameter, is_number, label
from .results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Axis:
    """A vertical axis of a plot of parallel coordinates.

    Attributes:
        title: Name of the parameter or metric.
        positions: Height in [0, 1] of each trial; None: it has no value.
        ticks: Heights and texts of the ticks.
    """

    title: str
    positions: Sequence[float | None]
    ticks: Sequence[tuple[float, str]]


def make_axis(title: str, values: Sequence[Any], logarithmic: bool = False, ordered: Sequence[Any] = ()) -> Axis:
    """Make an axis for values: a scale if all are numbers, else one height per value.

    Args:
        title: Name of the axis.
        values: One value per trial; None: the trial has none.
        logarithmic: Whether the scale is logarithmic.
        ordered: The choices of a categorical parameter, from bottom to top; empty: it has numbers.
    """
    if ordered:
        places = {label(choice): place / max(len(ordered) - 1, 1) for place, choice in enumerate(ordered)}
        texts = [show(choice, width=24) for choice in ordered]
        texts = [f"{n}: {text}" if texts.count(text) > 1 else text for n, text in enumerate(texts, 1)]  # cut off
        ticks = list(zip(places.values(), texts, strict=True))
        return Axis(title, [places.get(label(value)) for value in values], ticks)
    scale = math.log10 if logarithmic else float
    numbers = [scale(value) if is_number(value) and (value > 0 or not logarithmic) else None for value in values]
    known = [number for number in numbers if number is not None]
    low, high = min(known), max(known)
    span = high - low or 1.0
    levels = [low + span * share for share in (0, 0.25, 0.5, 0.75, 1)]
    texts = [f"{10**tick if logarithmic else tick:.3g}" for tick in levels]
    heights = [None if number is None else (number - low) / span for number in numbers]
    return Axis(title, heights, [((tick - low) / span, text) for tick, text in zip(levels, texts, strict=True)])


def make_axes(
    results: Sequence[Result], parameters: Sequence[Parameter], names: Sequence[str], metric: str
) -> list[Axis]:
    """One axis per parameter, and one for the metric at the end.

    Args:
        results: The trials; those without a value of the metric must be left out.
        parameters: The parameters of the sweep.
        names: Names of those to show.
        metric: Name of the metric.
    """
    titles, known = short_names(names), {parameter.name: parameter for parameter in parameters}
    axes = []
    for name in names:
        parameter = known[name]
        values = [result.values.get(name) for result in results]
        present = {label(value) for value in values}
        unique = dict(zip(parameter.labels, parameter.choices, strict=True))
        ordered = [choice for text, choice in unique.items() if text in present]
        if all(is_number(choice) for choice in ordered):
            ordered.sort()
        axes.append(make_axis(titles[name], values, parameter.base in LOGARITHMIC, ordered))
    return [*axes, make_axis(metric, [result.best for result in results])]


def draw_parallel_coordinates(axes: Sequence[Axis], results: Sequence[Result], goal: str, path: Path) -> None:
    """Draw one line per trial, colored by the metric; trials that were stopped early are dotted."""
    from matplotlib import colormaps

    figure = new_figure(max(6.0, 1.9 * len(axes)), 4.6)
    plot = figure.add_subplot()
    colors = colormaps["viridis"]
    for place in sorted(range(len(results)), key=lambda place: better(axes[-1].positions[place], goal)):
        heights = [axis.positions[place] for axis in axes]
        stopped = results[place].state == "stopped early"
        plot.plot(
            range(len(axes)),
            [math.nan if height is None else height for height in heights],
            color=colors(better(heights[-1], goal)),
            linewidth=1.2 if stopped else 1.8,
            linestyle=":" if stopped else "-",
            alpha=0.9,
        )
    behind = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    for place, axis in enumerate(axes):
        plot.axvline(place, color="#667085", linewidth=0.8)
        for height, text in axis.ticks:
            plot.annotate(
                text, (place, height), (4, 0), textcoords="offset points", fontsize=8, va="center", bbox=behind
            )
    plot.set_xticks(range(len(axes)), [axis.title for axis in axes], fontsize=9)
    plot.set_yticks([])
    plot.set_xlim(-0.1, len(axes) - 0.55)
    plot.spines[:].set_visible(False)
    plot.set_title(f"{len(results)} trials; lighter is better; dotted: stopped early", fontsize=10)
    figure.savefig(path, dpi=130)


def better(height: float | None, goal: str) -> float:
    """How good a trial is, in [0, 1], from its height on the axis of the metric."""
    height = height or 0.0
    return height if goal == "maximize" else 1 - height


def draw_importances(shares: Mapping[str, float], metric: str, path: Path) -> None:
    """Draw one bar per parameter, the most important one on top."""
    names = list(shares)[::-1]
    short = short_names(names)
    figure = new_figure(6.4, 0.9 + 0.42 * len(names))
    plot = figure.add_subplot()
    plot.barh([short[name] for name in names], [shares[name] for name in names], color="#2f6fd0", height=0.6)
    for place, name in enumerate(names):
        plot.annotate(
            f"{shares[name]:.2f}", (shares[name], place), (4, 0), textcoords="offset points", va="center", fontsize=9
        )
    plot.set_xlim(0, max(shares.values()) * 1.15 or 1)
    plot.set_title(f"importance for {metric} (PED-ANOVA)", fontsize=10)
    plot.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def new_figure(width: float, height: float) -> "Figure":
    """A figure of a size in inches, without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
