"""Finds images that are the same, or look the same, without comparing each pair."""

import hashlib
from collections.abc import Iterator

import cv2
import numpy as np

GRAY_SIDE, COLOR_SIDE = 16, 4
"""Sides of the two small versions by which images are compared, in gray and in color."""
APPEARANCE_BYTES = GRAY_SIDE * GRAY_SIDE + 2 * COLOR_SIDE * COLOR_SIDE
MAX_BITS = 6
"""Gradient bits of 64 in which two images that look the same may differ; see `near_pairs`.

Measured on 120 crops of photographs: JPEG at quality 30, half the size, noise and gamma each change at most 2 bits in
nine of ten; cropping 2 % changes 6."""
MAX_BITS_LARGE = 3
"""The same for more than `LARGE` images, where otherwise too many pairs would have to be compared."""
LARGE = 200_000
MIN_CORRELATION = 0.985
"""Minimum correlation of their gray values at 16x16."""
MAX_COLOR_DIFFERENCE = 10.0
"""Maximum mean difference of their colors at 4x4, of 255 levels."""
MIN_CONTRAST = 3.0
"""Standard deviation of gray levels below which an image is too uniform to be compared by appearance."""

_BITS = 64
_GRAY = GRAY_SIDE * GRAY_SIDE
_BLOCK = 1 << 16
_MAX_GROUP = 4000


def pixel_digest(image: np.ndarray) -> bytes:
    """Return a hash of 16 bytes of the pixels of an image ``[H, W, 3]``."""
    digest = hashlib.sha256(repr(image.shape).encode())  # processors have instructions for it
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()[:16]


def appearance_of(image: np.ndarray) -> tuple[int, np.ndarray]:
    """Summarize what an image looks like, in a few bytes that size and compression hardly change.

    Returns:
        64 bits, each whether one of 8x8 fields is brighter than the one to its left (dHash); and small versions of the
        image: 16x16 in gray, then 4x4 of two color differences.

    Shape:
        - image: ``[H, W, 3]`` uint8.
        - Output: ``[APPEARANCE_BYTES]`` uint8.

    Reference: Krawetz, "Kind of Like That", 2013 (dHash).
    """
    small = cv2.resize(image, (72, 64), interpolation=cv2.INTER_AREA)  # multiples of the sides below
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    fields = cv2.resize(gray.astype(np.float32), (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(fields[:, 1:] > fields[:, :-1])
    sides = (COLOR_SIDE, COLOR_SIDE)
    colors = cv2.cvtColor(cv2.resize(small, sides, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2YCrCb)
    tiny = cv2.resize(gray, (GRAY_SIDE, GRAY_SIDE), interpolation=cv2.INTER_AREA)
    return int.from_bytes(bits.tobytes(), "big"), np.concatenate([tiny.ravel(), colors[..., 1:].ravel()])


def exact_groups(digests: np.ndarray, readable: np.ndarray) -> list[np.ndarray]:
    """Group images with the same pixels.

    Args:
        digests: Hash of each image, 16 bytes.
        readable: Images that were read.

    Returns:
        The indices of each group of two or more images, ascending; groups in the order of their first image.

    Shape:
        - digests: ``[N, 2]`` uint64.
        - readable: ``[N]`` bool.
    """
    numbers = np.flatnonzero(readable)
    order = numbers[np.lexsort((numbers, digests[numbers, 1], digests[numbers, 0]))]
    same = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
    groups = np.split(order, np.flatnonzero(~same) + 1) if len(order) else []
    return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))


def near_pairs(gradients: np.ndarray, appearances: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Find pairs of images that look the same.

    Two images whose 64 gradient bits differ in at most `MAX_BITS` = 6 agree in at least one of seven groups of bits, so
    only images that agree in a group are compared. The most informative bits (set in half of the images) are
    distributed evenly over the groups. A pair must then correlate at 16x16 pixels, independent of brightness and
    contrast, and have the same colors.

    Args:
        gradients: 64 bits per image.
        appearances: See `appearance_of`.
        candidates: Indices of the images to compare, one per group of equal images.

    Returns:
        Pairs of indices, the smaller first, ascending.

    Shape:
        - gradients: ``[N]`` uint64.
        - appearances: ``[N, APPEARANCE_BYTES]`` uint8.
        - candidates: ``[M]`` int64.
        - Output: ``[P, 2]`` int64.
    """
    blocks = [appearances[candidates[start : start + _BLOCK], :_GRAY] for start in range(0, len(candidates), _BLOCK)]
    contrast = np.concatenate([np.zeros(0), *(block.std(axis=1) for block in blocks)])
    candidates = candidates[contrast >= MIN_CONTRAST]
    if len(candidates) < 2:
        return np.empty((0, 2), np.int64)
    found = []
    bits = gradients[candidates]
    max_bits = MAX_BITS if len(candidates) <= LARGE else MAX_BITS_LARGE
    for keys in _group_keys(bits, max_bits + 1):
        for first, second in _equal_pairs(keys):
            near = np.bitwise_count(bits[first] ^ bits[second]) <= max_bits
            pairs = np.sort(np.column_stack([candidates[first[near]], candidates[second[near]]]), axis=1)
            if len(pairs):
                found.append(pairs)
    if not found:
        return np.empty((0, 2), np.int64)
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[look_alike(appearances, pairs)]


def _group_keys(gradients: np.ndarray, groups: int) -> Iterator[np.ndarray]:
    """Yield the bits of each group of gradients ``[N]``, as one number per image ``[N]``."""
    positions = np.arange(_BITS, dtype=np.uint64)
    frequency = np.array([np.mean((gradients >> position) & np.uint64(1)) for position in positions])
    informative = np.argsort(np.abs(frequency - 0.5), kind="stable")
    for group in range(groups):
        key = np.zeros(len(gradients), np.uint64)
        for bit, position in enumerate(informative[group::groups]):
            key |= ((gradients >> positions[position]) & np.uint64(1)) << np.uint64(bit)
        yield key


def _equal_pairs(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of indices ``[P]`` with equal keys ``[N]``, in blocks: at distance 1 in sorted order, then 2, …"""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    left = np.arange(len(order) - 1)
    for distance in range(1, _MAX_GROUP):
        left = left[left + distance < len(order)]
        left = left[ordered[left] == ordered[left + distance]]
        if not len(left):
            return
        for start in range(0, len(left), _BLOCK):
            block = left[start : start + _BLOCK]
            yield order[block], order[block + distance]


def look_alike(appearances: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether the images of each pair look the same at 16x16 in gray and 4x4 in color.

    Shape:
        - appearances: ``[N, APPEARANCE_BYTES]`` uint8.
        - pairs: ``[P, 2]``.
        - Output: ``[P]`` bool.
    """
    verdicts = [np.zeros(0, np.bool_)]
    for start in range(0, len(pairs), _BLOCK // 4):
        block = appearances[pairs[start : start + _BLOCK // 4]].astype(np.float32)  # [B, 2, APPEARANCE_BYTES]
        gray = block[..., :_GRAY]
        gray = gray - gray.mean(axis=2, keepdims=True)
        norms = np.sqrt((gray**2).sum(axis=2))
        correlation = (gray[:, 0] * gray[:, 1]).sum(axis=1) / np.maximum(norms.prod(axis=1), 1e-6)
        color_difference = np.abs(block[:, 0, _GRAY:] - block[:, 1, _GRAY:]).mean(axis=1)
        verdicts.append((correlation >= MIN_CORRELATION) & (color_difference <= MAX_COLOR_DIFFERENCE))
    return np.concatenate(verdicts)
