"""Mixup and CutMix: training images that are two images at once, with labels to match.

Own code rather than ``torchvision.transforms.v2.MixUp`` and ``CutMix``, because these need float images for Mixup (ours
are uint8 up to the device), always pair an image with the one before it in the batch, and offer no pure function of
lambda or of the box that a test or another codebase could call.

Shape legend: B images, H x W pixels, K classes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_targets(labels: Tensor, num_classes: int) -> Tensor:
    """Class indices as probabilities; probabilities pass through.

    Shape:
        - labels: int64 ``[B]``, ``0 <= label < num_classes``, or float ``[B, K]``
        - output: float ``[B, K]``

    Raises:
        ValueError: if probabilities have another number of columns.
    """
    if labels.ndim == 1:
        return F.one_hot(labels, num_classes).float()
    if labels.shape[1] != num_classes:
        raise ValueError(f"labels are {labels.shape[1]} probabilities each, but num_classes={num_classes}")
    return labels


def mixup(images: Tensor, targets: Tensor, lam: float, partners: Tensor) -> tuple[Tensor, Tensor]:
    """Blends each image with its partner: ``lam * image + (1 - lam) * partner``, and the targets alike.

    Args:
        images: Pixels; uint8 becomes float in [0, 1], which models take as well.
        targets: Class probabilities.
        lam: The image's own share, from 0 to 1.
        partners: For each image, the index of the one it is blended with.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - targets: float ``[B, K]``
        - partners: int64 ``[B]``
        - output: float images in [0, 1] ``[B, 3, H, W]``, targets ``[B, K]``

    Reference:
        Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018, section 2.
    """
    pixels = images / 255 if images.dtype == torch.uint8 else images
    return _blend(pixels, pixels[partners], lam), _blend(targets, targets[partners], lam)


def cutmix_box(height: int, width: int, lam: float, centre: tuple[int, int]) -> tuple[int, int, int, int]:
    """The rectangle to paste: ``sqrt(1 - lam)`` of each side of the image, clipped at its border.

    Its half sides are rounded down to whole pixels, so that its area is at most ``(1 - lam) * height * width``.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        lam: The share of the image that should stay, before clipping.
        centre: X and y of the rectangle's middle, in pixels, inside the image.

    Returns:
        x1, y1, x2, y2 in pixels, x2 and y2 exclusive; may be empty.
    """
    half = 0.5 * math.sqrt(1.0 - lam)
    half_width, half_height = int(half * width), int(half * height)
    x, y = centre
    return max(x - half_width, 0), max(y - half_height, 0), min(x + half_width, width), min(y + half_height, height)


def cutmix(images: Tensor, targets: Tensor, box: tuple[int, int, int, int], partners: Tensor) -> tuple[Tensor, Tensor]:
    """Pastes one rectangle of each image's partner over it, and mixes the targets by area.

    The own share is ``lam = 1 - (x2 - x1) * (y2 - y1) / (H * W)``, counted from the rectangle as it was pasted, after
    clipping, not the lambda that it was drawn with.

    Args:
        images: Pixels of any type; the type stays.
        targets: Class probabilities.
        box: x1, y1, x2, y2 in pixels, x2 and y2 exclusive, inside the image.
        partners: For each image, the index of the one whose pixels are pasted.

    Shape:
        - images: ``[B, 3, H, W]``
        - targets: float ``[B, K]``
        - partners: int64 ``[B]``
        - output: images ``[B, 3, H, W]``, new memory; targets ``[B, K]``

    Reference:
        Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable features", ICCV 2019,
        section 3.1. The paper's eq. 2 draws the rectangle; its code recomputes lambda after clipping, as here.
    """
    x1, y1, x2, y2 = box
    mixed = images.clone()
    mixed[..., y1:y2, x1:x2] = images[partners, :, y1:y2, x1:x2]
    lam = 1.0 - (x2 - x1) * (y2 - y1) / (images.shape[-2] * images.shape[-1])
    return mixed, _blend(targets, targets[partners], lam)


def _blend(first: Tensor, second: Tensor, lam: float) -> Tensor:
    return first * lam + second * (1.0 - lam)


class BatchMixer:
    """Applies Mixup or CutMix to each training batch, each batch with its own draw of lambda ~ Beta(alpha, alpha).

    Draws from torch's CPU generator, so ``seed_everything`` fixes it and nothing waits for the device.

    Args:
        mixup_alpha: Beta parameter of Mixup; 0 turns Mixup off. The paper takes 0.1 to 0.4 on ImageNet.
        cutmix_alpha: Beta parameter of CutMix; 0 turns CutMix off. The paper takes 1.
        switch_prob: Where both are on, the probability that a batch gets CutMix.
        num_classes: Number K of classes.
        prob: Probability that a batch is mixed at all; otherwise only its labels become probabilities.

    Raises:
        ValueError: for a negative alpha or a probability outside [0, 1].

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
                raise ValueError(f"{name}={alpha}: a Beta parameter is positive; 0 turns this kind of mixing off")
        for name, share in (("switch_prob", switch_prob), ("prob", prob)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share}: a probability lies from 0 to 1")
        self.mixup_alpha, self.cutmix_alpha = mixup_alpha, cutmix_alpha
        self.switch_prob, self.num_classes, self.prob = switch_prob, num_classes, prob

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes a batch.

        Args:
            images: Pixels. CutMix keeps uint8; Mixup gives float in [0, 1].
            labels: Class indices, or probabilities.

        Shape:
            - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
            - labels: int64 ``[B]`` or float ``[B, K]``
            - output: images ``[B, 3, H, W]``, targets float ``[B, K]`` whose rows sum to 1
        """
        targets = soft_targets(labels, self.num_classes)
        alpha, cut = self._choose()
        if alpha == 0 or float(torch.rand(())) >= self.prob:
            return images, targets
        concentration = torch.tensor(alpha, dtype=torch.float64)
        lam = float(torch.distributions.Beta(concentration, concentration).sample())
        partners = torch.randperm(len(images)).to(images.device)
        if not cut:
            return mixup(images, targets, lam, partners)
        height, width = images.shape[-2:]
        centre = int(torch.randint(width, ())), int(torch.randint(height, ()))
        return cutmix(images, targets, cutmix_box(height, width, lam, centre), partners)

    def _choose(self) -> tuple[float, bool]:
        """This batch's Beta parameter, and whether it is CutMix's."""
        if self.mixup_alpha and self.cutmix_alpha:
            cut = float(torch.rand(())) < self.switch_prob
        else:
            cut = self.cutmix_alpha > 0
        return (self.cutmix_alpha if cut else self.mixup_alpha), cut
