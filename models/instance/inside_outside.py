"""FCIS' inside and outside scores of regions: their class, their mask, and the three losses.

Shape legend: R regions, P of them with an object; K classes; ``m`` cells per side of a region. Each cell of a region
has a pair of scores for each class: that it is outside and inside an object of that class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..detection.two_stage.roi_head import SamplingSettings
from ..ops.checks import check_above, check_length, check_min, indexed


@dataclass(frozen=True)
class FCISSettings(SamplingSettings):
    """Settings of FCIS' training. The defaults are the authors' for COCO.

    Attributes:
        hard_examples: Train on the ``samples`` regions of each image with the highest losses (OHEM), of all that match
            an object or are background. If false, regions are drawn at random, as for VOC.
        fill_background: Without hard examples: if an image has too few regions, add those that overlap objects by less
            than the range of ``background_iou``, as background. VOC: true.
        box_std: Standard deviation that divides the target offsets.
        beta: Offset at which the smooth L1 loss of boxes changes from quadratic to linear.
        loss_weights: Weights of the losses of classes, masks and boxes.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A number is out of range, a list has a wrong length, or the end of ``background_iou`` exceeds
            ``foreground_iou``.
    """

    hard_examples: bool = True
    fill_background: bool = False
    box_std: tuple[float, float, float, float] = (0.2, 0.2, 0.5, 0.5)
    beta: float = 1.0
    loss_weights: tuple[float, float, float] = (1.0, 10.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_min(0, beta=self.beta)
        check_length(4, box_std=self.box_std)
        check_above(0, **indexed("box_std", self.box_std))
        check_length(3, loss_weights=self.loss_weights)
        check_min(0, **indexed("loss_weights", self.loss_weights))


class RegionScores(NamedTuple):
    """Outputs of FCIS for each region.

    Attributes:
        pairs: Scores of outside and inside, in this order, for each class and last the background:
            ``[R, K + 1, 2, m, m]``.
        deltas: Normalized offsets from the region to the object's box, ``[R, 4]``.
    """

    pairs: Tensor
    deltas: Tensor

    def class_logits(self) -> Tensor:
        """Class logits ``[R, K + 1]``: the higher score of each pair, averaged over the cells of the region."""
        return self.pairs.amax(2).mean((2, 3))

    def mask_probabilities(self, labels: Tensor) -> Tensor:
        """Probability that a cell is inside an object of the class of its region, ``labels`` ``[R]``: ``[R, m, m]``."""
        outside, inside = self.pairs[torch.arange(len(labels), device=labels.device), labels].unbind(1)
        return (inside - outside).sigmoid()  # the softmax of the pair


class RegionTargets(NamedTuple):
    """What regions are trained on.

    Attributes:
        labels: int64 ``[R]``, 0 … K-1, and K for background.
        offsets: Normalized offsets of the P regions with an object, ``[P, 4]``.
        masks: Which cells of these regions are inside the object, bool ``[P, m, m]``.
    """

    labels: Tensor
    offsets: Tensor
    masks: Tensor


class RegionLosses(NamedTuple):
    """Losses of each region, without weights: ``[R]`` each. Background has no loss of its mask and box."""

    classes: Tensor
    masks: Tensor
    boxes: Tensor


def region_losses(scores: RegionScores, targets: RegionTargets, beta: float = 1.0) -> RegionLosses:
    """Compute the losses of each region.

    Class: cross-entropy. Mask: cross-entropy of the pair of the ground-truth class, averaged over the cells. Box:
    smooth L1, summed over the four offsets.

    Args:
        scores: Scores of R regions.
        targets: Their targets.
        beta: Offset at which the smooth L1 loss changes from quadratic to linear.

    Shape:
        - output: ``[R]`` each
    """
    logits = scores.class_logits()
    positive = (targets.labels < logits.shape[1] - 1).nonzero()[:, 0]
    outside, inside = scores.pairs[positive, targets.labels[positive]].unbind(1)  # [P, m, m]
    masks = F.binary_cross_entropy_with_logits(inside - outside, targets.masks.to(logits), reduction="none")
    boxes = F.smooth_l1_loss(scores.deltas[positive], targets.offsets.to(logits), reduction="none", beta=beta)
    zeros = logits.new_zeros(len(logits))
    return RegionLosses(
        F.cross_entropy(logits, targets.labels, reduction="none"),
        zeros.index_copy(0, positive, masks.mean((1, 2))),
        zeros.index_copy(0, positive, boxes.sum(1)),
    )


@torch.no_grad()
def hardest_regions(losses: RegionLosses, counts: Sequence[int], settings: FCISSettings) -> Tensor:
    """Find the regions of each image with the highest weighted loss.

    Args:
        losses: Losses of the regions of all images.
        counts: Number of regions of each image.
        settings: Number of regions to keep, and weights.

    Shape:
        - output: bool ``[R]``, at most ``settings.samples`` per image
    """
    total = sum(weight * loss for weight, loss in zip(settings.loss_weights, losses, strict=True))
    hardest = torch.zeros_like(losses.classes, dtype=torch.bool)
    for kept, loss in zip(hardest.split(list(counts)), torch.as_tensor(total).split(list(counts)), strict=True):
        kept[loss.topk(min(settings.samples, len(loss))).indices] = True
    return hardest


def fcis_losses(
    scores: RegionScores, targets: RegionTargets, counts: Sequence[int], settings: FCISSettings
) -> dict[str, Tensor]:
    """Compute ``loss_class``, ``loss_mask`` and ``loss_box`` with their weights.

    The class loss is averaged over the regions that are trained on. The mask loss and the box loss are summed and
    divided by ``settings.samples`` per image, however many regions there are.

    Args:
        scores: Scores of the regions of all images.
        targets: Their targets.
        counts: Number of regions of each image.
        settings: Weights and sampling.

    Shape:
        - output: scalars

    Reference:
        Li et al., "Fully convolutional instance-aware semantic segmentation", CVPR 2017, section 3.2, with the
        normalization of the authors' code. For hard examples: Shrivastava et al., "Training region-based object
        detectors with online hard example mining", CVPR 2016.
    """
    losses = region_losses(scores, targets, settings.beta)
    kept = torch.ones_like(losses.classes)
    if settings.hard_examples:
        kept = hardest_regions(losses, counts, settings).to(kept)
    samples = settings.samples * max(len(counts), 1)
    divisors: tuple[Tensor | int, ...] = (kept.sum().clamp(min=1), samples, samples)
    weighted = [
        weight * (loss * kept).sum() / divisor
        for weight, loss, divisor in zip(settings.loss_weights, losses, divisors, strict=True)
    ]
    return dict(zip(("loss_class", "loss_mask", "loss_box"), weighted, strict=True))
