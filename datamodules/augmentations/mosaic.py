"""Mosaic: four images around a point."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..batches import IGNORE_INDEX
from ..loading.sources import Sample
from ..loading.targets import MIN_SIZE, box_areas
from .mixing import Mix, chosen_objects, joined_objects
from .placing import (
    Patch,
    Placement,
    mask_patches,
    place_boxes,
    place_image,
    place_mask,
    rounded_size,
    whole_masks,
)
from .resizing import Colour


class Mosaic(Mix):
    """Four images, scaled alike, in the four corners around a random point of one frame.

    Each image's long side becomes `size` times a scale, which the four share; what reaches beyond the frame is cut, and
    what none of them covers is gray, and ignored in a semantic mask. The four come in any order. Objects of which less
    than a pixel, or less than the data module's ``min_visibility``, is left are removed.

    As in YOLOv5 but for this: there, images meet on a canvas of twice the size, from which an affine transform then
    cuts the frame. Here its scale is part of the mosaic, so the canvas is never made; shifts, rotation and shear, if
    wanted, are albumentations' ``Affine`` behind it.

    Args:
        size: side of the frame, pixels.
        scale: least and largest scale; at 1 an image may just fill the frame.
        centre: where the images meet, least and largest part of the frame's side, across and down.
        fill: colour of what no image covers.
        p: probability of applying it.

    Raises:
        ValueError: for an argument out of its range.

    Reference:
        Bochkovskiy, Wang, Liao, "YOLOv4: optimal speed and accuracy of object detection", 2020, section 3.3.
    """

    others = 3

    def __init__(
        self,
        size: int = 640,
        scale: tuple[float, float] = (0.5, 1.5),
        centre: tuple[float, float] = (0.25, 0.75),
        fill: Colour = 114,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        if size < 1 or not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f"size={size}, scale={tuple(scale)}: a side has 1 pixel or more; scales are above 0, in order"
            )
        if not 0 <= centre[0] <= centre[1] <= 1:
            raise ValueError(f"centre={tuple(centre)}: parts of the frame's side, from 0 to 1, in order")
        self.size, self.scale, self.centre, self.fill = size, scale, centre, fill

    def mix(
        self, sample: Sample, others: Sequence[Sample], generator: np.random.Generator, min_visibility: float
    ) -> Sample:
        """One frame of four samples of detection, instance or semantic segmentation.

        Raises:
            TypeError: for samples of another task.
        """
        if "boxes" not in sample and "mask" not in sample:
            raise TypeError(
                "Mosaic takes samples of detection, instance segmentation or semantic segmentation, and this one has "
                f"only {', '.join(sorted(sample.keys() - {'image', 'path'}))}; take it out of "
                "data.init_args.train_transform"
            )
        drawn = [sample, *others]
        tiles = [drawn[number] for number in generator.permutation(4)]
        meeting = (self.size * generator.uniform(*self.centre, 2)).astype(np.int64).tolist()
        places = self._places(tiles, meeting, float(generator.uniform(*self.scale)))
        image = np.empty((self.size, self.size, 3), np.uint8)
        image[...] = self.fill
        mixed: dict[str, Any] = {**sample, "image": image}
        for tile, where in zip(tiles, places, strict=True):
            place_image(tile["image"], where, image)
        if "mask" in sample:
            mixed["mask"] = np.full((self.size, self.size), IGNORE_INDEX, np.uint8)
            for tile, where in zip(tiles, places, strict=True):
                place_mask(tile["mask"], where, mixed["mask"])
        if "boxes" in sample:
            parts, patches = [], []
            for tile, where in zip(tiles, places, strict=True):
                part, own = _placed(tile, where, min_visibility)
                parts.append(part)
                patches += own
            mixed |= joined_objects(parts)
            if "masks" in sample:
                mixed["masks"] = whole_masks(patches, self.size, self.size)
        return mixed

    def _places(self, tiles: Sequence[Sample], meeting: Sequence[int], scale: float) -> list[Placement]:
        """Where the four go: left upper, right upper, left lower, right lower."""
        places = []
        for number, tile in enumerate(tiles):
            height, width = tile["image"].shape[:2]
            new = rounded_size(width, height, scale * self.size / max(width, height))
            left = meeting[0] - (0 if number % 2 else new[0])
            top = meeting[1] - (0 if number // 2 else new[1])
            places.append(Placement((width, height), new, (left, top), (self.size, self.size)))
        return places


def _placed(tile: Sample, where: Placement, min_visibility: float) -> tuple[Sample, list[Patch]]:
    """The objects of one image that are left in the frame, and their masks where they have some."""
    boxes = place_boxes(tile["boxes"].astype(np.float64), where)
    clipped = boxes.clip(0, np.tile(where.canvas, 2))
    seen = box_areas(clipped) / box_areas(boxes)
    if "masks" not in tile:
        left = ((clipped[:, 2:] - clipped[:, :2]) >= MIN_SIZE).all(axis=1) & (seen >= min_visibility)
        part = chosen_objects(tile, left)
        part["boxes"] = clipped[left].astype(np.float32)
        scale = where.new[0] / where.old[0] * where.new[1] / where.old[1]
        part["area"] = (part["area"] * scale * seen[left]).astype(np.float32)
        return part, []
    left = np.flatnonzero(seen >= min_visibility)
    patches = mask_patches([tile["masks"][number] for number in left], where)
    areas = np.array([patch.area for patch in patches], np.float32)
    patches = [patch for patch, area in zip(patches, areas, strict=True) if area]
    part = chosen_objects(tile, left[areas > 0])
    part["boxes"] = np.array([patch.box for patch in patches], np.float32).reshape(-1, 4)
    part["area"] = areas[areas > 0]
    return part, patches
