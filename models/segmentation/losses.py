"""Losses for semantic segmentation (FCN, U-Net, DeepLab, …): pure functions, and a thin module of each for YAML.

Shape legend: B images, K classes, H x W pixels. ``logits [B, K, H, W]`` are of any floating type (losses are computed
in at least float32), ``mask [B, H, W]`` of any integer type, with values 0 … K-1 or ``ignore``. Ignored pixels do not
contribute to any loss, neither to its sum nor to its divisor. If all pixels are ignored or the batch is empty, each
loss is exactly 0 with zero gradients.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.boxes import at_least_float32
from ..ops.checks import check_choice, check_dropout, check_min

# datamodules/batches.py has the same value: neither package may import the other
IGNORE_INDEX = 255
"""Value of ignored pixels in a mask."""


def pixel_cross_entropy(
    logits: Tensor,
    mask: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
    ignore: int = IGNORE_INDEX,
) -> Tensor:
    """Compute the mean or the sum of the softmax cross-entropy over all valid pixels.

    Args:
        logits: Logits.
        mask: Target classes.
        class_weights: Weight of a pixel of each class, in the sum and in the divisor of the mean.
        label_smoothing: Fraction of the target spread evenly over all classes.
        reduction: ``mean``, or ``sum`` for the "unnormalized loss" of FCN's solvers, the mean times the valid pixels.
        ignore: Value of ignored pixels in the mask.

    Shape:
        - logits: ``[B, K, H, W]``; mask: ``[B, H, W]``; class_weights: ``[K]``.
        - output: a scalar.

    Example:
        >>> mask = torch.tensor([[[1, 255]]])
        >>> round(float(pixel_cross_entropy(torch.zeros(1, 2, 1, 2), mask)), 4)  # log 2 for one valid pixel
        0.6931
    """
    target = mask.long()
    total = F.cross_entropy(
        at_least_float32(logits),
        target,
        class_weights,
        ignore_index=ignore,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    if reduction == "sum":
        return total
    valid = target != ignore
    if class_weights is None:
        return total / valid.sum().clamp(min=1)
    divisor = class_weights[target.where(valid, 0)].where(valid, 0).sum()  # sum of the weights of valid pixels
    return total / divisor.where(divisor > 0, 1)


def soft_dice_loss(logits: Tensor, mask: Tensor, smooth: float = 0.0, ignore: int = IGNORE_INDEX) -> Tensor:
    """Compute one minus the Dice coefficient of probabilities and targets, averaged over the classes in the masks.

    For class k, with sums over all valid pixels of the batch: ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) +
    smooth)``.

    Args:
        logits: Logits.
        mask: Target classes.
        smooth: Constant added to numerator and denominator, in pixels.
        ignore: Value of ignored pixels in the mask.

    Shape:
        - logits: ``[B, K, H, W]``; mask: ``[B, H, W]``.
        - output: a scalar from 0 to 1.

    Reference:
        Milletari, Navab, Ahmadi, "V-Net", 3DV 2016, section 3. The paper has squares in the sums of the denominator;
        here, as in most later work, they are not squared, so that for a hard prediction this is Dice's coefficient. The
        paper has a single class. The mean excludes classes that are absent from the masks, whose loss is always 1.
    """
    valid = mask != ignore
    probabilities = at_least_float32(logits).softmax(1) * valid[:, None]
    labels = mask.long().where(valid, 0)[:, None]
    # one-hot, [B, K, H, W]
    targets = torch.zeros_like(probabilities).scatter_(1, labels, valid[:, None].to(probabilities.dtype))
    intersection, predicted, target = (x.sum((0, 2, 3)) for x in (probabilities * targets, probabilities, targets))
    tiny = torch.finfo(predicted.dtype).tiny
    losses = 1 - (2 * intersection + smooth) / (predicted + target + smooth).clamp(min=tiny)  # [K]
    present = target > 0
    return losses.where(present, 0).sum() / present.sum().clamp(min=1)


def softmax_focal_loss(
    logits: Tensor, mask: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None, ignore: int = IGNORE_INDEX
) -> Tensor:
    """Compute the mean over pixels of the cross-entropy times ``(1 - p)^gamma``, p the target class's probability.

    Args:
        logits: Logits.
        mask: Target classes.
        gamma: Focusing parameter; 0 gives cross-entropy, larger values reduce the weight of easy pixels.
        class_weights: Factor for pixels of each class (the paper's alpha). The divisor is the number of pixels.
        ignore: Value of ignored pixels in the mask.

    Shape:
        - logits: ``[B, K, H, W]``; mask: ``[B, H, W]``; class_weights: ``[K]``.
        - output: a scalar.

    Reference:
        Lin et al., "Focal loss for dense object detection", ICCV 2017, section 3.2. The paper has a sigmoid
        for each class, here there is one softmax. For two classes both agree on the difference of the logits.
    """
    target, losses = _pixel_losses(logits, mask, ignore)
    valid = target != ignore
    # 1 - p without cancellation; the bound keeps the gradient finite for gamma below 1
    complement = (-torch.expm1(-losses)).clamp(min=1e-12)
    losses = complement**gamma * losses
    if class_weights is not None:
        losses = losses * class_weights[target.where(valid, 0)]
    return losses.sum() / valid.sum().clamp(min=1)


def lovasz_softmax(logits: Tensor, mask: Tensor, per_image: bool = False, ignore: int = IGNORE_INDEX) -> Tensor:
    """Compute the Lovász extension of the Jaccard loss ``1 - IoU``, averaged over the classes in the masks.

    If all probabilities are 0 or 1, it equals the mean of ``1 - IoU`` over these classes. In between, it is the
    piecewise linear interpolation of these values that is convex in the errors.

    Args:
        logits: Logits.
        mask: Target classes.
        per_image: Whether to average the losses of single images, instead of computing one over all pixels.
        ignore: Value of ignored pixels in the mask.

    Shape:
        - logits: ``[B, K, H, W]``; mask: ``[B, H, W]``.
        - output: a scalar from 0 to 1.

    Raises:
        ValueError: The mask has a value that is neither a class nor ``ignore``.

    Reference:
        Berman, Triki, Blaschko, "The Lovász-Softmax loss", CVPR 2018, equations 8 to 11, algorithm 1.
    """
    if per_image:
        losses = [lovasz_softmax(logits[i : i + 1], mask[i : i + 1], False, ignore) for i in range(len(mask))]
        return torch.stack(losses).mean() if losses else at_least_float32(logits).sum()
    valid = (mask != ignore).reshape(-1)
    target = mask.long().reshape(-1)
    probabilities = at_least_float32(logits).softmax(1).movedim(1, 0).flatten(1)  # [K, P]
    present = [k for k in target.unique().tolist() if k != ignore]  # absent classes need no sorting
    if invalid := [k for k in present if not 0 <= k < len(probabilities)]:
        raise ValueError(f"mask: must be 0 to {len(probabilities) - 1} or {ignore} = ignore, got {invalid[:8]}")
    losses = [_lovasz_class(probabilities[k], target == k, valid) for k in present]
    return torch.stack(losses).mean() if losses else probabilities.sum() * 0


def _lovasz_class(probability: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute the loss of one class; all arguments are ``[P]``, the output is a scalar."""
    errors = (target.to(probability.dtype) - probability).abs()
    order = errors.detach().masked_fill(~valid, -1).argsort(descending=True)  # ignored pixels come last
    errors, target, valid = errors[order], target[order], valid[order]
    # entry i: the Jaccard loss if the pixels up to i, in order of decreasing error, are wrong and the others right
    false_negatives = target.cumsum(0)
    false_positives = (valid & ~target).cumsum(0)
    size = false_negatives[-1]
    jaccard = 1 - (size - false_negatives).to(errors.dtype) / (size + false_positives).to(errors.dtype)
    steps = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return (errors * valid) @ steps


def ohem_cross_entropy(
    logits: Tensor,
    mask: Tensor,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    class_weights: Tensor | None = None,
    ignore: int = IGNORE_INDEX,
) -> Tensor:
    """Compute the mean cross-entropy of hard pixels, whose target class has a probability of at most ``threshold``.

    Args:
        logits: Logits.
        mask: Target classes.
        threshold: Maximum probability of the target class, in (0, 1].
        min_kept: Minimum number of pixels of the batch, the hardest first, if there are as many valid ones.
        class_weights: Weight of a pixel of each class, as in `pixel_cross_entropy`. It does not affect the selection.
        ignore: Value of ignored pixels in the mask.

    Shape:
        - logits: ``[B, K, H, W]``; mask: ``[B, H, W]``; class_weights: ``[K]``.
        - output: a scalar.

    Reference:
        Shrivastava, Gupta, Girshick, "Training region-based object detectors with online hard example mining", CVPR
        2016, whose examples are regions; for pixels, Wu, Shen, van den Hengel, "Bridging category-level and
        instance-level semantic image segmentation", 2016, section 3.3 (K hardest, or below a probability).
    """
    target, losses = _pixel_losses(logits, mask, ignore)
    valid = target != ignore
    if not losses.numel():
        return losses.sum()
    hardness = losses.detach().masked_fill(~valid, -1).reshape(-1)
    # -1, which selects all valid pixels, if there are fewer than min_kept
    minimum = hardness.topk(min(max(min_kept, 1), hardness.numel()), sorted=True).values[-1]
    hard = valid & (hardness.view_as(losses) >= minimum.clamp(max=-math.log(threshold)))
    if class_weights is None:
        return losses.where(hard, 0).sum() / hard.sum().clamp(min=1)
    weights = class_weights[target.where(valid, 0)].where(hard, 0)
    divisor = weights.sum()
    return (losses * weights).sum() / divisor.where(divisor > 0, 1)


def _pixel_losses(logits: Tensor, mask: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
    """Return the target as int64, and the cross-entropy of each pixel, 0 if ignored; both are ``[B, H, W]``."""
    target = mask.long()
    return target, F.cross_entropy(at_least_float32(logits), target, ignore_index=ignore, reduction="none")


class _WeightedLoss(nn.Module):
    """A loss with class weights, which move with the module and are not saved in checkpoints."""

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        if weights is not None and not (weights >= 0).all():
            raise ValueError(f"class_weights: must be nonnegative, got {weights.tolist()}")
        self.register_buffer("class_weights", weights, persistent=False)

    def _weights(self, logits: Tensor) -> Tensor | None:
        """Return the class weights ``[K]`` in the dtype of the loss of ``logits [B, K, H, W]``."""
        weights = self.class_weights
        if weights is not None and len(weights) != logits.shape[1]:
            raise ValueError(f"class_weights: must have one weight per class, {logits.shape[1]}, got {len(weights)}")
        return weights if weights is None else weights.to(at_least_float32(logits).dtype)


class PixelCrossEntropy(_WeightedLoss):
    """`pixel_cross_entropy` as a module.

    Args:
        class_weights: Weight of a pixel of each class. ``None``: 1.
        label_smoothing: Fraction of the target spread evenly over all classes, in [0, 1).
        reduction: ``mean`` or ``sum`` over the valid pixels.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(class_weights)
        check_dropout(label_smoothing=label_smoothing)  # [0, 1)
        check_choice(("mean", "sum"), reduction=reduction)
        self.label_smoothing, self.reduction = label_smoothing, reduction

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return pixel_cross_entropy(logits, mask, self._weights(logits), self.label_smoothing, self.reduction)


class DiceLoss(nn.Module):
    """`soft_dice_loss` as a module.

    Args:
        smooth: Constant added to numerator and denominator, in pixels, at least 0.
    """

    def __init__(self, smooth: float = 0.0) -> None:
        super().__init__()
        check_min(0, smooth=smooth)
        self.smooth = smooth

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return soft_dice_loss(logits, mask, self.smooth)


class SoftmaxFocalLoss(_WeightedLoss):
    """`softmax_focal_loss` as a module.

    Args:
        gamma: Focusing parameter, at least 0.
        class_weights: Factor for pixels of each class. ``None``: 1.
    """

    def __init__(self, gamma: float = 2.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(class_weights)
        check_min(0, gamma=gamma)
        self.gamma = gamma

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return softmax_focal_loss(logits, mask, self.gamma, self._weights(logits))


class LovaszSoftmax(nn.Module):
    """`lovasz_softmax` as a module.

    Args:
        per_image: Whether to average the losses of single images, instead of computing one over all pixels.
    """

    def __init__(self, per_image: bool = False) -> None:
        super().__init__()
        self.per_image = per_image

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return lovasz_softmax(logits, mask, self.per_image)


class OhemCrossEntropy(_WeightedLoss):
    """`ohem_cross_entropy` as a module.

    Args:
        threshold: Maximum probability of the target class, in (0, 1].
        min_kept: Minimum number of pixels of the batch.
        class_weights: Weight of a pixel of each class. ``None``: 1.
    """

    def __init__(
        self, threshold: float = 0.7, min_kept: int = 100_000, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(class_weights)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold: must be in (0, 1], got {threshold}")
        check_min(1, min_kept=min_kept)
        self.threshold, self.min_kept = threshold, min_kept

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the scalar loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return ohem_cross_entropy(logits, mask, self.threshold, self.min_kept, self._weights(logits))


class WeightedLosses(nn.Module):
    """A weighted sum of losses; the task logs each term as ``train/loss_NAME``.

    Args:
        losses: Loss modules by name.
        weights: Weight of each loss by name. ``None``, or without an entry: 1.

    Raises:
        ValueError: ``losses`` is empty, or ``weights`` has an unknown name.

    Example:
        >>> loss = WeightedLosses({"ce": PixelCrossEntropy(), "dice": DiceLoss()}, {"dice": 0.5})
        >>> sorted(loss.terms(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8)))
        ['ce', 'dice']
    """

    def __init__(self, losses: dict[str, nn.Module], weights: dict[str, float] | None = None) -> None:
        super().__init__()
        if not losses:
            raise ValueError("losses: must have at least one loss, got {}")
        if unknown := sorted((weights or {}).keys() - losses.keys()):
            raise ValueError(f"weights: must have names of losses, {', '.join(losses)}, got {', '.join(unknown)}")
        self.losses = nn.ModuleDict(losses)
        self.weights: Mapping[str, float] = {name: float((weights or {}).get(name, 1)) for name in losses}

    def terms(self, logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return each loss times its weight, a scalar, by name, for logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return {name: self.weights[name] * loss(logits, mask) for name, loss in self.losses.items()}

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the sum of the terms, a scalar, for logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return torch.stack(list(self.terms(logits, mask).values())).sum()
