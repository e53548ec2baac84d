"""Targets drawn on their images: boxes, masks and classes, of the ground truth or of a prediction.

A target is a dictionary of NumPy arrays or tensors with the fields of a batch (`datamodules.batches`), for one image:
``label``; ``label, box``, optionally with ``score``; ``mask``; or ``boxes, labels``, optionally with ``masks``,
``scores``, ``iscrowd`` and ``difficult``. Everything is drawn at the final size, so that lines are as thin on a large
photograph as on a small digit.
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
from .canvas import NEUTRAL, PAPER, Color, class_name, fit_legible, fit_square, paper_size, place_on_paper, shorten
from .tags import draw_tags

_HUES = (0.0, 0.58, 0.33, 0.13, 0.78, 0.47, 0.92, 0.06, 0.66, 0.22)
MIN_SCORE = 0.5  # predicted objects of lower score are not drawn by default
_BACKGROUNDS = ("background", "bg", "unlabeled", "unlabelled", "void")
_PALETTE = palette()
_GRAY = (150, 150, 150)
_OBJECT_FIELDS = ("boxes", "labels", "masks", "scores", "iscrowd", "difficult")
_FILL = 0.55  # opacity of a mask over the image


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


def color_of(number: int) -> Color:
    """The color of a class or an object: ten hues, then the same hues paler, then darker."""
    hue, level = _HUES[number % len(_HUES)], number // len(_HUES) % 3
    saturation, value = ((0.85, 0.95), (0.45, 1.0), (0.9, 0.6))[level]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def mask_color(label: int) -> Color:
    """The color of a class in a semantic mask: that of VOC's palette, as in the PNG files of predictions.

    >>> mask_color(15)
    (192, 128, 128)
    """
    red, green, blue = _PALETTE[3 * label : 3 * label + 3]
    return red, green, blue


def is_background(label: int, names: Sequence[str]) -> bool:
    """Whether a class is the background: class 0 with one of its usual names, or any class named ``background``.

    >>> is_background(0, ["_Background_", "bg"]), is_background(1, ["road", "bg"])
    (True, False)
    """
    name = class_name(label, names)
    return name == "background" or (label == 0 and name.strip(" _-").lower() in _BACKGROUNDS)


def target_of(batch: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The target of one image of a batch, for any task; empty if the batch has no targets."""
    if "target" in batch:
        return dict(batch["target"][index])
    return {field: batch[field][index] for field in ("label", "box", "mask") if field in batch}


def drawable_fields(target: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The fields of a target or prediction that can be drawn, as arrays, from any device."""
    fields = ("label", "score", "box", "mask", *_OBJECT_FIELDS)
    arrays = {
        field: target[field].detach().cpu().numpy() if isinstance(target[field], Tensor) else np.asarray(target[field])
        for field in fields
        if field in target
    }
    # evaluation counts objects of which a transform left nothing; their boxes have no area
    if "box" in arrays and not _has_area(arrays["box"].reshape(1, 4)).all():
        del arrays["box"]
    if "boxes" in arrays and not (visible := _has_area(arrays["boxes"].reshape(-1, 4))).all():
        arrays |= {field: arrays[field][visible] for field in _OBJECT_FIELDS if field in arrays}
    return arrays


def _has_area(boxes: np.ndarray) -> np.ndarray:
    """Which boxes ``[N, 4]`` cover something: ``[N]`` bool."""
    return (boxes[:, 2:] > boxes[:, :2]).all(axis=1)


def overlap_note(prediction: Mapping[str, np.ndarray], ground_truth: Mapping[str, np.ndarray]) -> str:
    """``, IoU 0.83`` for the two boxes of localization; empty for other tasks."""
    if "box" not in prediction or "box" not in ground_truth:
        return ""
    first, second = (np.asarray(fields["box"], np.float64).reshape(4) for fields in (prediction, ground_truth))
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    intersection = sides.clip(0).prod()
    union = sum((box[2:] - box[:2]).clip(0).prod() for box in (first, second)) - intersection
    return f", IoU {intersection / union:.2f}" if union > 0 else ""


def hidden_note(prediction: Mapping[str, Any], min_score: float = MIN_SCORE) -> str:
    """``, 57 below 50 % not drawn`` if a detector has objects of lower score; else empty."""
    hidden = 0 if "scores" not in prediction else sum(score < min_score for score in prediction["scores"].tolist())
    return f", {hidden} below {100 * min_score:.0f} % not drawn" if hidden else ""


def draw_target(
    image: np.ndarray,
    target: Mapping[str, Any],
    names: Sequence[str],
    side: int,
    min_score: float = MIN_SCORE,
    square: bool = True,
) -> tuple[np.ndarray, list[LegendEntry]]:
    """Draw a target on its image, and return the plot and its legend.

    The classes of a mask have VOC's colors. The background (`is_background`) is not tinted, and ignored pixels are
    striped.

    Args:
        image: RGB uint8.
        target: Target or prediction of the image (see the module).
        names: Class names.
        side: Longer side of the result, in pixels.
        min_score: Minimum score of the objects that are drawn.
        square: Fit the result into a square; else strips are larger (`canvas.fit_legible`).

    Shape:
        - image: ``[H, W, 3]``.
        - Output: ``[h, w, 3]`` uint8; the longer of h and w is `side`, if fitted into a square.
    """
    target = drawable_fields(target)
    picture = fit_square(image, side) if square else fit_legible(image, side)
    factor = np.array(picture.shape[1::-1]) / image.shape[1::-1]
    if "mask" in target:
        return _draw_classes(picture, target["mask"], names)
    if "scores" in target:  # a detector returns up to a hundred boxes of low score
        keep = target["scores"] >= min_score
        target = {
            key: value[keep] if value.ndim and len(value) == len(keep) else value for key, value in target.items()
        }
    if "boxes" in target:
        return _draw_objects(picture, target, names, factor)
    if "box" in target:
        single = {"boxes": target["box"].reshape(1, 4), "labels": target["label"].reshape(1)}
        if "score" in target:
            single["scores"] = target["score"].reshape(1)
        return _draw_objects(picture, single, names, factor)
    return picture, [LegendEntry(class_name(int(target["label"]), names))] if "label" in target else []


def _draw_classes(picture: np.ndarray, mask: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[LegendEntry]]:
    """Tint a picture ``[h, w, 3]`` by the classes of a mask ``[H, W]``."""
    height, width = picture.shape[:2]
    resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    picture, legend = picture.copy(), []
    counts = np.bincount(mask.ravel(), minlength=256)
    for label in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)].tolist():
        region, share = resized == label, counts[label] / mask.size
        percentage = "< 1 %" if share < 0.005 else f"{100 * share:.0f} %"
        if label == IGNORE_INDEX:
            _hatch(picture, region)
            legend.append(LegendEntry(f"ignored: {percentage}", _GRAY, hatched=True))
        elif is_background(label, names):  # not tinted, so that the image stays visible
            legend.append(LegendEntry(f"{class_name(label, names)}: {percentage}", PAPER))
        else:
            _tint(picture, region, mask_color(label))
            legend.append(LegendEntry(f"{class_name(label, names)}: {percentage}", mask_color(label)))
    return picture, sorted(legend, key=lambda entry: entry.hatched or entry.color == PAPER)


def _draw_objects(
    picture: np.ndarray, target: Mapping[str, np.ndarray], names: Sequence[str], factor: np.ndarray
) -> tuple[np.ndarray, list[LegendEntry]]:
    """Draw boxes, masks and tags on a picture ``[h, w, 3]``; `factor` ``[2]`` scales x and y of the boxes."""
    boxes, labels = np.asarray(target["boxes"], np.float64).reshape(-1, 4), target["labels"]
    crowds = np.asarray(target.get("iscrowd", np.zeros(len(boxes))), np.bool_)
    difficult = np.asarray(target.get("difficult", np.zeros(len(boxes))), np.bool_)
    masks = target.get("masks")
    # with masks, colors tell objects apart; boxes are told apart by their position, so colors can stand for classes
    colors = [color_of(int(n)) for n in (labels if masks is None else range(len(boxes)))]
    if masks is not None:
        picture = _draw_masks(picture, np.asarray(masks), colors, crowds)
    tags = [class_name(int(label), names) for label in labels]
    scores = [f"{100 * float(score):.0f}%" for score in target["scores"]] if "scores" in target else [""] * len(boxes)
    page = Image.fromarray(picture)
    draw = ImageDraw.Draw(page)
    corners = boxes * np.tile(factor, 2)
    for box, color, dashed in zip(corners.tolist(), colors, crowds | difficult, strict=True):
        _draw_box(draw, box, page.size, color, bool(dashed), thin=masks is not None)
    draw_tags(draw, corners, page.size, list(zip(tags, scores, strict=True)), colors)
    return np.asarray(page), _object_legend(labels, crowds, difficult, names, without_patches=masks is not None)


def _object_legend(
    labels: np.ndarray, crowds: np.ndarray, difficult: np.ndarray, names: Sequence[str], without_patches: bool
) -> list[LegendEntry]:
    """Entries such as ``dog x3``, crowds of each class, and the number of difficult objects; arrays ``[N]``.

    The patch of a crowd looks as the crowd is drawn: a dashed box in the color of its class or, with masks, stripes.
    """
    if not len(labels):
        return [LegendEntry("no objects")]
    legend = [
        LegendEntry(class_name(label, names) + times, None if without_patches else color_of(label))
        for label, times in _class_counts(labels[~crowds])
    ]
    legend += [
        LegendEntry(
            f"{class_name(label, names)} crowd{times}",
            _GRAY if without_patches else color_of(label),
            hatched=without_patches,
            dashed=not without_patches,
        )
        for label, times in _class_counts(labels[crowds])
    ]
    if difficult.any():
        legend.append(LegendEntry(f"{difficult.sum()} difficult", _GRAY, dashed=True))
    return legend


def _class_counts(labels: np.ndarray) -> list[tuple[int, str]]:
    """Each class of labels ``[N]``, and ``x3`` if it occurs more than once."""
    return [(label, f" x{count}" if count > 1 else "") for label, count in sorted(Counter(labels.tolist()).items())]


def _draw_masks(picture: np.ndarray, masks: np.ndarray, colors: Sequence[Color], crowds: np.ndarray) -> np.ndarray:
    """Tint a picture ``[h, w, 3]`` by masks ``[N, H, W]``, the larger below the smaller; crowds ``[N]`` are striped."""
    picture = picture.copy()
    size = picture.shape[1::-1]
    for index in np.argsort(-masks.sum(axis=(1, 2)), kind="stable").tolist():
        region = cv2.resize(masks[index].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) != 0
        if crowds[index]:
            _hatch(picture, region)
        else:
            _tint(picture, region, colors[index])
    return picture


def _tint(picture: np.ndarray, region: np.ndarray, color: Color) -> None:
    """Tint a region ``[h, w]`` of a picture ``[h, w, 3]`` and draw its outline, in place."""
    picture[region] = np.rint(picture[region] * (1 - _FILL) + np.array(color) * _FILL).astype(np.uint8)
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, color, 1, cv2.LINE_8)


def _hatch(picture: np.ndarray, region: np.ndarray) -> None:
    """Draw gray stripes over a region ``[h, w]`` of a picture ``[h, w, 3]``, in place."""
    rows, columns = np.nonzero(region)
    light = ((rows + columns) // 5 % 2).astype(bool)
    stripes = np.where(light, 205, 110)[:, None]
    picture[rows, columns] = np.rint(picture[rows, columns] * 0.35 + stripes * 0.65).astype(np.uint8)


def _draw_box(
    draw: ImageDraw.ImageDraw, box: Sequence[float], size: tuple[int, int], color: Color, dashed: bool, thin: bool
) -> None:
    """Draw the outline of a box, clipped to the picture."""
    x1, y1 = max(0, round(box[0])), max(0, round(box[1]))
    # coordinates lie between pixels; the last pixel inside is one less
    x2, y2 = min(size[0], round(box[2])) - 1, min(size[1], round(box[3])) - 1
    x2, y2 = max(x1, x2), max(y1, y2)
    width = 1 if thin else 2
    if dashed:
        _draw_dashed_box(draw, (x1, y1, x2, y2), color, width)
    else:
        draw.rectangle((x1, y1, x2, y2), outline=color, width=min(width, x2 - x1 + 1, y2 - y1 + 1))


def _draw_dashed_box(
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


def target_panel(
    image: np.ndarray,
    target: Mapping[str, Any],
    names: Sequence[str],
    note: str = "",
    side: int = 256,
    min_score: float = MIN_SCORE,
    square: bool = True,
) -> np.ndarray:
    """An image with its target on white paper, with a legend and a note below.

    Args:
        image: RGB uint8.
        target: Target or prediction of the image (see the module).
        names: Class names.
        note: A line of small print.
        side: Side of the square that the image is fitted into, in pixels.
        min_score: Minimum score of the objects that are drawn.
        square: Make the paper square, for a grid; else it has the image's shape, with space for the text.

    Shape:
        - image: ``[H, W, 3]``.
        - Output: ``[side + 8 + 54, side + 8, 3]`` uint8; ``[h, w, 3]`` if it is not square.
    """
    picture, legend = draw_target(image, target, names, side, min_score, square)
    font = ImageFont.load_default(13)
    legend_width = sum((0 if entry.color is None else 15) + font.getlength(entry.text) + 9 for entry in legend)
    font = ImageFont.load_default(11)
    text_width = 4 + max(legend_width, font.getlength(note))
    width, height = (side, side) if square else paper_size(picture, text_width, side)
    page = place_on_paper(picture, width, height, 54)
    draw = ImageDraw.Draw(page)
    rows = _draw_legend(draw, legend, (6, height + 7), width - 4)
    draw.text((6, height + 9 + 17 * rows), shorten(note, font, width - 4), fill=(130, 130, 138), font=font)
    drawn = np.asarray(page)
    return drawn if square else drawn[: height + 28 + 17 * rows]


def _draw_legend(
    draw: ImageDraw.ImageDraw, legend: Sequence[LegendEntry], start: tuple[int, int], width: int, rows: int = 2
) -> int:
    """Draw the entries in at most `rows` lines of 17 pixels, and return the number of lines; ``+3`` stands for more."""
    font = ImageFont.load_default(13)
    reserve = font.getlength("+99")
    x, row = 0.0, 0
    for number, entry in enumerate(legend):
        patch = 0 if entry.color is None else 15
        text = shorten(entry.text, font, width - patch)
        entry_width = patch + font.getlength(text)
        last = row == rows - 1 and number < len(legend) - 1
        if x > 0 and x + entry_width + (reserve + 8 if last else 0) > width:
            row, x = row + 1, 0.0
        if row == rows:
            break
        left, top = start[0] + x, start[1] + 17 * row
        if entry.color is not None:
            _draw_patch(draw, (round(left), top + 3), entry, entry.color)
        draw.text((left + patch, top), text, fill=NEUTRAL, font=font)
        x += entry_width + 9
    else:
        return row + bool(legend)
    more = f"+{len(legend) - number}"
    draw.text((start[0] + width - font.getlength(more), start[1] + 17 * (rows - 1)), more, fill=NEUTRAL, font=font)
    return rows


def _draw_patch(draw: ImageDraw.ImageDraw, corner: tuple[int, int], entry: LegendEntry, color: Color) -> None:
    x, y = corner
    if entry.dashed:
        _draw_dashed_box(draw, (x, y, x + 10, y + 10), color, width=2, length=3)
        return
    draw.rectangle((x, y, x + 10, y + 10), fill=color, outline=(120, 120, 128))
    if entry.hatched:
        for shift in (3, 7, 11, 15):
            x1, x2 = max(0, shift - 9), min(9, shift)
            draw.line([(x + 1 + x1, y + 1 + shift - x1), (x + 1 + x2, y + 1 + shift - x2)], fill=(70, 70, 70))


def with_title(picture: np.ndarray, title: str) -> np.ndarray:
    """Add a line of text above a picture. Shape: ``[H, W, 3]`` to ``[H + 30, W, 3]`` uint8."""
    page = Image.fromarray(np.concatenate([np.full((30, picture.shape[1], 3), PAPER, np.uint8), picture]))
    font = ImageFont.load_default(15)
    ImageDraw.Draw(page).text((10, 7), shorten(title, font, picture.shape[1] - 20), fill=NEUTRAL, font=font)
    return np.asarray(page)
