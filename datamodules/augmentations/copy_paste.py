"""Copy-paste: objects of one image, cut out along their masks, onto another."""

from collections.abc import Sequence

import cv2
import numpy as np

from ..targets import Sample, boxes_of_masks, mask_areas
from .mixing import Mix, chosen_objects, joined_objects


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
        sizes = [np.array(one["image"].shape[1::-1]) for one in (sample, other)]
        room = sizes[0] - sizes[1]
        offset = generator.integers(np.minimum(room, 0), np.maximum(room, 0) + 1)
        if not len(candidates):
            return sample
        most = min(len(candidates), self.max_objects or len(candidates))
        chosen = np.sort(generator.permutation(candidates)[: int(generator.integers(1, most + 1))])
        pasted, pixels = _shifted(other, chosen, offset, sizes[0])
        if not len(pasted["masks"]):
            return sample
        below, image = _covered(sample, pasted, pixels, min_visibility)
        masks = np.concatenate([below.pop("masks"), pasted.pop("masks")])
        return {**sample, "image": image, "masks": masks, **joined_objects([below, pasted])}


def _shifted(other: Sample, chosen: np.ndarray, offset: np.ndarray, size: np.ndarray) -> tuple[Sample, np.ndarray]:
    """Objects as they are in a frame of another `size`, those of them that are in it, and the pixels around them."""
    width, height = size.tolist()
    x, y = offset.tolist()
    cut = other["masks"][chosen]
    pixels = other["image"]
    if (height, width) != pixels.shape[:2] or x or y:
        here = slice(max(y, 0), max(y, 0) + height), slice(max(x, 0), max(x, 0) + width)
        there = slice(max(-y, 0), max(-y, 0) + height), slice(max(-x, 0), max(-x, 0) + width)
        inner = cut[:, there[0], there[1]]
        here = (
            slice(here[0].start, here[0].start + inner.shape[1]),
            slice(here[1].start, here[1].start + inner.shape[2]),
        )
        cut = np.zeros((len(chosen), height, width), np.uint8)
        cut[:, here[0], here[1]] = inner
        frame = np.zeros((height, width, 3), np.uint8)
        frame[here[0], here[1]] = pixels[there[0], there[1]]
        pixels = frame
    area = mask_areas(cut)
    seen = area > 0
    objects = chosen_objects(other, chosen[seen])
    cut = cut[seen]
    return objects | {"masks": cut, "boxes": boxes_of_masks(cut), "area": area[seen]}, pixels


def _covered(sample: Sample, pasted: Sample, pixels: np.ndarray, min_visibility: float) -> tuple[Sample, np.ndarray]:
    """The objects of a sample of which something is left below pasted ones, and the image with these."""
    left, top = pasted["boxes"][:, :2].min(axis=0).astype(int)
    right, bottom = pasted["boxes"][:, 2:].max(axis=0).astype(int)
    window = slice(top, bottom), slice(left, right)
    union = pasted["masks"][0][window].copy()
    for mask in pasted["masks"][1:]:
        np.bitwise_or(union, mask[window], out=union)
    image = sample["image"].copy()
    cv2.copyTo(np.ascontiguousarray(pixels[window]), union, image[window])
    masks = sample["masks"].copy()
    before = mask_areas(masks)
    masks[:, window[0], window[1]] &= 1 - union
    area = mask_areas(masks)
    kept = np.flatnonzero((area > 0) & (area >= min_visibility * before))
    objects = chosen_objects(sample, kept)
    masks = masks[kept]
    return objects | {"masks": masks, "boxes": boxes_of_masks(masks), "area": area[kept]}, image
