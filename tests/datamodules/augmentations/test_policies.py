"""TrivialAugment and RandAugment against torchvision's operations, and the distribution of their draws."""

import random
from collections import Counter
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from striate.datamodules import RandAugment, TransformedDataset, TrivialAugment
from striate.datamodules.augmentations.policies import rand_operations, trivial_operations
from striate.datamodules.loading.dataset import SampleKey

THEIRS = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
}
HEIGHT, WIDTH = 40, 56


def gradient() -> np.ndarray:
    """A smooth image with noise that does not use the full range, so that every operation changes it."""
    ramp = np.linspace(30, 200, WIDTH)[None, :, None] + np.linspace(0, 40, HEIGHT)[:, None, None]
    noise = np.random.default_rng(0).integers(-10, 10, (HEIGHT, WIDTH, 3))
    return (ramp * [1.0, 0.8, 0.5] + noise).clip(0, 255).astype(np.uint8)


def seeded(policy: Any, seed: int) -> Any:
    policy.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return policy


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("policy", ["trivial", "rand"])
@pytest.mark.parametrize("name", THEIRS)
def test_every_operation_is_torchvisions(name: str, policy: str, strength: float) -> None:
    image = torch.from_numpy(gradient()).permute(2, 0, 1)
    if policy == "trivial":
        ours, space = trivial_operations()[name], v2.TrivialAugmentWide()._AUGMENTATION_SPACE
    else:
        ours = rand_operations(HEIGHT, WIDTH)[name]
        space = v2.RandAugment()._AUGMENTATION_SPACE
    make, signed = space[THEIRS[name]]
    magnitudes = make(31, HEIGHT, WIDTH)
    theirs = 0.0 if magnitudes is None else float(magnitudes[round(30 * strength)])
    unit = 255 if name == "solarize" else 1  # torchvision uses fractions of the range
    assert ours.signed == signed
    if magnitudes is not None and name != "posterize":
        assert ours.magnitude(strength) == pytest.approx(unit * theirs, abs=1e-4)
    for sign in (1, -1) if signed else (1,):
        actual = ours.apply(image, sign * unit * theirs if name != "posterize" else ours.magnitude(strength))
        expected = v2.RandAugment()._apply_image_or_video_transform(
            image, THEIRS[name], sign * theirs, InterpolationMode.NEAREST, {torch.Tensor: None}
        )
        assert actual.dtype == torch.uint8
        assert torch.equal(actual, expected)
        if strength == 1.0 and name != "identity":
            assert (actual != image).float().mean() > 0.05
        if strength == 0.0 and name not in ("autocontrast", "equalize"):
            assert torch.equal(actual, image)


def test_operations_strengths_and_signs_are_drawn_uniformly() -> None:
    policy = seeded(TrivialAugment(), 0)
    drawn = [policy.get_params_dependent_on_data({"shape": (32, 32, 3)}, {})["operations"] for _ in range(14_000)]
    assert all(len(operations) == 1 for operations in drawn)
    counts = Counter(name for ((name, _),) in drawn)
    assert set(counts) == set(THEIRS)
    assert max(abs(count - 1000) for count in counts.values()) < 5 * 31  # five standard deviations
    rotations = [magnitude for ((name, magnitude),) in drawn if name == "rotate"]
    assert {round(abs(m) / 135 * 30) for m in rotations} == set(range(31))
    assert abs(sum(m > 0 for m in rotations) - sum(m < 0 for m in rotations)) < 5 * 31
    solarized = [magnitude for ((name, magnitude),) in drawn if name == "solarize"]
    assert min(solarized) == 0.0
    assert max(solarized) == 255.0


def test_rand_augment_applies_count_operations_of_one_strength() -> None:
    policy = seeded(RandAugment(count=3, magnitude=15), 1)
    drawn = [policy.get_params_dependent_on_data({"shape": (331, 662, 3)}, {})["operations"] for _ in range(2000)]
    assert {len(operations) for operations in drawn} == {3}
    full = {"shear_x": 0.3, "translate_x": 300.0, "translate_y": 150.0, "rotate": 30.0, "contrast": 0.9}
    for name, value in full.items():
        magnitudes = {round(abs(m), 6) for operations in drawn for n, m in operations if n == name}
        assert magnitudes == {value / 2}
    assert {m for operations in drawn for n, m in operations if n == "posterize"} == {6.0}


def test_operations_run_in_the_order_drawn() -> None:
    policy = RandAugment()
    drawn = [("solarize", 0.0), ("rotate", 90.0)]
    operations = rand_operations(HEIGHT, WIDTH)
    image = torch.from_numpy(gradient()).permute(2, 0, 1)
    expected = operations["rotate"].apply(operations["solarize"].apply(image, 0.0), 90.0)
    assert np.array_equal(policy.apply(gradient(), operations=drawn), expected.permute(1, 2, 0).numpy())
    other = operations["solarize"].apply(operations["rotate"].apply(image, 90.0), 0.0)  # black corners, inverted
    assert not torch.equal(expected, other)


@pytest.mark.parametrize("policy", [TrivialAugment(), RandAugment(magnitude=30)])
def test_images_depend_on_seed_epoch_and_sample_only(policy: Any) -> None:
    images = [{"image": gradient()} for _ in range(20)]
    data = TransformedDataset(images, A.Compose([policy]), seed=3)
    first = [data[SampleKey(0, i)]["image"] for i in range(20)]
    torch.manual_seed(99)  # torch's global generator is not used
    again = [data[SampleKey(0, i)]["image"] for i in reversed(range(20))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert sum(not np.array_equal(data[SampleKey(1, i)]["image"], first[i]) for i in range(20)) > 10
    for image in first:
        assert image.dtype == np.uint8
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert image.flags.c_contiguous
    assert np.array_equal(images[0]["image"], gradient())  # the source is not modified


def test_bad_arguments_and_images_are_rejected() -> None:
    for build, message in (
        (lambda: TrivialAugment(bins=1), "bins: .*got 1"),
        (lambda: RandAugment(count=0), "count: .*got 0"),
        (lambda: RandAugment(magnitude=31), "magnitude: .*got 31"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(ValueError, match=r"image: TrivialAugment .*got float32 \[40, 56, 3\]"):
        TrivialAugment()(image=gradient().astype(np.float32) / 255)
