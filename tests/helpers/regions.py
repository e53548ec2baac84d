"""Regions for the tests of selective search: four of them by hand, and a slow, plain version of the grouping."""

from itertools import combinations

import numpy as np

from striate.models.proposals.regions import color_indices, measure_regions

LABELS = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 3]])
BLACK, WHITE = 0, 255
CHANNELS = np.array(
    [[BLACK, BLACK, BLACK, WHITE], [BLACK, BLACK, WHITE, BLACK], [WHITE, WHITE, WHITE, WHITE]], dtype=np.uint8
)[..., None]


def four_regions():
    """Region 0 is black and has texture 3 to the right, region 1 half white; 2 has texture 3 to the left, 3 none."""
    texture = np.zeros((3, 4, 1, 4), dtype=np.int64)
    texture[LABELS == 0, 0, 0] = 3
    texture[LABELS == 2, 0, 0] = -3
    return measure_regions(LABELS, color_indices(CHANNELS), texture)


def plain_hierarchy(labels, color, texture, measures):
    """Boxes of joined regions: all pairs compared at each step, everything measured from the pixels of each region."""
    color = color.reshape(*labels.shape, -1)
    # eight orientations: the opposite direction has the bin of the negative value
    texture = np.concatenate([np.maximum(texture, 0), np.maximum(-texture, 0)], axis=-1).reshape(*labels.shape, -1)
    masks = {number: labels == number for number in range(labels.max() + 1)}

    def histogram(mask, indices, bins):
        counted = [np.bincount(channel[mask], minlength=bins) for channel in np.moveaxis(indices, -1, 0)]
        return np.concatenate(counted) / np.concatenate(counted).sum()

    def corners(mask):
        rows, columns = np.nonzero(mask)
        return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1

    def grown(mask):
        padded = np.pad(mask, 1)
        shifts = [padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)]
        return np.logical_or.reduce(shifts)

    def similarity(one, other):
        both = one | other
        x1, y1, x2, y2 = corners(both)
        values = {"size": 1 - both.sum() / both.size, "fill": 1 - ((x2 - x1) * (y2 - y1) - both.sum()) / both.size}
        for name, indices, bins in (("color", color, 25), ("texture", texture, 10)):
            values[name] = sum(map(min, histogram(one, indices, bins), histogram(other, indices, bins)))
        return sum(values[name] for name in values if name in measures)

    known, boxes = {}, []
    while len(masks) > 1:
        for one, other in combinations(sorted(masks), 2):
            if (one, other) not in known:
                touch = (grown(masks[one]) & masks[other]).any()
                known[one, other] = similarity(masks[one], masks[other]) if touch else -1
        pairs = [pair for pair in known if masks.keys() >= set(pair)]
        one, other = max(pairs, key=lambda pair: (known[pair], -pair[0], -pair[1]))
        masks[max(max(pair) for pair in known) + 1] = both = masks.pop(one) | masks.pop(other)
        boxes.append(corners(both))
    return boxes
