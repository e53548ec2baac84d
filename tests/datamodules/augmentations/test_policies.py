"""TrivialAugment and RandAugment against torchvision's operations, and drawn as they should be."""

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


def picture() -> np.ndarray:
    """A smooth picture with noise, not using the whole range, so that every operation shows."""
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
    image = torch.from_numpy(picture()).permute(2, 0, 1)
    if policy == "trivial":
        ours, space = trivial_operations()[name], v2.TrivialAugmentWide()._AUGMENTATION_SPACE
    else:
        ours = rand_operations(HEIGHT, WIDTH)[name]
        space = v2.RandAugment()._AUGMENTATION_SPACE
    make, signed = space[THEIRS[name]]
    magnitudes = make(31, HEIGHT, WIDTH)
    theirs = 0.0 if magnitudes is None else float(magnitudes[round(30 * strength)])
    unit = 255 if name == "solarize" else 1  # theirs counts in whole ranges
    assert ours.signed == signed
    if magnitudes is not None and name != "posterize":
        assert ours.magnitude(strength) == pytest.approx(unit * theirs, abs=1e-4)
    for sign in (1, -1) if signed else (1,):
        got = ours.apply(image, sign * unit * theirs if name != "posterize" else ours.magnitude(strength))
        want = v2.RandAugment()._apply_image_or_video_transform(
            image, THEIRS[name], sign * theirs, InterpolationMode.NEAREST, {torch.Tensor: None}
        )
        assert got.dtype == torch.uint8
        assert torch.equal(got, want)
        if strength == 1.0 and name != "identity":
            assert (got != image).float().mean() > 0.05
        if strength == 0.0 and name not in ("autocontrast", "equalize"):
            assert torch.equal(got, image)


def test_each_operation_strength_and_sign_is_drawn_equally_often() -> None:
    policy = seeded(TrivialAugment(), 0)
    drawn = [policy.get_params_dependent_on_data({"shape": (32, 32, 3)}, {})["chosen"] for _ in range(14_000)]
    assert all(len(chosen) == 1 for chosen in drawn)
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
    drawn = [policy.get_params_dependent_on_data({"shape": (331, 662, 3)}, {})["chosen"] for _ in range(2000)]
    assert {len(chosen) for chosen in drawn} == {3}
    largest = {"shear_x": 0.3, "translate_x": 300.0, "translate_y": 150.0, "rotate": 30.0, "contrast": 0.9}
    for name, value in largest.items():
        found = {round(abs(m), 6) for chosen in drawn for n, m in chosen if n == name}
        assert found == {value / 2}
    assert {m for chosen in drawn for n, m in chosen if n == "posterize"} == {6.0}


def test_operations_run_in_the_order_drawn() -> None:
    policy = RandAugment()
    chosen = [("solarize", 0.0), ("rotate", 90.0)]
    operations = rand_operations(HEIGHT, WIDTH)
    image = torch.from_numpy(picture()).permute(2, 0, 1)
    want = operations["rotate"].apply(operations["solarize"].apply(image, 0.0), 90.0)
    assert np.array_equal(policy.apply(picture(), chosen=chosen), want.permute(1, 2, 0).numpy())
    other = operations["solarize"].apply(operations["rotate"].apply(image, 90.0), 0.0)  # black corners, inverted
    assert not torch.equal(want, other)


@pytest.mark.parametrize("policy", [TrivialAugment(), RandAugment(magnitude=30)])
def test_images_follow_from_seed_epoch_and_sample_alone(policy: Any) -> None:
    images = [{"image": picture()} for _ in range(20)]
    data = TransformedDataset(images, A.Compose([policy]), seed=3)
    first = [data[SampleKey(0, i)]["image"] for i in range(20)]
    torch.manual_seed(99)  # torch's own generator plays no part
    again = [data[SampleKey(0, i)]["image"] for i in reversed(range(20))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert sum(not np.array_equal(data[SampleKey(1, i)]["image"], first[i]) for i in range(20)) > 10
    for image in first:
        assert image.dtype == np.uint8
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert image.flags.c_contiguous
    assert np.array_equal(images[0]["image"], picture())  # the source is left as it was


def test_bad_arguments_and_images_are_refused() -> None:
    for build, message in (
        (lambda: TrivialAugment(bins=1), "bins=1: give 2 strengths or more"),
        (lambda: RandAugment(count=0), "count=0: give 1 operation or more"),
        (lambda: RandAugment(magnitude=31), "magnitude=31: a strength lies from 0 to 30"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(ValueError, match=r"image is float32 \[40, 56, 3\]; TrivialAugment takes RGB uint8"):
        TrivialAugment()(image=picture().astype(np.float32) / 255)
