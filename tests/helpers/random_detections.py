"""Random detections and ground truth for the tests of metrics: small ones with edge cases, and crowded ones."""

from fractions import Fraction

import numpy as np
import torch
from hypothesis import strategies as st

CLASSES = 3
CORNERS = [0, 3, 4, 5, 8, 16, 24, 32, 40, 64, 96, 100]  # includes sides of 32 and 96, and overlaps of exactly 0.5
SCORES = [0.0, 0.1, 0.3, 0.5, 0.5, 0.9, 1.0]  # few, so that many are tied


def detections_of(boxes, scores, labels):
    """Detections as tensors: boxes ``[N, 4]``, scores and labels ``[N]``."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "scores": torch.tensor(scores, dtype=torch.float32), "labels": torch.tensor(labels).long()}


def target_of(boxes, labels, **flags):
    """A target as tensors: boxes ``[N, 4]``, labels and flags ``[N]``."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels).long()} | {k: torch.tensor(v) for k, v in flags.items()}


@st.composite
def boxes(draw):
    x, y = draw(st.sampled_from(CORNERS)), draw(st.sampled_from(CORNERS))
    w, h = draw(st.sampled_from(CORNERS)), draw(st.sampled_from(CORNERS))
    return [x, y, x + w, y + h]


@st.composite
def images(draw, most=6):
    """Detections of one image, and a target with some of the optional fields."""
    labels = st.integers(0, CLASSES - 1)
    detections = draw(st.lists(st.tuples(boxes(), st.sampled_from(SCORES), labels), max_size=most))
    # objects have an area
    objects = draw(st.lists(st.tuples(boxes().filter(lambda b: b[2] > b[0] and b[3] > b[1]), labels), max_size=most))
    near = draw(st.lists(st.sampled_from(objects), max_size=most)) if objects else []  # detected exactly, or nearly so
    detections += [
        ([b[0], b[1], b[2] + draw(st.sampled_from([0, 1, 8])), b[3]], draw(st.sampled_from(SCORES)), k) for b, k in near
    ]
    flags = {}
    for name in ("iscrowd", "difficult"):
        if draw(st.booleans()):
            flags[name] = [draw(st.integers(0, 3)) == 0 for _ in objects]
    if draw(st.booleans()):
        flags["area"] = [draw(st.sampled_from([float("nan"), 1.0, 1024.0, 1025.0, 9216.0, 20000.0])) for _ in objects]
    target = target_of([b for b, _ in objects], [k for _, k in objects], **flags)
    return detections_of(*([one[part] for one in detections] for part in range(3))), target


def crowded(seed, count=12, classes=CLASSES, most=160):
    """Images with more detections per class than the limit `most`, half of them near an object."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        objects, count_detected = int(rng.integers(0, 20)), int(rng.integers(0, 2 * most))
        corner, sides = rng.uniform(0, 300, (objects, 2)), np.exp(rng.uniform(1, 5.5, (objects, 2)))
        target_boxes, labels = (
            np.concatenate((corner, corner + sides), 1).astype(np.float32),
            rng.integers(0, classes, objects),
        )
        corner, sides = rng.uniform(0, 300, (count_detected, 2)), np.exp(rng.uniform(1, 5.5, (count_detected, 2)))
        detected, predicted = np.concatenate((corner, corner + sides), 1), rng.integers(0, classes, count_detected) // 2
        if objects:
            matched = rng.integers(0, objects, count_detected)
            close = rng.random(count_detected) < 0.5
            moved = target_boxes[matched] + rng.normal(0, 4, (count_detected, 4)) * [1, 1, 0, 0]
            moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
            detected, predicted = np.where(close[:, None], moved, detected), np.where(close, labels[matched], predicted)
        target = target_of(target_boxes, labels, iscrowd=rng.random(objects) < 0.1, difficult=rng.random(objects) < 0.2)
        samples.append((detections_of(detected, rng.random(count_detected), predicted), target))
    return samples


def overfull(seed, count=130):
    """An image with `count` detections of class 1, of different scores, each near one of its 40 objects."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 300, (40, 2))
    target_boxes = np.concatenate((corner, corner + rng.uniform(10, 120, (40, 2))), 1).astype(np.float32)
    boxes = target_boxes[rng.integers(0, 40, count)] + rng.normal(0, 2, (count, 4))
    scores = (1 + rng.permutation(count)) / (count + 1)
    return detections_of(boxes, scores, [1] * count), target_of(target_boxes, [1] * 40)


def rounded_scores(pairs):
    """The same pairs with scores rounded to eighths, so that many are equal, in different images too."""
    return [(d | {"scores": (8 * d["scores"]).round() / 8}, target) for d, target in pairs]


def with_ids(pairs, ids):
    """The same pairs with an ``image_id`` each."""
    return [(d, t | {"image_id": torch.tensor(number)}) for (d, t), number in zip(pairs, ids, strict=True)]


def fraction_iou(one, other, pixel=0):
    """IoU of two boxes as a fraction; sides are `pixel` longer than the differences of the edges."""
    sides = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) + pixel for i in (0, 1)]
    intersection = max(sides[0], 0) * max(sides[1], 0)
    areas = [(b[2] - b[0] + pixel) * (b[3] - b[1] + pixel) for b in (one, other)]
    either = sum(areas) - intersection
    return Fraction(intersection) / Fraction(either) if either else Fraction(0)
