"""Batches that a data module passes to a task: TypedDicts, field by field.

Images are RGB ``uint8``, neither scaled nor normalized. Classes are ``0 … K-1``. Boxes are ``x1, y1, x2, y2`` in pixels
of their image; coordinates lie between pixels, not on them: a box that covers the whole image is ``0, 0, W, H``.

A source's raw sample has the same fields for one image, in numpy: ``image`` uint8 ``[H, W, 3]``, and one of ``label``;
``label, box``; ``mask``; or, flat, the fields of a `DetectionTarget` or `InstanceTarget`, of which ``boxes`` and
``labels`` are required and the others have defaults. A sample of a data module with stored proposals has ``proposals``
too, float32 ``[P, 4]`` in numpy.
"""

from typing import NotRequired, TypedDict

from torch import Tensor

# models/segmentation/losses.py has the same value: neither package may import the other
IGNORE_INDEX = 255
"""Value of semantic masks for pixels that have no class: neither trained on nor evaluated."""


class ClassificationBatch(TypedDict):
    """Images and one label per image."""

    image: Tensor  # uint8 [B, 3, H, W], RGB, 0..255; channels-last in memory
    label: Tensor  # int64 [B], 0..K-1
    index: Tensor  # int64 [B], index of the sample in its data set
    unreadable: NotRequired[list[str]]  # "path: reason" of each sample that was skipped or replaced


class LocalizationBatch(TypedDict):
    """Images, and one label and one box per image.

    In evaluation, an object of which ``val_transform`` leaves nothing has the box 0, 0, 0, 0: it is counted, and no box
    is correct.
    """

    image: Tensor  # uint8 [B, 3, H, W], RGB, 0..255; channels-last in memory
    label: Tensor  # int64 [B], 0..K-1
    box: Tensor  # float32 [B, 4], x1 y1 x2 y2 in pixels, 0 <= x1 < x2 <= W, 0 <= y1 < y2 <= H
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]


class SemanticSegmentationBatch(TypedDict):
    """One image, one class per pixel. In evaluation, images that differ in size come as lists of B, and so do masks."""

    image: Tensor | list[Tensor]  # uint8 [B, 3, H, W], RGB, 0..255; channels-last in memory
    # uint8 [B, H, W], 0..K-1, or IGNORE_INDEX; uint8 takes an eighth of the memory of int64
    mask: Tensor | list[Tensor]
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]


class DetectionTarget(TypedDict):
    """The objects of one image; N may be 0.

    In evaluation, an object of which ``val_transform`` leaves nothing has the box 0, 0, 0, 0 and the area that its
    source states: it is counted, and missed. Evaluation also has boxes below one pixel.
    """

    boxes: Tensor  # float32 [N, 4], x1 y1 x2 y2 in pixels, 0 <= x1 < x2 <= W, 0 <= y1 < y2 <= H
    labels: Tensor  # int64 [N], 0..K-1
    iscrowd: Tensor  # bool [N], a region of many objects (COCO): neither trained on nor counted as a miss
    difficult: Tensor  # bool [N], VOC's flag: not counted in its evaluation
    area: Tensor  # float32 [N], pixels of the object's mask if the source knows it, otherwise of its box
    image_id: Tensor  # int64 [], the source's id of the image, for submissions


class InstanceTarget(DetectionTarget):
    """The objects of one image with their masks, which may overlap if the source's do."""

    masks: Tensor  # uint8 [N, H, W], 0 or 1, none empty in training


class DetectionBatch(TypedDict):
    """Images of any size, since a detector resizes them inside its model, and their objects."""

    image: list[Tensor]  # B times uint8 [3, H_i, W_i], RGB, 0..255; channels-last in memory
    target: list[DetectionTarget]  # [B]
    # B times float32 [P_i, 4], x1 y1 x2 y2 in pixels, 0 <= x1 < x2 <= W_i, 0 <= y1 < y2 <= H_i: boxes in which an
    # object may be, best first; P may be 0. Only with the data module's argument `proposals`
    proposals: NotRequired[list[Tensor]]
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]


class InstanceSegmentationBatch(TypedDict):
    """Images of any size, and their objects with masks."""

    image: list[Tensor]  # B times uint8 [3, H_i, W_i], RGB, 0..255; channels-last in memory
    target: list[InstanceTarget]  # [B]
    proposals: NotRequired[list[Tensor]]  # as in `DetectionBatch`
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]


class PredictBatch(TypedDict):
    """Images without targets, for ``predict``."""

    image: Tensor | list[Tensor]  # uint8 [B, 3, H, W], RGB, after `val_transform`; a list if sizes differ
    path: list[str]  # [B], the file each image came from
    file_size: NotRequired[Tensor]  # int64 [B, 2], height and width of the file's image
    # float32 [B, 3, 2], the positions in `image` of the corners (0, 0), (W, 0), (0, H) of the file's image, x, y in
    # pixels, to map predictions back; NaN after a transform that does not move keypoints
    corners: NotRequired[Tensor]
    proposals: NotRequired[list[Tensor]]  # as in `DetectionBatch`, if the file of proposals has all images
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]
