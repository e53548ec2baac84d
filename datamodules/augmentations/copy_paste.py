"""Copy-paste: objects of one image, cut out along their masks, onto another."""

from collections.abc import Sequence

import cv2
import numpy as np

from ..loading.sources import Sample
from ..loading.targets import boxes_of_masks, mask_areas
from .mixing import Mix, chosen_objects, joined_objects
from .placing import Patch, Placement, mask_patches, whole_masks


class CopyPaste(Mix):
    """Paste a random part of another image's objects onto this one.

    What they cover is taken from the masks of the objects below them; boxes and areas follow, and an object that is no
    longer seen, or of whose pixels less than the data module's ``min_visibility`` is left, is removed. Crowds are not
    pasted. The paper jitters both images first, so it stands behind `LargeScaleJitter` and a flip. Where the images
    differ in size, the other is laid at a random place, so that of width and of height the smaller is within the
    larger.

    Args:
        max_objects: paste at most so many; None: up to all. How many, at least one, and which ones is random.
        p: probability of applying it.

    Raises:
        ValueError: for an argument out of its range.

    Reference:
        Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation", CVPR 2021,
        section 3. Edges are not blurred: the paper found that it gains nothing.
    """

    others = 1

    def __init__(self, max_objects: int | None = None, p: float = 1.0) -> None:
        super().__init__(p)
        if max_objects is not None and max_objects < 1:
            raise ValueError(f"max_objects={max_objects}: give 1 or more, or null for up to all")
        self.max_objects = max_objects

    def mix(
        self, sample: Sample, others: Sequence[Sample], generator: np.random.Generator, min_visibility: float
    ) -> Sample:
        """The sample with some objects of another.

        Raises:
            TypeError: for samples without masks of objects.
        """
        (other,) = others
        if "masks" not in sample or "masks" not in other:
            raise TypeError(
                "CopyPaste cuts objects out along their masks, and these samples have none: set task: "
                "instance_segmentation, or take it out of data.init_args.train_transform"
            )
        candidates = np.flatnonzero(~other["iscrowd"])
        size, other_size = (one["image"].shape[1::-1] for one in (sample, other))
        room = np.subtract(size, other_size)
        offset = generator.integers(np.minimum(room, 0), np.maximum(room, 0) + 1).tolist()
        if not len(candidates):
            return sample
        most = min(len(candidates), self.max_objects or len(candidates))
        chosen = np.sort(generator.permutation(candidates)[: int(generator.integers(1, most + 1))])
        where = Placement(other_size, other_size, offset, size)
        patches = mask_patches([other["masks"][number] for number in chosen], where)
        seen = [place for place, patch in enumerate(patches) if patch.area]
        if not seen:
            return sample
        return _pasted(sample, other, chosen[seen], [patches[place] for place in seen], where, min_visibility)


def _pasted(
    sample: Sample, other: Sample, chosen: np.ndarray, patches: list[Patch], where: Placement, min_visibility: float
) -> Sample:
    """The sample with the objects `chosen` of another on it, which are `patches` there."""
    boxes = np.array([patch.box for patch in patches], np.float32)
    left, top = boxes[:, :2].min(axis=0).astype(int).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).astype(int).tolist()
    window = slice(top, bottom), slice(left, right)
    above = whole_masks(patches, *where.canvas)
    union = np.max(above[:, *window], axis=0)
    x, y = where.offset
    image = sample["image"].copy()
    cv2.copyTo(np.ascontiguousarray(other["image"][top - y : bottom - y, left - x : right - x]), union, image[window])
    below = sample["masks"]
    area = mask_areas(below)
    rest = area - np.array([cv2.countNonZero(cv2.bitwise_and(mask[window], union)) for mask in below], np.float32)
    kept = np.flatnonzero((rest > 0) & (rest >= min_visibility * area))
    masks = np.empty((len(kept) + len(patches), *image.shape[:2]), np.uint8)
    np.take(below, kept, axis=0, out=masks[: len(kept)], mode="clip")  # the default mode copies once more
    masks[: len(kept), *window] &= 1 - union
    masks[len(kept) :] = above
    under, over = chosen_objects(sample, kept), chosen_objects(other, chosen)
    under |= {"boxes": boxes_of_masks(masks[: len(kept)]), "area": rest[kept]}
    over |= {"boxes": boxes, "area": np.array([patch.area for patch in patches], np.float32)}
    return {**sample, "image": image, "masks": masks, **joined_objects([under, over])}
