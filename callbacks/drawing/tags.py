"""Tags of boxes, with name and score, placed where they leave the objects to be seen."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ...datamodules.images.fonts import TextFont, shorten
from .colors import EDGE, PAPER, Color, contrast_color

Area = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the plot."""

MAX_COVER = 0.12
"""Maximum fraction of another box that a tag may cover."""

MAX_OWN_COVER = 0.35
"""Maximum fraction of its own box that a tag may cover."""


def tag_size(corners: np.ndarray, side: int) -> int:
    """Size of the text of tags in pixels: it suits the plot, and is smaller where the boxes ``[N, 4]`` are small."""
    usual = max(12, side // 28)
    if len(corners) < 4:
        return usual
    shorter = np.minimum(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    return int(np.clip(np.median(shorter) / 2, 11, usual))


def draw_tags(
    page: Image.Image,
    corners: np.ndarray,
    texts: Sequence[tuple[str, str]],
    colors: Sequence[Color],
    text_size: int = 12,
    filled: bool = True,
) -> None:
    """Draw a name and a score beside each box, or in a large one, without overlaps; a tag without space is left out.

    Args:
        page: The plot, which is changed.
        corners: x1, y1, x2, y2 of the boxes in pixels of the plot, ``[N, 4]``.
        texts: Class name and score of each box; either may be empty.
        colors: Color of each box.
        text_size: Size of the text in pixels.
        filled: Fill the tags with the colors of their boxes; else they are text with an outline.
    """
    draw, font, height, size = ImageDraw.Draw(page), TextFont(text_size), text_size + 3, page.size
    taken: list[Area] = []
    # large objects first: where space is short, tags of small objects are left out
    order = np.argsort(-(corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]), kind="stable")
    for index in order.tolist():
        box, (name, score) = corners[index].tolist(), texts[index]
        others = np.delete(corners, index, axis=0)
        usual_width = min(max(44, round(1.3 * (box[2] - box[0]))), size[0] - 6)
        for number, text in enumerate(_wordings(name, score, font, usual_width, size[0] - 6)):
            width = font.getlength(text)
            # a full name far wider than its box is only drawn where it covers no neighbor
            wide = number == 0 and width > usual_width
            if wide and width > size[0] / 2:
                continue
            areas = _areas(box, width + 6, height, size)
            area = next((area for area in areas if _is_free(area, taken, box, others, wide)), None)
            if area is not None:
                taken.append(area)
                corner = (area[0] + 3, area[1])
                if filled:
                    draw.rectangle((area[0], area[1], area[2] - 1, area[3] - 1), fill=colors[index])
                    font.draw(draw, corner, text, contrast_color(colors[index]))
                else:
                    pixels = np.asarray(page.crop(area)).reshape(-1, 3)
                    dark = contrast_color(tuple(pixels.mean(axis=0))) == (0, 0, 0)
                    font.draw(draw, corner, text, *((EDGE, PAPER) if dark else (PAPER, EDGE)))
                break


def _wordings(name: str, score: str, font: TextFont, width: int, most: int) -> list[str]:
    """Texts of a tag by preference: all of it, the name cut so that both fit into `width` pixels, the score alone.

    A cut name has some letters in any case, if they fit into `most` pixels.
    """
    if not name or not score:
        text = name or score
        return [text, shorten(text, font, width)] if text else []
    # two spaces, since one hardly separates a class "0" from its score at this size
    behind = font.getlength(f"  {score}")
    cut = shorten(name, font, max(width - behind, min(3 * font.size, most - behind)))
    return [f"{name}  {score}", f"{cut}  {score}", score]


def _areas(box: Sequence[float], width: float, height: int, size: tuple[int, int]) -> list[Area]:
    """The areas in the plot where a tag may lie, by preference: above its box, inside or below it, beside it."""
    left = max(0, min(round(box[0]), size[0] - width))
    first, last = round(box[1]), round(box[3])
    # a tag inside a small box would cover all of it, so that below comes first there
    inside = (first, last) if last - first >= 2 * height else (last, first)
    places = [(left, top) for top in (first - height, *inside)]
    middle = max(0, min(round((box[1] + box[3] - height) / 2), size[1] - height))
    places += [(round(box[2]), middle), (round(box[0]) - width, middle), (left, last - height)]
    areas = [(x, y, x + width, y + height) for x, y in places]
    return [area for area in areas if area[0] >= 0 and area[1] >= 0 and area[2] <= size[0] and area[3] <= size[1]]


def _is_free(area: Area, taken: Sequence[Area], box: Sequence[float], others: np.ndarray, wide: bool) -> bool:
    """Whether a tag overlaps no other and leaves the boxes ``[N, 4]`` visible; a wide one crosses none of them."""
    if any(_covered(area, np.array([other]))[0] > 0 for other in taken):
        return False
    if _covered(area, np.array([box]))[0] > MAX_OWN_COVER or (_covered(area, others) > MAX_COVER).any():
        return False
    return not (wide and _crosses(area, others))


def _covered(area: Area, boxes: np.ndarray) -> np.ndarray:
    """The fractions ``[N]`` of boxes ``[N, 4]`` that an area covers."""
    x1, y1, x2, y2 = boxes.T
    width = (np.minimum(x2, area[2]) - np.maximum(x1, area[0])).clip(0)
    height = (np.minimum(y2, area[3]) - np.maximum(y1, area[1])).clip(0)
    return np.asarray(width * height / ((x2 - x1) * (y2 - y1)).clip(1e-6))


def _crosses(area: Area, boxes: np.ndarray) -> bool:
    """Whether an area touches one of the boxes ``[N, 4]`` without lying inside it."""
    x1, y1, x2, y2 = boxes.T
    touches = (x1 < area[2]) & (area[0] < x2) & (y1 < area[3]) & (area[1] < y2)
    within = (x1 <= area[0]) & (area[2] <= x2) & (y1 <= area[1]) & (area[3] <= y2)
    return bool((touches & ~within).any())
