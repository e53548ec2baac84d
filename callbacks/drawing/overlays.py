"""Targets drawn on their images: boxes, masks and classes, of the truth or of a prediction.

A target is a dictionary of numpy arrays or tensors with the fields of a batch (`datamodules.batches`), for one image:
``label``; ``label, box``, perhaps with ``score``; ``mask``; or ``boxes, labels`` with, perhaps, ``masks``, ``scores``,
``iscrowd`` and ``difficult``. Everything is drawn at the size at which it will be seen, so that lines are as thin on a
large photograph as on a small digit.
"""

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...datamodules.export.voc import palette
from ...tasks.metrics.segmentation import IGNORE_INDEX
from .canvas import NEUTRAL, PAPER, Colour, class_name, fitted, fitted_freely, on_paper, room_for, shorten
from .tags import draw_tags

_HUES = (0.0, 0.58, 0.33, 0.13, 0.78, 0.47, 0.92, 0.06, 0.66, 0.22)
SHOWN = 0.5  # predicted objects of lower score are not drawn, unless one asks for them
_BACKGROUNDS = ("background", "bg", "unlabeled", "unlabelled", "void")
_PALETTE = palette()
_GRAY = (150, 150, 150)
_FILL = 0.55  # how much of a mask's colour covers the image


class Chip(NamedTuple):
    """An entry of the line below a picture: a patch of colour, and a name.

    Attributes:
        text: what the colour stands for.
        colour: None: no patch, the text alone.
        hatched: the patch is striped, as ignored pixels and the masks of crowds are.
        dashed: the patch is a dashed box, as those of crowds and of difficult objects are.
    """

    text: str
    colour: Colour | None = None
    hatched: bool = False
    dashed: bool = False


def colour_of(number: int) -> Colour:
    """A colour for a class or an object: ten hues, then the same ones paler, then darker."""
    hue, level = _HUES[number % len(_HUES)], number // len(_HUES) % 3
    saturation, value = ((0.85, 0.95), (0.45, 1.0), (0.9, 0.6))[level]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def mask_colour(label: int) -> Colour:
    """The colour of a class in a semantic mask: VOC's palette, as in the PNG files that prediction writes.

    >>> mask_colour(15)
    (192, 128, 128)
    """
    red, green, blue = _PALETTE[3 * label : 3 * label + 3]
    return red, green, blue


def is_background(label: int, names: Sequence[str]) -> bool:
    """Whether a class is what is left of the image: class 0 of such a name, or any class named ``background``.

    >>> is_background(0, ["_Background_", "bg"]), is_background(1, ["road", "bg"])
    (True, False)
    """
    name = class_name(label, names)
    return name == "background" or (label == 0 and name.strip(" _-").lower() in _BACKGROUNDS)


def target_of(batch: Mapping[str, Any], place: int) -> dict[str, Any]:
    """What a batch says of one of its images, whatever the task: empty where it says nothing."""
    if "target" in batch:
        return dict(batch["target"][place])
    return {field: batch[field][place] for field in ("label", "box", "mask") if field in batch}


def drawable(target: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The fields of a target or of a prediction that can be drawn, as arrays, from whatever device."""
    fields = ("label", "score", "box", "mask", "boxes", "labels", "masks", "scores", "iscrowd", "difficult")
    return {
        field: target[field].detach().cpu().numpy() if isinstance(target[field], Tensor) else np.asarray(target[field])
        for field in fields
        if field in target
    }


def overlap_note(prediction: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> str:
    """``, IoU 0.83`` where both have the one box of localization; else nothing."""
    if "box" not in prediction or "box" not in truth:
        return ""
    first, second = (np.asarray(one["box"], np.float64).reshape(4) for one in (prediction, truth))
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = sides.clip(0).prod()
    union = sum((box[2:] - box[:2]).clip(0).prod() for box in (first, second)) - shared
    return f", IoU {shared / union:.2f}" if union > 0 else ""


def hidden_note(prediction: Mapping[str, Any], shown_from: float = SHOWN) -> str:
    """``, 57 of less than 50 % not drawn`` where a detector is not sure of some of its objects; else nothing."""
    hidden = 0 if "scores" not in prediction else sum(score < shown_from for score in prediction["scores"].tolist())
    return f", {hidden} of less than {100 * shown_from:.0f} % not drawn" if hidden else ""


def annotated(
    image: np.ndarray,
    target: Mapping[str, Any],
    names: Sequence[str],
    side: int,
    shown_from: float = SHOWN,
    square: bool = True,
) -> tuple[np.ndarray, list[Chip]]:
    """An image with its target, and what its colours stand for.

    The classes of a mask have VOC's colours; class 0 is left untinted where its name says that it is the background
    (`is_background`), pixels to be ignored are striped.

    Args:
        image: RGB uint8 ``[H, W, 3]``.
        target: see the module.
        names: of the classes.
        side: of the longer side of the result, pixels.
        shown_from: the least score of the objects that are drawn.
        square: whether it is to fit into a square; else strips are larger (`drawing.fitted_freely`).

    Shape:
        - Output: ``[h, w, 3]`` uint8, the longer of h and w is `side`, where it is to fit into a square.
    """
    target = drawable(target)
    picture = fitted(image, side) if square else fitted_freely(image, side)
    factor = np.array(picture.shape[1::-1]) / image.shape[1::-1]
    if "mask" in target:
        return _with_classes(picture, target["mask"], names)
    if "scores" in target:  # a detector gives a hundred boxes of which it is not sure
        kept = target["scores"] >= shown_from
        target = {
            key: value[kept] if value.ndim and len(value) == len(kept) else value for key, value in target.items()
        }
    if "boxes" in target:
        return _with_objects(picture, target, names, factor)
    if "box" in target:
        one = {"boxes": target["box"].reshape(1, 4), "labels": target["label"].reshape(1)}
        if "score" in target:
            one["scores"] = target["score"].reshape(1)
        return _with_objects(picture, one, names, factor)
    return picture, [Chip(class_name(int(target["label"]), names))] if "label" in target else []


def _with_classes(picture: np.ndarray, mask: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[Chip]]:
    height, width = picture.shape[:2]
    large = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    picture, chips = picture.copy(), []
    counts = np.bincount(mask.ravel(), minlength=256)
    for label in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)].tolist():
        own, share = large == label, _percent(counts[label] / mask.size)
        if label == IGNORE_INDEX:
            _hatch(picture, own)
            chips.append(Chip(f"ignored: {share}", _GRAY, hatched=True))
        elif is_background(label, names):  # left as it is, to see the image
            chips.append(Chip(f"{class_name(label, names)}: {share}", PAPER))
        else:
            _paint(picture, own, mask_colour(label))
            chips.append(Chip(f"{class_name(label, names)}: {share}", mask_colour(label)))
    return picture, sorted(chips, key=lambda chip: chip.hatched or chip.colour == PAPER)


def _percent(share: float) -> str:
    return "< 1 %" if share < 0.005 else f"{100 * share:.0f} %"


def _with_objects(
    picture: np.ndarray, target: Mapping[str, np.ndarray], names: Sequence[str], factor: np.ndarray
) -> tuple[np.ndarray, list[Chip]]:
    boxes, labels = np.asarray(target["boxes"], np.float64).reshape(-1, 4), target["labels"]
    crowds = np.asarray(target.get("iscrowd", np.zeros(len(boxes))), np.bool_)
    difficult = np.asarray(target.get("difficult", np.zeros(len(boxes))), np.bool_)
    masks = target.get("masks")
    # objects with masks are told apart by colour, those with boxes alone by place: there a colour is a class
    colours = [colour_of(int(n)) for n in (labels if masks is None else range(len(boxes)))]
    if masks is not None:
        picture = _with_masks(picture, np.asarray(masks), colours, crowds)
    said = [class_name(int(label), names) for label in labels]
    scores = [f"{100 * float(score):.0f}%" for score in target["scores"]] if "scores" in target else [""] * len(boxes)
    shown = Image.fromarray(picture)
    draw = ImageDraw.Draw(shown)
    corners = boxes * np.tile(factor, 2)
    for box, colour, dashed in zip(corners.tolist(), colours, crowds | difficult, strict=True):
        _rectangle(draw, box, shown.size, colour, bool(dashed), thin=masks is not None)
    draw_tags(draw, corners, shown.size, list(zip(said, scores, strict=True)), colours)
    return np.asarray(shown), _counted(labels, crowds, difficult, names, plain=masks is not None)


def _counted(
    labels: np.ndarray, crowds: np.ndarray, difficult: np.ndarray, names: Sequence[str], plain: bool
) -> list[Chip]:
    """``dog x3``, the crowds of each class, and how many objects are difficult.

    A crowd looks as it is drawn: a dashed box in its class's colour, or, where objects have masks, stripes.
    """
    if not len(labels):
        return [Chip("no objects")]
    chips = [
        Chip(class_name(label, names) + times, None if plain else colour_of(label))
        for label, times in _times(labels[~crowds])
    ]
    chips += [
        Chip(f"{class_name(label, names)} crowd{times}", _GRAY if plain else colour_of(label), plain, not plain)
        for label, times in _times(labels[crowds])
    ]
    if difficult.any():
        chips.append(Chip(f"{difficult.sum()} difficult", _GRAY, dashed=True))
    return chips


def _times(labels: np.ndarray) -> list[tuple[int, str]]:
    """Each class that occurs, and ``x3`` where it does so several times."""
    return [(label, f" x{count}" if count > 1 else "") for label, count in sorted(Counter(labels.tolist()).items())]


def _with_masks(picture: np.ndarray, masks: np.ndarray, colours: Sequence[Colour], crowds: np.ndarray) -> np.ndarray:
    picture = picture.copy()
    size = picture.shape[1::-1]
    # the large below the small
    for place in np.argsort(-masks.sum(axis=(1, 2)), kind="stable").tolist():
        own = cv2.resize(masks[place].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) != 0
        if crowds[place]:
            _hatch(picture, own)
        else:
            _paint(picture, own, colours[place])
    return picture


def _paint(picture: np.ndarray, where: np.ndarray, colour: Colour) -> None:
    """Tint a region and draw its outline, in place. Shape: ``[H, W, 3]``, ``[H, W]``."""
    picture[where] = np.rint(picture[where] * (1 - _FILL) + np.array(colour) * _FILL).astype(np.uint8)
    outlines, _ = cv2.findContours(where.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, colour, 1, cv2.LINE_8)


def _hatch(picture: np.ndarray, where: np.ndarray) -> None:
    """Gray stripes over a region, in place."""
    rows, columns = np.nonzero(where)
    light = ((rows + columns) // 5 % 2).astype(bool)
    stripes = np.where(light, 205, 110)[:, None]
    picture[rows, columns] = np.rint(picture[rows, columns] * 0.35 + stripes * 0.65).astype(np.uint8)


def _rectangle(
    draw: ImageDraw.ImageDraw, box: Sequence[float], size: tuple[int, int], colour: Colour, dashed: bool, thin: bool
) -> None:
    """The outline of a box, wholly inside the picture, on a dark line that shows it on any ground."""
    x1, y1 = max(0, round(box[0])), max(0, round(box[1]))
    # pixels that a line may lie on are one less than the edges between them
    x2, y2 = min(size[0], round(box[2])) - 1, min(size[1], round(box[3])) - 1
    x2, y2 = max(x1, x2), max(y1, y2)
    width = 1 if thin else 2
    if not dashed:
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=min(width, x2 - x1 + 1, y2 - y1 + 1))
        return
    _dashes(draw, (x1, y1, x2, y2), colour, width)


def _dashes(
    draw: ImageDraw.ImageDraw, corners: tuple[int, int, int, int], colour: Colour, width: int, length: int = 4
) -> None:
    """A dashed outline."""
    x1, y1, x2, y2 = corners
    for start in range(x1, x2 + 1, 2 * length):
        end = min(start + length, x2)
        draw.line([(start, y1), (end, y1)], colour, width)
        draw.line([(start, y2), (end, y2)], colour, width)
    for start in range(y1, y2 + 1, 2 * length):
        end = min(start + length, y2)
        draw.line([(x1, start), (x1, end)], colour, width)
        draw.line([(x2, start), (x2, end)], colour, width)


def target_panel(
    image: np.ndarray,
    target: Mapping[str, Any],
    names: Sequence[str],
    note: str = "",
    side: int = 256,
    shown_from: float = SHOWN,
    square: bool = True,
) -> np.ndarray:
    """A picture of a sample on paper: its image with its target, its classes below, and a note.

    Args:
        image: RGB uint8 ``[H, W, 3]``.
        target: see the module.
        names: of the classes.
        note: a line of small print.
        side: of the square that the image is fitted into, pixels.
        shown_from: the least score of the objects that are drawn.
        square: for a grid; else the paper has the image's shape, with room for the text.

    Shape:
        - Output: ``[side + 8 + 54, side + 8, 3]`` uint8; ``[H, W, 3]`` where it is not square.
    """
    picture, chips = annotated(image, target, names, side, shown_from, square)
    font = ImageFont.load_default(11)
    text_width = 4 + max(_legend_width(chips), font.getlength(note))
    width, height = (side, side) if square else room_for(picture, text_width, side)
    page = on_paper(picture, width, height, 54)
    draw = ImageDraw.Draw(page)
    rows = _legend(draw, chips, (6, height + 7), width - 4)
    draw.text((6, height + 9 + 17 * rows), shorten(note, font, width - 4), fill=(130, 130, 138), font=font)
    drawn = np.asarray(page)
    return drawn if square else drawn[: height + 28 + 17 * rows]


def _legend_width(chips: Sequence[Chip]) -> float:
    """What the chips take in one line."""
    font = ImageFont.load_default(13)
    return sum((0 if chip.colour is None else 15) + font.getlength(chip.text) + 9 for chip in chips)


def _legend(draw: ImageDraw.ImageDraw, chips: Sequence[Chip], start: tuple[int, int], width: int, rows: int = 2) -> int:
    """Chips in at most `rows` lines of 17 pixels, and how many lines they took; what finds no room is counted."""
    font = ImageFont.load_default(13)
    reserve = font.getlength("+99")
    x, row = 0.0, 0
    for number, chip in enumerate(chips):
        patch = 0 if chip.colour is None else 15
        text = shorten(chip.text, font, width - patch)
        wide = patch + font.getlength(text)
        last = row == rows - 1 and number < len(chips) - 1
        if x > 0 and x + wide + (reserve + 8 if last else 0) > width:
            row, x = row + 1, 0.0
        if row == rows:
            break
        at = (start[0] + x, start[1] + 17 * row)
        if chip.colour is not None:
            _patch(draw, (round(at[0]), at[1] + 3), chip)
        draw.text((at[0] + patch, at[1]), text, fill=NEUTRAL, font=font)
        x += wide + 9
    else:
        return row + bool(chips)
    more = f"+{len(chips) - number}"
    draw.text((start[0] + width - font.getlength(more), start[1] + 17 * (rows - 1)), more, fill=NEUTRAL, font=font)
    return rows


def _patch(draw: ImageDraw.ImageDraw, at: tuple[int, int], chip: Chip) -> None:
    x, y = at
    if chip.dashed and chip.colour is not None:
        _dashes(draw, (x, y, x + 10, y + 10), chip.colour, width=2, length=3)
        return
    draw.rectangle((x, y, x + 10, y + 10), fill=chip.colour, outline=(120, 120, 128))
    if chip.hatched:
        for shift in (3, 7, 11, 15):
            x1, x2 = max(0, shift - 9), min(9, shift)
            draw.line([(x + 1 + x1, y + 1 + shift - x1), (x + 1 + x2, y + 1 + shift - x2)], fill=(70, 70, 70))


def titled(picture: np.ndarray, title: str) -> np.ndarray:
    """A picture with a line of text above it. Shape: ``[H, W, 3]`` to ``[H + 30, W, 3]`` uint8."""
    page = Image.fromarray(np.concatenate([np.full((30, picture.shape[1], 3), PAPER, np.uint8), picture]))
    font = ImageFont.load_default(15)
    ImageDraw.Draw(page).text((10, 7), shorten(title, font, picture.shape[1] - 20), fill=NEUTRAL, font=font)
    return np.asarray(page)
