"""Recall of proposals: how many objects have one that overlaps them enough, by the number of proposals per image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RECALL_IOUS = (0.5, 0.7)


@dataclass(frozen=True, eq=False)
class ProposalRecall:
    """Recall of the proposals of one split.

    Attributes:
        name: Name of the split.
        counts: ``[N]``, number of proposals of each image.
        ranks: ``[2, M]``, for each of `RECALL_IOUS` and each object, the position of the first proposal of its image
            whose IoU is at least that, from 0; -1: there is none.
    """

    name: str
    counts: np.ndarray
    ranks: np.ndarray

    def recall(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the recall with at most so many proposals per image.

        Shape:
            - numbers: ``[S]``
            - Output: ``[2, S]``, for each of `RECALL_IOUS`; NaN without objects
        """
        limits = np.asarray(numbers)
        if not self.ranks.shape[1]:
            return np.full((len(self.ranks), len(limits)), np.nan)
        found = (self.ranks[:, None] >= 0) & (self.ranks[:, None] < limits[:, None])  # [2, S, M]
        return found.mean(axis=2)

    def __str__(self) -> str:
        most = int(self.counts.max(initial=0))
        both = self.recall([most])[:, 0]
        listed = ", ".join(f"{value:.3f} at IoU {iou}" for value, iou in zip(both, RECALL_IOUS, strict=True))
        return f"Proposals of {self.name}: {self.counts.mean():,.0f} per image, at most {most:,}; recall {listed}."


def object_ranks(objects: np.ndarray, proposals: np.ndarray) -> np.ndarray:
    """Return the position of the first proposal that overlaps each object of an image enough.

    Shape:
        - objects: ``[M, 4]``
        - proposals: ``[P, 4]``, best first
        - Output: int64 ``[2, M]``, for each of `RECALL_IOUS`; -1: none
    """
    ranks = np.full((len(RECALL_IOUS), len(objects)), -1)
    if not len(objects) or not len(proposals):
        return ranks
    low = np.maximum(objects[:, None, :2], proposals[None, :, :2])
    high = np.minimum(objects[:, None, 2:], proposals[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (objects, proposals)]
    overlap = shared / (areas[0][:, None] + areas[1][None] - shared).clip(1e-12)  # [M, P]
    for row, iou in enumerate(RECALL_IOUS):
        enough = overlap >= iou
        ranks[row] = np.where(enough.any(axis=1), enough.argmax(axis=1), -1)
    return ranks
