"""Duplicate images: digests and gradients by hand, and near pairs against brute force."""

import numpy as np

from striate.datamodules.images import similarity
from striate.datamodules.images.similarity import APPEARANCE_BYTES, appearance_of, pixel_digest
from striate.tests.helpers.fixtures import noise


def test_gradient_bits_by_hand():
    ramp = np.repeat(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], 80, axis=0).repeat(3, axis=2)
    assert appearance_of(ramp)[0] == 2**64 - 1 and appearance_of(ramp[:, ::-1].copy())[0] == 0
    half = np.concatenate([ramp[:40], ramp[40:, ::-1]])
    assert appearance_of(half)[0] == (2**64 - 1) ^ (2**32 - 1)  # the upper four rows


def test_digests_depend_on_the_shape():
    image = noise(6, 4)
    assert pixel_digest(image) == pixel_digest(image.copy()) != pixel_digest(image.reshape(6, 4, 3))
    assert pixel_digest(image[:, ::-1]) == pixel_digest(np.ascontiguousarray(image[:, ::-1])) != pixel_digest(image)


def test_near_pairs_match_brute_force():
    generator = np.random.default_rng(3)
    gradients = generator.integers(0, 2**63, 300).astype(np.uint64)
    gradients[150:] = gradients[:150]
    for number in range(150, 300):  # flip 0 to 12 bits
        for bit in generator.choice(64, number % 13, replace=False):
            gradients[number] ^= np.uint64(1) << np.uint64(bit)
    appearances = np.tile(generator.integers(0, 256, APPEARANCE_BYTES).astype(np.uint8), (300, 1))
    near = similarity.near_pairs(gradients, appearances, np.arange(300))
    distance = np.array([[int(a ^ b).bit_count() for b in gradients.tolist()] for a in gradients.tolist()])
    expected = np.argwhere(np.triu(distance <= similarity.MAX_BITS, 1))
    assert len(expected) > 70 and near.tolist() == expected.tolist()


def test_uniform_images_are_not_compared():
    plain = [appearance_of(np.full((50, 50, 3), level, np.uint8)) for level in (10, 10, 200)]
    gradients, appearances = np.array([one[0] for one in plain], np.uint64), np.array([one[1] for one in plain])
    assert not len(similarity.near_pairs(gradients, appearances, np.arange(3)))


def test_the_same_shape_in_another_color_is_another_image():
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:40, 20:50] = (200, 40, 40)
    other = image[..., ::-1].copy()
    appearances = np.array([appearance_of(one)[1] for one in (image, other)])
    assert not similarity.look_alike(appearances, np.array([[0, 1]]))[0]


def test_exact_groups():
    digests = np.array([[1, 2], [3, 4], [1, 2], [1, 3], [3, 4], [1, 2], [9, 9], [0, 0], [0, 0]], np.uint64)
    readable = np.array([True] * 7 + [False] * 2)
    assert [group.tolist() for group in similarity.exact_groups(digests, readable)] == [[0, 2, 5], [1, 4]]
