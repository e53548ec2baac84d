"""Resizing: to a given short side, or by a random scale into a fixed frame."""

from collections.abc import Sequence
from typing import Any, Literal

import albumentations as A
import numpy as np
import numpy.typing as npt
from albumentations.core.transforms_interface import BaseTransformInitSchema
from albumentations.core.type_definitions import Targets

from ..annotations.argument_checks import check_choice, check_interval
from .placing import (
    Placement,
    full_masks,
    mask_patches,
    place_boxes,
    place_image,
    place_mask,
    resize_image,
    rounded_size,
)

Array = npt.NDArray[Any]
Color = float | tuple[float, ...]


class CanvasTransform(A.DualTransform):
    """An albumentations transform that places the image on a canvas; a subclass supplies `draw_placement`.

    Attributes:
        fill: Color of the canvas where the image does not cover it.
        fill_mask: Value of a semantic mask there. The default 0 is ignored, as with albumentations' own transforms
            (`TargetAugmentation`).
    """

    _targets = (Targets.IMAGE, Targets.MASK, Targets.BBOXES, Targets.KEYPOINTS)
    fill: Color = 0
    fill_mask: Color = 0

    def draw_placement(self, width: int, height: int) -> Placement:
        """Draw size and position of an image on its canvas."""
        raise NotImplementedError

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Return the `Placement` of one image."""
        height, width = params["shape"][:2]
        return {"placement": self.draw_placement(width, height)}

    def apply(self, img: Array, *args: Any, placement: Placement, **params: Any) -> Array:
        """Place the image ``[H, W, C]`` on its canvas."""
        if placement.offset == (0, 0) and placement.new == placement.canvas:
            return resize_image(img, *placement.new)
        canvas = np.empty((placement.canvas[1], placement.canvas[0], *img.shape[2:]), img.dtype)
        canvas[...] = self.fill
        place_image(img, placement, canvas)
        return canvas

    def apply_to_mask(self, mask: Array, *args: Any, placement: Placement, **params: Any) -> Array:
        """Place the semantic mask ``[H, W]`` on its canvas."""
        canvas = np.full((placement.canvas[1], placement.canvas[0], *mask.shape[2:]), self.fill_mask, mask.dtype)
        place_mask(mask, placement, canvas)
        return canvas

    def apply_to_masks(self, masks: Array, *args: Any, placement: Placement, **params: Any) -> Array:
        """Place the masks of objects ``[N, H, W]`` on their canvas."""
        return full_masks(mask_patches(masks, placement), *placement.canvas)

    def apply_to_bboxes(self, bboxes: Array, *args: Any, placement: Placement, **params: Any) -> Array:
        """Map boxes ``[N, 4+]`` from fractions of the image to fractions of the canvas; albumentations clips them."""
        moved = np.array(bboxes, np.float64)
        moved[:, :4] = place_boxes(moved[:, :4] * np.tile(placement.old, 2), placement) / np.tile(placement.canvas, 2)
        return moved

    def apply_to_keypoints(self, keypoints: Array, *args: Any, placement: Placement, **params: Any) -> Array:
        """Map points ``[N, 2+]`` from pixels of the image to pixels of the canvas."""
        moved = np.array(keypoints, np.float64)
        moved[:, :2] = moved[:, :2] * np.array(placement.new) / placement.old + placement.offset
        return moved


class ShortSideResize(CanvasTransform):
    """Resize the short side to a given length, with a limit for the long side; the aspect ratio is kept.

    ``scale = min(short_side / shorter, max_size / longer)``, and each side becomes ``side * scale``, rounded half up,
    at least 1 pixel. Detectron2 and (except for the halves) Fast and Faster R-CNN's code do the same; torchvision's
    detectors round down, so their images may be a pixel smaller. Boxes are multiplied by new / old, each side
    separately.

    Args:
        short_side: Length in pixels. With several, one of them is drawn (``sampling: choice``), or any length from the
            first to the second (``sampling: range``).
        max_size: Limit of the long side, in pixels; None: no limit.
        sampling: ``choice`` or ``range``.
        p: Probability of applying it.

    Targets:
        image, mask, masks, bboxes

    Raises:
        ValueError: A size is below 1, `sampling` is unknown, or a range is not two numbers in order.

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015, section 5.2 (600, 1000; with multi-scale 480, 576, 688, 864, 1200 and 2000);
        Detectron 640 to 800 and 1333.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types against which albumentations checks the arguments."""

        short_side: int | list[int]
        max_size: int | None
        sampling: str  # checked in the constructor

    def __init__(
        self,
        short_side: int | list[int] = 800,
        max_size: int | None = 1333,
        sampling: Literal["choice", "range"] = "choice",
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        check_choice("sampling", sampling, ("choice", "range"))
        sides = [short_side] if isinstance(short_side, int) else list(short_side)
        if not sides or min(sides) < 1:
            raise ValueError(f"short_side: must be >= 1 pixel, got {short_side}")
        if max_size is not None and max_size < 1:
            raise ValueError(f"max_size: must be >= 1 pixel, or null, got {max_size}")
        if sampling == "range" and (len(sides) != 2 or sides[0] > sides[1]):
            raise ValueError(f"short_side: must be two ascending lengths for sampling: range, got {short_side}")
        self.short_side, self.max_size, self.sampling, self.sides = short_side, max_size, sampling, sides

    def draw_placement(self, width: int, height: int) -> Placement:
        """Place the whole image, in its new size."""
        if self.sampling == "range":
            side = self.py_random.randint(*self.sides)
        else:
            side = self.sides[0] if len(self.sides) == 1 else self.py_random.choice(self.sides)
        new = short_side_size(width, height, side, self.max_size)
        return Placement((width, height), new, (0, 0), new)


def short_side_size(width: int, height: int, short_side: int, max_size: int | None) -> tuple[int, int]:
    """Return width and height of an image resized to `short_side`, with the long side at most `max_size`.

    >>> short_side_size(500, 375, 600, 1000), short_side_size(1000, 300, 600, 1000)
    ((800, 600), (1000, 300))
    """
    scale = short_side / min(width, height)
    if max_size is not None:
        scale = min(scale, max_size / max(width, height))
    return rounded_size(width, height, scale)


class LargeScaleJitter(CanvasTransform):
    """Resize by a scale from a wide range, and crop or pad to a fixed frame.

    At scale 1 the image just fits into the frame. A larger image is cropped at a random position. A smaller one is
    placed in the upper left corner, and the rest is gray. Objects narrower or lower than a pixel are removed.

    Args:
        height: Height of the frame, in pixels.
        width: Width of the frame, in pixels; None: equal to `height`.
        scale: Minimum and maximum scale.
        fill: Color of the canvas where the image does not cover it.
        fill_mask: Value of a semantic mask there; 0 is ignored.
        p: Probability of applying it.

    Targets:
        image, mask, masks, bboxes

    Raises:
        ValueError: The frame is empty, or `scale` is not positive and in order.

    Reference:
        Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation", CVPR 2021,
        section 3: 0.1 to 2.0, 1024 x 1024, gray. The paper also flips at random; add
        ``albumentations.HorizontalFlip``. Its standard jitter is 0.8 to 1.25.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types against which albumentations checks the arguments."""

        height: int
        width: int | None
        scale: tuple[float, float]
        fill: Color
        fill_mask: Color

    def __init__(
        self,
        height: int = 1024,
        width: int | None = None,
        scale: tuple[float, float] = (0.1, 2.0),
        fill: Color = 128,
        fill_mask: Color = 0,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        for name, side in (("height", height), ("width", width)):
            if side is not None and side < 1:
                raise ValueError(f"{name}: must be >= 1 pixel, got {side}")
        check_interval("scale", scale, positive=True)
        self.height, self.width, self.scale = height, width, scale
        self.fill, self.fill_mask = fill, fill_mask

    def draw_placement(self, width: int, height: int) -> Placement:
        """Place the image at a random scale, cropped at a random position."""
        frame = (self.width or self.height, self.height)
        fit = min(frame[0] / width, frame[1] / height)
        new = rounded_size(width, height, fit * self.py_random.uniform(*self.scale))
        left, top = (-self.py_random.randint(0, max(new[axis] - frame[axis], 0)) for axis in (0, 1))
        return Placement((width, height), new, (left, top), frame)


def sufficient_short_side(steps: Sequence[Any] | None) -> int | None:
    """Return the short side at which images may be decoded, since a pipeline starts by resizing to it.

    Recognizes `ShortSideResize` and albumentations' ``SmallestMaxSize``, at the start or after reflections.

    Returns:
        Length in pixels; None if the pipeline starts otherwise.
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
