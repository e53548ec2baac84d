"""Resizing and padding on the device, and back: detectors take images of any size."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.boxes import at_least_float32, clip_boxes
from ..ops.normalize import IMAGENET_MEAN

Detected = TypeVar("Detected", bound=Mapping[str, Any])


class ImageBatch(NamedTuple):
    """Images padded to one size, each in the upper left corner.

    Attributes:
        pixels: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1], channels-last in memory.
        sizes: Height and width of each image within the batch, without padding: B pairs, in pixels.
        original_sizes: Height and width of each image before resizing: B pairs, in pixels.
    """

    pixels: Tensor
    sizes: list[tuple[int, int]]
    original_sizes: list[tuple[int, int]]


class ResizeAndPad(nn.Module):
    """Resize and pad images of any size to one batch, and map boxes there and back.

    Images keep their aspect ratio unless ``fixed_size`` is given, and their size if ``min_size``, ``max_size`` and
    ``fixed_size`` are all None. If no image has to change, pixels stay ``uint8`` and are only stacked.

    Args:
        min_size: Length of the shorter side, in pixels. Several lengths: one is drawn for each image in training
            (multi-scale), and the last is used in evaluation.
        max_size: Maximum length of the longer side, in pixels; takes precedence over ``min_size``.
        fixed_size: Height and width of every image, in pixels, regardless of its aspect ratio.
        size_divisible: Height and width of the batch become a multiple of this number of pixels, by padding on the
            right and below.
        fill: Color of the padding, RGB in [0, 1]: the network's mean, which normalization turns into 0.

    Raises:
        ValueError: A size is below 1, ``max_size`` is less than ``min_size``, or both ``min_size`` and ``fixed_size``
            are given.

    Note:
        Interpolation is bilinear without antialiasing, and sides are rounded down, as in torchvision's detectors and
        as their weights expect.
    """

    def __init__(
        self,
        min_size: int | Sequence[int] | None = None,
        max_size: int | None = None,
        fixed_size: tuple[int, int] | None = None,
        size_divisible: int = 1,
        fill: Sequence[float] = IMAGENET_MEAN,
    ) -> None:
        super().__init__()
        sides = () if min_size is None else (min_size,) if isinstance(min_size, int) else tuple(min_size)
        if sides and fixed_size is not None:
            raise ValueError(
                f"min_size: must be None together with fixed_size={tuple(fixed_size)}, got {min_size}; give one of them"
            )
        if min_size is not None and not sides:
            raise ValueError("min_size: must be a number of pixels, several, or None, got an empty list")
        for name, values in {
            "min_size": sides,
            "max_size": () if max_size is None else (max_size,),
            "fixed_size": fixed_size or (),
            "size_divisible": (size_divisible,),
        }.items():
            if any(value < 1 for value in values):
                raise ValueError(f"{name}: must be >= 1, in pixels, got {', '.join(map(str, values))}")
        if sides and max_size is not None and max_size < min(sides):
            raise ValueError(f"max_size: must be >= min_size, got {max_size} < {min(sides)}; raise max_size")
        self.min_size, self.max_size = sides, max_size
        self.fixed_size = None if fixed_size is None else (int(fixed_size[0]), int(fixed_size[1]))
        self.size_divisible = size_divisible
        self.fill = tuple(float(value) for value in fill)

    def extra_repr(self) -> str:
        """The sizes in pixels, for ``repr``."""
        names = ("min_size", "max_size", "fixed_size", "size_divisible")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names if getattr(self, name))

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a resized image, in pixels. Drawn at random in training if ``min_size`` has several."""
        if self.fixed_size is not None:
            return self.fixed_size
        scale = math.inf
        if self.min_size:
            drawn = int(torch.randint(len(self.min_size), ())) if self.training and len(self.min_size) > 1 else -1
            scale = self.min_size[drawn] / min(height, width)
        if self.max_size is not None and (self.min_size or max(height, width) > self.max_size):
            scale = min(scale, self.max_size / max(height, width))
        if math.isinf(scale):
            return height, width
        return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))

    def forward(self, images: Sequence[Tensor]) -> ImageBatch:
        """Resize images and pad them to one batch.

        Shape:
            - images: B tensors ``[3, H_i, W_i]``
            - output: `ImageBatch`, with pixels ``[B, 3, H, W]``
        """
        originals = [(image.shape[-2], image.shape[-1]) for image in images]
        sizes = [self.target_size(*size) for size in originals]
        if not sizes:
            raise ValueError("images: must hold at least one image, got none")
        step = self.size_divisible
        height, width = (-(-max(size[axis] for size in sizes) // step) * step for axis in (0, 1))
        same_dtype = len({image.dtype for image in images}) == 1
        if same_dtype and sizes == originals and all(size == (height, width) for size in sizes):
            with torch.autocast(images[0].device.type, enabled=False):  # autocast cannot stack float16 on a CPU
                pixels = torch.stack(list(images)).contiguous(memory_format=torch.channels_last)
            return ImageBatch(pixels, sizes, originals)
        dtype = next((image.dtype for image in images if image.is_floating_point()), torch.float32)
        pixels = torch.empty(
            (len(images), 3, height, width), dtype=dtype, device=images[0].device, memory_format=torch.channels_last
        )
        for slot, image, size in zip(pixels, images, sizes, strict=True):
            self._put(slot, image, size)
        return ImageBatch(pixels, sizes, originals)

    def _put(self, slot: Tensor, image: Tensor, size: tuple[int, int]) -> None:
        """Write an image ``[3, H_i, W_i]``, resized, and its padding into a slot ``[3, H, W]`` of the batch."""
        height, width = size
        if image.dtype == torch.uint8:
            image = image.to(slot.dtype) / 255
        if image.shape[-2:] != size:
            image = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        slot[:, :height, :width] = image
        color = slot.new_tensor(self.fill)[:, None, None]  # [3, 1, 1]
        slot[:, height:] = color
        slot[:, :height, width:] = color

    def targets(self, targets: Sequence[Mapping[str, Any]], batch: ImageBatch) -> list[dict[str, Any]]:
        """Targets with boxes ``[N, 4]`` in pixels of resized images, in float32 or wider; other fields as before."""
        return [
            {**target, "boxes": scale_boxes(at_least_float32(target["boxes"]), old, new)}
            for target, old, new in zip(targets, batch.original_sizes, batch.sizes, strict=True)
        ]

    def restore(self, detections: Sequence[Detected], batch: ImageBatch) -> list[Detected]:
        """Detections with boxes ``[M, 4]`` in pixels of the original images, clipped to them."""
        restored: Any = []
        for detected, new, old in zip(detections, batch.sizes, batch.original_sizes, strict=True):
            boxes = clip_boxes(scale_boxes(detected["boxes"], new, old), width=old[1], height=old[0])
            restored.append({**detected, "boxes": boxes})
        return restored


def scale_boxes(boxes: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Boxes of an image after it is resized.

    Args:
        boxes: Boxes in pixels of the original image.
        old: Height and width before, in pixels.
        new: Height and width after, in pixels.

    Shape:
        - boxes, output: ``[N, 4]``
    """
    if old == new:
        return boxes
    y_scale, x_scale = new[0] / old[0], new[1] / old[1]
    return boxes * boxes.new_tensor([x_scale, y_scale, x_scale, y_scale])
