"""Normalization of pixels: values by hand, dtypes and memory formats, and errors."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as tvf

from striate.models import Normalize

MEAN, STD = (0.2, 0.4, 0.6), (0.5, 0.25, 0.125)


def test_values_by_hand() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)[None, :, None, None]
    # (0 - 0.2) / 0.5, (0.2 - 0.4) / 0.25, (1 - 0.6) / 0.125
    torch.testing.assert_close(Normalize(MEAN, STD)(pixels).flatten(), torch.tensor([-0.4, -0.8, 3.2]))


def test_defaults_are_imagenets_as_torchvision_has_them() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    expected = tvf.normalize(
        tvf.to_dtype(images, torch.float32, scale=True), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(Normalize()(images), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_images_in_0_1_give_what_uint8_gives(dtype: torch.dtype) -> None:
    images = torch.tensor([0, 255, 0, 255, 255, 0] * 2, dtype=torch.uint8).reshape(2, 3, 1, 2)
    out = Normalize(MEAN, STD)((images / 255).to(dtype))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, Normalize(MEAN, STD)(images))


def test_channels_last_is_kept_and_changes_no_number() -> None:
    normalize = Normalize(MEAN, STD)
    images = torch.randint(0, 256, (2, 3, 8, 6), dtype=torch.uint8)
    last = images.contiguous(memory_format=torch.channels_last)
    assert normalize(images).is_contiguous()
    assert normalize(last).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalize(last), normalize(images))


def test_constants_are_in_no_checkpoint() -> None:
    normalize = Normalize(MEAN, STD)
    assert normalize.state_dict() == {}
    assert not list(normalize.parameters())
    np.testing.assert_allclose(normalize.mean.numpy(), MEAN, rtol=1e-6)
    np.testing.assert_allclose(normalize.std.numpy(), STD, rtol=1e-6)


def test_cast_model_gets_its_dtype_from_exact_constants() -> None:
    images = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    exact = Normalize()(images)
    half = Normalize().to(torch.bfloat16)
    assert half(images).dtype == torch.bfloat16
    # Rounded constants would be off by more than the rounding of the result.
    assert torch.equal(half(images), exact.to(torch.bfloat16))
    assert torch.equal(half.to(torch.float32)(images), exact)
    double = Normalize().double()(images)
    assert double.dtype == torch.float64
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(double.flatten().numpy(), expected, rtol=1e-14)


def test_materialized_from_meta_it_is_complete() -> None:
    with torch.device("meta"):
        normalize = Normalize(MEAN, STD)
        assert normalize.mean.device.type == "meta"
        normalize = normalize.to_empty(device="cpu")
    images = torch.randint(0, 256, (1, 3, 2, 2), dtype=torch.uint8)
    assert torch.equal(normalize(images), Normalize(MEAN, STD)(images))


def test_autocast_leaves_float32_for_the_first_convolution_to_cast() -> None:
    images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    net = nn.Sequential(Normalize(), nn.Conv2d(3, 4, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net[0](images), Normalize()(images))
        assert net(images).dtype == torch.bfloat16


def test_gradient_reaches_the_pixels() -> None:
    images = torch.rand(1, 3, 2, 2, requires_grad=True)
    Normalize(MEAN, STD)(images).sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad[0, :, 0, 0], torch.tensor([2.0, 4.0, 8.0]))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.complex64])
def test_other_dtypes_are_rejected(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=re.escape(f"uint8 in [0, 255] or floating point in [0, 1], got {dtype}")):
        Normalize()(torch.zeros(1, 3, 4, 4, dtype=dtype))


def test_arrays_are_rejected() -> None:
    with pytest.raises(TypeError, match="images.*got ndarray"):
        Normalize()(np.zeros((1, 3, 4, 4), np.uint8))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 4, 5), r"got \[3, 4, 5\]; .*images\[None\]"),
        ((4, 5), r"got \[4, 5\]$"),
        ((2, 1, 4, 5), r"\[B, 3, H, W\], got \[2, 1, 4, 5\]$"),
        ((2, 4, 5, 3), r"got \[2, 4, 5, 3\]; .*permute\(0, 3, 1, 2\)"),
    ],
)
def test_other_shapes_are_rejected(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normalize()(torch.zeros(shape, dtype=torch.uint8))


def test_bad_constants_are_rejected() -> None:
    with pytest.raises(ValueError, match="mean.*got \\(0.5,\\)"):
        Normalize((0.5,), (0.5, 0.5))
    with pytest.raises(ValueError, match="std.*above 0.*0.0"):
        Normalize((0.5,), (0.0,))
