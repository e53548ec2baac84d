"""Precision over recall of each class against all others, for tasks with one label per image."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassPrecisionRecallCurve

MAX_CLASSES = 100
"""Maximum number of classes with curves."""


class OneVersusRest(MulticlassPrecisionRecallCurve):
    """Precision and recall of each class at 101 scores, by counts, so that memory does not grow with the data.

    Args:
        num_classes: Number of classes K.
        **kwargs: Arguments of torchmetrics' ``Metric``.

    Shape:
        - preds: ``[B, K]``, scores in [0, 1]
        - target: ``[B]``

    Example:
        >>> metric = OneVersusRest(2)
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]), torch.tensor([0, 1, 1]))
        >>> metric.pr_curves()["precision"].mean(1)  # of class 1 the best and the second best are correct
        tensor([1., 1.], dtype=torch.float64)
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, thresholds=101, validate_args=False, **kwargs)

    def pr_curves(self) -> dict[str, Tensor]:
        """Return the highest precision of each class at each recall or beyond, as in COCO's metrics.

        Under DDP every rank has to call this, unless it has called `compute` before.

        Shape:
            - output: ``recall`` ``[101]``, ``precision`` and ``scores`` ``[K, 101]``, float64; ``scores`` are the
              highest at which that recall is reached. A class without images has NaN.
        """
        precision, recall, thresholds = (torch.as_tensor(values).double().cpu() for values in self.compute())
        levels = torch.linspace(0, 1, 101, dtype=torch.float64)
        # the last entry of both is that of no predictions at all; no prediction of a class makes its precision NaN
        precision, recall = precision[:, None, :-1], recall[:, None, :-1].nan_to_num(0)  # [K, 1, T]
        reached = (recall >= levels[:, None] - 1e-6) & ~precision.isnan()  # [K, 101, T]; recall is float32
        best = precision.where(reached, torch.zeros(())).amax(-1)
        scores = thresholds.where(reached, torch.zeros(())).amax(-1)
        absent = recall.amax(-1) == 0  # at score 0 every image is found
        return {
            "recall": levels,
            "precision": best.masked_fill(absent, torch.nan),
            "scores": scores.masked_fill(absent, torch.nan),
        }
