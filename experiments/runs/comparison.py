"""One page that compares runs: curves, differences of configuration, metrics and pictures, in a single file."""

import base64
import io
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .differences import MISSING, differing_keys, show
from .listing import COLORS, duration
from .page import render_page
from .reading import Point, RunInfo

MAX_POINTS = 600
"""Maximum number of points of a curve."""

MAX_KINDS = 8
"""Maximum number of rows of pictures."""

PICTURE_WIDTH, QUALITY = 1100, 82
"""Maximum width of a picture in pixels, and the quality of its encoding."""


class Picture(NamedTuple):
    """The last picture of a kind of a run: its file's name, and the image as URI; empty: it cannot be read."""

    name: str
    uri: str


def make_page(runs: Sequence[RunInfo]) -> str:
    """The page as HTML, which needs no other file and no network connection.

    Args:
        runs: 1 to 20 runs, of any tasks and in any state.
    """
    names = [run.name for run in runs]
    short = without_common_start(names)
    found = zip(short, map(curves, runs), strict=True)
    data = {"runs": [{"name": name, "curves": one} for name, one in found], "metrics": metric_names(runs)}
    pictures, hidden = last_pictures(runs)
    return render_page(
        Path(__file__).with_name("compare.html"),
        data,
        title=", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        made=time.strftime("%Y-%m-%d %H:%M"),
        names=names,
        short=short,
        rows=[overview(run) for run in runs],
        colors=COLORS,
        thinned=any(len(points) > MAX_POINTS for run in runs for points in run.metrics.values()),
        infinite=not_finite(runs),
        differences=difference_rows(runs),
        unknown=[run.name for run in runs if not run.config],
        metrics=metric_rows(runs),
        pictures=pictures,
        hidden=hidden,
    )


def without_common_start(names: Sequence[str]) -> list[str]:
    """Names of runs without the folders that all of them start with.

    >>> without_common_start(["digits/sweep-1/trial-0/fit-1", "digits/sweep-1/trial-1/fit-1"])
    ['trial-0/fit-1', 'trial-1/fit-1']
    """
    parts = [name.split("/") for name in names]
    shortest = min(map(len, parts)) - 1
    same = (place for place in range(shortest) if len({one[place] for one in parts}) > 1)
    start = next(same, shortest) if len(names) > 1 else 0
    return ["/".join(one[start:]) for one in parts]


def overview(run: RunInfo) -> dict[str, Any]:
    """The row of a run in the first table."""
    best = run.best
    started = "" if run.state.started is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(run.state.started))
    epochs = "" if run.epochs is None else f"{run.epochs} of {run.max_epochs}" if run.max_epochs else str(run.epochs)
    return {
        "name": run.name,
        "state": run.state.state,
        "epochs": epochs,
        "best": "" if best is None else f"{run.monitor[0]} {best.value:.4g}",
        "at": "" if best is None or best.epoch is None or run.command != "fit" else str(best.epoch),
        "started": started,
        "time": duration(run.state.seconds),
        "notes": run.notes,
        "remarks": [*filter(None, [run.state.error]), *run.problems, *([] if run.metrics else ["no metrics"])],
    }


def metric_names(runs: Sequence[RunInfo]) -> list[str]:
    """All metrics, the monitored ones first, then those of validation, test and training, then the others."""
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    monitored = {run.monitor[0] for run in runs}
    prefixes = ("val/", "test/", "train/")

    def key(name: str) -> tuple[bool, int, str]:
        place = next((place for place, prefix in enumerate(prefixes) if name.startswith(prefix)), len(prefixes))
        return name not in monitored, place, name

    return sorted(names, key=key)


def curves(run: RunInfo) -> dict[str, dict[str, list[float | None]]]:
    """The finite values of each metric, with their steps and their positions in epochs."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for name, points in run.metrics.items():
        kept = thin([point for point in points if math.isfinite(point.value)])
        found[name] = {
            "step": [place if point.step is None else point.step for place, point in enumerate(kept)],
            "epoch": [epoch_position(point, steps_per_epoch(run)) for point in kept],
            "value": [point.value for point in kept],
        }
    return found


def steps_per_epoch(run: RunInfo) -> float | None:
    """Number of steps in an epoch, from the last validation at the end of one; None if it is not known."""
    ends = [point for name, points in run.metrics.items() if name.startswith("val/") for point in points[-1:]]
    known = [(one.step + 1) / (one.epoch + 1) for one in ends if one.step is not None and one.epoch is not None]
    return max(known, default=None) if run.command == "fit" else None


def epoch_position(point: Point, steps: float | None) -> float | None:
    """Completed epochs at a point, with fractions where the number of steps per epoch is known."""
    if steps and point.step is not None:
        return round((point.step + 1) / steps, 4)
    return None if point.epoch is None else float(point.epoch + 1)


def thin(points: Sequence[Point]) -> list[Point]:
    """At most `MAX_POINTS` of the points: the lowest and the highest of each section, and the first and the last."""
    if len(points) <= MAX_POINTS:
        return list(points)
    count = MAX_POINTS // 2 - 1
    bounds = [1 + section * (len(points) - 2) // count for section in range(count + 1)]
    kept = {0, len(points) - 1}
    for start, end in zip(bounds, bounds[1:], strict=False):
        section = range(start, end)
        kept |= {min(section, key=lambda at: points[at].value), max(section, key=lambda at: points[at].value)}
    return [points[at] for at in sorted(kept)]


def not_finite(runs: Sequence[RunInfo]) -> list[str]:
    """Which metrics have NaN or infinite values, one line per run."""
    lines = []
    for run in runs:
        counts = {name: sum(not math.isfinite(one.value) for one in points) for name, points in run.metrics.items()}
        if texts := [f"{name} ({count})" for name, count in counts.items() if count]:
            lines.append(f"{run.name}: {', '.join(texts)}")
    return lines


def difference_rows(runs: Sequence[RunInfo]) -> list[tuple[str, list[str]]]:
    """The keys of the configuration that differ, with the value of each run."""
    keys = differing_keys([run.flat for run in runs])
    return [(key, [show(run.flat[key]) if key in run.flat else MISSING for run in runs]) for key in keys]


def metric_rows(runs: Sequence[RunInfo]) -> list[dict[str, Any]]:
    """Best value of the monitored metrics and last value of all, with the run that is best where this is known."""
    directions: dict[str, set[str]] = {}
    for run in runs:
        directions.setdefault(run.monitor[0], set()).add(run.monitor[1])
    rows = []
    for name in metric_names(runs):
        known = directions.get(name, set())
        if len(known) == 1:
            best = [run.best if run.monitor[0] == name else None for run in runs]
            rows.append(_row(f"best {name}", [one.value if one else None for one in best], *known))
        last = [run.metrics[name][-1].value if name in run.metrics else None for run in runs]
        rows.append(_row(f"last {name}", last, next(iter(known)) if len(known) == 1 else None))
    return rows


def _row(title: str, values: Sequence[float | None], mode: str | None) -> dict[str, Any]:
    """A row of the table of metrics: texts, and which of them are the best."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    winner = None if mode is None or len(values) < 2 or not finite else (max if mode == "max" else min)(finite)
    cells = [(MISSING if value is None else f"{value:.5g}", value is not None and value == winner) for value in values]
    return {"title": title, "cells": cells}


def last_pictures(runs: Sequence[RunInfo]) -> tuple[list[tuple[str, list[Picture | None]]], int]:
    """The last picture of each kind of each run, and how many kinds are left out.

    Returns:
        Rows of a kind and one picture per run, those that most runs have first; and the number of other kinds.
    """
    found = [picture_files(run.folder) for run in runs]
    counts: Mapping[str, int] = {kind: sum(kind in files for files in found) for files in found for kind in files}
    kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
    rows = [
        (kind, [encode(files[kind]) if kind in files else None for files in found]) for kind in kinds[:MAX_KINDS]
    ]
    return rows, max(len(kinds) - MAX_KINDS, 0)


def picture_files(folder: Path) -> dict[str, Path]:
    """The last picture of each kind by its name without the epoch: ``val`` for ``val_epoch_003.png``."""
    files: dict[str, tuple[int, Path]] = {}
    for path in sorted(folder.glob("pictures/*.png")):
        match = re.fullmatch(r"(.+?)_epoch_(\d+)", path.stem)
        kind, epoch = (match[1], int(match[2])) if match else (path.stem, -1)
        if kind not in files or epoch >= files[kind][0]:
            files[kind] = (epoch, path)
    return {kind: path for kind, (_, path) in files.items()}


def encode(path: Path) -> Picture:
    """A picture as a URI, made smaller if it is large."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        if image.width > PICTURE_WIDTH:
            image = image.resize((PICTURE_WIDTH, max(round(image.height * PICTURE_WIDTH / image.width), 1)))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=QUALITY)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # written in part, as by a kill
        return Picture(path.name, "")
    return Picture(path.name, "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
