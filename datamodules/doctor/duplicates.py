"""Images that are the same, or look the same, among many: without comparing each with each."""

from collections.abc import Iterator

import numpy as np

from .samples import GRAY

MAX_BITS = 6
"""Bits of 64 in which two images that look the same may differ; see `near_pairs`.

Measured on 120 crops of photographs: JPEG at quality 30, half the size, noise, gamma each change at most 2 in nine
of ten; cutting 2 % off changes 6."""
MAX_BITS_LARGE = 3
"""The same among more than `LARGE` images, where otherwise too many would have to be compared."""
LARGE = 200_000
MIN_CORRELATION = 0.985
"""Correlation of their gray values at 16x16, at least."""
MAX_COLOUR = 10.0
"""Mean difference of their colours at 4x4, of 255 levels, at most."""
MIN_CONTRAST = 3.0
"""Standard deviation of gray levels below which an image is too plain to be compared by its looks."""

_BITS = 64
_BLOCK = 1 << 16
_MAX_GROUP = 4000


def exact_groups(digests: np.ndarray, readable: np.ndarray) -> list[np.ndarray]:
    """Images with the same pixels.

    Args:
        digests: 16 bytes an image.
        readable: which images there are.

    Returns:
        The numbers of the images of each group of two or more, ascending, in the order of the first.

    Shape:
        - digests: ``[N, 2]`` uint64.
        - readable: ``[N]`` bool.
    """
    numbers = np.flatnonzero(readable)
    order = numbers[np.lexsort((numbers, digests[numbers, 1], digests[numbers, 0]))]
    same = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
    groups = np.split(order, np.flatnonzero(~same) + 1) if len(order) else []
    return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))


def near_pairs(gradients: np.ndarray, looks: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Pairs of images that look the same.

    Two images whose 64 gradient bits differ in at most `MAX_BITS` = 6 have at least one of seven groups of bits in
    common: so only images with the same bits in a group are compared. The bits that tell most (set in half of the
    images) are dealt out evenly among the groups. A pair must then correlate at 16x16 pixels, whatever its brightness
    and contrast, and have the same colours.

    Args:
        gradients: 64 bits an image.
        looks: see `samples.appearance`.
        candidates: the numbers of the images to compare, of the same pixels one alone.

    Returns:
        Pairs of numbers, the smaller first, ascending.

    Shape:
        - gradients: ``[N]`` uint64.
        - looks: ``[N, LOOK]`` uint8.
        - candidates: ``[M]`` int64.
        - Output: ``[P, 2]`` int64.
    """
    contrast = _contrast(looks, candidates)
    candidates = candidates[contrast >= MIN_CONTRAST]
    if len(candidates) < 2:
        return np.empty((0, 2), np.int64)
    found = []
    own = gradients[candidates]
    most = MAX_BITS if len(candidates) <= LARGE else MAX_BITS_LARGE
    for keys in _keys(own, most + 1):
        for first, second in _sharing(keys):
            near = bits_set(own[first] ^ own[second]) <= most
            pairs = np.sort(np.column_stack([candidates[first[near]], candidates[second[near]]]), axis=1)
            if len(pairs):
                found.append(pairs)
    if not found:
        return np.empty((0, 2), np.int64)
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[alike(looks, pairs)]


def _contrast(looks: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    parts = [numbers[start : start + _BLOCK] for start in range(0, len(numbers), _BLOCK)]
    return np.concatenate([looks[part, : GRAY * GRAY].std(axis=1) for part in parts]) if parts else np.zeros(0)


def _keys(gradients: np.ndarray, groups: int) -> Iterator[np.ndarray]:
    """The bits of each group, as one number an image."""
    places = np.arange(_BITS, dtype=np.uint64)
    share = np.array([np.mean((gradients >> place) & np.uint64(1)) for place in places])
    told = np.argsort(np.abs(share - 0.5), kind="stable")
    for group in range(groups):
        key = np.zeros(len(gradients), np.uint64)
        for bit, place in enumerate(told[group::groups]):
            key |= ((gradients >> places[place]) & np.uint64(1)) << np.uint64(bit)
        yield key


def _sharing(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places with the same key, in blocks: neighbours at distance 1 in the order of the keys, then 2, …"""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    left = np.arange(len(order) - 1)
    for distance in range(1, _MAX_GROUP):
        left = left[left + distance < len(order)]
        left = left[ordered[left] == ordered[left + distance]]
        if not len(left):
            return
        for start in range(0, len(left), _BLOCK):
            part = left[start : start + _BLOCK]
            yield order[part], order[part + distance]


def bits_set(numbers: np.ndarray) -> np.ndarray:
    """How many bits of each number are set; numpy 2 has ``bitwise_count``, numpy 1 has not.

    Shape:
        - numbers: ``[N]`` uint64.
        - Output: ``[N]``.
    """
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(numbers)
    pairs, fours, bytes_ = (np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
    one, two, four, top = (np.uint64(shift) for shift in (1, 2, 4, 56))
    numbers = numbers - ((numbers >> one) & pairs)
    numbers = (numbers & fours) + ((numbers >> two) & fours)
    return (((numbers + (numbers >> four)) & bytes_) * np.uint64(0x0101010101010101)) >> top


def alike(looks: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether the images of each pair look the same at 16x16 in gray and 4x4 in colour.

    Shape:
        - looks: ``[N, LOOK]`` uint8.
        - pairs: ``[P, 2]``.
        - Output: ``[P]`` bool.
    """
    verdicts = [np.zeros(0, np.bool_)]
    for start in range(0, len(pairs), _BLOCK // 4):
        block = looks[pairs[start : start + _BLOCK // 4]].astype(np.float32)  # [B, 2, LOOK]
        gray = block[..., : GRAY * GRAY]
        gray = gray - gray.mean(axis=2, keepdims=True)
        norms = np.sqrt((gray**2).sum(axis=2))
        correlation = (gray[:, 0] * gray[:, 1]).sum(axis=1) / np.maximum(norms.prod(axis=1), 1e-6)
        colour = np.abs(block[:, 0, GRAY * GRAY :] - block[:, 1, GRAY * GRAY :]).mean(axis=1)
        verdicts.append((correlation >= MIN_CORRELATION) & (colour <= MAX_COLOUR))
    return np.concatenate(verdicts)
