"""Tags of boxes, with name and score, placed where they cover as little as possible."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import ImageDraw, ImageFont

from .canvas import Color, shorten

Area = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the plot."""

TAG_HEIGHT = 15
"""Height of a tag in pixels."""


def draw_tags(
    draw: ImageDraw.ImageDraw,
    corners: np.ndarray,
    size: tuple[int, int],
    texts: Sequence[tuple[str, str]],
    colors: Sequence[Color],
) -> None:
    """Draw a name and a score at a corner of each box, without overlaps; a tag without space is left out.

    Args:
        draw: Draws on the plot.
        corners: x1, y1, x2, y2 of the boxes in pixels of the plot, ``[N, 4]``.
        size: Width and height of the plot.
        texts: Class name and score of each box; the score may be empty.
        colors: Color of each box.
    """
    font = ImageFont.load_default(12)
    taken: list[Area] = []
    # large objects first: where space is short, tags of small objects are left out
    order = np.argsort(-(corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]), kind="stable")
    for index in order.tolist():
        box, (name, score) = corners[index].tolist(), texts[index]
        usual_width = min(max(44, round(1.3 * (box[2] - box[0]))), size[0] - 6)
        for number, text in enumerate(_wordings(name, score, font, usual_width)):
            width = font.getlength(text)
            # a full name far wider than its box is only drawn where it covers no neighbor
            wide = number == 0 and width > usual_width
            avoid = np.delete(corners, index, axis=0) if wide else corners[:0]
            area = _free_area(box, width + 6, size, taken, avoid)
            if area is not None:
                taken.append(area)
                draw.rectangle((area[0], area[1], area[2] - 1, area[3] - 1), fill=colors[index])
                draw.text((area[0] + 3, area[1]), text, fill=contrast_color(colors[index]), font=font)
                break


def _wordings(name: str, score: str, font: Any, width: int) -> list[str]:
    """Texts of a tag by preference: all of it, the name cut so that both fit into `width` pixels, the score alone."""
    if not score:
        return [name, shorten(name, font, width)]
    # two spaces, since one hardly separates a class "0" from its score at this size; a letter and the ellipsis need up
    # to 24 pixels
    cut = shorten(name, font, max(24, round(width - font.getlength(f"  {score}"))))
    return [f"{name}  {score}", f"{cut}  {score}", score]


def _free_area(
    box: Sequence[float], width: float, size: tuple[int, int], taken: Sequence[Area], avoid: np.ndarray
) -> Area | None:
    """A free area for a tag above its box, inside or below it; None if there is none.

    It lies in the plot, overlaps no other tag, and crosses no outline of the boxes to avoid, ``[N, 4]``.
    """
    left = max(0, min(round(box[0]), size[0] - width))
    first, last = round(box[1]), round(box[3])
    # a tag inside a small box would cover all of it, so that below comes first there
    beside = (first, last) if last - first >= 2 * TAG_HEIGHT else (last, first)
    for top in (first - TAG_HEIGHT, *beside, last - TAG_HEIGHT):
        area = (left, top, left + width, top + TAG_HEIGHT)
        inside = top >= 0 and area[3] <= size[1] and area[2] <= size[0]
        if inside and not any(_overlap(area, other) for other in taken) and not _crosses(area, avoid):
            return area
    return None


def _overlap(first: Area, second: Area) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _crosses(area: Area, boxes: np.ndarray) -> bool:
    """Whether an area touches one of the boxes ``[N, 4]`` without lying inside it."""
    x1, y1, x2, y2 = boxes.T
    touches = (x1 < area[2]) & (area[0] < x2) & (y1 < area[3]) & (area[1] < y2)
    within = (x1 <= area[0]) & (area[2] <= x2) & (y1 <= area[1]) & (area[3] <= y2)
    return bool((touches & ~within).any())


def contrast_color(color: Color) -> Color:
    """Black or white, whichever is easier to read on a color."""
    return (0, 0, 0) if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140 else (255, 255, 255)
