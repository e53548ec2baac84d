"""Resizing with a free size: to a short side, or by a scale that varies twentyfold into a fixed frame."""

from collections.abc import Sequence
from typing import Any, Literal

import albumentations as A
import numpy as np
import numpy.typing as npt
from albumentations.core.transforms_interface import BaseTransformInitSchema
from albumentations.core.type_definitions import Targets

from ..annotations.argument_checks import did_you_mean
from .placing import (
    Placement,
    mask_patches,
    place_boxes,
    place_image,
    place_mask,
    resize_image,
    rounded_size,
    whole_masks,
)

Array = npt.NDArray[Any]
Colour = float | tuple[float, ...]


class Placing(A.DualTransform):
    """An albumentations step that lays the image somewhere on a canvas; a subclass says where.

    What of the canvas the image does not cover is `fill` in the image and `fill_mask` in a semantic mask. The default 0
    is ignored in the end, as with albumentations' own steps (`TargetAugmentation`).
    """

    _targets = (Targets.IMAGE, Targets.MASK, Targets.BBOXES, Targets.KEYPOINTS)
    fill: Colour = 0
    fill_mask: Colour = 0

    def placement(self, width: int, height: int) -> Placement:
        """Where an image goes, by numbers drawn now."""
        raise NotImplementedError

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The `Placement` of one image."""
        height, width = params["shape"][:2]
        return {"where": self.placement(width, height)}

    def apply(self, img: Array, *args: Any, where: Placement, **params: Any) -> Array:
        """The image ``[H, W, C]`` on its canvas."""
        if where.offset == (0, 0) and where.new == where.canvas:
            return resize_image(img, *where.new)
        canvas = np.empty((where.canvas[1], where.canvas[0], *img.shape[2:]), img.dtype)
        canvas[...] = self.fill
        place_image(img, where, canvas)
        return canvas

    def apply_to_mask(self, mask: Array, *args: Any, where: Placement, **params: Any) -> Array:
        """The semantic mask ``[H, W]`` on its canvas."""
        canvas = np.full((where.canvas[1], where.canvas[0], *mask.shape[2:]), self.fill_mask, mask.dtype)
        place_mask(mask, where, canvas)
        return canvas

    def apply_to_masks(self, masks: Array, *args: Any, where: Placement, **params: Any) -> Array:
        """The objects' masks ``[N, H, W]`` on their canvas."""
        return whole_masks(mask_patches(masks, where), *where.canvas)

    def apply_to_bboxes(self, bboxes: Array, *args: Any, where: Placement, **params: Any) -> Array:
        """The boxes ``[N, 4+]``, in fractions of the image and then of the canvas; albumentations clips them."""
        moved = np.array(bboxes, np.float64)
        moved[:, :4] = place_boxes(moved[:, :4] * np.tile(where.old, 2), where) / np.tile(where.canvas, 2)
        return moved

    def apply_to_keypoints(self, keypoints: Array, *args: Any, where: Placement, **params: Any) -> Array:
        """The points ``[N, 2+]``, in pixels of the image and then of the canvas."""
        moved = np.array(keypoints, np.float64)
        moved[:, :2] = moved[:, :2] * np.array(where.new) / where.old + where.offset
        return moved


class ShortSideResize(Placing):
    """Make the short side so many pixels long, unless that makes the long side too long; the shape is kept.

    ``scale = min(short_side / shorter, max_size / longer)``, and each side becomes ``side * scale`` rounded, halves
    upward, but at least 1 pixel. So do Detectron2 and (but for halves) Fast and Faster R-CNN's code; torchvision's
    detectors round down, so theirs may be a pixel shorter. Boxes are multiplied by new / old, a side by itself.

    Args:
        short_side: length in pixels. Several: one of them is drawn (``sampling: choice``), or any from the first to
            the second (``sampling: range``).
        max_size: the long side's limit, pixels; None: no limit.
        sampling: ``choice`` or ``range``.
        p: probability of applying it.

    Targets:
        image, mask, masks, bboxes

    Raises:
        ValueError: for sizes below 1, another `sampling`, and a range that is not two numbers in order.

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015, section 5.2 (600, 1000; with multi-scale 480, 576, 688, 864, 1200 and 2000);
        Detectron 640 to 800 and 1333.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types that albumentations checks the arguments against."""

        short_side: int | list[int]
        max_size: int | None
        sampling: str  # looked at below

    def __init__(
        self,
        short_side: int | list[int] = 800,
        max_size: int | None = 1333,
        sampling: Literal["choice", "range"] = "choice",
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        if sampling not in ("choice", "range"):
            raise ValueError(
                f"sampling={sampling!r}: give choice or range{did_you_mean(sampling, ('choice', 'range'))}"
            )
        sides = [short_side] if isinstance(short_side, int) else list(short_side)
        if not sides or min(sides) < 1 or (max_size is not None and max_size < 1):
            raise ValueError(f"short_side={short_side}, max_size={max_size}: lengths are 1 pixel or more")
        if sampling == "range" and (len(sides) != 2 or sides[0] > sides[1]):
            raise ValueError(f"short_side={short_side}: sampling: range takes the shortest and the longest, [640, 800]")
        self.short_side, self.max_size, self.sampling, self.sides = short_side, max_size, sampling, sides

    def placement(self, width: int, height: int) -> Placement:
        """The whole image, in its new size."""
        if self.sampling == "range":
            side = self.py_random.randint(*self.sides)
        else:
            side = self.sides[0] if len(self.sides) == 1 else self.py_random.choice(self.sides)
        new = short_side_size(width, height, side, self.max_size)
        return Placement((width, height), new, (0, 0), new)


def short_side_size(width: int, height: int, short_side: int, max_size: int | None) -> tuple[int, int]:
    """Width and height of an image whose short side is to be `short_side`, and whose long one at most `max_size`.

    >>> short_side_size(500, 375, 600, 1000), short_side_size(1000, 300, 600, 1000)
    ((800, 600), (1000, 300))
    """
    scale = short_side / min(width, height)
    if max_size is not None:
        scale = min(scale, max_size / max(width, height))
    return rounded_size(width, height, scale)


class LargeScaleJitter(Placing):
    """Resize by a scale that varies twentyfold, and cut or pad to a fixed frame.

    At scale 1 the image just fits into the frame. A larger one is cut at a random place; a smaller one lies in the left
    upper corner, and the rest is gray. Objects less than a pixel wide or high are removed.

    Args:
        height, width: of the frame, pixels; `width` None: as `height`.
        scale: least and largest scale.
        fill: colour of what the image does not cover.
        fill_mask: class of it in a semantic mask; the default is ignored, as with albumentations' own steps.
        p: probability of applying it.

    Targets:
        image, mask, masks, bboxes

    Raises:
        ValueError: for a frame without pixels, and a scale that is not positive and in order.

    Reference:
        Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation", CVPR 2021,
        section 3: 0.1 to 2.0, 1024 x 1024, gray. The paper flips at random besides:
        ``albumentations.HorizontalFlip``. Its standard jitter is 0.8 to 1.25.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types that albumentations checks the arguments against."""

        height: int
        width: int | None
        scale: tuple[float, float]
        fill: Colour
        fill_mask: Colour

    def __init__(
        self,
        height: int = 1024,
        width: int | None = None,
        scale: tuple[float, float] = (0.1, 2.0),
        fill: Colour = 128,
        fill_mask: Colour = 0,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        if height < 1 or (width is not None and width < 1):
            raise ValueError(f"height={height}, width={width}: a frame has 1 pixel or more")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f"scale={tuple(scale)}: give the least and the largest, both above 0 (the paper: 0.1, 2.0)"
            )
        self.height, self.width, self.scale = height, width, scale
        self.fill, self.fill_mask = fill, fill_mask

    def placement(self, width: int, height: int) -> Placement:
        """The image at a random scale, from a random place on."""
        frame = (self.width or self.height, self.height)
        fit = min(frame[0] / width, frame[1] / height)
        new = rounded_size(width, height, fit * self.py_random.uniform(*self.scale))
        left, top = (-self.py_random.randint(0, max(new[axis] - frame[axis], 0)) for axis in (0, 1))
        return Placement((width, height), new, (left, top), frame)


def enough_short_side(steps: Sequence[Any] | None) -> int | None:
    """The short side of an image of which a pipeline needs no more, since it begins by making it as small.

    Known of `ShortSideResize` and albumentations' ``SmallestMaxSize``, behind reflections or at the start.

    Returns:
        Pixels; None where the pipeline begins otherwise.
    """
    for step in steps or ():
        if isinstance(step, A.HorizontalFlip | A.VerticalFlip):
            continue
        if step.p == 1 and isinstance(step, ShortSideResize):
            return max(step.sides)
        if step.p == 1 and isinstance(step, A.SmallestMaxSize) and step.max_size is not None:
            return max(step.max_size) if isinstance(step.max_size, Sequence) else int(step.max_size)
        return None
    return None
