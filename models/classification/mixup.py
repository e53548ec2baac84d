"""Mixup and CutMix: each training image is mixed from two images, and its label accordingly.

``torchvision.transforms.v2.MixUp`` and ``CutMix`` are not used because they need float images for Mixup (here images
are uint8 up to the device), always pair an image with its predecessor in the batch, and offer no pure function of
lambda or of the box.

Shape legend: B images, H x W pixels, K classes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops.checks import check_fraction, check_min


def soft_targets(labels: Tensor, num_classes: int) -> Tensor:
    """Convert class indices to one-hot probabilities; return probabilities unchanged.

    Shape:
        - labels: int64 ``[B]``, ``0 <= label < num_classes``, or float ``[B, K]``
        - output: float ``[B, K]``

    Raises:
        ValueError: Probabilities have another number of columns than ``num_classes``.
    """
    if labels.ndim == 1:
        return F.one_hot(labels, num_classes).float()
    if labels.shape[1] != num_classes:
        raise ValueError(f"labels: must have num_classes={num_classes} probabilities per row, got {labels.shape[1]}")
    return labels


def mixup(images: Tensor, targets: Tensor, lam: float, partners: Tensor) -> tuple[Tensor, Tensor]:
    """Blend each image with its partner: ``lam * image + (1 - lam) * partner``, and the targets too.

    Args:
        images: Pixels; uint8 is converted to float in [0, 1], which models accept as well.
        targets: Class probabilities.
        lam: Weight of the image itself, from 0 to 1.
        partners: For each image, the index of its partner.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - targets: float ``[B, K]``
        - partners: int64 ``[B]``
        - output: float images in [0, 1] ``[B, 3, H, W]``, targets ``[B, K]``

    Reference:
        Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018, section 2.
    """
    pixels = images / 255 if images.dtype == torch.uint8 else images
    return _blend(pixels, partners, lam), _blend(targets, partners, lam)


def cutmix_box(height: int, width: int, lam: float, center: tuple[int, int]) -> tuple[int, int, int, int]:
    """Compute the rectangle to paste: ``sqrt(1 - lam)`` of each side of the image, clipped at its border.

    Half sides are rounded down to whole pixels, so that the area is at most ``(1 - lam) * height * width``.

    Args:
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        lam: Fraction of the image to keep, before clipping.
        center: Center x, y of the rectangle, in pixels, inside the image.

    Returns:
        x1, y1, x2, y2 in pixels, x2 and y2 exclusive; may be empty.
    """
    half = 0.5 * math.sqrt(1.0 - lam)  # of each side, so that the area is 1 - lam
    half_width, half_height = int(half * width), int(half * height)
    x, y = center
    return max(x - half_width, 0), max(y - half_height, 0), min(x + half_width, width), min(y + half_height, height)


def cutmix(images: Tensor, targets: Tensor, box: tuple[int, int, int, int], partners: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of each image's partner over it, and mix the targets by area.

    The image's own weight is ``lam = 1 - (x2 - x1) * (y2 - y1) / (H * W)``, computed from the clipped rectangle. It may
    differ from the lambda that the rectangle was drawn with.

    Args:
        images: Pixels of any dtype, which is kept.
        targets: Class probabilities.
        box: x1, y1, x2, y2 in pixels, x2 and y2 exclusive, inside the image.
        partners: For each image, the index of its partner.

    Shape:
        - images: ``[B, 3, H, W]``
        - targets: float ``[B, K]``
        - partners: int64 ``[B]``
        - output: images ``[B, 3, H, W]``, a copy; targets ``[B, K]``

    Reference:
        Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", ICCV 2019,
        section 3.1. The paper's eq. 2 draws the rectangle; the authors' code recomputes lambda after clipping, as here.
    """
    x1, y1, x2, y2 = box
    mixed = images.clone()
    mixed[..., y1:y2, x1:x2] = images[partners, :, y1:y2, x1:x2]
    lam = 1.0 - (x2 - x1) * (y2 - y1) / (images.shape[-2] * images.shape[-1])  # the fraction that was not pasted
    return mixed, _blend(targets, partners, lam)


def _blend(values: Tensor, partners: Tensor, lam: float) -> Tensor:
    return values * lam + values[partners] * (1.0 - lam)  # [B, ...]


class BatchMixer:
    """Applies Mixup or CutMix to training batches, with lambda ~ Beta(alpha, alpha) drawn for each batch.

    Random numbers come from PyTorch's CPU generator: ``seed_everything`` makes them reproducible, and drawing them does
    not synchronize with the device.

    Args:
        mixup_alpha: Beta parameter of Mixup; 0 disables Mixup. The paper uses 0.1 to 0.4 on ImageNet.
        cutmix_alpha: Beta parameter of CutMix; 0 disables CutMix. The paper uses 1.
        switch_prob: Probability of CutMix for a batch when both are enabled.
        num_classes: Number K of classes.
        prob: Probability that a batch is mixed; otherwise only its labels are converted to probabilities.

    Raises:
        ValueError: An alpha is negative or a probability is outside [0, 1].

    Example:
        >>> mixer = BatchMixer(cutmix_alpha=0.0, num_classes=3)
        >>> images, targets = mixer(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 2]))
        >>> targets.sum(1).tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        mixup_alpha: float = 0.2,
        cutmix_alpha: float = 1.0,
        switch_prob: float = 0.5,
        num_classes: int = 1000,
        prob: float = 1.0,
    ) -> None:
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if alpha < 0:
                raise ValueError(f"{name}: must be a positive Beta parameter, got {alpha}; use 0 to disable it")
        check_fraction(switch_prob=switch_prob, prob=prob)
        check_min(1, num_classes=num_classes)
        self.mixup_alpha, self.cutmix_alpha = mixup_alpha, cutmix_alpha
        self.switch_prob, self.num_classes, self.prob = switch_prob, num_classes, prob

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch, and return its images and class probabilities.

        Args:
            images: Pixels. CutMix keeps uint8; Mixup returns float in [0, 1].
            labels: Class indices, or class probabilities.

        Shape:
            - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
            - labels: int64 ``[B]`` or float ``[B, K]``
            - output: images ``[B, 3, H, W]``, targets float ``[B, K]`` whose rows sum to 1
        """
        targets = soft_targets(labels, self.num_classes)
        alpha, use_cutmix = self._choose()
        if alpha == 0 or float(torch.rand(())) >= self.prob:
            return images, targets
        concentration = torch.tensor(alpha, dtype=torch.float64)
        lam = float(torch.distributions.Beta(concentration, concentration).sample())
        partners = torch.randperm(len(images)).to(images.device)  # drawn on the CPU
        if not use_cutmix:
            return mixup(images, targets, lam, partners)
        height, width = images.shape[-2:]
        center = int(torch.randint(width, ())), int(torch.randint(height, ()))
        return cutmix(images, targets, cutmix_box(height, width, lam, center), partners)

    def _choose(self) -> tuple[float, bool]:
        """Choose the Beta parameter of a batch, and whether CutMix is applied."""
        if self.mixup_alpha and self.cutmix_alpha:
            use_cutmix = float(torch.rand(())) < self.switch_prob
        else:
            use_cutmix = self.cutmix_alpha > 0
        return (self.cutmix_alpha if use_cutmix else self.mixup_alpha), use_cutmix
