"""State of the detection metrics: columns of numbers, without images or masks.

Shape legend: I images, M detections and N objects in all images together, K classes.

An update only appends rows to tensors where they are, on the GPU too, and waits for nothing. Detections are matched to
objects at the end, which takes about 0.1 ms per image. Matching in each update would make the GPU wait, and the state
of a streaming evaluation has no boxes left from which to tell kinds of error apart.

A detection takes 24 bytes and an object 32. The rows are ordinary list states of torchmetrics, so they gather over
ranks, merge, pickle and move between devices like those of its own metrics; ranks may have different numbers of rows,
or none.

Images are in the order of their ids, where targets have them, and so ranks and batches do not matter. The order decides
between detections of equal score in different images. Only images without an id, or with the same one, are in the order
of the updates.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ..compat import forget_result
from .detection_overlaps import Floats, Integers, PairOverlap, overlaps

DETECTION_FIELDS = ("scores", "labels")
TARGET_FIELDS = ("labels",)
OPTIONAL_FIELDS = {"area": torch.nan, "iscrowd": 0.0, "difficult": 0.0}
"""Optional field of a target -> its default."""

STATES = {
    "detections": (4 + len(DETECTION_FIELDS), torch.float32),  # x1 y1 x2 y2 score label
    "objects": (4 + len(TARGET_FIELDS) + len(OPTIONAL_FIELDS), torch.float32),  # x1 y1 x2 y2 label area crowd difficult
    "counts": (4, torch.int64),  # detections and objects of each image; whether it has an id (1 or 0), and the id
}
"""Name of a state -> number and type of its columns."""

Flags = NDArray[np.bool_]


class DetectionColumns(NamedTuple):
    """The detections of all images, image after image, in their original order within an image."""

    image: Integers  # [M], 0..I-1 by image id, ascending
    boxes: Floats  # [M, 4], x1 y1 x2 y2 in pixels
    scores: Floats  # [M]
    labels: Integers  # [M], 0..K-1
    row: Integers  # [M], position in the updates


class GroundTruthColumns(NamedTuple):
    """The ground-truth objects of all images, in the same order of images."""

    image: Integers  # [N], 0..I-1, ascending
    boxes: Floats  # [N, 4], x1 y1 x2 y2 in pixels
    labels: Integers  # [N], 0..K-1
    area: Floats  # [N], pixels; of the box where the target has no area
    crowd: Flags  # [N]
    difficult: Flags  # [N]
    row: Integers  # [N], position in the updates


Columns = TypeVar("Columns", DetectionColumns, GroundTruthColumns)


def select(columns: Columns, index: Flags | Integers | slice) -> Columns:
    """Select rows of all columns by a NumPy index."""
    fields: Iterator[Any] = (column[index] for column in columns)
    return type(columns)._make(fields)


class Geometry(Protocol):
    """How detections and objects overlap: as boxes, or as masks."""

    def __call__(
        self, detections: DetectionColumns, objects: GroundTruthColumns, of_detection: bool = False
    ) -> PairOverlap:
        """Return the function that computes the overlaps of pairs of these rows.

        Args:
            detections: Rows of detections.
            objects: Rows of objects.
            of_detection: Compute the share of the detection inside the object, instead of the IoU.
        """
        ...


def box_geometry(detections: DetectionColumns, objects: GroundTruthColumns, of_detection: bool = False) -> PairOverlap:
    """Overlaps of boxes; see `Geometry`."""
    return lambda box, candidate: overlaps(detections.boxes[box], objects.boxes[candidate], of_box=of_detection)


class DetectionMetric(Metric):
    """Base class of the detection metrics: collects detections and targets as columns.

    Coordinates, scores and areas are stored as float32, as detectors return them; all computation is in float64.

    Of detections of equal score in different images, that of the lower ``image_id`` ranks first, as in pycocotools and
    in VOC's devkit, whose images are sorted. So the results do not depend on batches, nor on the number of processes.
    Images without ids come last, in the order of the updates, and of the ranks.

    Args:
        num_classes: Number of classes K.
        **kwargs: Arguments of torchmetrics' ``Metric`` (``compute_on_cpu``, ``sync_on_compute``, …).

    Attributes:
        states: Name of a state -> number and type of its columns.

    Raises:
        ValueError: `num_classes` is below 1, or too large for float32 to represent each label.
    """

    states: ClassVar[dict[str, tuple[int, torch.dtype]]] = STATES

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    detections: list[Tensor]
    objects: list[Tensor]
    counts: list[Tensor]

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= num_classes <= 2**24:
            raise ValueError(f"num_classes: must be in [1, {2**24}], got {num_classes}")
        self.num_classes = num_classes
        for name in self.states:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch of images.

        Args:
            detections: For each image ``boxes`` ``[M, 4]`` (x1, y1, x2, y2 in pixels), ``scores`` ``[M]`` and
                ``labels`` ``[M]``, 0 … K-1.
            targets: For each image ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``, in the same pixels, and optionally
                ``iscrowd`` and ``difficult`` (default: false) and ``area`` (default, and where it is NaN: that of the
                box), ``[N]`` each; and ``image_id``, a whole number or a tensor with one.

        Raises:
            ValueError: The numbers of targets and detections differ, a field is missing, or shapes do not agree.
            TypeError: A field is not a tensor, or an ``image_id`` is not a whole number.
        """
        if len(detections) != len(targets):
            raise ValueError(f"targets: must be one per image, {len(detections)}, got {len(targets)}")
        if not targets:
            return
        for argument, images, required in (
            ("detections", detections, DETECTION_FIELDS),
            ("targets", targets, TARGET_FIELDS),
        ):
            for index, fields in enumerate(images):
                _check_fields(f"{argument}[{index}]", fields, required)
        self.detections.append(self._rows(detections, DETECTION_FIELDS, {}))
        self.objects.append(self._rows(targets, TARGET_FIELDS, OPTIONAL_FIELDS))
        self.counts.append(self._counts(detections, targets))

    def _counts(self, detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> Tensor:
        """Numbers of detections and objects of each image, and its id: int64 ``[B, 4]``, without waiting for a GPU."""
        rows, on_device = [], {}
        for index, (one, target) in enumerate(zip(detections, targets, strict=True)):
            image_id = _image_id(f"targets[{index}]", target.get("image_id"))
            if isinstance(image_id, Tensor) and image_id.device.type != "cpu":
                on_device[index] = image_id
            known = 0 if image_id is None or index in on_device else int(image_id)
            rows.append((len(one["boxes"]), len(target["boxes"]), int(image_id is not None), known))
        counts = torch.tensor(rows).to(self.device, non_blocking=True)  # a blocking copy would wait
        for index, image_id in on_device.items():
            counts[index, 3] = image_id.reshape(())
        return counts

    def _rows(
        self, images: Sequence[Mapping[str, Any]], required: Sequence[str], optional: Mapping[str, float]
    ) -> Tensor:
        """The fields of all images of a batch side by side, float32 ``[n, 4 + …]``, on the metric's device."""
        boxes = torch.cat([fields["boxes"].detach().reshape(-1, 4) for fields in images])
        rows = boxes.new_empty(len(boxes), 4 + len(required) + len(optional), dtype=torch.float32)
        rows[:, :4] = boxes
        for column, name in enumerate((*required, *optional), 4):
            values = [fields.get(name) for fields in images]
            if all(value is None for value in values):
                rows[:, column] = optional[name]
                continue
            per_image = (
                boxes.new_full((len(fields["boxes"]),), optional[name]) if value is None else value.detach()
                for value, fields in zip(values, images, strict=True)
            )
            rows[:, column] = torch.cat(list(per_image))
        return rows.to(self.device)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the columns of all ranks, as torchmetrics does; a rank without images takes part with empty ones."""
        for name, (width, dtype) in self.states.items():
            state = getattr(self, name)
            if isinstance(state, list) and not state:
                state.append(torch.zeros(0, width, dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the images of another metric in front of this one's; torchmetrics (1.9) would keep a stale result."""
        super().merge_state(incoming_state)
        forget_result(self)

    def columns(self) -> tuple[DetectionColumns, GroundTruthColumns, int]:
        """Return detections, ground truth and the number of images I: of this rank, within `compute` of all ranks.

        Raises:
            ValueError: A label is not a class, a score is NaN, an area negative, or a box invalid; names the image.
        """
        detections, objects, counts = (self.rows_of(name) for name in STATES)
        image_of_detection, image_of_object = (np.repeat(np.arange(len(counts)), counts[:, side]) for side in (0, 1))
        self._check("detection", detections, image_of_detection, detections[:, 5], counts)
        self._check("object", objects, image_of_object, objects[:, 4], counts)
        _check_numbers(detections[:, 4], image_of_detection, objects[:, 5], image_of_object, counts)
        rank = np.empty(len(counts), np.int64)  # of each image, by id; images without one come last
        rank[np.lexsort((counts[:, 3], counts[:, 2] == 0))] = np.arange(len(counts))
        image_of_detection, rows, detections = _by_image(rank[image_of_detection], detections)
        image_of_object, object_rows, objects = _by_image(rank[image_of_object], objects)
        boxes, area = objects[:, :4].astype(np.float64), objects[:, 5].astype(np.float64)
        sides = boxes[:, 2:] - boxes[:, :2]
        ground_truth = GroundTruthColumns(
            image_of_object,
            boxes,
            objects[:, 4].astype(np.int64),
            np.where(np.isnan(area), sides[:, 0] * sides[:, 1], area),
            objects[:, 6] != 0,
            objects[:, 7] != 0,
            object_rows,
        )
        coordinates, scores = detections[:, :4].astype(np.float64), detections[:, 4].astype(np.float64)
        labels = detections[:, 5].astype(np.int64)
        predicted = DetectionColumns(image_of_detection, coordinates, scores, labels, rows)
        return predicted, ground_truth, len(counts)

    def rows_of(self, name: str) -> NDArray[Any]:
        """Return the rows of a state in the order of the updates, ``[n, columns]``."""
        state, (width, dtype) = getattr(self, name), self.states[name]
        if isinstance(state, list) and not state:
            return torch.zeros(0, width, dtype=dtype).numpy()
        return dim_zero_cat(state).cpu().numpy()

    def _check(
        self, kind: str, rows: NDArray[Any], image: Integers, labels: NDArray[Any], counts: NDArray[Any]
    ) -> None:
        """Check that labels ``[n]`` are classes and that boxes, the first four columns of ``[n, …]``, are valid."""
        invalid = np.flatnonzero(~((labels >= 0) & (labels < self.num_classes)))
        if len(invalid):
            raise ValueError(
                f"labels: must be in 0 … {self.num_classes - 1}, got {labels[invalid[0]]:g} ({kind} in "
                f"{_image(image[invalid[0]], counts)})"
            )
        boxes = rows[:, :4]
        invalid = np.flatnonzero(~(np.isfinite(boxes).all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1)))
        if len(invalid):
            raise ValueError(
                f"boxes: must be x1, y1, x2, y2, finite, with x1 <= x2 and y1 <= y2, got "
                f"{boxes[invalid[0]].round(4).tolist()} ({kind} in {_image(image[invalid[0]], counts)})"
            )


def _check_numbers(
    scores: NDArray[Any], image: Integers, area: NDArray[Any], object_image: Integers, counts: NDArray[Any]
) -> None:
    """Check scores ``[M]`` and areas ``[N]``, with the image of each and the ``counts [I, 4]``, for messages."""
    invalid = np.flatnonzero(np.isnan(scores))
    if len(invalid):
        raise ValueError(f"scores: must be numbers, got NaN in {_image(image[invalid[0]], counts)}")
    invalid = np.flatnonzero(area < 0)  # pycocotools counts such objects in no size, not even among all
    if len(invalid):
        raise ValueError(
            f"area: must be >= 0, got {area[invalid[0]]:g} in {_image(object_image[invalid[0]], counts)}; leave it "
            "out, or pass NaN, for the area of the box"
        )


def _by_image(image: Integers, rows: NDArray[Any]) -> tuple[Integers, Integers, NDArray[Any]]:
    """Sort the image of each row, ``[n]``, and the rows ``[n, …]`` by image, stably; return the order in between."""
    order = np.argsort(image, kind="stable")
    return image[order], order, rows[order]


def _image_id(name: str, value: Any) -> Tensor | int | None:
    """The id of an image, a number or tensor ``[]`` or ``[1]``; None without one.

    Raises:
        TypeError: It is neither a whole number nor a tensor with one.
    """
    if value is None or isinstance(value, (int, np.integer)):
        return None if value is None else int(value)
    whole = isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())
    if whole and value.numel() == 1:
        return value
    kind = f"a tensor {list(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else repr(value)
    raise TypeError(
        f"{name}: image_id must be a whole number, got {kind}; number the images, or leave it out, and detections of "
        "equal score are ranked in the order of the updates"
    )


def _image(index: int, counts: NDArray[Any]) -> str:
    """Name of an image in messages: its position in the updates, with its id if it has one (``counts [I, 4]``)."""
    number = f", image_id {counts[index, 3]}" if counts[index, 2] else ""
    return f"image {index}, in the order of the updates{number}"


def _check_fields(name: str, fields: Mapping[str, Any], required: Sequence[str]) -> None:
    """Check that the required fields are there, and that all fields are tensors with one entry per object."""
    missing = [field for field in ("boxes", *required) if field not in fields]
    if missing:
        raise ValueError(f"{name}: must have {' and '.join(missing)}, got {', '.join(fields) or 'nothing'}")
    values = {field: fields[field] for field in ("boxes", *required, *OPTIONAL_FIELDS) if fields.get(field) is not None}
    for field, value in values.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: {field} must be a tensor, got {type(value).__name__}; use torch.as_tensor")
    count = len(values["boxes"])
    for field, value in values.items():
        shape = (count, 4) if field == "boxes" else (count,)
        # an empty list of boxes has shape [0], which is accepted
        if value.shape != shape and not (field == "boxes" and not count):
            expected = "[N, 4]" if field == "boxes" else f"[{count}] for {count} boxes"
            raise ValueError(f"{name}: {field} must be {expected}, got {list(value.shape)}")
