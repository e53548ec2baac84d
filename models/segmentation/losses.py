"""Losses of semantic segmentation: pure functions of logits and masks, and a thin module of each for YAML.

Shape legend: B images, K classes, H x W pixels; ``logits [B, K, H, W]`` of any floating type (computed in float32 at
least), ``mask [B, H, W]`` of any integer type, 0 … K-1 or ``ignore``. Ignored pixels have no part in any of them:
neither in a sum nor in what it is divided by. Where no pixel counts, or there is no image, each is exactly 0, and a
backward pass through it gives zeros.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE_INDEX = 255
"""The value of a mask's pixels that do not count."""


def pixel_cross_entropy(
    logits: Tensor,
    mask: Tensor,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
    ignore: int = IGNORE_INDEX,
) -> Tensor:
    """Cross-entropy of the softmax at each counted pixel: its mean, or its sum.

    Args:
        class_weights: a pixel of class k counts ``class_weights[k]`` times, in the sum and in what the mean divides by.
        label_smoothing: share of the target spread evenly over all classes.
        reduction: ``sum`` is what FCN's solvers were set for ("unnormalized loss"): the mean times the counted pixels.

    Shape:
        - logits: ``[B, K, H, W]``; mask: ``[B, H, W]``; class_weights: ``[K]``.
        - output: a scalar.

    Example:
        >>> mask = torch.tensor([[[1, 255]]])
        >>> round(float(pixel_cross_entropy(torch.zeros(1, 2, 1, 2), mask)), 4)  # log 2, at one pixel
        0.6931
    """
    target = mask.long()
    total = F.cross_entropy(
        _precise(logits), target, class_weights, ignore_index=ignore, reduction="sum", label_smoothing=label_smoothing
    )
    if reduction == "sum":
        return total
    counted = target != ignore
    if class_weights is None:
        return total / counted.sum().clamp(min=1)
    divisor = class_weights[target.where(counted, 0)].where(counted, 0).sum()
    return total / divisor.where(divisor > 0, 1)


def soft_dice_loss(logits: Tensor, mask: Tensor, smooth: float = 0.0, ignore: int = IGNORE_INDEX) -> Tensor:
    """One minus the Dice coefficient of probabilities and truth, mean over the classes that the batch's masks have.

    For class k, with the sums over all counted pixels of the batch: ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) +
    smooth)``.

    Args:
        smooth: added above and below, pixels.

    Shape:
        - logits: ``[B, K, H, W]``; mask: ``[B, H, W]``.
        - output: a scalar from 0 to 1.

    Reference:
        Milletari, Navab, Ahmadi, "V-Net", 3DV 2016, section 3. There the sums below are of squares; here, as in most
        later work, they are plain, so that for a hard prediction the coefficient is Dice's own. The classes' mean is
        not the paper's, which has one class; those absent from the masks are left out: they would only ever count 1.
    """
    counted = mask != ignore
    probabilities = _precise(logits).softmax(1) * counted[:, None]
    target = mask.long().where(counted, 0)[:, None]
    truth = torch.zeros_like(probabilities).scatter_(1, target, counted[:, None].to(probabilities.dtype))
    shared, said, true = ((x).sum((0, 2, 3)) for x in (probabilities * truth, probabilities, truth))
    tiny = torch.finfo(said.dtype).tiny
    losses = 1 - (2 * shared + smooth) / (said + true + smooth).clamp(min=tiny)
    present = true > 0
    return losses.where(present, 0).sum() / present.sum().clamp(min=1)


def softmax_focal_loss(
    logits: Tensor, mask: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None, ignore: int = IGNORE_INDEX
) -> Tensor:
    """Cross-entropy at each pixel times ``(1 - p)^gamma``, p being the true class's probability; mean over pixels.

    Args:
        gamma: 0 gives cross-entropy; the larger, the less easy pixels count.
        class_weights: factor of a pixel of each class (the paper's alpha). What the mean divides by stays the number
            of pixels.

    Shape:
        - logits: ``[B, K, H, W]``; mask: ``[B, H, W]``; class_weights: ``[K]``.
        - output: a scalar.

    Reference:
        Lin et al., "Focal loss for dense object detection", ICCV 2017, section 3.2. The paper's classes are each a
        sigmoid; here one softmax, which with two classes is the same for the difference of their logits.
    """
    target, losses = _pixel_losses(logits, mask, ignore)
    counted = target != ignore
    # 1 - p without cancellation; the bound keeps the slope of a power below 1 finite
    missing = (-torch.expm1(-losses)).clamp(min=1e-12)
    losses = missing**gamma * losses
    if class_weights is not None:
        losses = losses * class_weights[target.where(counted, 0)]
    return losses.sum() / counted.sum().clamp(min=1)


def lovasz_softmax(logits: Tensor, mask: Tensor, per_image: bool = False, ignore: int = IGNORE_INDEX) -> Tensor:
    """The Lovász extension of the Jaccard loss ``1 - IoU``, mean over the classes that the masks have.

    Where every probability is 0 or 1 it is exactly the mean of ``1 - IoU`` over those classes; between, it is the
    piecewise linear surface through these values that is convex in the errors.

    Args:
        per_image: the mean over images of each image's own loss, instead of one over all the batch's pixels.

    Shape:
        - logits: ``[B, K, H, W]``; mask: ``[B, H, W]``.
        - output: a scalar from 0 to 1.

    Raises:
        ValueError: for a value of the mask that is neither a class nor `ignore`.

    Reference:
        Berman, Triki, Blaschko, "The Lovász-Softmax loss", CVPR 2018, equations 8 to 11, algorithm 1.
    """
    if per_image:
        losses = [lovasz_softmax(logits[i : i + 1], mask[i : i + 1], False, ignore) for i in range(len(mask))]
        return torch.stack(losses).mean() if losses else _precise(logits).sum()
    counted = (mask != ignore).reshape(-1)
    target = mask.long().reshape(-1)
    probabilities = _precise(logits).softmax(1).movedim(1, 0).flatten(1)  # [K, P]
    present = [k for k in target.unique().tolist() if k != ignore]  # what sorting is worth doing for
    if wrong := [k for k in present if not 0 <= k < len(probabilities)]:
        raise ValueError(f"the mask has the values {wrong[:8]}, and the logits are of {len(probabilities)} classes")
    losses = [_lovasz_class(probabilities[k], target == k, counted) for k in present]
    return torch.stack(losses).mean() if losses else probabilities.sum() * 0


def _lovasz_class(probability: Tensor, true: Tensor, counted: Tensor) -> Tensor:
    """The extension for one class, of ``[P]`` each."""
    errors = (true.to(probability.dtype) - probability).abs()
    order = errors.detach().masked_fill(~counted, -1).argsort(descending=True)  # ignored pixels come last
    errors, true, counted = errors[order], true[order], counted[order]
    # the Jaccard loss when the pixels up to each one, the worst first, are wrong and the others right
    lost = true.cumsum(0)
    added = (counted & ~true).cumsum(0)
    size = lost[-1]
    jaccard = 1 - (size - lost).to(errors.dtype) / (size + added).to(errors.dtype)
    steps = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return (errors * counted) @ steps


def ohem_cross_entropy(
    logits: Tensor,
    mask: Tensor,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    class_weights: Tensor | None = None,
    ignore: int = IGNORE_INDEX,
) -> Tensor:
    """Mean cross-entropy of the hard pixels: those whose true class has at most a probability of `threshold`.

    Args:
        threshold: probability, above 0 and at most 1.
        min_kept: pixels of the batch that are kept at least, the hardest first, if as many count.
        class_weights: of the pixels kept, as in `pixel_cross_entropy`; which pixels are hard does not depend on them.

    Shape:
        - logits: ``[B, K, H, W]``; mask: ``[B, H, W]``; class_weights: ``[K]``.
        - output: a scalar.

    Reference:
        Shrivastava, Gupta, Girshick, "Training region-based object detectors with online hard example mining", CVPR
        2016, whose examples are regions; for pixels, Wu, Shen, van den Hengel, "Bridging category-level and
        instance-level semantic image segmentation", 2016, section 3.3 (K hardest, or below a probability).
    """
    target, losses = _pixel_losses(logits, mask, ignore)
    counted = target != ignore
    if not losses.numel():
        return losses.sum()
    hardness = losses.detach().masked_fill(~counted, -1).reshape(-1)
    # -1, which keeps all, where fewer pixels count
    least = hardness.topk(min(max(min_kept, 1), hardness.numel()), sorted=True).values[-1]
    kept = counted & (hardness.view_as(losses) >= least.clamp(max=-math.log(threshold)))
    if class_weights is None:
        return losses.where(kept, 0).sum() / kept.sum().clamp(min=1)
    weights = class_weights[target.where(counted, 0)].where(kept, 0)
    divisor = weights.sum()
    return (losses * weights).sum() / divisor.where(divisor > 0, 1)


def _pixel_losses(logits: Tensor, mask: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
    """The target as int64, and the cross-entropy of each pixel, 0 where ignored: ``[B, H, W]`` both."""
    target = mask.long()
    return target, F.cross_entropy(_precise(logits), target, ignore_index=ignore, reduction="none")


def _precise(logits: Tensor) -> Tensor:
    """In float32 at least: sums over a million pixels are wrong in half precision."""
    return logits if logits.dtype == torch.float64 else logits.float()


class _Weighted(nn.Module):
    """A loss with class weights, which move with it and are in no checkpoint."""

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        if weights is not None and not (weights >= 0).all():
            raise ValueError(f"class_weights: {weights.tolist()} are not all 0 or more")
        self.register_buffer("class_weights", weights, persistent=False)

    def _weights(self, logits: Tensor) -> Tensor | None:
        weights = self.class_weights
        if weights is not None and len(weights) != logits.shape[1]:
            raise ValueError(f"class_weights: {len(weights)} numbers for {logits.shape[1]} classes")
        return weights if weights is None else weights.to(_precise(logits).dtype)


class PixelCrossEntropy(_Weighted):
    """`pixel_cross_entropy` as a module.

    Args:
        class_weights: K numbers.
        label_smoothing: in [0, 1).
        reduction: ``mean`` over the counted pixels, or their ``sum``.

    Raises:
        ValueError: when an argument is out of its range.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(class_weights)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: {label_smoothing} is not in [0, 1)")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: {reduction!r} is not mean or sum")
        self.label_smoothing, self.reduction = label_smoothing, reduction

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return pixel_cross_entropy(logits, mask, self._weights(logits), self.label_smoothing, self.reduction)


class DiceLoss(nn.Module):
    """`soft_dice_loss` as a module.

    Args:
        smooth: added above and below, pixels, 0 or more.
    """

    def __init__(self, smooth: float = 0.0) -> None:
        super().__init__()
        if smooth < 0:
            raise ValueError(f"smooth: {smooth} is not 0 or more pixels")
        self.smooth = smooth

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return soft_dice_loss(logits, mask, self.smooth)


class SoftmaxFocalLoss(_Weighted):
    """`softmax_focal_loss` as a module.

    Args:
        gamma: 0 or more.
        class_weights: K numbers.
    """

    def __init__(self, gamma: float = 2.0, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(class_weights)
        if gamma < 0:
            raise ValueError(f"gamma: {gamma} is not 0 or more")
        self.gamma = gamma

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return softmax_focal_loss(logits, mask, self.gamma, self._weights(logits))


class LovaszSoftmax(nn.Module):
    """`lovasz_softmax` as a module.

    Args:
        per_image: the mean of each image's own loss, instead of the whole batch's.
    """

    def __init__(self, per_image: bool = False) -> None:
        super().__init__()
        self.per_image = per_image

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return lovasz_softmax(logits, mask, self.per_image)


class OhemCrossEntropy(_Weighted):
    """`ohem_cross_entropy` as a module.

    Args:
        threshold: pixels whose true class has at most this probability are kept, above 0 and at most 1.
        min_kept: pixels of a batch that are kept at least.
        class_weights: K numbers.
    """

    def __init__(
        self, threshold: float = 0.7, min_kept: int = 100_000, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(class_weights)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold: {threshold} is not a probability above 0")
        if min_kept < 1:
            raise ValueError(f"min_kept: {min_kept} is not a number of pixels; give 1 or more")
        self.threshold, self.min_kept = threshold, min_kept

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]``."""
        return ohem_cross_entropy(logits, mask, self.threshold, self.min_kept, self._weights(logits))


class WeightedLosses(nn.Module):
    """A weighted sum of losses; the task logs each term under its name, ``train/loss_NAME``.

    Args:
        losses: modules of logits and masks, by name.
        weights: factor of each, by the same names; None, or a name left out: 1.

    Raises:
        ValueError: for no losses, or a weight of a name that there is not.

    Example:
        >>> loss = WeightedLosses({"ce": PixelCrossEntropy(), "dice": DiceLoss()}, {"dice": 0.5})
        >>> sorted(loss.terms(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8)))
        ['ce', 'dice']
    """

    def __init__(self, losses: dict[str, nn.Module], weights: dict[str, float] | None = None) -> None:
        super().__init__()
        if not losses:
            raise ValueError("losses: none given")
        if unknown := sorted((weights or {}).keys() - losses.keys()):
            raise ValueError(f"weights: there is no loss {', '.join(map(repr, unknown))}, but {', '.join(losses)}")
        self.losses = nn.ModuleDict(losses)
        self.weights: Mapping[str, float] = {name: float((weights or {}).get(name, 1)) for name in losses}

    def terms(self, logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Each loss times its weight, by name."""
        return {name: self.weights[name] * loss(logits, mask) for name, loss in self.losses.items()}

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The sum of the terms."""
        return torch.stack(list(self.terms(logits, mask).values())).sum()
