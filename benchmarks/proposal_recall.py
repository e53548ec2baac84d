"""Recall and mean average best overlap (MABO) of selective search, compared with OpenCV's contributed module.

Recall is the fraction of objects that some box covers with an IoU of at least 0.5. MABO is the mean, here over objects
and not over classes, of the best IoU. Both sides take the same number of boxes in each image: the best ones, as many as
the side with fewer boxes has. Boxes below 20 pixels are dropped on both sides.

There is no published ground truth among these images:

- Eight photographs that come with scikit-learn and scikit-image. The boxes of 14 objects in seven of them were drawn by
  hand for this benchmark, and are listed here. The 24 coins of the eighth have the boxes of a watershed.
- Scenes of DigitScenes, 256 pixels, with exact boxes. They are composed.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from sklearn.datasets import load_sample_images
from torch import Tensor

from striate.benchmarks.harness import Goal, Row
from striate.benchmarks.opencv_proposals import opencv_proposals
from striate.datamodules import DigitScenes
from striate.models import box_iou_matrix, selective_search

SCENES = 12
NUMBERS = (100, 500)

DRAWN = {
    "china": [(84, 28, 352, 388)],
    "flower": [(168, 85, 447, 360), (289, 375, 468, 427)],
    "astronaut": [(10, 14, 385, 512), (151, 14, 303, 190), (279, 345, 510, 512), (354, 0, 459, 285)],
    "coffee": [(80, 78, 480, 387), (171, 16, 402, 305)],
    "chelsea": [(134, 86, 203, 146), (298, 107, 349, 165), (233, 226, 292, 265)],
    "rocket": [(308, 129, 337, 409)],
    "motorcycle": [(119, 113, 686, 448)],
}
"""Boxes drawn by hand: a pagoda; two flowers; a person, her head, a helmet, a shuttle; a saucer and a cup; the eyes and
the nose of a cat; a rocket; a motorcycle."""


class Annotated(NamedTuple):
    """An image, uint8 ``[H, W, 3]``, and the boxes of its objects ``[M, 4]``."""

    image: np.ndarray
    boxes: Tensor


def photographs() -> list[Annotated]:
    """The photographs, with their boxes drawn by hand, and the coins."""
    from skimage import data, filters, segmentation

    china, flower = load_sample_images().images
    images = {"china": china, "flower": flower, "motorcycle": data.stereo_motorcycle()[0]}
    images |= {name: getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")}
    annotated = [Annotated(images[name][..., :3], torch.tensor(boxes).float()) for name, boxes in DRAWN.items()]
    coins = data.coins()
    markers = np.where(coins < 30, 1, np.where(coins > 150, 2, 0))
    filled = ndimage.binary_fill_holes(segmentation.watershed(filters.sobel(coins), markers) - 1)
    slices = ndimage.find_objects(ndimage.label(filled)[0])
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in slices if min(y.stop - y.start, x.stop - x.start) > 20]
    return [*annotated, Annotated(np.repeat(coins[..., None], 3, axis=2), torch.tensor(boxes).float())]


def digit_scenes() -> list[Annotated]:
    """Scenes of 256 pixels with their exact boxes."""
    data = DigitScenes(task="detection", image_size=256, val_size=SCENES, eval_batch_size=SCENES, num_workers=0)
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    return [
        Annotated(image.permute(1, 2, 0).numpy(), target["boxes"])
        for image, target in zip(batch["image"], batch["target"], strict=True)
    ]


def best_overlaps(annotated: Sequence[Annotated], boxes: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """Best IoU of each object ``[M]`` with the first boxes ``[N, 4]`` of its image."""
    pairs = zip(annotated, boxes, counts, strict=True)
    return torch.cat([box_iou_matrix(image.boxes, found[:count]).amax(dim=1) for image, found, count in pairs])


def _shown(overlaps: Tensor) -> str:
    """Recall and MABO of best overlaps ``[M]``, as text."""
    return f"{(overlaps >= 0.5).float().mean():.3f}, {overlaps.mean():.3f}"


def run() -> Iterator[Row]:
    """Compare on photographs and scenes: single mode alone, fast and quality mode with OpenCV's."""
    for name, annotated in (("photographs", photographs()), ("DigitScenes", digit_scenes())):
        objects = sum(len(image.boxes) for image in annotated)
        for mode in ("single", "fast", "quality"):
            tensors = [torch.from_numpy(image.image.copy()).permute(2, 0, 1) for image in annotated]
            ours = [selective_search(tensor, mode)[0] for tensor in tensors]
            peer = opencv_proposals([image.image for image in annotated], mode) if mode != "single" else None
            what = f"recall at 0.5, MABO of {objects} objects of {name}, {mode} mode"
            every = [len(boxes) for boxes in ours]
            yield Row(f"{what}, all {np.mean(every):.0f} boxes", _shown(best_overlaps(annotated, ours, every)))
            if peer is None:
                continue
            theirs = [torch.from_numpy(boxes).float() for boxes in peer[0]]
            theirs = [boxes[((boxes[:, 2:] - boxes[:, :2]) >= 20).all(dim=1)] for boxes in theirs]
            fewest = [min(map(len, pair)) for pair in zip(ours, theirs, strict=True)]
            for number in (*NUMBERS, max(fewest)):
                counts = [min(number, count) for count in fewest]
                sides = [best_overlaps(annotated, boxes, counts) for boxes in (ours, theirs)]
                goal = Goal(1, at_least=True) if mode == "fast" and number == max(fewest) else None
                what_now = f"{what}, {np.mean(counts):.0f} boxes; peer: OpenCV; ratio of MABO"
                yield Row(what_now, _shown(sides[0]), _shown(sides[1]), float(sides[0].mean() / sides[1].mean()), goal)
