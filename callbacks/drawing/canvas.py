"""Drawing samples with their truth and prediction, as plain ``uint8`` pictures."""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
RIGHT, WRONG, NEUTRAL = (24, 120, 60), (190, 30, 45), (40, 40, 48)
PAPER = (255, 255, 255)


def class_name(label: int, names: Sequence[str]) -> str:
    """The name of a class, or its number where there is no name."""
    return names[label] if label < len(names) else str(label)


def captions(prediction: dict[str, Any], truth: dict[str, Any], names: Sequence[str]) -> list[tuple[str, Colour]]:
    """The lines under a picture: what was predicted, and what is true if that is known and differs."""
    label = int(prediction["label"])
    said = f"{class_name(label, names)}  {100 * prediction['score']:.0f} %"
    if "label" not in truth:
        return [(said, NEUTRAL)]
    if label == int(truth["label"]):
        return [(said, RIGHT), (f"is {class_name(label, names)}", NEUTRAL)]
    return [(said, WRONG), (f"is {class_name(int(truth['label']), names)}", NEUTRAL)]


def panel(
    image: np.ndarray, lines: Sequence[tuple[str, Colour]], side: int = 176, rows: int = 2, square: bool = True
) -> np.ndarray:
    """One picture on paper, with lines of text below.

    Args:
        image: RGB uint8 ``[H, W, 3]``.
        lines: text and colour.
        side: of the square that the image is fitted into, pixels.
        rows: lines of text to leave room for.
        square: for a grid; else the paper has the image's shape (`fitted_freely`).

    Shape:
        - Output: ``[H, side + 8, 3]`` uint8, with H as the lines of text need; ``[H, W, 3]`` where it is not square.
    """
    text_size = max(13, side // 20)
    line = text_size + 5
    font = ImageFont.load_default(text_size)
    picture = fitted(image, side) if square else fitted_freely(image, side)
    text_width = max((font.getlength(text) for text, _ in lines[:rows]), default=0.0)
    width, height = (side, side) if square else room_for(picture, text_width, side)
    page = on_paper(picture, width, height, line * rows)
    draw = ImageDraw.Draw(page)
    for row, (text, colour) in enumerate(lines[:rows]):
        draw.text((6, height + 6 + line * row), shorten(text, font, width), fill=colour, font=font)
    return np.asarray(page)


def on_paper(picture: np.ndarray, width: int, height: int, below: int) -> Image.Image:
    """A picture in the middle of an area on white paper, with a margin of 4 pixels, and room below for text."""
    canvas = np.full((height + 8 + below, width + 8, 3), PAPER, np.uint8)
    top, left = 4 + (height - picture.shape[0]) // 2, 4 + (width - picture.shape[1]) // 2
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return Image.fromarray(canvas)


def room_for(picture: np.ndarray, text_width: float, side: int) -> tuple[int, int]:
    """Width and height of the area for a picture: its own, wider where the text below is, up to `side`."""
    return max(picture.shape[1], min(side, math.ceil(text_width))), picture.shape[0]


def fitted(image: np.ndarray, side: int) -> np.ndarray:
    """An image resized so that its longer side is `side` pixels: small ones enlarged smoothly, large ones averaged.

    Shape:
        - image: ``[H, W, 3]`` uint8.
        - Output: ``[h, w, 3]`` uint8.
    """
    return _scaled(image, side / max(image.shape[:2]))


def fitted_freely(image: np.ndarray, side: int) -> np.ndarray:
    """An image resized as by `fitted`; but a strip of which little would be left has a quarter of `side` as its width.

    It is not made larger than it is for that, nor longer than eight times `side`.

    Shape:
        - image: ``[H, W, 3]`` uint8.
        - Output: ``[h, w, 3]`` uint8.
    """
    shorter, longer = sorted(image.shape[:2])
    return _scaled(image, max(side / longer, min(side / 4 / shorter, 8 * side / longer, 1.0)))


def _scaled(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def shorten(text: str, font: Any, width: int) -> str:
    """Cut `text` to `width` pixels, with an ellipsis where something is lost."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def grid(panels: Sequence[np.ndarray], columns: int | None = None) -> np.ndarray:
    """Panels of equal size, side by side in rows; near to square unless `columns` is given.

    Shape:
        - panels: each ``[H, W, 3]`` uint8.
        - Output: ``[rows * H, columns * W, 3]`` uint8.
    """
    columns = columns or math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    height, width = panels[0].shape[:2]
    canvas = np.full((rows * height, columns * width, 3), PAPER, np.uint8)
    for number, one in enumerate(panels):
        row, column = divmod(number, columns)
        canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = one
    return canvas


def confusion_figure(counts: np.ndarray, names: Sequence[str], title: str) -> np.ndarray:
    """A confusion matrix as a picture: each row shows where the images of a class went, in percent of the class.

    Args:
        counts: truth by prediction, ``[K, K]``.
        names: of the classes; left out of the axes from 41 classes on.
        title: above the matrix.

    Shape:
        - Output: ``[H, W, 3]`` uint8.
    """
    from matplotlib.figure import Figure

    number = len(counts)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = min(max(4.0, 1.8 + 0.42 * number), 12.0)
    figure = Figure(figsize=(side + 0.8, side), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(shown, ax=axes, label="% of the true class", shrink=0.8)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if number <= 40:
        labels = [class_name(k, names) for k in range(number)]
        longest = max(map(len, labels))
        axes.set_xticks(range(number), labels, rotation=90 if longest > 3 else 0, fontsize=8)
        axes.set_yticks(range(number), labels, fontsize=8)
    if number <= 15:
        for row, column in np.argwhere(counts > 0):
            share = shares[row, column]
            text = "white" if share > 55 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color=text)
    return rendered(figure)


def rendered(figure: Any) -> np.ndarray:
    """A matplotlib figure as a picture ``[H, W, 3]`` uint8, without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
