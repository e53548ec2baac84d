"""Copy-paste: objects of one image, cut out along their masks, pasted onto another."""

from collections.abc import Sequence

import cv2
import numpy as np

from ..loading.sources import Sample
from ..loading.targets import boxes_of_masks, mask_areas
from .multi_image import Mix, concatenate_objects, select_objects
from .placing import MaskPatch, Placement, full_masks, mask_patches, place_proposals


class CopyPaste(Mix):
    """Paste a random subset of another image's objects onto this one.

    Pixels that they cover are removed from the masks of the objects below; boxes and areas follow. An object that is no
    longer visible, or of which a smaller fraction than the data module's ``min_visibility`` remains, is removed. Crowds
    are not pasted. The paper jitters both images first, so use it after `LargeScaleJitter` and a flip. If the images
    differ in size, the other image is placed at random so that the smaller width, and the smaller height, lies within
    the larger.

    Args:
        max_objects: Maximum number of objects to paste; None: no limit. The number, at least one, and the choice are
            random.
        p: Probability of applying it.

    Raises:
        ValueError: An argument is out of its range.

    Reference:
        Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation", CVPR 2021,
        section 3. Edges are not blurred: the paper found no gain from it.
    """

    others = 1

    def __init__(self, max_objects: int | None = None, p: float = 1.0) -> None:
        super().__init__(p)
        if max_objects is not None and max_objects < 1:
            raise ValueError(f"max_objects: must be >= 1, or null for no limit, got {max_objects}")
        self.max_objects = max_objects

    def mix(
        self, sample: Sample, others: Sequence[Sample], generator: np.random.Generator, min_visibility: float
    ) -> Sample:
        """Return the sample with some objects of another.

        Raises:
            TypeError: The samples have no masks of objects.
        """
        (other,) = others
        if "masks" not in sample or "masks" not in other:
            raise TypeError(
                "train_transform: CopyPaste needs masks of objects, got samples without; set task: "
                "instance_segmentation, or remove it"
            )
        candidates = np.flatnonzero(~other["iscrowd"])
        size, other_size = (one["image"].shape[1::-1] for one in (sample, other))
        room = np.subtract(size, other_size)
        offset = generator.integers(np.minimum(room, 0), np.maximum(room, 0) + 1).tolist()
        if not len(candidates):
            return sample
        limit = min(len(candidates), self.max_objects or len(candidates))
        pasted = np.sort(generator.permutation(candidates)[: int(generator.integers(1, limit + 1))])
        placement = Placement(other_size, other_size, offset, size)
        patches = mask_patches([other["masks"][index] for index in pasted], placement)
        visible = [index for index, patch in enumerate(patches) if patch.area]
        if not visible:
            return sample
        return _paste(sample, other, pasted[visible], [patches[index] for index in visible], placement, min_visibility)


def _paste(
    sample: Sample,
    other: Sample,
    pasted: np.ndarray,
    patches: list[MaskPatch],
    placement: Placement,
    min_visibility: float,
) -> Sample:
    """Paste the objects `pasted` ``[M]`` of `other` onto the sample; `patches` are their masks there."""
    boxes = np.array([patch.box for patch in patches], np.float32)
    # only the window around all pasted objects changes
    left, top = boxes[:, :2].min(axis=0).astype(int).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).astype(int).tolist()
    window = slice(top, bottom), slice(left, right)
    pasted_masks = full_masks(patches, *placement.canvas)
    union = np.max(pasted_masks[:, *window], axis=0)
    x, y = placement.offset
    image = sample["image"].copy()
    cv2.copyTo(np.ascontiguousarray(other["image"][top - y : bottom - y, left - x : right - x]), union, image[window])
    below = sample["masks"]
    area = mask_areas(below)
    covered = np.array([cv2.countNonZero(cv2.bitwise_and(mask[window], union)) for mask in below], np.float32)
    visible = area - covered
    remaining = np.flatnonzero((visible > 0) & (visible >= min_visibility * area))
    masks = np.empty((len(remaining) + len(patches), *image.shape[:2]), np.uint8)
    np.take(below, remaining, axis=0, out=masks[: len(remaining)], mode="clip")  # the default mode copies once more
    masks[: len(remaining), *window] &= 1 - union
    masks[len(remaining) :] = pasted_masks
    under, over = select_objects(sample, remaining), select_objects(other, pasted)
    under |= {"boxes": boxes_of_masks(masks[: len(remaining)]), "area": visible[remaining]}
    over |= {"boxes": boxes, "area": np.array([patch.area for patch in patches], np.float32)}
    whole = Placement(placement.canvas, placement.canvas, (0, 0), placement.canvas)
    proposals = place_proposals([sample, other], [whole, placement])
    return {**sample, "image": image, "masks": masks, **concatenate_objects([under, over]), **proposals}
