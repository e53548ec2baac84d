"""Figures as inline SVG: bars and histograms, drawn with the page's own colours, so that they suit light and dark."""

from collections.abc import Sequence
from html import escape

import numpy as np

SERIES = ("var(--first)", "var(--second)", "var(--third)")  # colours of train, val, test
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460, 200, 48, 34, 10


def histogram(
    values: Sequence[tuple[str, np.ndarray]],
    title: str,
    unit: str,
    bins: int = 30,
    log: bool = False,
    whole: bool = False,
) -> str:
    """How often values occur, in percent of each series.

    Args:
        values: the series, each with its name.
        title, unit: for the heading and the axis.
        bins: how many bars, at most.
        log: spread the bars evenly over the logarithm.
        whole: values are counts, each its own bar where they are few.
    """
    series = [(name, np.asarray(own, np.float64)) for name, own in values if len(own)]
    if not series:
        return ""
    every = np.concatenate([own for _, own in series])
    if every.min() == every.max():
        return f"<h4>{escape(title)}</h4><p>{short(float(every[0]))} throughout ({escape(unit)})</p>"
    edges = _edges(every, bins, log, whole)
    heights = [np.histogram(np.clip(own, edges[0], edges[-1]), edges)[0] / len(own) for _, own in series]
    top = max(float(own.max()) for own in heights) or 1.0
    plot = _Plot(top, edges, log)
    bars = []
    for number, shares in enumerate(heights):
        bars.append(plot.steps(shares, SERIES[number % len(SERIES)], fill=number == 0))
    return plot.frame(title, "".join(bars) + plot.ticks(whole), unit) + legend([name for name, _ in series])


def _edges(values: np.ndarray, bins: int, log: bool, whole: bool) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    # the last percent would leave all others a sliver
    far = float(np.quantile(values, 0.995))
    if far < high / 2 and far > low:
        high = far
    if whole and high - low < bins:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    if whole:
        step = int(np.ceil((high - low + 1) / bins))
        return np.arange(np.floor(low), high + step + 1, step) - 0.5
    if log and low > 0:
        return np.geomspace(low, high, bins + 1)
    return np.linspace(low, high, bins + 1)


class _Plot:
    """A frame with a horizontal axis of `edges` and a vertical one from 0 to `top` (a share)."""

    def __init__(self, top: float, edges: np.ndarray, log: bool) -> None:
        self.top, self.edges, self.log = top, edges, log and edges[0] > 0

    def x(self, value: float) -> float:
        place = np.log if self.log else float
        low, high, own = (float(place(one)) for one in (self.edges[0], self.edges[-1], max(value, 1e-9)))
        return _LEFT + (own - low) / (high - low) * (_WIDTH - _LEFT - 10)

    def y(self, share: float) -> float:
        return _TOP + (1 - share / self.top) * (_HEIGHT - _TOP - _BOTTOM)

    def steps(self, shares: np.ndarray, colour: str, fill: bool) -> str:
        points = [(self.x(self.edges[0]), self.y(0))]
        for left, right, share in zip(self.edges[:-1], self.edges[1:], shares, strict=True):
            points += [(self.x(left), self.y(share)), (self.x(right), self.y(share))]
        points.append((self.x(self.edges[-1]), self.y(0)))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        paint = f'fill="{colour}" fill-opacity="0.25"' if fill else 'fill="none"'
        return f'<polygon points="{path}" {paint} stroke="{colour}" stroke-width="1.5" stroke-linejoin="round"/>'

    def ticks(self, whole: bool) -> str:
        low, high = float(self.edges[0]), float(self.edges[-1])
        places = nice_log(low, high) if self.log else nice(low, high)
        if whole:
            places = [place for place in places if float(place).is_integer()]
        if len(places) < 2 and high - low <= 2:
            places = [(low + high) / 2]
        parts = [
            f'<text x="{self.x(place):.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{short(place)}</text>'
            f'<line x1="{self.x(place):.1f}" x2="{self.x(place):.1f}" y1="{self.y(0):.1f}" y2="{self.y(0) + 4:.1f}"/>'
            for place in places
        ]
        for share in nice(0, self.top, 4):
            y = self.y(share)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * 100:.3g} %</text>')
        return "".join(parts)

    def frame(self, title: str, inside: str, unit: str) -> str:
        axis = f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{self.y(0):.1f}" y2="{self.y(0):.1f}"/>'
        label = f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 3}" text-anchor="middle">{escape(unit)}</text>'
        return (
            f'<h4>{escape(title)}</h4><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
            f"{inside}{axis}{label}</svg>"
        )


def nice(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them.

    >>> nice(0, 100, 5)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    if high <= low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** np.floor(np.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw * 0.999)
    first = np.ceil(low / step - 1e-9)
    # + 0.0, so that zero is not shown as -0
    return [float(round(number * step, 10)) + 0.0 for number in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def nice_log(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 … from `low` to `high`; fewer where that are many, round numbers between where they are few.

    >>> nice_log(3, 60)
    [5.0, 10.0, 20.0, 50.0]
    """
    if high < 8 * low:
        return nice(low, high)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    factors = (1, 2, 5) if len(decades) < 5 else (1,)
    return [float(f * 10.0**power) for power in decades for f in factors if low <= f * 10.0**power <= high]


def short(value: float) -> str:
    """A number in a few characters.

    >>> short(1500.0), short(0.25), short(2000000)
    ('1.5k', '0.25', '2M')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def legend(names: Sequence[str]) -> str:
    """Names of the series with their colours; nothing for one alone."""
    if len(names) < 2:
        return ""
    items = "".join(
        f'<span><i style="background:{SERIES[number % len(SERIES)]}"></i>{escape(name)}</span>'
        for number, name in enumerate(names)
    )
    return f'<div class="legend">{items}</div>'


def class_bars(names: Sequence[str], counts: Sequence[tuple[str, np.ndarray]], unit: str, most: int = 60) -> str:
    """How often each class occurs, a row a class, the most frequent first; bars in percent of their split.

    Of more than `most` classes the first and the last are shown.
    """
    if not names or not counts:
        return ""
    order = np.argsort(-counts[0][1], kind="stable")
    gap = 0
    if len(order) > most:
        gap = len(order) - most
        order = np.concatenate([order[: most * 2 // 3], order[-(most - most * 2 // 3) :]])
    shares = [own / max(own.sum(), 1) for _, own in counts]
    top = max(float(own.max()) for own in shares) or 1.0
    rows = []
    for place, label in enumerate(order):
        if gap and place == most * 2 // 3:
            rows.append(f'<tr><td colspan="3" class="gap">… {gap} more …</td></tr>')
        bars = "".join(
            f'<div style="width:{own[label] / top * 100:.2f}%;background:{SERIES[number % len(SERIES)]}"'
            f' title="{escape(name)}: {int(numbers[label]):,} {unit}"></div>'
            for number, (own, (name, numbers)) in enumerate(zip(shares, counts, strict=True))
        )
        amounts = " / ".join(short(int(numbers[label])) for _, numbers in counts)
        empty = ' class="none"' if not counts[0][1][label] else ""
        rows.append(f'<tr{empty}><td>{escape(names[label])}</td><td class="bars">{bars}</td><td>{amounts}</td></tr>')
    return (
        f'<h4>Classes ({unit})</h4><div class="scroll"><table class="classes">{"".join(rows)}</table></div>'
        + legend([name for name, _ in counts])
    )
