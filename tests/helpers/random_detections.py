"""Detections and truth for the tests of metrics: chance ones that meet the corners, and crowded ones."""

import numpy as np
import torch
from hypothesis import strategies as st

CLASSES = 3
CORNERS = [0, 3, 4, 5, 8, 16, 24, 32, 40, 64, 96, 100]  # sides of 32 and 96, overlaps of exactly 0.5, among them
SCORES = [0.0, 0.1, 0.3, 0.5, 0.5, 0.9, 1.0]  # few, so that many are equal


def detections_of(boxes, scores, labels):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "scores": torch.tensor(scores, dtype=torch.float32), "labels": torch.tensor(labels).long()}


def target_of(boxes, labels, **flags):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels).long()} | {k: torch.tensor(v) for k, v in flags.items()}


@st.composite
def boxes(draw):
    x, y = draw(st.sampled_from(CORNERS)), draw(st.sampled_from(CORNERS))
    w, h = draw(st.sampled_from(CORNERS)), draw(st.sampled_from(CORNERS))
    return [x, y, x + w, y + h]


@st.composite
def images(draw, most=6):
    """One image: detections, and a target whose optional fields may be there."""
    labels = st.integers(0, CLASSES - 1)
    seen = draw(st.lists(st.tuples(boxes(), st.sampled_from(SCORES), labels), max_size=most))
    # an object of no area is no object
    true = draw(st.lists(st.tuples(boxes().filter(lambda b: b[2] > b[0] and b[3] > b[1]), labels), max_size=most))
    near = draw(st.lists(st.sampled_from(true), max_size=most)) if true else []  # seen where they are, or nearly
    seen += [
        ([b[0], b[1], b[2] + draw(st.sampled_from([0, 1, 8])), b[3]], draw(st.sampled_from(SCORES)), k) for b, k in near
    ]
    flags = {}
    for name in ("iscrowd", "difficult"):
        if draw(st.booleans()):
            flags[name] = [draw(st.integers(0, 3)) == 0 for _ in true]
    if draw(st.booleans()):
        flags["area"] = [draw(st.sampled_from([float("nan"), 1.0, 1024.0, 1025.0, 9216.0, 20000.0])) for _ in true]
    target = target_of([b for b, _ in true], [k for _, k in true], **flags)
    return detections_of([b for b, _, _ in seen], [s for _, s, _ in seen], [k for _, _, k in seen]), target


def crowded(seed, count=12, classes=CLASSES, most=160):
    """Images with more detections of a class than count, drawn at random; half of them near an object."""
    rng = np.random.default_rng(seed)
    listed = []
    for _ in range(count):
        objects, seen = int(rng.integers(0, 20)), int(rng.integers(0, 2 * most))
        corner, sides = rng.uniform(0, 300, (objects, 2)), np.exp(rng.uniform(1, 5.5, (objects, 2)))
        true, labels = np.concatenate((corner, corner + sides), 1).astype(np.float32), rng.integers(0, classes, objects)
        corner, sides = rng.uniform(0, 300, (seen, 2)), np.exp(rng.uniform(1, 5.5, (seen, 2)))
        found, said = np.concatenate((corner, corner + sides), 1), rng.integers(0, classes, seen) // 2
        if objects:
            which = rng.integers(0, objects, seen)
            close = rng.random(seen) < 0.5
            moved = true[which] + rng.normal(0, 4, (seen, 4)) * [1, 1, 0, 0]
            moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
            found, said = np.where(close[:, None], moved, found), np.where(close, labels[which], said)
        target = target_of(true, labels, iscrowd=rng.random(objects) < 0.1, difficult=rng.random(objects) < 0.2)
        listed.append((detections_of(found, rng.random(seen), said), target))
    return listed
