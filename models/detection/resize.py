"""Resizing and padding on the device, and the way back: detectors take images of any size as they are on disk."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.boxes import at_least_float32, clip_boxes
from ..ops.normalize import IMAGENET_MEAN

Found = TypeVar("Found", bound=Mapping[str, Any])


class ImageBatch(NamedTuple):
    """Images of one size, each in the upper left corner of its place.

    Attributes:
        pixels: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1], channels-last in memory.
        sizes: height and width of each image in it, B pairs.
        original_sizes: height and width of each image as it was given, B pairs.
    """

    pixels: Tensor
    sizes: list[tuple[int, int]]
    original_sizes: list[tuple[int, int]]


class ResizeAndPad(nn.Module):
    """Makes one batch of images of any size, and maps boxes there and back.

    Images keep their shape, unless ``fixed_size``; with neither ``min_size`` nor ``fixed_size`` they keep their size.
    Where no image has to change, pixels stay ``uint8``, and nothing is computed.

    Args:
        min_size: Pixels that the shorter side is to have. Several: one is drawn for each image in training
            (multi-scale), and the last is taken in evaluation.
        max_size: Pixels that the longer side may have at most; goes before ``min_size``.
        fixed_size: Height and width that every image gets, whatever its shape.
        size_divisible: Height and width of the batch are made a multiple of this, by padding right and below.
        fill: Colour of the padding, of values in [0, 1]: the network's mean, which normalising turns to 0.

    Raises:
        ValueError: A size is below 1, ``max_size`` less than ``min_size``, or both ``min_size`` and ``fixed_size`` are
            given.

    Note:
        Bilinear, without antialiasing, sides rounded down: as torchvision's detectors do it, whose weights expect it.
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
            raise ValueError(f"min_size={min_size} and fixed_size={tuple(fixed_size)}: give one of them")
        if min_size is not None and not sides:
            raise ValueError("min_size: give a number of pixels, or several, or null")
        for name, values in {
            "min_size": sides,
            "max_size": () if max_size is None else (max_size,),
            "fixed_size": fixed_size or (),
            "size_divisible": (size_divisible,),
        }.items():
            if any(value < 1 for value in values):
                raise ValueError(f"{name}: {list(values)}; give numbers of pixels, 1 or more")
        if sides and max_size is not None and max_size < min(sides):
            raise ValueError(
                f"max_size: {max_size} is less than min_size {list(sides)}: no longer side could be as long as the "
                "shorter one is to be"
            )
        self.min_size, self.max_size = sides, max_size
        self.fixed_size = None if fixed_size is None else (int(fixed_size[0]), int(fixed_size[1]))
        self.size_divisible = size_divisible
        self.fill = tuple(float(value) for value in fill)

    def extra_repr(self) -> str:
        """The sizes, as ``repr`` shows them."""
        names = ("min_size", "max_size", "fixed_size", "size_divisible")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names if getattr(self, name))

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image gets; in training with several ``min_size``, a drawn one."""
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
        """The batch.

        Shape:
            - images: B times ``[3, H_i, W_i]``
        """
        originals = [(image.shape[-2], image.shape[-1]) for image in images]
        sizes = [self.target_size(*size) for size in originals]
        if not sizes:
            raise ValueError("a batch needs an image at least")
        step = self.size_divisible
        height, width = (-(-max(size[axis] for size in sizes) // step) * step for axis in (0, 1))
        alike = len({image.dtype for image in images}) == 1
        if alike and sizes == originals and all(size == (height, width) for size in sizes):
            with torch.autocast(images[0].device.type, enabled=False):  # which refuses to stack float16 on a CPU
                pixels = torch.stack(list(images)).contiguous(memory_format=torch.channels_last)
            return ImageBatch(pixels, sizes, originals)
        dtype = next((image.dtype for image in images if image.is_floating_point()), torch.float32)
        pixels = torch.empty(
            (len(images), 3, height, width), dtype=dtype, device=images[0].device, memory_format=torch.channels_last
        )
        for place, (image, size) in enumerate(zip(images, sizes, strict=True)):
            self._put(pixels[place], image, size)
        return ImageBatch(pixels, sizes, originals)

    def _put(self, place: Tensor, image: Tensor, size: tuple[int, int]) -> None:
        """Writes an image, resized, into its place ``[3, H, W]``, and the fill beside it."""
        height, width = size
        if image.dtype == torch.uint8:
            image = image.to(place.dtype) / 255
        if image.shape[-2:] != size:
            image = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        place[:, :height, :width] = image
        colour = place.new_tensor(self.fill)[:, None, None]
        place[:, height:] = colour
        place[:, :height, width:] = colour

    def targets(self, targets: Sequence[Mapping[str, Any]], batch: ImageBatch) -> list[dict[str, Any]]:
        """The targets with boxes in pixels of the resized images, float32 at least; other fields as they are."""
        return [
            {**target, "boxes": scale_boxes(at_least_float32(target["boxes"]), old, new)}
            for target, old, new in zip(targets, batch.original_sizes, batch.sizes, strict=True)
        ]

    def restore(self, detections: Sequence[Found], batch: ImageBatch) -> list[Found]:
        """Detections with boxes in pixels of the images that were given, within them."""
        restored: Any = []
        for found, new, old in zip(detections, batch.sizes, batch.original_sizes, strict=True):
            boxes = clip_boxes(scale_boxes(found["boxes"], new, old), width=old[1], height=old[0])
            restored.append({**found, "boxes": boxes})
        return restored


def scale_boxes(boxes: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Boxes of an image after it was resized.

    Args:
        old: height and width before, pixels.
        new: height and width after, pixels.

    Shape:
        - boxes: ``[N, 4]``; output: the same
    """
    if old == new:
        return boxes
    down, across = new[0] / old[0], new[1] / old[1]
    return boxes * boxes.new_tensor([across, down, across, down])
