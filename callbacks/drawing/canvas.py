"""Basic drawing: panels with captions, grids of panels, and confusion matrices, as ``uint8`` plots."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ...datamodules.images.fonts import TextFont, chart_fonts, drawable_name, shorten
from .colors import NEUTRAL, PAPER, RIGHT, WRONG, Color


def class_name(label: int, names: Sequence[str]) -> str:
    """The name of a class, or its number where there is no name."""
    return names[label] if label < len(names) else str(label)


def captions(
    prediction: Mapping[str, Any], ground_truth: Mapping[str, Any], names: Sequence[str]
) -> list[tuple[str, Color]]:
    """Caption lines for a classified image: the predicted class with its score, and the true class if it is known."""
    label = int(prediction["label"])
    text = f"{drawable_name(label, names)}  {100 * prediction['score']:.0f} %"
    if "label" not in ground_truth:
        return [(text, NEUTRAL)]
    true_label = int(ground_truth["label"])
    return [(text, RIGHT if label == true_label else WRONG), (f"is {drawable_name(true_label, names)}", NEUTRAL)]


def panel(
    image: np.ndarray,
    lines: Sequence[tuple[str, Color]],
    side: int = 176,
    rows: int = 2,
    square: bool = True,
    height: int | None = None,
) -> np.ndarray:
    """An image on white paper, with lines of text below.

    Args:
        image: RGB uint8.
        lines: Text and color of each line.
        side: Side of the square that the image is fitted into, in pixels.
        rows: Number of lines to reserve space for.
        square: Make the paper square, for a grid; else it has the image's shape (`fit_legible`).
        height: Height of the paper in a grid, in pixels (`common_height`); None: `side`.

    Shape:
        - image: ``[H, W, 3]``.
        - Output: ``[h, side + 8, 3]`` uint8, with h as the text needs; ``[h, w, 3]`` if it is not square.
    """
    font = TextFont(text_size(side))
    line = font.size + 5
    picture = fit_square(image, side) if square else fit_legible(image, side)
    text_width = max((font.getlength(text) for text, _ in lines[:rows]), default=0.0)
    width, height = (side, height or side) if square else paper_size(picture, text_width, side)
    page = place_on_paper(picture, width, height, line * rows)
    draw = ImageDraw.Draw(page)
    for row, (text, color) in enumerate(lines[:rows]):
        font.draw(draw, (6, height + 6 + line * row), shorten(text, font, width), color)
    return np.asarray(page)


def text_size(side: int) -> int:
    """Size of the text below an image of a size, in pixels."""
    return max(13, side // 20)


def common_height(images: Iterable[np.ndarray], side: int) -> int:
    """The height in pixels that images need in a grid of panels, when each is fitted into a square.

    Shape:
        - images: each ``[H_i, W_i, 3]``.
    """
    needed = max(math.ceil(side * image.shape[0] / max(image.shape[:2])) for image in images)
    return min(max(needed, side // 4), side)


def place_on_paper(picture: np.ndarray, width: int, height: int, text_height: int) -> Image.Image:
    """Center a picture ``[h, w, 3]`` on white paper, with a margin of 4 pixels and space for text below."""
    canvas = np.full((height + 8 + text_height, width + 8, 3), PAPER, np.uint8)
    top, left = 4 + (height - picture.shape[0]) // 2, 4 + (width - picture.shape[1]) // 2
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return Image.fromarray(canvas)


def paper_size(picture: np.ndarray, text_width: float, side: int) -> tuple[int, int]:
    """Width and height of the paper for a picture ``[h, w, 3]``: its size, widened for the text up to `side`."""
    return max(picture.shape[1], min(side, math.ceil(text_width))), picture.shape[0]


def fit_square(image: np.ndarray, side: int) -> np.ndarray:
    """Resize an image so that its longer side has `side` pixels; enlarging is smooth, shrinking averages.

    Shape:
        - image: ``[H, W, 3]`` uint8.
        - Output: ``[h, w, 3]`` uint8.
    """
    return _scale(image, side / max(image.shape[:2]))


def fit_legible(image: np.ndarray, side: int) -> np.ndarray:
    """Resize an image like `fit_square`, but keep a narrow strip at least ``side / 4`` pixels wide.

    A strip is not enlarged beyond its own size for that, and not longer than eight times `side`.

    Shape:
        - image: ``[H, W, 3]`` uint8.
        - Output: ``[h, w, 3]`` uint8.
    """
    shorter, longer = sorted(image.shape[:2])
    return _scale(image, max(side / longer, min(side / 4 / shorter, 8 * side / longer, 1.0)))


def _scale(image: np.ndarray, factor: float) -> np.ndarray:
    """Resize ``[H, W, 3]`` by a factor, to at least one pixel per side."""
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def grid(panels: Sequence[np.ndarray], columns: int | None = None) -> np.ndarray:
    """Arrange panels of one size in rows.

    Args:
        panels: The panels, in reading order.
        columns: Number of panels per row; None: a nearly square grid.

    Shape:
        - panels: each ``[H, W, 3]`` uint8.
        - Output: ``[rows * H, columns * W, 3]`` uint8.
    """
    columns = columns or math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    height, width = panels[0].shape[:2]
    canvas = np.full((rows * height, columns * width, 3), PAPER, np.uint8)
    for index, content in enumerate(panels):
        row, column = divmod(index, columns)
        canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = content
    return canvas


def confusion_figure(counts: np.ndarray, names: Sequence[str], title: str) -> np.ndarray:
    """Plot a confusion matrix: each row shows how the images of a class are predicted, in percent of the class.

    Args:
        counts: Counts, ground truth by prediction.
        names: Class names; the axes have none with more than 40 classes. Long names are shortened.
        title: Title of the plot.

    Shape:
        - counts: ``[K, K]``.
        - Output: ``[H, W, 3]`` uint8.
    """
    from matplotlib.figure import Figure

    number = len(counts)
    percentages = 100 * counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    labels = chart_names(range(number), names)
    side = min(max(4.0, 1.8 + 0.42 * number), 12.0)
    with chart_fonts([*labels, title]):
        figure = Figure(figsize=(side + 0.8, side), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        heatmap = axes.imshow(percentages, cmap="Blues", vmin=0, vmax=100)
        figure.colorbar(heatmap, ax=axes, label="% of the true class", shrink=0.8)
        axes.set(xlabel="predicted", ylabel="true", title=title)
        if number <= 40:
            longest = max(map(len, labels))
            axes.set_xticks(range(number), labels, rotation=90 if longest > 3 else 0, fontsize=8)
            axes.set_yticks(range(number), labels, fontsize=8)
        if number <= 15:
            for row, column in np.argwhere(counts > 0):
                percentage = percentages[row, column]
                text = "white" if percentage > 55 else "black"
                axes.text(column, row, f"{percentage:.0f}", ha="center", va="center", fontsize=8, color=text)
        return render_figure(figure)


def chart_names(labels: Iterable[int], names: Sequence[str]) -> list[str]:
    """Names of classes for a chart: at most about 25 letters, or the class's number if no font has its characters."""
    font = TextFont(13)
    return [shorten(drawable_name(label, names), font, 160) for label in labels]


def render_figure(figure: Any) -> np.ndarray:
    """Render a matplotlib figure without a display, to ``[H, W, 3]`` uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
