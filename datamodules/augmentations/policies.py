"""TrivialAugment and RandAugment: one or several of fourteen operations, drawn at random, on RGB ``uint8 [H, W, 3]``.

The operations are torchvision's functional ones, and so are their ranges, which are the papers' for ImageNet. Random
numbers come from albumentations' generator, so they follow from (seed, epoch, sample) like all augmentation here, with
any number of workers and after resuming.
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
        apply: Function of an image ``uint8 [3, H, W]`` and a magnitude.
        full: Magnitude at strength 1.
        signed: Whether the magnitude is negated with a probability of one half.
        zero: Magnitude at strength 0.
    """

    apply: Callable[[Tensor, float], Tensor]
    full: float = 0.0
    signed: bool = False
    zero: float = 0.0

    def magnitude(self, strength: float) -> float:
        """Return the magnitude at a strength in [0, 1]."""
        return self.zero + strength * (self.full - self.zero)


def _affine(image: Tensor, shift: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    # [3, H, W]; shears are slopes, and fix the corner, as in the first implementation
    degrees = [math.degrees(math.atan(slope)) for slope in shear]
    center = [0.0, 0.0] if any(shear) else None
    return F.affine(image, angle=0.0, translate=list(shift), scale=1.0, shear=degrees, center=center)


def _operations(
    shear: float, shift_x: float, shift_y: float, degrees: float, enhance: float, bits: int
) -> dict[str, Operation]:
    """Return the fourteen operations with the given magnitudes at full strength."""
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
        "posterize": Operation(lambda image, m: F.posterize(image, round(m)), bits, zero=8),
        "solarize": Operation(lambda image, m: F.solarize(image, m), 0.0, zero=255.0),
        "autocontrast": Operation(lambda image, _: F.autocontrast(image)),
        "equalize": Operation(lambda image, _: F.equalize(image)),
    }


def trivial_operations() -> dict[str, Operation]:
    """Return TrivialAugment's wide space, which is stronger than RandAugment's; shifts are in pixels."""
    return _operations(shear=0.99, shift_x=32.0, shift_y=32.0, degrees=135.0, enhance=0.99, bits=2)


def rand_operations(height: int, width: int) -> dict[str, Operation]:
    """Return RandAugment's space, whose shifts are fractions of the image: 150 of 331 pixels."""
    shift_x, shift_y = 150 / 331 * width, 150 / 331 * height
    return _operations(shear=0.3, shift_x=shift_x, shift_y=shift_y, degrees=30.0, enhance=0.9, bits=4)


class _Policy(A.ImageOnlyTransform):
    """Base: draw operations and magnitudes in ``get_params_dependent_on_data``, and apply them in sequence."""

    def _space(self, height: int, width: int) -> Mapping[str, Operation]:
        raise NotImplementedError

    def _strengths(self) -> list[float]:
        """Return the strength, in [0, 1], of each operation to apply."""
        raise NotImplementedError

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the operations of one image: pairs of name and magnitude."""
        height, width = params["shape"][:2]
        space = self._space(height, width)
        operations = []
        for strength in self._strengths():
            name = self.py_random.choice(list(space))
            sign = self.py_random.choice((-1, 1)) if space[name].signed else 1
            operations.append((name, sign * space[name].magnitude(strength)))
        return {"operations": operations}

    def apply(self, img: Image, *args: Any, operations: list[tuple[str, float]], **params: Any) -> Image:
        """Apply the operations to ``img [H, W, 3]``."""
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(
                f"image: {type(self).__name__} needs RGB uint8 [H, W, 3], got {img.dtype} {list(img.shape)}; move it "
                "before transforms that change the type"
            )
        space = self._space(*img.shape[:2])
        image = torch.from_numpy(np.ascontiguousarray(img)).permute(2, 0, 1)
        for name, magnitude in operations:
            image = space[name].apply(image, magnitude)
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


class TrivialAugment(_Policy):
    """One operation, drawn uniformly from fourteen, at a strength drawn uniformly from `bins`.

    Args:
        bins: Number of strengths, from none to full.
        p: Probability of applying it.

    Targets:
        image

    Raises:
        ValueError: `bins` is below 2, or an image is not RGB uint8.

    Reference:
        Müller, Hutter, "TrivialAugment: tuning-free yet state-of-the-art data augmentation", ICCV 2021, Algorithm 1,
        the wide space. As in torchvision's ``TrivialAugmentWide``: nearest-neighbor sampling, black outside.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types against which albumentations checks the arguments."""

        bins: int

    def __init__(self, bins: int = 31, p: float = 1.0) -> None:
        super().__init__(p=p)
        if bins < 2:
            raise ValueError(f"bins: must be >= 2, got {bins}; the paper uses 31")
        self.bins = bins

    def _space(self, height: int, width: int) -> Mapping[str, Operation]:
        return trivial_operations()

    def _strengths(self) -> list[float]:
        return [self.py_random.randrange(self.bins) / (self.bins - 1)]


class RandAugment(_Policy):
    """Several operations, each drawn uniformly from fourteen, all at the same strength.

    Args:
        count: Number of operations, applied in sequence (the paper's N).
        magnitude: Their strength, 0 to 30 (the paper's M, with 31 levels).
        p: Probability of applying it.

    Targets:
        image

    Raises:
        ValueError: `count` is below 1, `magnitude` is not in 0 to 30, or an image is not RGB uint8.

    Reference:
        Cubuk, Zoph, Shlens, Le, "RandAugment: practical automated data augmentation with a reduced search space",
        NeurIPS 2020, section 3. Ranges and sampling are those of torchvision's ``RandAugment``.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types against which albumentations checks the arguments."""

        count: int
        magnitude: int

    def __init__(self, count: int = 2, magnitude: int = 9, p: float = 1.0) -> None:
        super().__init__(p=p)
        if count < 1:
            raise ValueError(f"count: must be >= 1, got {count}; the paper uses 2 for ImageNet")
        if not 0 <= magnitude <= 30:
            raise ValueError(f"magnitude: must be in [0, 30], got {magnitude}; the paper uses 9 for ResNet-50")
        self.count, self.magnitude = count, magnitude

    def _space(self, height: int, width: int) -> Mapping[str, Operation]:
        return rand_operations(height, width)

    def _strengths(self) -> list[float]:
        return [self.magnitude / 30] * self.count
