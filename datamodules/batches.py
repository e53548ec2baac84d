"""What travels from a data module to a task: the batch types, field by field.

Conventions (DESIGN): images are RGB ``uint8`` and neither scaled nor normalised; classes are ``0 … K-1``.
"""

from typing import NotRequired, TypedDict

from torch import Tensor


class ClassificationBatch(TypedDict):
    """One image, one label."""

    image: Tensor  # uint8 [B, 3, H, W], RGB, 0..255; channels-last in memory
    label: Tensor  # int64 [B], 0..K-1
    index: Tensor  # int64 [B], the sample's number in its data set
    unreadable: NotRequired[list[str]]  # "path: reason" of each sample that was skipped or replaced


class PredictBatch(TypedDict):
    """Images without truth, as `predict` reads them."""

    image: Tensor  # uint8 [B, 3, H, W], RGB, after the evaluation transform
    path: list[str]  # [B], the file each image came from
    index: Tensor  # int64 [B]
    unreadable: NotRequired[list[str]]
