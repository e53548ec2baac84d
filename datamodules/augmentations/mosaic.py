"""Mosaic: four images around a point."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..annotations.argument_checks import check_interval
from ..batches import IGNORE_INDEX
from ..loading.sources import Sample
from ..loading.targets import MIN_SIZE, box_areas
from .multi_image import Mix, concatenate_objects, select_objects
from .placing import (
    MaskPatch,
    Placement,
    full_masks,
    mask_patches,
    place_boxes,
    place_image,
    place_mask,
    place_proposals,
    rounded_size,
)
from .resizing import Color


class Mosaic(Mix):
    """Four images, scaled alike, in the four corners around a random point of one frame.

    The long side of each image becomes `size` times a scale that the four share. What extends beyond the frame is cut.
    What no image covers is gray, and ignored in a semantic mask. The order of the four is random. Objects of which less
    than a pixel, or a smaller fraction than the data module's ``min_visibility``, remains are removed.

    As in YOLOv5, except that images meet on a canvas of twice the size there, from which an affine transform cuts the
    frame. Here the scale is part of the mosaic, so that canvas is never made; for shifts, rotation and shear, use
    albumentations' ``Affine`` after it.

    Args:
        size: Side of the frame, in pixels.
        scale: Minimum and maximum scale; at 1 an image may just fill the frame.
        center: Minimum and maximum position of the point where the images meet, as a fraction of the frame's side,
            horizontally and vertically.
        fill: Color of what no image covers.
        p: Probability of applying it.

    Raises:
        ValueError: An argument is out of its range.

    Reference:
        Bochkovskiy, Wang, Liao, "YOLOv4: optimal speed and accuracy of object detection", 2020, section 3.3.
    """

    others = 3

    def __init__(
        self,
        size: int = 640,
        scale: tuple[float, float] = (0.5, 1.5),
        center: tuple[float, float] = (0.25, 0.75),
        fill: Color = 114,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        if size < 1:
            raise ValueError(f"size: must be >= 1 pixel, got {size}")
        check_interval("scale", scale, positive=True)
        check_interval("center", center, 1)
        self.size, self.scale, self.center, self.fill = size, scale, center, fill

    def mix(
        self, sample: Sample, others: Sequence[Sample], generator: np.random.Generator, min_visibility: float
    ) -> Sample:
        """Make one frame of four samples of detection, instance or semantic segmentation.

        Raises:
            TypeError: The samples belong to another task.
        """
        if "boxes" not in sample and "mask" not in sample:
            raise TypeError(
                "train_transform: Mosaic needs boxes or a semantic mask, got samples with "
                f"{', '.join(sorted(sample.keys() - {'image', 'path'})) or 'no targets'}; remove it"
            )
        samples = [sample, *others]
        tiles = [samples[index] for index in generator.permutation(4)]
        meeting_point = (self.size * generator.uniform(*self.center, 2)).astype(np.int64).tolist()
        placements = self._placements(tiles, meeting_point, float(generator.uniform(*self.scale)))
        image = np.empty((self.size, self.size, 3), np.uint8)
        image[...] = self.fill
        mixed: dict[str, Any] = {**sample, "image": image, **place_proposals(tiles, placements)}
        for tile, placement in zip(tiles, placements, strict=True):
            place_image(tile["image"], placement, image)
        if "mask" in sample:
            mixed["mask"] = np.full((self.size, self.size), IGNORE_INDEX, np.uint8)
            for tile, placement in zip(tiles, placements, strict=True):
                place_mask(tile["mask"], placement, mixed["mask"])
        if "boxes" in sample:
            objects, patches = [], []
            for tile, placement in zip(tiles, placements, strict=True):
                tile_objects, tile_patches = _visible_objects(tile, placement, min_visibility)
                objects.append(tile_objects)
                patches += tile_patches
            mixed |= concatenate_objects(objects)
            if "masks" in sample:
                mixed["masks"] = full_masks(patches, self.size, self.size)
        return mixed

    def _placements(self, tiles: Sequence[Sample], meeting_point: Sequence[int], scale: float) -> list[Placement]:
        """Return where the four are placed: upper left, upper right, lower left, lower right."""
        placements = []
        for index, tile in enumerate(tiles):
            height, width = tile["image"].shape[:2]
            new = rounded_size(width, height, scale * self.size / max(width, height))
            left = meeting_point[0] - (0 if index % 2 else new[0])
            top = meeting_point[1] - (0 if index // 2 else new[1])
            placements.append(Placement((width, height), new, (left, top), (self.size, self.size)))
        return placements


def _visible_objects(tile: Sample, placement: Placement, min_visibility: float) -> tuple[Sample, list[MaskPatch]]:
    """Return the objects of one image that remain in the frame, and their masks if they have any."""
    boxes = place_boxes(tile["boxes"].astype(np.float64), placement)
    clipped = boxes.clip(0, np.tile(placement.canvas, 2))
    visible = box_areas(clipped) / box_areas(boxes)
    if "masks" not in tile:
        remaining = ((clipped[:, 2:] - clipped[:, :2]) >= MIN_SIZE).all(axis=1) & (visible >= min_visibility)
        objects = select_objects(tile, remaining)
        objects["boxes"] = clipped[remaining].astype(np.float32)
        scale = placement.new[0] / placement.old[0] * placement.new[1] / placement.old[1]
        objects["area"] = (objects["area"] * scale * visible[remaining]).astype(np.float32)
        return objects, []
    candidates = np.flatnonzero(visible >= min_visibility)
    patches = mask_patches([tile["masks"][index] for index in candidates], placement)
    areas = np.array([patch.area for patch in patches], np.float32)
    patches = [patch for patch, area in zip(patches, areas, strict=True) if area]
    objects = select_objects(tile, candidates[areas > 0])
    objects["boxes"] = np.array([patch.box for patch in patches], np.float32).reshape(-1, 4)
    objects["area"] = areas[areas > 0]
    return objects, patches
