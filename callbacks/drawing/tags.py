"""Names and scores beside the boxes of a picture, where they hide as little as may be."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import ImageDraw, ImageFont

from .canvas import Colour, shorten

Area = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the picture."""


def draw_tags(
    draw: ImageDraw.ImageDraw,
    corners: np.ndarray,
    size: tuple[int, int],
    texts: Sequence[tuple[str, str]],
    colours: Sequence[Colour],
) -> None:
    """A name and a score at a corner of each box, where no other lies yet; left out where there is no room.

    Args:
        draw: of the picture.
        corners: of the boxes, ``[N, 4]``.
        size: width and height of the picture.
        texts: class name and score of each; the score may be empty.
        colours: of each.
    """
    font = ImageFont.load_default(12)
    taken: list[Area] = []
    # the large objects first: where there is no room, it is the small ones' that is left out
    order = np.argsort(-(corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]), kind="stable")
    for place in order.tolist():
        box, (name, score) = corners[place].tolist(), texts[place]
        usual = min(max(44, round(1.3 * (box[2] - box[0]))), size[0] - 6)
        for number, text in enumerate(_wordings(name, score, font, usual)):
            width = font.getlength(text)
            # a full name that is far wider than its box may lie where it hides no neighbour
            wide = number == 0 and width > usual
            kept_clear = np.delete(corners, place, axis=0) if wide else corners[:0]
            area = _free_area(box, width + 6, size, taken, kept_clear)
            if area is not None:
                taken.append(area)
                draw.rectangle((area[0], area[1], area[2] - 1, area[3] - 1), fill=colours[place])
                draw.text((area[0] + 3, area[1]), text, fill=ink_on(colours[place]), font=font)
                break


def _wordings(name: str, score: str, font: Any, width: int) -> list[str]:
    """What a tag may say, the best first: all, the name cut so that both have `width` pixels, the score alone."""
    if not score:
        return [name, shorten(name, font, width)]
    # two spaces, since this size's single one hardly parts a class "0" from its score; a letter and the ellipsis need
    # up to 24 pixels
    cut = shorten(name, font, max(24, round(width - font.getlength(f"  {score}"))))
    return [f"{name}  {score}", f"{cut}  {score}", score]


def _free_area(
    box: Sequence[float], width: float, size: tuple[int, int], taken: Sequence[Area], kept_clear: np.ndarray
) -> Area | None:
    """Where a tag fits above its box, inside it or below: in the picture, on no other tag, across no box's outline."""
    height = 15
    left = max(0, min(round(box[0]), size[0] - width))
    first, last = round(box[1]), round(box[3])
    # within a small box there would be nothing else to see
    beside = (first, last) if last - first >= 2 * height else (last, first)
    for top in (first - height, *beside, last - height):
        area = (left, top, left + width, top + height)
        inside = top >= 0 and area[3] <= size[1] and area[2] <= size[0]
        if inside and not any(_overlap(area, other) for other in taken) and not _crosses(area, kept_clear):
            return area
    return None


def _overlap(first: Area, second: Area) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _crosses(area: Area, boxes: np.ndarray) -> bool:
    """Whether an area touches a box without lying wholly inside it. Shape: boxes ``[N, 4]``."""
    x1, y1, x2, y2 = boxes.T
    touches = (x1 < area[2]) & (area[0] < x2) & (y1 < area[3]) & (area[1] < y2)
    within = (x1 <= area[0]) & (area[2] <= x2) & (y1 <= area[1]) & (area[3] <= y2)
    return bool((touches & ~within).any())


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read on a colour."""
    return (0, 0, 0) if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140 else (255, 255, 255)
