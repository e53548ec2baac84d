"""What metrics of detection remember: columns of numbers, and neither images nor masks.

Shape legend: I images, M detections and N objects of all of them together, K classes.

An update only appends rows to tensors where they are, on the GPU too, and waits for nothing. Detections are matched to
objects at the end, which takes about 0.1 ms an image; matched with each update they would make the GPU wait, and what
a streaming evaluation keeps has no boxes left from which to tell errors apart.

A detection takes 24 bytes and an object 32. Since the rows are ordinary list states of torchmetrics, they gather over
ranks, merge, pickle and move between devices as its own metrics' do, shards of unequal size and empty ones among them.
Images are told apart by their order alone: sources number theirs as they like, or not at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from .detection_overlaps import Floats, Integers

DETECTED, TRUE = 6, 8  # columns: x1 y1 x2 y2 score label; x1 y1 x2 y2 label area crowd difficult

SEEN = ("scores", "labels")
OPTIONAL = {"area": torch.nan, "iscrowd": 0.0, "difficult": 0.0}  # field of a target -> what it is where not given

Flags = NDArray[np.bool_]


class Found(NamedTuple):
    """The detections of all images, one image after the other, each image's in the order in which they were given."""

    image: Integers  # [M], 0..I-1, rising
    boxes: Floats  # [M, 4], x1 y1 x2 y2 in pixels
    scores: Floats  # [M]
    labels: Integers  # [M], 0..K-1


class Truth(NamedTuple):
    """The objects of all images, in the same order of images."""

    image: Integers  # [N], 0..I-1, rising
    boxes: Floats  # [N, 4], x1 y1 x2 y2 in pixels
    labels: Integers  # [N], 0..K-1
    area: Floats  # [N], pixels; the box's where none was given
    crowd: Flags  # [N]
    difficult: Flags  # [N]


Columns = TypeVar("Columns", Found, Truth)


def select(columns: Columns, which: Flags | Integers | slice) -> Columns:
    """Some of the rows."""
    fields: Iterator[Any] = (column[which] for column in columns)
    return type(columns)._make(fields)


class DetectionMetric(Metric):
    """Base of the metrics of detection: it takes detections and truth, and keeps them as columns.

    Coordinates, scores and areas are kept as float32, as detectors give them; from there on everything is computed in
    float64.

    The order of images is that of the updates, and over several processes that of the ranks, one after the other. It
    matters only between detections of equal score in different images, of which the earlier image's ranks first.

    Args:
        num_classes: K.
        kwargs: torchmetrics' own (``compute_on_cpu``, ``sync_on_compute``, …).

    Raises:
        ValueError: ``num_classes`` is below 1, or so large that float32 cannot tell the labels apart.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    detected: list[Tensor]
    true: list[Tensor]
    counts: list[Tensor]

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= num_classes <= 2**24:
            raise ValueError(f"num_classes: {num_classes}; there must be 1 class or more, and at most {2**24}")
        self.num_classes = num_classes
        for name in ("detected", "true", "counts"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Count a batch of images.

        Args:
            detections: of each image ``boxes`` ``[M, 4]`` (x1, y1, x2, y2 in pixels), ``scores`` ``[M]`` and
                ``labels`` ``[M]``, 0 … K-1.
            targets: of each image ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``, in the same pixels; and where there are
                any ``iscrowd``, ``difficult`` (none is, otherwise) and ``area`` (the box's otherwise, and where it
                is NaN), ``[N]`` each.

        Raises:
            ValueError: not as many targets as detections, a field that is missing, or shapes that do not agree.
            TypeError: a field that is no tensor.
        """
        if len(detections) != len(targets):
            raise ValueError(f"{len(detections)} detections for {len(targets)} targets; each image needs one of each")
        if not targets:
            return
        for what, images, needed in (("detections", detections, SEEN), ("target", targets, ("labels",))):
            for place, fields in enumerate(images):
                _check_shapes(f"{what} of image {place} of the batch", fields, needed)
        self.detected.append(self._side_by_side(detections, SEEN, {}))
        self.true.append(self._side_by_side(targets, ("labels",), OPTIONAL))
        sizes = [(len(seen["boxes"]), len(target["boxes"])) for seen, target in zip(detections, targets, strict=True)]
        self.counts.append(torch.tensor(sizes).to(self.device, non_blocking=True))  # as it is, it would wait

    def _side_by_side(
        self, images: Sequence[Mapping[str, Any]], needed: Sequence[str], optional: Mapping[str, float]
    ) -> Tensor:
        """The fields of all images of a batch, float32 ``[n, 4 + …]``, where the metric is."""
        boxes = torch.cat([fields["boxes"].detach().reshape(-1, 4) for fields in images])
        rows = boxes.new_empty(len(boxes), 4 + len(needed) + len(optional), dtype=torch.float32)
        rows[:, :4] = boxes
        for column, name in enumerate((*needed, *optional), 4):
            given = [fields.get(name) for fields in images]
            rows[:, column] = (
                optional[name]
                if all(value is None for value in given)
                else torch.cat(
                    [
                        boxes.new_full((len(fields["boxes"]),), optional[name]) if value is None else value.detach()
                        for value, fields in zip(given, images, strict=True)
                    ]
                )
            )
        return rows.to(self.device)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather all ranks' columns, as torchmetrics does; but a rank that saw no image takes part with its shapes."""
        empty = {"detected": torch.zeros(0, DETECTED), "true": torch.zeros(0, TRUE)}
        for name, rows in {**empty, "counts": torch.zeros(0, 2, dtype=torch.int64)}.items():
            state = getattr(self, name)
            if isinstance(state, list) and not state:
                state.append(rows.to(self.device))
        super().sync(*args, **kwargs)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the images of another metric, in front of this one's own; torchmetrics (1.9) would keep old figures."""
        super().merge_state(incoming_state)
        self._computed = None

    def columns(self) -> tuple[Found, Truth, int]:
        """Detections, truth and the number of images, I: of this process, and within `compute` of all.

        Raises:
            ValueError: a label that is no class, a score that is NaN, or a box that is none; names the image and what
                is wrong.
        """
        if isinstance(self.counts, list) and not self.counts:
            detected, true, counts = np.zeros((0, DETECTED)), np.zeros((0, TRUE)), np.zeros((0, 2), np.int64)
        else:
            detected, true, counts = (
                dim_zero_cat(state).cpu().numpy() for state in (self.detected, self.true, self.counts)
            )
        of_detection, of_object = (np.repeat(np.arange(len(counts)), counts[:, side]) for side in (0, 1))
        self._check("detection", detected, of_detection, detected[:, 5])
        self._check("object", true, of_object, true[:, 4])
        wrong = np.flatnonzero(np.isnan(detected[:, 4]))
        if len(wrong):
            raise ValueError(f"image {of_detection[wrong[0]]} (in the order of the updates): a score that is NaN")
        boxes, area = detected[:, :4].astype(np.float64), true[:, 5].astype(np.float64)
        found = Found(of_detection, boxes, detected[:, 4].astype(np.float64), detected[:, 5].astype(np.int64))
        true_boxes = true[:, :4].astype(np.float64)
        sides = true_boxes[:, 2:] - true_boxes[:, :2]
        area = np.where(np.isnan(area), sides[:, 0] * sides[:, 1], area)
        labels = true[:, 4].astype(np.int64)
        return found, Truth(of_object, true_boxes, labels, area, true[:, 6] != 0, true[:, 7] != 0), len(counts)

    def _check(self, what: str, rows: NDArray[Any], image: Integers, labels: NDArray[Any]) -> None:
        """Refuse labels that are no class, and boxes that are none."""
        wrong = np.flatnonzero(~((labels >= 0) & (labels < self.num_classes)))
        if len(wrong):
            raise ValueError(
                f"image {image[wrong[0]]} (in the order of the updates): {what} with label {labels[wrong[0]]:g}, which "
                f"is not in 0 … {self.num_classes - 1}"
            )
        boxes = rows[:, :4]
        wrong = np.flatnonzero(~(np.isfinite(boxes).all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1)))
        if len(wrong):
            raise ValueError(
                f"image {image[wrong[0]]} (in the order of the updates): {what} with box "
                f"{boxes[wrong[0]].round(4).tolist()}; boxes are x1, y1, x2, y2, finite, x1 <= x2, y1 <= y2"
            )


def _check_shapes(whose: str, fields: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Refuse fields that are not there, or not of one number of objects."""
    missing = [name for name in ("boxes", *needed) if name not in fields]
    if missing:
        raise ValueError(f"{whose}: no {' and '.join(missing)}; it has {', '.join(fields) or 'nothing'}")
    for name in ("boxes", *needed, *OPTIONAL):
        value = fields.get(name)
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"{whose}: {name} is a {type(value).__name__}; give a tensor: torch.as_tensor({name})")
    boxes = fields["boxes"]
    count = len(boxes)
    if count and boxes.shape != (count, 4):
        raise ValueError(f"{whose}: boxes {list(boxes.shape)} are not [N, 4]")
    for name in (*needed, *OPTIONAL):
        value = fields.get(name)
        if value is not None and value.shape != (count,):
            raise ValueError(f"{whose}: {name} {list(value.shape)} for {count} boxes, where [{count}] is needed")
