"""SSD's augmentation, as its paper describes it and its Caffe code (``examples/ssd/ssd_pascal.py``) does it.

Where paper and code differ, the code counts, for its figures are the ones to reach: crops have 0.3 to 1 of the image's
size (paper: 0.1 to 1), and expanding, which the paper adds last, comes before cropping.

Reference:
    Liu et al., "SSD: single shot multibox detector", ECCV 2016, sections 2.2 and 3.6.
"""

from typing import Any

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
from albumentations.core.transforms_interface import BaseTransformInitSchema
from albumentations.core.type_definitions import Targets

from .placing import Placement
from .resizing import Colour, Placing

Array = npt.NDArray[Any]
Range = tuple[float, float]
MEAN_PIXEL = (123.0, 117.0, 104.0)
"""Mean of ImageNet's RGB, which SSD subtracts: padding with it becomes 0."""

_HALF_CIRCLE = 180  # OpenCV's hues of 8 bits count in steps of two degrees


class PhotometricDistort(A.ImageOnlyTransform):
    """Brightness, contrast, saturation and hue, each changed half of the time.

    Brightness comes first, saturation and hue go together, and contrast is either before or behind these two. As in the
    reference, brightness is an offset, contrast a factor of the pixel (not of its distance from the mean), and
    saturation a factor of HSV's; values are rounded and clipped to 0 to 255 behind each. One deviation: a hue turns in
    a circle. The reference's 8-bit arithmetic stops at red, where hues end and begin.

    Args:
        brightness: largest offset, either way, of pixels 0 to 255.
        contrast: least and largest factor.
        saturation: least and largest factor.
        hue: largest turn, either way, in degrees of 360. (The reference's 18 count two degrees each.)
        change: probability of each of the four.
        shuffle: probability of putting the channels in another order (0 in the reference).
        p: probability of applying it at all.

    Targets:
        image

    Image types:
        uint8, RGB ``[H, W, 3]``

    Raises:
        ValueError: for an argument out of its range, and for an image of another type.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types that albumentations checks the arguments against."""

        brightness: float
        contrast: Range
        saturation: Range
        hue: float
        change: float
        shuffle: float

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: Range = (0.5, 1.5),
        saturation: Range = (0.5, 1.5),
        hue: float = 36.0,
        change: float = 0.5,
        shuffle: float = 0.0,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        for name, factors in (("contrast", contrast), ("saturation", saturation)):
            if not 0 <= factors[0] <= factors[1]:
                raise ValueError(f"{name}={tuple(factors)}: give the least and the largest factor, neither negative")
        for name, largest, limit in (("brightness", brightness, 255), ("hue", hue, 180)):
            if not 0 <= largest <= limit:
                raise ValueError(f"{name}={largest}: give 0 to {limit}")
        for name, probability in (("change", change), ("shuffle", shuffle)):
            if not 0 <= probability <= 1:
                raise ValueError(f"{name}={probability}: a probability lies from 0 to 1")
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.change, self.shuffle = change, shuffle

    def get_params(self) -> dict[str, Any]:
        """What is changed in one image, and by how much; None: not."""
        draw = self.py_random
        ranges = {
            "offset": (-self.brightness, self.brightness),
            "contrast": self.contrast,
            "saturation": self.saturation,
            "turn": (-self.hue, self.hue),
        }
        drawn: dict[str, Any] = {
            name: draw.uniform(*limits) if draw.random() < self.change else None for name, limits in ranges.items()
        }
        drawn["contrast_first"] = draw.random() < 0.5
        drawn["channels"] = draw.sample(range(3), 3) if draw.random() < self.shuffle else None
        return drawn

    def apply(
        self,
        img: Array,
        *args: Any,
        offset: float | None = None,
        contrast: float | None = None,
        saturation: float | None = None,
        turn: float | None = None,
        contrast_first: bool = True,
        channels: list[int] | None = None,
        **params: Any,
    ) -> Array:
        """Changes ``img [H, W, 3]``."""
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(
                f"image is {img.dtype} {list(img.shape)}; PhotometricDistort takes RGB uint8 [H, W, 3], so it comes "
                "before any step that changes the type"
            )
        levels = np.arange(256.0)
        table = levels
        if offset is not None:
            table = _rounded(table + offset)
        if contrast is not None and contrast_first:
            table = _rounded(table * contrast)
        if table is not levels:
            img = cv2.LUT(img, table.astype(np.uint8))
        if saturation is not None or turn is not None:
            hue = np.rint(levels + (turn or 0.0) / 2) % _HALF_CIRCLE
            factor = 1.0 if saturation is None else saturation
            tables = np.stack([hue, _rounded(levels * factor), levels], axis=1).astype(np.uint8)
            hsv = cv2.LUT(cv2.cvtColor(img, cv2.COLOR_RGB2HSV), tables[None])
            img = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if contrast is not None and not contrast_first:
            img = cv2.LUT(img, _rounded(levels * contrast).astype(np.uint8))
        return img if channels is None else img[..., channels]


def _rounded(levels: Array) -> Array:
    return np.rint(levels).clip(0, 255)


class ZoomOut(Placing):
    """Lay the image somewhere on a larger canvas of the mean colour, so that its objects become small.

    The canvas has up to `max_ratio` squared times as many pixels: before it, resize photographs of many megapixels.

    Args:
        max_ratio: the canvas is 1 to so many times as wide and high.
        fill: colour of what the image does not cover.
        fill_mask: class of it in a semantic mask; the default is ignored, as with albumentations' own steps.
        p: probability of applying it.

    Targets:
        image, mask, masks, bboxes

    Raises:
        ValueError: for a ratio below 1.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types that albumentations checks the arguments against."""

        max_ratio: float
        fill: Colour
        fill_mask: Colour

    def __init__(
        self, max_ratio: float = 4.0, fill: Colour = MEAN_PIXEL, fill_mask: Colour = 0, p: float = 0.5
    ) -> None:
        super().__init__(p=p)
        if max_ratio < 1:
            raise ValueError(f"max_ratio={max_ratio}: the canvas is no smaller than the image; give 1 or more")
        self.max_ratio, self.fill, self.fill_mask = max_ratio, fill, fill_mask

    def placement(self, width: int, height: int) -> Placement:
        """The image in its own size, anywhere on its canvas."""
        ratio = self.py_random.uniform(1, self.max_ratio)
        canvas = int(width * ratio), int(height * ratio)
        left, top = (int(self.py_random.random() * (canvas[axis] - side)) for axis, side in enumerate((width, height)))
        return Placement((width, height), (width, height), (left, top), canvas)


class IoUCrop(A.DualTransform):
    """Crop at random so that a box has a certain overlap with the crop.

    As the reference does it: one crop is sought for each least overlap (IoU of the crop and at least one box) in at
    most `trials` draws, one more without a condition, and of those found and the whole image one is taken, all alike.
    What is left are the objects whose centre lies in the crop (its edge included), clipped; there may be none. An image
    without boxes is not cropped. (torchvision's ``RandomIoUCrop`` draws width and height by themselves, limits their
    ratio in pixels, and passes over crops without any centre.)

    Args:
        min_overlaps: least overlaps, between 0 and 1.
        scale: least and largest size, as the square root of the crop's part of the image's area.
        aspect: least and largest width / height, both as parts of the image's.
        trials: draws for each overlap.
        p: probability of applying it.

    Targets:
        image, mask, masks, bboxes

    Raises:
        ValueError: for an argument out of its range.
    """

    _targets = (Targets.IMAGE, Targets.MASK, Targets.BBOXES)

    class InitSchema(BaseTransformInitSchema):
        """Types that albumentations checks the arguments against."""

        min_overlaps: tuple[float, ...]
        scale: Range
        aspect: Range
        trials: int

    def __init__(
        self,
        min_overlaps: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9),
        scale: Range = (0.3, 1.0),
        aspect: Range = (0.5, 2.0),
        trials: int = 50,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        if not all(0 < overlap < 1 for overlap in min_overlaps):
            raise ValueError(f"min_overlaps={tuple(min_overlaps)}: an overlap lies between 0 and 1")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale={tuple(scale)}: give the least and the largest, above 0 and at most 1")
        if not 0 < aspect[0] <= aspect[1] or trials < 1:
            raise ValueError(
                f"aspect={tuple(aspect)}, trials={trials}: aspects are above 0 and in order, trials 1 or more"
            )
        self.min_overlaps, self.scale, self.aspect, self.trials = tuple(min_overlaps), scale, aspect, trials

    @property
    def targets_as_params(self) -> list[str]:
        """What it looks at."""
        return ["bboxes"]

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The crop of one image, x1, y1, x2, y2 in pixels, and which boxes it keeps."""
        height, width = params["shape"][:2]
        found = np.asarray(data["bboxes"], np.float64)
        boxes = found[:, :4] * (width, height, width, height) if len(found) else np.zeros((0, 4))
        whole = np.array([0, 0, width, height])
        options = [whole, *self._crops(width, height, boxes)] if len(boxes) else [whole]
        crop = options[int(self.random_generator.integers(len(options)))]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centres >= crop[:2]) & (centres <= crop[2:])).all(axis=1)
        return {"crop": crop.tolist(), "inside": inside, "size": (width, height)}

    def _crops(self, width: int, height: int, boxes: Array) -> list[Array]:
        """For each overlap, and none, the first crop that has it, where there is one."""
        least = np.array([*self.min_overlaps, 0.0])
        drawn = self.random_generator.random((4, len(least), self.trials))
        scale = self.scale[0] + drawn[0] * (self.scale[1] - self.scale[0])
        aspect = self.aspect[0] + drawn[1] * (self.aspect[1] - self.aspect[0])
        aspect = aspect.clip(scale**2, scale**-2)  # neither side is longer than the image's
        size = np.stack([scale * np.sqrt(aspect), scale / np.sqrt(aspect)], axis=-1).clip(0, 1)
        corner = np.stack([drawn[2], drawn[3]], axis=-1) * (1 - size)
        image = np.array([width, height])
        corner, size = (corner * image).astype(np.int64), np.maximum((size * image).astype(np.int64), 1)
        crops = np.concatenate([corner, corner + size], axis=-1)  # [overlaps, trials, 4]
        suits = _overlaps(crops[:, :, None], boxes).max(axis=2) >= least[:, None]
        found = np.flatnonzero(suits.any(axis=1))
        return list(crops[found, suits[found].argmax(axis=1)])

    def apply(self, img: Array, *args: Any, crop: list[int], **params: Any) -> Array:
        """The crop of an image or a mask, ``[H, W, …]``."""
        left, top, right, bottom = crop
        return img[top:bottom, left:right]

    def apply_to_masks(self, masks: Array, *args: Any, crop: list[int], **params: Any) -> Array:
        """The crop of the objects' masks ``[N, H, W]``."""
        left, top, right, bottom = crop
        return masks[:, top:bottom, left:right]

    def apply_to_bboxes(
        self, bboxes: Array, *args: Any, crop: list[int], inside: Array, size: tuple[int, int], **params: Any
    ) -> Array:
        """The boxes ``[N, 4+]`` whose centre is inside, in fractions of the crop; albumentations clips them."""
        left, top, right, bottom = crop
        moved = np.array(bboxes, np.float64)[inside]
        moved[:, :4] *= np.tile(size, 2)
        moved[:, :4] -= (left, top, left, top)
        moved[:, :4] /= np.tile((right - left, bottom - top), 2)
        return moved


def _overlaps(crops: Array, boxes: Array) -> Array:
    """IoU of crops ``[..., 4]`` and boxes ``[..., 4]``, by the rules of broadcasting."""
    shared = (np.minimum(crops[..., 2:], boxes[..., 2:]) - np.maximum(crops[..., :2], boxes[..., :2])).clip(0)
    areas = [(array[..., 2] - array[..., 0]) * (array[..., 3] - array[..., 1]) for array in (crops, boxes)]
    both = shared[..., 0] * shared[..., 1]
    return both / (areas[0] + areas[1] - both)


class SSDAugmentation(A.Sequential):
    """SSD's whole augmentation in one step: distortion, zooming out, crop, flip, and warping to the input's size.

    As the reference does, it warps with one of five interpolations drawn at random, and gives up the image's shape.

    Args:
        image_size: side of the network's input, pixels.
        mean: colour of what is around an image that was zoomed out.
        max_ratio: of `ZoomOut`; 1: leave it out, as the paper's first version did.
        min_scale: of `IoUCrop`; 0.1 is the paper's.

    Raises:
        ValueError: for an argument out of its range.
    """

    def __init__(
        self, image_size: int = 300, mean: Colour = MEAN_PIXEL, max_ratio: float = 4.0, min_scale: float = 0.3
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size={image_size}: a side is 1 pixel or more; SSD300 has 300")
        if not 0 < min_scale <= 1:
            raise ValueError(f"min_scale={min_scale}: a part of the image, above 0 and at most 1 (the paper: 0.1)")
        kinds = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
        steps: list[Any] = [
            PhotometricDistort(),
            ZoomOut(max_ratio, mean, p=0.5 if max_ratio > 1 else 0.0),
            IoUCrop(scale=(min_scale, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.OneOf([A.Resize(image_size, image_size, interpolation=kind, p=1.0) for kind in kinds], p=1.0),
        ]
        super().__init__(steps, p=1.0)
