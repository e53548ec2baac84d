"""Sliding windows, test-time augmentation and label maps: views of the model and the combined output."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from striate.models.segmentation.inference import argmax_labels, augmented_logits, sliding_logits


def pointwise(images):
    """Return logits of two classes that depend on single pixels."""
    gray = images.float().mean(1, keepdim=True) / (255 if images.dtype == torch.uint8 else 1)
    return torch.cat([gray, 1 - gray], 1)


def images(height, width, count=2):
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


def test_windows_of_a_pointwise_model_equal_the_whole_image():
    sizes = []

    def model(view):
        sizes.append(tuple(view.shape[-2:]))
        return pointwise(view)

    data = images(37, 53)
    torch.testing.assert_close(sliding_logits(model, data, (16, 20), 0.5), pointwise(data))
    assert set(sizes) == {(16, 20)} and len(sizes) > 9
    sizes.clear()
    torch.testing.assert_close(sliding_logits(model, data, (64, 20), 0.25), pointwise(data))
    assert set(sizes) == {(37, 20)}
    sizes.clear()
    sliding_logits(model, data, (64, 64), 0.25)
    assert sizes == [(37, 53)]


def test_overlapping_windows_are_averaged():
    values = iter([1.0, 5.0])

    def model(view):
        return torch.full((1, 1, *view.shape[-2:]), next(values))

    out = sliding_logits(model, images(4, 6, 1), (4, 4), 0.5)
    assert out[0, 0, 0].tolist() == [1, 1, 3, 3, 5, 5]


def test_flip_averages_probabilities_of_an_image_and_its_flip():
    torch.manual_seed(1)
    model = nn.Conv2d(3, 4, 3, padding=1)
    data = images(6, 8) / 255
    expected = (model(data).softmax(1) + model(data.flip(-1)).flip(-1).softmax(1)) / 2
    actual = augmented_logits(model, data, (1.0,), flip=True)
    torch.testing.assert_close(actual.softmax(1), expected)
    torch.testing.assert_close(actual.logsumexp(1), torch.zeros(2, 6, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(augmented_logits(model, data.flip(-1), (1.0,), flip=True), actual.flip(-1))
    torch.testing.assert_close(augmented_logits(model, data, (1.0,), flip=False), model(data))


def test_scales_average_probabilities_at_the_images_size():
    sizes = []

    def model(view):
        sizes.append(tuple(view.shape[-2:]))
        return 3 * pointwise(view)

    data = images(20, 30)
    actual = augmented_logits(model, data, (0.5, 1.0, 2.0), flip=False)
    assert sizes == [(10, 15), (20, 30), (40, 60)] and actual.shape == (2, 2, 20, 30)
    pixels = data / 255
    total = (3 * pointwise(pixels)).softmax(1)
    for size, smaller in (((10, 15), True), ((40, 60), False)):
        view = F.interpolate(pixels, size, mode="bilinear", antialias=smaller)
        total += F.interpolate((3 * pointwise(view)).softmax(1), (20, 30), mode="bilinear")
    torch.testing.assert_close(actual.softmax(1), total / 3)
    with pytest.raises(ValueError, match=r"scales.*got \[\]"):
        augmented_logits(model, data, (), flip=False)


@pytest.mark.parametrize("size", [None, (7, 5), (50, 31)])
def test_argmax_labels_do_not_depend_on_the_chunk(size):
    logits = torch.randn(2, 37, 12, 9)
    actual = argmax_labels(logits, size, chunk=5)
    scaled = logits if size is None else F.interpolate(logits, size, mode="bilinear")
    assert actual.dtype == torch.uint8 and torch.equal(actual.long(), scaled.argmax(1))
    assert argmax_labels(torch.zeros(1, 20, 2, 2), (3, 3), chunk=5).max() == 0  # the first on ties
