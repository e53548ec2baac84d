"""The legend below a plot: patches of color with the names of classes."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import ImageDraw

from ...datamodules.images.fonts import TextFont, shorten
from .colors import NEUTRAL, Color


class LegendEntry(NamedTuple):
    """An entry of the legend below a plot: a patch of color and a name.

    Attributes:
        text: The class or group that the color stands for.
        color: Color of the patch; None: text without a patch.
        hatched: Stripe the patch, like ignored pixels and the masks of crowds.
        dashed: Make the patch a dashed box, like those of crowds and of difficult objects.
    """

    text: str
    color: Color | None = None
    hatched: bool = False
    dashed: bool = False


def legend_width(legend: Sequence[LegendEntry], font: TextFont) -> float:
    """Width of the legend on one line, in pixels."""
    return sum(_patch_width(entry, font) + font.getlength(entry.text) + _gap(font) for entry in legend)


def draw_legend(
    draw: ImageDraw.ImageDraw,
    legend: Sequence[LegendEntry],
    start: tuple[int, int],
    width: int,
    font: TextFont,
    rows: int = 2,
) -> int:
    """Draw the entries in lines of `line_height`, and return the number of lines; ``+3`` stands for more entries.

    Args:
        draw: Draws on the plot.
        legend: The entries.
        start: Upper left corner, in pixels.
        width: Width of the lines, in pixels.
        font: Font of the text.
        rows: Maximum number of lines.
    """
    reserve, line = font.getlength("+99"), line_height(font)
    x, row = 0.0, 0
    for number, entry in enumerate(legend):
        patch = _patch_width(entry, font)
        text = shorten(entry.text, font, width - patch)
        entry_width = patch + font.getlength(text)
        last = row == rows - 1 and number < len(legend) - 1
        if x > 0 and x + entry_width + (reserve + _gap(font) if last else 0) > width:
            row, x = row + 1, 0.0
        if row == rows:
            break
        left, top = start[0] + x, start[1] + line * row
        if entry.color is not None:
            _draw_patch(draw, (round(left), top + 3), entry, entry.color, patch - 5)
        font.draw(draw, (left + patch, top), text, NEUTRAL)
        x += entry_width + _gap(font)
    else:
        return row + bool(legend)
    more = f"+{len(legend) - number}"
    font.draw(draw, (start[0] + width - font.getlength(more), start[1] + line * (rows - 1)), more, NEUTRAL)
    return rows


def line_height(font: TextFont) -> int:
    """Height of a line of the legend, in pixels."""
    return font.size + 4


def _gap(font: TextFont) -> int:
    return round(0.7 * font.size)


def _patch_width(entry: LegendEntry, font: TextFont) -> int:
    """Width of the patch and of the space behind it."""
    return 0 if entry.color is None else round(0.77 * font.size) + 5


def _draw_patch(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], entry: LegendEntry, color: Color, side: int
) -> None:
    x, y = corner
    if entry.dashed:
        draw_dashed_box(draw, (x, y, x + side, y + side), color, width=2, length=3)
        return
    draw.rectangle((x, y, x + side, y + side), fill=color, outline=(120, 120, 128))
    if entry.hatched:
        for shift in range(3, 2 * side, 4):
            x1, x2 = max(0, shift - side + 1), min(side - 1, shift)
            draw.line([(x + 1 + x1, y + 1 + shift - x1), (x + 1 + x2, y + 1 + shift - x2)], fill=(70, 70, 70))


def draw_dashed_box(
    draw: ImageDraw.ImageDraw, corners: tuple[int, int, int, int], color: Color, width: int, length: int = 4
) -> None:
    """Draw a dashed outline, with dashes of `length` pixels."""
    x1, y1, x2, y2 = corners
    for start in range(x1, x2 + 1, 2 * length):
        end = min(start + length, x2)
        draw.line([(start, y1), (end, y1)], color, width)
        draw.line([(start, y2), (end, y2)], color, width)
    for start in range(y1, y2 + 1, 2 * length):
        end = min(start + length, y2)
        draw.line([(x1, start), (x1, end)], color, width)
        draw.line([(x2, start), (x2, end)], color, width)
