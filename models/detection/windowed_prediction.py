"""Detection in overlapping windows of a large image, whose objects are joined across the seams.

Shape legend: M and N objects of two windows, G objects of the image, P parts of objects. An object that a seam divides
is detected in several windows, in each as the part that is visible there. Boxes and windows are ``x1, y1, x2, y2`` in
pixels of the image.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..ops.checks import check_fraction, check_min
from ..ops.mask_overlaps import mask_intersections, sum_masks
from ..ops.masks import RunLengths
from ..ops.windows import image_windows
from .detector import Detections, Images
from .window_groups import Pair, PartGroups, Parts

Window = tuple[int, int, int, int]

_AT_ONCE = 4
"""Number of windows that pass through the network together."""

_BORDER, _MIN_BORDER = 1 / 64, 1.5
"""An object whose box ends this close to the border of a window counts as cut: a fraction of the window's side, and at
least so many pixels.

Predicted boxes of objects that are cut end near the border, not exactly at it.
"""

_STRIP = 3
"""An object that reaches into a window by at most so many times this inaccuracy is no evidence of what lies there."""

_INSIDE = {True: 0.5, False: 0.75}
"""An object with more than this fraction of its mask, or of its box if False, in another one lies in that one.

Boxes of different objects overlap; their masks do not.
"""


def sliding_detections(
    model: Callable[[Images], list[Detections]],
    images: Images,
    window: tuple[int, int],
    overlap: float,
    max_detections: int | None = None,
    iou: float = 0.5,
) -> list[Detections]:
    """Detect the objects of large images in overlapping windows, and join those that several windows show.

    Images no larger than a window go to the model as they are. Two objects of a class in overlapping windows are parts
    of one object if their IoU is above `iou`. What lies outside the overlap of their windows is left out of the IoU
    where the other object is cut by its window's border and may continue there. A part that is cut by its window's
    border, and of which more than `iou` lies in an object of another window, belongs to that object; half of that is
    enough if the other window shows the whole part and what lies beyond it. Without masks, IoUs are of boxes.

    If a window shows an object whole, that detection alone is the object; only a part that equals it in the overlap and
    reaches beyond its window is added (its box ended before the border). Or else the object is the union of the masks
    and the box around its parts. The score is the highest of the parts, without those that merely lie in a whole one.

    Two objects of a window are never joined, unless both are cut and lie in one object of another window. A part of
    less than half the score of an object neither extends it nor joins others to it. What spans two objects of higher
    score that a window holds apart is dropped: more than half of each mask (without masks, three quarters of each box)
    lies in it, and together they are more than half of it.

    At most four windows pass through the model together, so memory does not grow with the size of an image.

    Args:
        model: Returns `Detections` for a list of images; masks, if any, are `RunLengths`.
        images: The images, which may differ in size.
        window: Height and width of a window, in pixels.
        overlap: Minimum fraction of a window that overlaps with the next one, in (0, 1). An object smaller than the
            overlap is whole in some window.
        max_detections: Maximum number of objects of a class in an image that windows divide. None: no limit.
        iou: See above.

    Shape:
        - images: ``[B, 3, H, W]``, or B tensors ``[3, H_i, W_i]``
        - output: B `Detections`

    Raises:
        ValueError: ``iou`` is outside [0, 1], ``overlap`` not above 0, or ``max_detections`` below 1.
    """
    check_fraction(iou=iou)
    check_min(1, max_detections=max_detections)
    if not overlap > 0:
        raise ValueError(
            f"overlap: must be > 0 for detection, where windows are joined by their overlap, got {overlap}"
        )
    windows = [image_windows(image.shape[-2:], window, overlap) for image in images]
    if all(len(one) == 1 for one in windows):
        return model(images)
    small = [index for index, one in enumerate(windows) if len(one) == 1]
    found = dict(zip(small, model([images[index] for index in small]), strict=True)) if small else {}
    for index, image in enumerate(images):
        if index not in found:
            parts = _detect(model, image, windows[index])
            joined = join_windows(parts, windows[index], image.shape[-2:], max_detections, iou)
            found[index] = _moved(joined, image.device)
    return [found[index] for index in range(len(windows))]


def _detect(model: Callable[[Images], list[Detections]], image: Tensor, windows: Sequence[Window]) -> list[Detections]:
    """The objects of each window of an image ``[3, H, W]``, in pixels of the image, on the CPU."""
    parts = []
    for first in range(0, len(windows), _AT_ONCE):
        chunk = windows[first : first + _AT_ONCE]
        for one, (x, y, _, _) in zip(model([image[:, y1:y2, x1:x2] for x1, y1, x2, y2 in chunk]), chunk, strict=True):
            part = _moved(one, "cpu")
            part["boxes"] = part["boxes"] + part["boxes"].new_tensor([x, y, x, y])
            if "masks" in part:
                part["masks"] = part["masks"].placed(x, y, image.shape[-2:])
            parts.append(part)
    return parts


def _moved(one: Detections, device: torch.device | str) -> Detections:
    """Detections on another device, without other fields than those of `Detections`."""
    fields = [field for field in ("boxes", "scores", "labels", "masks") if field in one]
    return {field: one[field].to(device) for field in fields}  # type: ignore[return-value]


def join_windows(
    parts: Sequence[Detections],
    windows: Sequence[Window],
    size: Sequence[int],
    max_detections: int | None = None,
    iou: float = 0.5,
) -> Detections:
    """Join the detections of the windows of an image; see `sliding_detections`.

    Args:
        parts: The detections of each window, in pixels of the image, on the CPU.
        windows: The windows.
        size: Height and width of the image, in pixels.
        max_detections: Maximum number of objects of a class. None: no limit.
        iou: IoU above which two objects are parts of one.
    """
    boxes, scores, labels = (torch.cat([part[field] for part in parts]) for field in ("boxes", "scores", "labels"))
    cut = torch.cat([_cut_sides(part, window, size).any(1) for part, window in zip(parts, windows, strict=True)])
    everything = Parts(
        pairs=list(_pairs(parts, windows, size)),
        window_of=[index for index, part in enumerate(parts) for _ in range(len(part["boxes"]))],
        whole=(~cut).tolist(),
        scores=scores.tolist(),
        areas=torch.cat([_areas(part) for part in parts]).tolist(),
        iou=iou,
    )
    joining = PartGroups(everything, _INSIDE["masks" in parts[0]])
    groups = joining.groups()
    kept = [joining.visible(group) for group in groups]
    index = torch.tensor([part for group in kept for part in group], dtype=torch.int64)  # [P]
    group_of = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(group) for group in kept]).long())
    corners = [
        boxes.new_zeros(len(groups), 2).scatter_reduce_(
            0, group_of[:, None].expand(-1, 2), boxes[index, side], reduction, include_self=False
        )
        for side, reduction in ((slice(0, 2), "amin"), (slice(2, 4), "amax"))
    ]
    best = torch.tensor([joining.best(group) for group in groups], dtype=torch.int64)  # [G]
    joined = Detections(boxes=torch.cat(corners, 1), scores=scores[best], labels=labels[best])
    if "masks" in parts[0]:
        masks = RunLengths.cat([part["masks"] for part in parts])[index]
        joined["masks"] = sum_masks(masks, group_of, torch.ones(len(index)), len(groups), 1)
    return _highest(joined, max_detections)


def _highest(detections: Detections, limit: int | None) -> Detections:
    """Sort detections by score, and keep those of highest score of each class."""
    order = detections["scores"].argsort(descending=True, stable=True)
    if limit is not None and len(order):
        labels = detections["labels"][order]
        is_class = labels[:, None] == labels.unique()  # one column per class
        order = order[(is_class.cumsum(0) * is_class).sum(1) <= limit]
    return {field: values[order] for field, values in detections.items()}  # type: ignore[index, return-value]


def _pairs(parts: Sequence[Detections], windows: Sequence[Window], size: Sequence[int]) -> Iterator[Pair]:
    """Find the pairs of objects of one class that overlap, in a window and in two windows at a time."""
    corners = torch.tensor(windows)
    begins_before = (corners[:, None, :2] < corners[None, :, 2:]).all(2)
    starts = [0, *itertools.accumulate(len(part["boxes"]) for part in parts)]
    for i, j in (begins_before & begins_before.T).triu().nonzero().tolist():
        if len(parts[i]["boxes"]) and len(parts[j]["boxes"]):
            for pair in _compare(parts[i], parts[j], windows[i], windows[j], size):
                yield pair._replace(first=starts[i] + pair.first, second=starts[j] + pair.second)


def _compare(one: Detections, other: Detections, window: Window, facing: Window, size: Sequence[int]) -> Iterator[Pair]:
    """The overlaps of the objects of two windows, which are numbered window by window."""
    region = (*map(max, window[:2], facing[:2]), *map(min, window[2:], facing[2:]))
    rows, columns, common = _intersections(one, other)
    same = one["labels"][rows] == other["labels"][columns]
    if one is other:
        same &= rows < columns
    rows, columns, common = rows[same], columns[same], common[same]
    cut = (_cut_sides(one, window, size, facing).any(1)[rows], _cut_sides(other, facing, size, window).any(1)[columns])
    inside = (_areas(one, region, size)[rows], _areas(other, region, size)[columns])
    # an object continues outside the region only if the other one, which does not, is cut there
    areas = (
        torch.where(cut[1], inside[0], _areas(one)[rows]),
        torch.where(cut[0], inside[1], _areas(other)[columns]),
    )
    iou = common / (areas[0] + areas[1] - common)
    clear = ~_barely_inside(one["boxes"], facing)[rows], ~_barely_inside(other["boxes"], window)[columns]
    fractions = [
        torch.where(flag & deep, common / area, 0).tolist() for flag, deep, area in zip(cut, clear, inside, strict=True)
    ]
    seen = [_inside(one["boxes"], facing)[rows].tolist(), _inside(other["boxes"], window)[columns].tolist()]
    pairs = (zip(*values, strict=True) for values in (fractions, seen))
    return map(Pair, rows.tolist(), columns.tolist(), common.tolist(), iou.tolist(), *pairs)


def _inside(boxes: Tensor, window: Window) -> Tensor:
    """Which boxes ``[M, 4]`` a window shows completely, up to the inaccuracy of boxes: bool ``[M]``."""
    low, high = torch.tensor(window).split(2)
    margin = _margin(window)
    return ((boxes[:, :2] >= low - margin) & (boxes[:, 2:] <= high + margin)).all(1)


def _barely_inside(boxes: Tensor, window: Window) -> Tensor:
    """Which boxes ``[M, 4]`` leave a window, and reach into it no deeper than boxes are inaccurate: bool ``[M]``.

    The strip of such an object that the window shows may well lie in the object's neighbor.
    """
    low, high = torch.tensor(window).split(2)
    margin = _margin(window)
    beyond = torch.cat([boxes[:, :2] < low - margin, boxes[:, 2:] > high + margin], 1)
    depths = torch.cat([boxes[:, 2:] - low, high - boxes[:, :2]], 1)
    return (beyond & (depths <= _STRIP * margin.repeat(2))).any(1)


def _cut_sides(one: Detections, window: Window, size: Sequence[int], facing: Window | None = None) -> Tensor:
    """Which borders of a window cut its objects: bool ``[M, 4]``, without those of the image.

    Args:
        one: The objects of the window.
        window: The window.
        size: Height and width of the image, in pixels.
        facing: Another window, if only borders count beyond which it extends.
    """
    x1, y1, x2, y2 = facing or (0, 0, size[1], size[0])
    inner = torch.tensor([x1 < window[0], y1 < window[1], x2 > window[2], y2 > window[3]])
    return ((one["boxes"] - torch.tensor(window)).abs() <= _margin(window).repeat(2)) & inner


def _margin(window: Window) -> Tensor:
    """How far boxes may be from where objects end, in x and in y: ``[2]``."""
    return (torch.tensor([window[2] - window[0], window[3] - window[1]]) * _BORDER).clamp(min=_MIN_BORDER)


def _intersections(one: Detections, other: Detections) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of objects that overlap: indices in both int64 ``[P]``, and areas float64 ``[P]``."""
    if "masks" in one:
        rows, columns, pixels = mask_intersections(one["masks"], other["masks"])
        return rows, columns, pixels.double()
    boxes, others = one["boxes"][:, None].double(), other["boxes"][None].double()
    sides = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    area = sides.clamp(min=0).prod(2)
    rows, columns = area.nonzero(as_tuple=True)
    return rows, columns, area[rows, columns]


def _areas(one: Detections, region: Sequence[int] | None = None, size: Sequence[int] = (0, 0)) -> Tensor:
    """The area of each object, or of its part in a region of the image: float64 ``[M]``."""
    if "masks" not in one:
        boxes = one["boxes"].double()
        if region is not None:
            low, high = torch.tensor(region).split(2)
            boxes = torch.cat([torch.maximum(boxes[:, :2], low), torch.minimum(boxes[:, 2:], high)], 1)
        return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    if region is None:
        return one["masks"].area().double()
    x1, y1, x2, y2 = region
    filled = RunLengths.from_windows([(torch.ones(x2 - x1, y2 - y1, dtype=torch.bool), x1, y1)], size)
    rows, _, pixels = mask_intersections(one["masks"], filled)
    return torch.zeros(len(one["masks"]), dtype=torch.float64).index_add_(0, rows, pixels.double())
