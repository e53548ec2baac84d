"""Targets drawn on their images: boxes, masks and classes, of the ground truth or of a prediction.

A target is a dictionary of NumPy arrays or tensors with the fields of a batch (`datamodules.batches`), for one image:
``label``; ``label, box``, optionally with ``score``; ``mask``; or ``boxes, labels``, optionally with ``masks`` (run
lengths, or 0 and 1), ``scores``, ``iscrowd``, ``difficult`` and ``numbers``, the number of each object's color.
Everything is drawn at the final size, so that lines are as thin on a large photograph as on a small digit.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...datamodules.images.fonts import TextFont, drawable_name, shorten
from ...tasks.interfaces import RunLengths
from ...tasks.metrics.segmentation import IGNORE_INDEX
from .canvas import fit_legible, fit_square, paper_size, place_on_paper, text_size
from .colors import DIM, EDGE, GRAY, NEUTRAL, PAPER, Color, color_of, contrast_color, pale
from .legend import LegendEntry, draw_dashed_box, draw_legend, legend_width, line_height
from .regions import OBJECT_OPACITY, PALE_OPACITY, draw_contours, draw_masks, fill_class, hatch
from .tags import draw_tags, tag_size

MIN_SCORE = 0.5
"""Minimum score of predicted objects that are drawn, by default."""

BEST = 3
"""Number of objects that are drawn paler where none has the minimum score."""

CROWDED, LEGIBLE = 12, 24
"""Number of objects from which an image is crowded, and the size in pixels that half of them should have then."""

DENSE = 20
"""Number of small objects from which their names are left out: colors stand for the classes."""

_BACKGROUNDS = ("background", "bg", "unlabeled", "unlabelled", "void")
_OBJECT_FIELDS = ("boxes", "labels", "masks", "scores", "iscrowd", "difficult", "numbers")


def is_background(label: int, names: Sequence[str]) -> bool:
    """Whether a class is the background: class 0 with one of its usual names, or any class named ``background``.

    >>> is_background(0, ["_Background_", "bg"]), is_background(1, ["road", "bg"])
    (True, False)
    """
    name = names[label] if label < len(names) else ""
    return name == "background" or (label == 0 and name.strip(" _-").lower() in _BACKGROUNDS)


def target_of(batch: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The target of one image of a batch, for any task; empty if the batch has no targets."""
    if "target" in batch:
        return dict(batch["target"][index])
    return {field: batch[field][index] for field in ("label", "box", "mask") if field in batch}


def drawable_fields(target: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a target or prediction that can be drawn, from any device: arrays, and masks as run lengths."""
    fields = ("label", "score", "box", "mask", *_OBJECT_FIELDS)
    arrays: dict[str, Any] = {
        field: target[field].detach().cpu().numpy() if isinstance(target[field], Tensor) else np.asarray(target[field])
        for field in fields
        if field in target and field != "masks"
    }
    if "masks" in target:
        masks = target["masks"]
        dense = not isinstance(masks, RunLengths)
        arrays["masks"] = RunLengths.from_dense(torch.as_tensor(masks).cpu()) if dense else masks.cpu()
    # evaluation counts objects of which a transform left nothing; their boxes have no area
    if "box" in arrays and not _has_area(arrays["box"].reshape(1, 4)).all():
        del arrays["box"]
    if "boxes" in arrays and not (visible := _has_area(arrays["boxes"].reshape(-1, 4))).all():
        arrays |= {field: arrays[field][visible] for field in _OBJECT_FIELDS if field in arrays}
    return arrays


def _has_area(boxes: np.ndarray) -> np.ndarray:
    """Which boxes ``[N, 4]`` cover something: ``[N]`` bool."""
    return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1))


def overlap_note(prediction: Mapping[str, np.ndarray], ground_truth: Mapping[str, np.ndarray]) -> str:
    """``, IoU 0.83`` for the two boxes of localization; empty for other tasks."""
    if "box" not in prediction or "box" not in ground_truth:
        return ""
    first, second = (np.asarray(fields["box"], np.float64).reshape(4) for fields in (prediction, ground_truth))
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    intersection = sides.clip(0).prod()
    union = sum((box[2:] - box[:2]).clip(0).prod() for box in (first, second)) - intersection
    return f", IoU {intersection / union:.2f}" if union > 0 else ""


def score_note(prediction: Mapping[str, Any], min_score: float = MIN_SCORE) -> str:
    """What is not drawn of a detector's objects: ``, 57 below 50 % not drawn``; empty if all are.

    If all scores are below the minimum: ``, 57 below 50 %: best 3 drawn``.
    """
    scores = [] if "scores" not in prediction else prediction["scores"].tolist()
    hidden = sum(score < min_score for score in scores)
    if not hidden:
        return ""
    if hidden == len(scores):
        return f", {hidden} below {100 * min_score:.0f} %" + (f": best {BEST} drawn" if hidden > BEST else "")
    return f", {hidden} below {100 * min_score:.0f} % not drawn"


def select_objects(target: Mapping[str, Any], min_score: float) -> tuple[dict[str, Any], bool]:
    """The objects to draw, and whether they are the best few of which none has the minimum score.

    Args:
        target: Target or prediction with fields of N objects, ``[N, …]``; one without scores is returned as it is.
        min_score: Minimum score.
    """
    if "scores" not in target or not len(target["scores"]):
        return dict(target), False
    scores = target["scores"]
    keep = np.flatnonzero(scores >= min_score)
    weak = not len(keep)
    if weak:
        keep = np.argsort(-scores, kind="stable")[:BEST]
    return {key: value[keep] if key in _OBJECT_FIELDS else value for key, value in target.items()}, weak


def check_drawing(side: int | None, score_threshold: float | None, samples: Sequence[int] | None) -> None:
    """Check the arguments that callbacks have for their plots.

    Raises:
        ValueError: `side` is below 32, `score_threshold` not in [0, 1], or `samples` empty or with a negative index.
    """
    if side is not None and side < 32:
        raise ValueError(f"side: must be >= 32, got {side}")
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise ValueError(f"score_threshold: must be in [0, 1], got {score_threshold}")
    if samples is not None and (not samples or min(samples) < 0):
        raise ValueError(f"samples: must be indices >= 0, at least one, got {list(samples)}")


def legible_side(image: np.ndarray, target: Mapping[str, Any], side: int, most: int) -> int:
    """The side at which objects are drawn large enough: `side`, up to `most` for an image with many small ones.

    Args:
        image: RGB uint8.
        target: Target or prediction of the image, with the objects that are drawn.
        side: Usual side of the plot, in pixels.
        most: Maximum side, in pixels.

    Shape:
        - image: ``[H, W, 3]``.
    """
    boxes = np.asarray(target.get("boxes", ()), np.float64).reshape(-1, 4)
    if len(boxes) < CROWDED:
        return side
    median = float(np.median((boxes[:, 2:] - boxes[:, :2]).min(axis=1)))
    return int(np.clip(np.ceil(LEGIBLE / max(median, 1e-6) * max(image.shape[:2])), side, most))


def is_dense(boxes: np.ndarray) -> bool:
    """Whether boxes ``[N, 4]``, in pixels of the plot, are too many and too small for names at each."""
    return len(boxes) >= DENSE and bool(np.median((boxes[:, 2:] - boxes[:, :2]).min(axis=1)) < 2 * LEGIBLE)


def draw_target(
    image: np.ndarray,
    target: Mapping[str, Any],
    names: Sequence[str],
    side: int,
    min_score: float = MIN_SCORE,
    square: bool = True,
    labels: bool = True,
) -> tuple[np.ndarray, list[LegendEntry]]:
    """Draw a target on its image, and return the plot and its legend.

    Each class of a mask has one color, and the image is gray below it. The background (`is_background`) is not colored,
    and ignored pixels are striped. If no object has the minimum score, the best `BEST` are drawn in paler colors.

    Args:
        image: RGB uint8.
        target: Target or prediction of the image (see the module).
        names: Class names.
        side: Longer side of the result, in pixels.
        min_score: Minimum score of the objects that are drawn.
        square: Fit the result into a square; else strips are larger (`canvas.fit_legible`).
        labels: Write class and score at each box; only the score, if it has one, where objects are many and small.

    Shape:
        - image: ``[H, W, 3]``.
        - Output: ``[h, w, 3]`` uint8; the longer of h and w is `side`, if fitted into a square.
    """
    target = drawable_fields(target)
    picture = fit_square(image, side) if square else fit_legible(image, side)
    factor = np.array(picture.shape[1::-1]) / image.shape[1::-1]
    if "mask" in target:
        return _draw_classes(picture, target["mask"], names)
    target, weak = select_objects(target, min_score)
    if "boxes" in target:
        return _draw_objects(picture, target, names, factor, labels, weak)
    if "box" in target:
        single = {"boxes": target["box"].reshape(1, 4), "labels": target["label"].reshape(1)}
        if "score" in target:
            single["scores"] = target["score"].reshape(1)
        return _draw_objects(picture, single, names, factor, labels)
    return picture, [LegendEntry(drawable_name(int(target["label"]), names))] if "label" in target else []


def _draw_classes(picture: np.ndarray, mask: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[LegendEntry]]:
    """Color a picture ``[h, w, 3]`` by the classes of a mask ``[H, W]``, with lines between them."""
    height, width = picture.shape[:2]
    resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    picture, legend = picture.copy(), []
    counts = np.bincount(mask.ravel(), minlength=256)
    for label in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)].tolist():
        region, share = resized == label, counts[label] / mask.size
        percentage = "< 1 %" if share < 0.005 else f"{100 * share:.0f} %"
        if label == IGNORE_INDEX:
            hatch(picture, region)
            legend.append(LegendEntry(f"ignored: {percentage}", GRAY, hatched=True))
        elif is_background(label, names):  # not colored, so that the image stays visible
            legend.append(LegendEntry(f"{drawable_name(label, names)}: {percentage}", PAPER))
        else:
            fill_class(picture, region, color_of(label))
            legend.append(LegendEntry(f"{drawable_name(label, names)}: {percentage}", color_of(label)))
    draw_contours(picture, resized, max(1, max(height, width) // 400))
    return picture, sorted(legend, key=lambda entry: entry.hatched or entry.color == PAPER)


def _draw_objects(
    picture: np.ndarray,
    target: Mapping[str, Any],
    names: Sequence[str],
    factor: np.ndarray,
    labels: bool,
    weak: bool = False,
) -> tuple[np.ndarray, list[LegendEntry]]:
    """Draw boxes, masks and tags on a picture ``[h, w, 3]``; `factor` ``[2]`` scales x and y of the boxes.

    The colors are paler if the objects are `weak`, with scores below the minimum.
    """
    boxes, classes = np.asarray(target["boxes"], np.float64).reshape(-1, 4), target["labels"]
    crowds = np.asarray(target.get("iscrowd", np.zeros(len(boxes))), np.bool_)
    difficult = np.asarray(target.get("difficult", np.zeros(len(boxes))), np.bool_)
    masks = target.get("masks")
    # with masks, colors tell objects apart; boxes are told apart by their position, so colors can stand for classes
    numbers = classes if masks is None else target.get("numbers", range(len(boxes)))
    colors = [color_of(int(number)) for number in numbers]
    colors = [pale(color) for color in colors] if weak else colors
    if masks is not None:
        picture = draw_masks(picture, masks, colors, crowds, PALE_OPACITY if weak else OBJECT_OPACITY)
    page = Image.fromarray(picture)
    draw = ImageDraw.Draw(page)
    corners = boxes * np.tile(factor, 2)
    for box, color, dashed in zip(corners.tolist(), colors, crowds | difficult, strict=True):
        _draw_box(draw, box, page.size, color, bool(dashed), thin=masks is not None)
    if labels:
        tags = [drawable_name(int(label), names) for label in classes]
        scores = [f"{100 * float(score):.0f}%" for score in target.get("scores", ())] or [""] * len(boxes)
        dense = masks is None and is_dense(corners)
        texts = [("" if dense else tag, score) for tag, score in zip(tags, scores, strict=True)]
        draw_tags(page, corners, texts, colors, tag_size(corners, max(page.size)), filled=not dense)
    legend = _object_legend(classes, crowds, difficult, names, without_patches=masks is not None)
    if weak:
        legend = [entry._replace(color=entry.color and pale(entry.color)) for entry in legend]
    return np.asarray(page), legend


def _object_legend(
    labels: np.ndarray, crowds: np.ndarray, difficult: np.ndarray, names: Sequence[str], without_patches: bool
) -> list[LegendEntry]:
    """Entries such as ``dog x3``, crowds of each class, and the number of difficult objects; arrays ``[N]``.

    The patch of a crowd looks as the crowd is drawn: a dashed box in the color of its class or, with masks, stripes.
    """
    if not len(labels):
        return [LegendEntry("no objects")]
    legend = [
        LegendEntry(drawable_name(label, names) + times, None if without_patches else color_of(label))
        for label, times in _class_counts(labels[~crowds])
    ]
    legend += [
        LegendEntry(
            f"{drawable_name(label, names)} crowd{times}",
            GRAY if without_patches else color_of(label),
            hatched=without_patches,
            dashed=not without_patches,
        )
        for label, times in _class_counts(labels[crowds])
    ]
    if difficult.any():
        legend.append(LegendEntry(f"{difficult.sum()} difficult", GRAY, dashed=True))
    return legend


def _class_counts(labels: np.ndarray) -> list[tuple[int, str]]:
    """Each class of labels ``[N]``, and ``x3`` if it occurs more than once."""
    return [(label, f" x{count}" if count > 1 else "") for label, count in sorted(Counter(labels.tolist()).items())]


def _draw_box(
    draw: ImageDraw.ImageDraw, box: Sequence[float], size: tuple[int, int], color: Color, dashed: bool, thin: bool
) -> None:
    """Draw the outline of a box, clipped to the picture; a dark line separates light colors from bright images."""
    x1, y1 = max(0, round(box[0])), max(0, round(box[1]))
    # coordinates lie between pixels; the last pixel inside is one less
    x2, y2 = min(size[0], round(box[2])) - 1, min(size[1], round(box[3])) - 1
    x2, y2 = max(x1, x2), max(y1, y2)
    shorter = min(x2 - x1, y2 - y1) + 1
    width = 1 if thin or shorter < 16 else 2 if shorter < 160 else 3
    if dashed:
        draw_dashed_box(draw, (x1, y1, x2, y2), color, width)
        return
    if not thin and shorter >= 16 and contrast_color(color) == (0, 0, 0):
        draw.rectangle((x1, y1, x2, y2), outline=EDGE, width=width + 1)
    draw.rectangle((x1, y1, x2, y2), outline=color, width=min(width, shorter))


def target_panel(
    image: np.ndarray,
    target: Mapping[str, Any],
    names: Sequence[str],
    note: str = "",
    side: int = 256,
    min_score: float = MIN_SCORE,
    square: bool = True,
    labels: bool = True,
    height: int | None = None,
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
        labels: Write class and score at each box.
        height: Height of the paper in a grid, in pixels (`canvas.common_height`); None: `side`.

    Shape:
        - image: ``[H, W, 3]``.
        - Output: ``[side + 8 + 54, side + 8, 3]`` uint8, with more space for text above a side of 270;
          ``[h, w, 3]`` if it is not square.
    """
    picture, legend = draw_target(image, target, names, side, min_score, square, labels)
    font, small = TextFont(text_size(side)), TextFont(text_size(side) - 2)
    text_width = 4 + max(legend_width(legend, font), small.getlength(note))
    width, height = (side, height or side) if square else paper_size(picture, text_width, side)
    line = line_height(font)
    page = place_on_paper(picture, width, height, 2 * line + small.size + 9)
    draw = ImageDraw.Draw(page)
    rows = draw_legend(draw, legend, (6, height + 7), width - 4, font)
    small.draw(draw, (6, height + 9 + line * rows), shorten(note, small, width - 4), DIM)
    drawn = np.asarray(page)
    return drawn if square else drawn[: height + 17 + line * rows + small.size]


def with_title(picture: np.ndarray, title: str) -> np.ndarray:
    """Add a line of text above a picture. Shape: ``[H, W, 3]`` to ``[H + 30, W, 3]`` uint8, or more if it is wide."""
    font = TextFont(max(15, picture.shape[1] // 80))
    page = Image.fromarray(np.concatenate([np.full((2 * font.size, picture.shape[1], 3), PAPER, np.uint8), picture]))
    text = shorten(title, font, picture.shape[1] - 20)
    font.draw(ImageDraw.Draw(page), (10, font.size // 2), text, NEUTRAL)
    return np.asarray(page)
