"""SSD's augmentation, as described in its paper and implemented in its Caffe code (``examples/ssd/ssd_pascal.py``).

Where paper and code differ, this follows the code, whose results are the ones to reproduce: crops have 0.3 to 1 of the
image's size (paper: 0.1 to 1), and expanding, which the paper adds last, comes before cropping.

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

from ..annotations.argument_checks import check_interval, check_probability
from .placing import Placement
from .resizing import CanvasTransform, Color

Array = npt.NDArray[Any]
Range = tuple[float, float]
MEAN_PIXEL = (123.0, 117.0, 104.0)
"""Mean of ImageNet's RGB, which SSD subtracts, so that padding becomes 0."""

_NUM_HUES = 180  # OpenCV's 8-bit hues are in steps of two degrees


class PhotometricDistort(A.ImageOnlyTransform):
    """Change brightness, contrast, saturation and hue, each with a probability of one half.

    Brightness comes first, saturation and hue are changed together, and contrast comes either before or after these
    two. As in the reference, brightness is an offset, contrast a factor of the pixel (not of its distance from the
    mean), and saturation a factor of HSV's; values are rounded and clipped to 0 to 255 after each change. One
    deviation: hues wrap around. The reference's 8-bit arithmetic saturates at red, where hues begin and end.

    Args:
        brightness: Maximum offset in both directions, for pixels 0 to 255.
        contrast: Minimum and maximum factor.
        saturation: Minimum and maximum factor.
        hue: Maximum shift in both directions, in degrees of 360. (The reference's 18 are in steps of two degrees.)
        change: Probability of each of the four.
        inverse: Probability of replacing a factor of contrast or saturation by its inverse. Darknet draws factors from
            1 to 1.5 and inverts half of them, so that darker is as probable as brighter.
        shuffle: Probability of shuffling the channels (0 in the reference).
        p: Probability of applying the transform at all.

    Targets:
        image

    Image types:
        uint8, RGB ``[H, W, 3]``

    Raises:
        ValueError: An argument is out of its range, or an image is not RGB uint8.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types against which albumentations checks the arguments."""

        brightness: float
        contrast: Range
        saturation: Range
        hue: float
        change: float
        shuffle: float
        inverse: float

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: Range = (0.5, 1.5),
        saturation: Range = (0.5, 1.5),
        hue: float = 36.0,
        change: float = 0.5,
        shuffle: float = 0.0,
        inverse: float = 0.0,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        check_interval("contrast", contrast, positive=inverse > 0)
        check_interval("saturation", saturation, positive=inverse > 0)
        for name, value, limit in (("brightness", brightness, 255), ("hue", hue, 180)):
            if not 0 <= value <= limit:
                raise ValueError(f"{name}: must be in [0, {limit}], got {value}")
        check_probability("change", change)
        check_probability("shuffle", shuffle)
        check_probability("inverse", inverse)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.change, self.shuffle, self.inverse = change, shuffle, inverse

    def get_params(self) -> dict[str, Any]:
        """Draw the changes of one image; None: no change."""
        draw = self.py_random
        ranges = {
            "offset": (-self.brightness, self.brightness),
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue_shift": (-self.hue, self.hue),
        }
        drawn: dict[str, Any] = {
            name: draw.uniform(*limits) if draw.random() < self.change else None for name, limits in ranges.items()
        }
        if self.inverse > 0:  # otherwise no random number is drawn
            for name in ("contrast", "saturation"):
                if draw.random() < self.inverse and drawn[name] is not None:
                    drawn[name] = 1 / drawn[name]
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
        hue_shift: float | None = None,
        contrast_first: bool = True,
        channels: list[int] | None = None,
        **params: Any,
    ) -> Array:
        """Apply the changes to ``img [H, W, 3]``."""
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(
                f"image: PhotometricDistort needs RGB uint8 [H, W, 3], got {img.dtype} {list(img.shape)}; move it "
                "before transforms that change the type"
            )
        levels = np.arange(256.0)
        table = levels
        if offset is not None:
            table = _rounded(table + offset)
        if contrast is not None and contrast_first:
            table = _rounded(table * contrast)
        if table is not levels:
            img = cv2.LUT(img, table.astype(np.uint8))
        if saturation is not None or hue_shift is not None:
            hue = np.rint(levels + (hue_shift or 0.0) / 2) % _NUM_HUES
            factor = 1.0 if saturation is None else saturation
            tables = np.stack([hue, _rounded(levels * factor), levels], axis=1).astype(np.uint8)
            hsv = cv2.LUT(cv2.cvtColor(img, cv2.COLOR_RGB2HSV), tables[None])
            img = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if contrast is not None and not contrast_first:
            img = cv2.LUT(img, _rounded(levels * contrast).astype(np.uint8))
        return img if channels is None else img[..., channels]


def _rounded(levels: Array) -> Array:
    # [256] to [256]
    return np.rint(levels).clip(0, 255)


class ZoomOut(CanvasTransform):
    """Place the image at random on a larger canvas of the mean color, which makes its objects small.

    The canvas has up to `max_ratio` squared times as many pixels; resize large photographs before it.

    Args:
        max_ratio: Maximum ratio of the canvas's sides to the image's.
        fill: Color of the canvas where the image does not cover it.
        fill_mask: Value of a semantic mask there; 0 is ignored.
        p: Probability of applying it.

    Targets:
        image, mask, masks, bboxes

    Raises:
        ValueError: `max_ratio` is below 1.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types against which albumentations checks the arguments."""

        max_ratio: float
        fill: Color
        fill_mask: Color

    def __init__(self, max_ratio: float = 4.0, fill: Color = MEAN_PIXEL, fill_mask: Color = 0, p: float = 0.5) -> None:
        super().__init__(p=p)
        if max_ratio < 1:
            raise ValueError(f"max_ratio: must be >= 1, got {max_ratio}")
        self.max_ratio, self.fill, self.fill_mask = max_ratio, fill, fill_mask

    def draw_placement(self, width: int, height: int) -> Placement:
        """Place the image in its own size, anywhere on its canvas."""
        ratio = self.py_random.uniform(1, self.max_ratio)
        canvas = int(width * ratio), int(height * ratio)
        left, top = (int(self.py_random.random() * (canvas[axis] - side)) for axis, side in enumerate((width, height)))
        return Placement((width, height), (width, height), (left, top), canvas)


class IoUCrop(A.DualTransform):
    """Crop at random so that a box has a certain overlap with the crop.

    As in the reference, one crop is sought for each minimum overlap (IoU of the crop and at least one box) in at most
    `trials` draws, and one more without a condition; one of these crops and the whole image is then chosen uniformly.
    The objects whose center lies in the crop (edges included) remain, clipped; there may be none. An image without
    boxes is not cropped. (torchvision's ``RandomIoUCrop`` draws width and height independently, limits their ratio in
    pixels, and rejects crops without any center.)

    Args:
        min_overlaps: Minimum overlaps, in (0, 1).
        scale: Minimum and maximum size, as the square root of the crop's fraction of the image's area.
        aspect: Minimum and maximum width / height, both relative to the image's.
        trials: Number of draws for each overlap.
        p: Probability of applying it.

    Targets:
        image, mask, masks, bboxes

    Raises:
        ValueError: An argument is out of its range.
    """

    _targets = (Targets.IMAGE, Targets.MASK, Targets.BBOXES)

    class InitSchema(BaseTransformInitSchema):
        """Types against which albumentations checks the arguments."""

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
            raise ValueError(f"min_overlaps: must be in (0, 1), got {tuple(min_overlaps)}")
        check_interval("scale", scale, 1, positive=True)
        check_interval("aspect", aspect, positive=True)
        if trials < 1:
            raise ValueError(f"trials: must be >= 1, got {trials}")
        self.min_overlaps, self.scale, self.aspect, self.trials = tuple(min_overlaps), scale, aspect, trials

    @property
    def targets_as_params(self) -> list[str]:
        """Targets that determine the crop."""
        return ["bboxes"]

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the crop of one image, x1, y1, x2, y2 in pixels."""
        height, width = params["shape"][:2]
        relative = np.asarray(data["bboxes"], np.float64)
        boxes = relative[:, :4] * (width, height, width, height) if len(relative) else np.zeros((0, 4))
        whole = np.array([0, 0, width, height])
        options = [whole, *self._crops(width, height, boxes)] if len(boxes) else [whole]
        crop = options[int(self.random_generator.integers(len(options)))]
        return {"crop": crop.tolist(), "size": (width, height)}

    def _crops(self, width: int, height: int, boxes: Array) -> list[Array]:
        """Return the first valid crop ``[4]`` for each overlap, and for none, if there is one; boxes: ``[N, 4]``."""
        minima = np.array([*self.min_overlaps, 0.0])
        drawn = self.random_generator.random((4, len(minima), self.trials))
        scale = self.scale[0] + drawn[0] * (self.scale[1] - self.scale[0])
        aspect = self.aspect[0] + drawn[1] * (self.aspect[1] - self.aspect[0])
        aspect = aspect.clip(scale**2, scale**-2)  # neither side is longer than the image's
        size = np.stack([scale * np.sqrt(aspect), scale / np.sqrt(aspect)], axis=-1).clip(0, 1)
        corner = np.stack([drawn[2], drawn[3]], axis=-1) * (1 - size)
        image = np.array([width, height])
        corner, size = (corner * image).astype(np.int64), np.maximum((size * image).astype(np.int64), 1)
        crops = np.concatenate([corner, corner + size], axis=-1)  # [overlaps, trials, 4]
        valid = _iou(crops[:, :, None], boxes).max(axis=2) >= minima[:, None]  # [overlaps, trials]
        successful = np.flatnonzero(valid.any(axis=1))
        return list(crops[successful, valid[successful].argmax(axis=1)])

    def apply(self, img: Array, *args: Any, crop: list[int], **params: Any) -> Array:
        """Crop an image or a mask ``[H, W, …]``."""
        left, top, right, bottom = crop
        return img[top:bottom, left:right]

    def apply_to_masks(self, masks: Array, *args: Any, crop: list[int], **params: Any) -> Array:
        """Crop the masks of objects ``[N, H, W]``."""
        left, top, right, bottom = crop
        return masks[:, top:bottom, left:right]

    def apply_to_bboxes(
        self, bboxes: Array, *args: Any, crop: list[int], size: tuple[int, int], **params: Any
    ) -> Array:
        """Return the boxes ``[N, 4+]`` whose center is inside, in fractions of the crop; albumentations clips them."""
        left, top, right, bottom = crop
        moved = np.array(bboxes, np.float64)
        moved[:, :4] *= np.tile(size, 2)
        centers = (moved[:, :2] + moved[:, 2:4]) / 2
        moved = moved[((centers >= crop[:2]) & (centers <= crop[2:])).all(axis=1)]
        moved[:, :4] -= (left, top, left, top)
        moved[:, :4] /= np.tile((right - left, bottom - top), 2)
        return moved


def _iou(crops: Array, boxes: Array) -> Array:
    """Return the IoU ``[...]`` of crops ``[..., 4]`` and boxes ``[..., 4]``, with broadcasting."""
    sides = (np.minimum(crops[..., 2:], boxes[..., 2:]) - np.maximum(crops[..., :2], boxes[..., :2])).clip(0)
    areas = [(array[..., 2] - array[..., 0]) * (array[..., 3] - array[..., 1]) for array in (crops, boxes)]
    intersection = sides[..., 0] * sides[..., 1]
    return intersection / (areas[0] + areas[1] - intersection)


class SSDAugmentation(A.Sequential):
    """SSD's complete augmentation: photometric distortion, zooming out, crop, flip, and warping to the input size.

    As in the reference, the interpolation of the warp is one of five, drawn at random, and the aspect ratio is not
    preserved.

    Args:
        image_size: Side of the network's input, in pixels.
        mean: Color around an image that was zoomed out.
        max_ratio: Maximum ratio of `ZoomOut`; 1 disables it, as in the paper's first version.
        min_scale: Minimum scale of `IoUCrop`; the paper's is 0.1.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self, image_size: int = 300, mean: Color = MEAN_PIXEL, max_ratio: float = 4.0, min_scale: float = 0.3
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size: must be >= 1 pixel, got {image_size}; SSD300 uses 300")
        if not 0 < min_scale <= 1:
            raise ValueError(f"min_scale: must be in (0, 1], got {min_scale}; the paper uses 0.1")
        kinds = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
        steps: list[Any] = [
            PhotometricDistort(),
            ZoomOut(max_ratio, mean, p=0.5 if max_ratio > 1 else 0.0),
            IoUCrop(scale=(min_scale, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.OneOf([A.Resize(image_size, image_size, interpolation=kind, p=1.0) for kind in kinds], p=1.0),
        ]
        super().__init__(steps, p=1.0)
