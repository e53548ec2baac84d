"""What travels from a data module to a task: the batch types, field by field.

Conventions (DESIGN): images are RGB ``uint8`` and neither scaled nor normalised; classes are ``0 … K-1``; boxes are
``x1, y1, x2, y2`` in pixels of their image, where a box lies between pixels and not on them: one that covers the whole
image is ``0, 0, W, H``. In semantic masks 255 = ignore.

What a source gives a data set (numpy, one sample) has the same fields without the batch: ``image`` uint8 ``[H, W, 3]``,
and ``label``; ``label, box``; ``mask``; or, flat, the fields of a `DetectionTarget` or `InstanceTarget`, of which
``boxes`` and ``labels`` are needed and the others are filled in where they are not given.
"""

from typing import NotRequired, TypedDict

from torch import Tensor


class ClassificationBatch(TypedDict):
    """One image, one label."""

    image: Tensor  # uint8 [B, 3, H, W], RGB, 0..255; channels-last in memory
    label: Tensor  # int64 [B], 0..K-1
    index: Tensor  # int64 [B], the sample's number in its data set
    unreadable: NotRequired[list[str]]  # "path: reason" of each sample that was skipped or replaced


class LocalizationBatch(TypedDict):
    """One image, one label, one box."""

    image: Tensor  # uint8 [B, 3, H, W], RGB, 0..255; channels-last in memory
    label: Tensor  # int64 [B], 0..K-1
    box: Tensor  # float32 [B, 4], x1 y1 x2 y2 in pixels, 0 <= x1 < x2 <= W, 0 <= y1 < y2 <= H
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]


class SemanticSegmentationBatch(TypedDict):
    """One image, one class a pixel. In evaluation, where the images differ in size, both fields are lists of B."""

    image: Tensor | list[Tensor]  # uint8 [B, 3, H, W], RGB, 0..255; channels-last in memory
    mask: (
        Tensor | list[Tensor]
    )  # uint8 [B, H, W], 0..K-1, or 255 = ignore; as uint8 it takes an eighth of what int64 would
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]


class DetectionTarget(TypedDict):
    """The objects of one image; N may be 0."""

    boxes: Tensor  # float32 [N, 4], x1 y1 x2 y2 in pixels, 0 <= x1 < x2 <= W, 0 <= y1 < y2 <= H
    labels: Tensor  # int64 [N], 0..K-1
    iscrowd: Tensor  # bool [N], a region of many objects (COCO): neither trained on nor counted as a miss
    difficult: Tensor  # bool [N], VOC's flag: not counted in its evaluation
    area: Tensor  # float32 [N], pixels of the object's mask where the source knows it, else of its box
    image_id: Tensor  # int64 [], the source's own number of the image, for submissions


class InstanceTarget(DetectionTarget):
    """The objects of one image with their masks, which may overlap where the source's do."""

    masks: Tensor  # uint8 [N, H, W], 0 or 1, none empty


class DetectionBatch(TypedDict):
    """Images of any size, since a detector resizes inside its model, and their objects."""

    image: list[Tensor]  # B times uint8 [3, H_i, W_i], RGB, 0..255; channels-last in memory
    target: list[DetectionTarget]  # [B]
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]


class InstanceSegmentationBatch(TypedDict):
    """Images of any size, and their objects with masks."""

    image: list[Tensor]  # B times uint8 [3, H_i, W_i], RGB, 0..255; channels-last in memory
    target: list[InstanceTarget]  # [B]
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]


class PredictBatch(TypedDict):
    """Images without truth, as `predict` reads them."""

    image: Tensor | list[Tensor]  # uint8 [B, 3, H, W], RGB, after the evaluation transform; a list where sizes differ
    path: list[str]  # [B], the file each image came from
    file_size: NotRequired[Tensor]  # int64 [B, 2], height and width of the file's image
    corners: NotRequired[Tensor]  # float32 [B, 3, 2], where `image` has the corners (0, 0), (W, 0), (0, H) of the
    #   file's image, in pixels, x before y: the way back; NaN after a step that does not move keypoints
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]
