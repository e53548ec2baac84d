"""TrivialAugment and RandAugment: one or several of fourteen operations, drawn at random, on ``uint8`` images.

The operations are torchvision's functional ones and their ranges torchvision's, which are the papers' for ImageNet.
What is drawn comes from albumentations' own generator, so that it follows from (seed, epoch, sample) like all
augmentation here, with any number of workers and after resuming.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import albumentations as A
import numpy as np
import numpy.typing as npt
import torch
from albumentations.core.transforms_interface import BaseTransformInitSchema
from torch import Tensor
from torchvision.transforms.v2 import functional as F

Image = npt.NDArray[np.uint8]


class Operation(NamedTuple):
    """One operation of a policy.

    Attributes:
        apply: of an image ``uint8 [3, H, W]`` and a magnitude.
        largest: magnitude at full strength.
        signed: whether the magnitude is negated half of the time.
        least: magnitude at no strength.
    """

    apply: Callable[[Tensor, float], Tensor]
    largest: float = 0.0
    signed: bool = False
    least: float = 0.0

    def magnitude(self, strength: float) -> float:
        """The magnitude at a strength from 0 to 1."""
        return self.least + strength * (self.largest - self.least)


def _affine(image: Tensor, shift: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    # shears are slopes; they hold the corner, as the first implementation did
    degrees = [math.degrees(math.atan(slope)) for slope in shear]
    centre = [0.0, 0.0] if any(shear) else None
    return F.affine(image, angle=0.0, translate=list(shift), scale=1.0, shear=degrees, center=centre)


def _posterize(image: Tensor, bits: float) -> Tensor:
    return F.posterize(image, round(bits))


def _operations(
    shear: float, shift_x: float, shift_y: float, degrees: float, enhance: float, bits: int
) -> dict[str, Operation]:
    """The fourteen operations at the given full strengths."""
    return {
        "identity": Operation(lambda image, _: image),
        "shear_x": Operation(lambda image, m: _affine(image, shear=(m, 0.0)), shear, True),
        "shear_y": Operation(lambda image, m: _affine(image, shear=(0.0, m)), shear, True),
        "translate_x": Operation(lambda image, m: _affine(image, (int(m), 0)), shift_x, True),
        "translate_y": Operation(lambda image, m: _affine(image, (0, int(m))), shift_y, True),
        "rotate": Operation(lambda image, m: F.rotate(image, m), degrees, True),
        "brightness": Operation(lambda image, m: F.adjust_brightness(image, 1 + m), enhance, True),
        "color": Operation(lambda image, m: F.adjust_saturation(image, 1 + m), enhance, True),
        "contrast": Operation(lambda image, m: F.adjust_contrast(image, 1 + m), enhance, True),
        "sharpness": Operation(lambda image, m: F.adjust_sharpness(image, 1 + m), enhance, True),
        "posterize": Operation(_posterize, bits, least=8),
        "solarize": Operation(lambda image, m: F.solarize(image, m), 0.0, least=255.0),
        "autocontrast": Operation(lambda image, _: F.autocontrast(image)),
        "equalize": Operation(lambda image, _: F.equalize(image)),
    }


def trivial_operations() -> dict[str, Operation]:
    """TrivialAugment's wide space: stronger than RandAugment's, in pixels and degrees."""
    return _operations(shear=0.99, shift_x=32.0, shift_y=32.0, degrees=135.0, enhance=0.99, bits=2)


def rand_operations(height: int, width: int) -> dict[str, Operation]:
    """RandAugment's space, whose shifts are fractions of the image: 150 of 331 pixels."""
    shift_x, shift_y = 150 / 331 * width, 150 / 331 * height
    return _operations(shear=0.3, shift_x=shift_x, shift_y=shift_y, degrees=30.0, enhance=0.9, bits=4)


class _Policy(A.ImageOnlyTransform):
    """Draws operations and magnitudes in ``get_params_dependent_on_data``, and applies them one after the other."""

    def _space(self, height: int, width: int) -> Mapping[str, Operation]:
        raise NotImplementedError

    def _strengths(self) -> list[float]:
        """The strength from 0 to 1 of each operation to apply."""
        raise NotImplementedError

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The operations of one image: pairs of name and magnitude."""
        height, width = params["shape"][:2]
        space = self._space(height, width)
        chosen = []
        for strength in self._strengths():
            name = self.py_random.choice(list(space))
            sign = self.py_random.choice((-1, 1)) if space[name].signed else 1
            chosen.append((name, sign * space[name].magnitude(strength)))
        return {"chosen": chosen}

    def apply(self, img: Image, *args: Any, chosen: list[tuple[str, float]], **params: Any) -> Image:
        """Applies the operations to ``img [H, W, 3]``."""
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(
                f"image is {img.dtype} {list(img.shape)}; {type(self).__name__} takes RGB uint8 [H, W, 3], so it comes "
                "before any step that changes the type"
            )
        space = self._space(*img.shape[:2])
        image = torch.from_numpy(np.ascontiguousarray(img)).permute(2, 0, 1)
        for name, magnitude in chosen:
            image = space[name].apply(image, magnitude)
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


class TrivialAugment(_Policy):
    """One operation, drawn evenly from fourteen, at a strength drawn evenly from `bins`.

    Args:
        bins: number of strengths, from none to full.
        p: probability of applying it.

    Targets:
        image

    Image types:
        uint8, RGB ``[H, W, 3]``

    Raises:
        ValueError: for fewer than 2 `bins`, and for an image of another type.

    Reference:
        Müller, Hutter, "TrivialAugment: tuning-free yet state-of-the-art data augmentation", ICCV 2021, Algorithm 1,
        the wide space. As in torchvision's ``TrivialAugmentWide``: nearest-neighbour sampling, black outside.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types that albumentations checks the arguments against."""

        bins: int

    def __init__(self, bins: int = 31, p: float = 1.0) -> None:
        super().__init__(p=p)
        if bins < 2:
            raise ValueError(f"bins={bins}: give 2 strengths or more (the paper takes 31)")
        self.bins = bins

    def _space(self, height: int, width: int) -> Mapping[str, Operation]:
        return trivial_operations()

    def _strengths(self) -> list[float]:
        return [self.py_random.randrange(self.bins) / (self.bins - 1)]


class RandAugment(_Policy):
    """Several operations, each drawn evenly from fourteen, all at the same strength.

    Args:
        count: operations one after the other (the paper's N).
        magnitude: their strength, from 0 to 30 (the paper's M, of 31 levels).
        p: probability of applying it.

    Targets:
        image

    Image types:
        uint8, RGB ``[H, W, 3]``

    Raises:
        ValueError: for a `count` below 1, a `magnitude` outside 0 to 30, and for an image of another type.

    Reference:
        Cubuk, Zoph, Shlens, Le, "RandAugment: practical automated data augmentation with a reduced search space",
        NeurIPS 2020, section 3. Ranges and sampling are those of torchvision's ``RandAugment``.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types that albumentations checks the arguments against."""

        count: int
        magnitude: int

    def __init__(self, count: int = 2, magnitude: int = 9, p: float = 1.0) -> None:
        super().__init__(p=p)
        if count < 1:
            raise ValueError(f"count={count}: give 1 operation or more (the paper takes 2 for ImageNet)")
        if not 0 <= magnitude <= 30:
            raise ValueError(f"magnitude={magnitude}: a strength lies from 0 to 30 (the paper takes 9 for ResNet-50)")
        self.count, self.magnitude = count, magnitude

    def _space(self, height: int, width: int) -> Mapping[str, Operation]:
        return rand_operations(height, width)

    def _strengths(self) -> list[float]:
        return [self.magnitude / 30] * self.count
