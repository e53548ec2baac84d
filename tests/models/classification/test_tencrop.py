"""Ten-crop testing against crops made by hand."""

import pytest
import torch
from torch import nn

from striate.models.classification.tencrop import TenCrop, ten_crops


def test_the_ten_crops_of_a_small_image():
    image = torch.arange(12).reshape(1, 1, 3, 4)
    crops = [crop.flatten().tolist() for crop in ten_crops(image, 2)]
    assert crops[:5] == [[0, 1, 4, 5], [2, 3, 6, 7], [4, 5, 8, 9], [6, 7, 10, 11], [1, 2, 5, 6]]
    assert crops[5:] == [[1, 0, 5, 4], [3, 2, 7, 6], [5, 4, 9, 8], [7, 6, 11, 10], [2, 1, 6, 5]]


def test_mean_of_softmax_by_hand():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 5, 4))
    images = torch.randn(2, 3, 8, 7) * 3
    views = [
        images[..., :5, :5],
        images[..., :5, 2:],
        images[..., 3:, :5],
        images[..., 3:, 2:],
        images[..., 1:6, 1:6],
    ]
    views += [torch.flip(view, dims=[3]) for view in views]
    mean = sum(model(view).softmax(1) for view in views) / 10
    logits = TenCrop(model, 5)(images)
    torch.testing.assert_close(logits.softmax(1), mean)
    torch.testing.assert_close(logits.exp(), mean)
    # Averaging softmax differs from averaging logits.
    assert not torch.allclose(sum(model(view) for view in views).div(10).softmax(1), mean, atol=1e-3)


def test_uint8_reaches_the_model_as_uint8():
    class MeanColor(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.dtype == torch.uint8
            return images.float().mean((2, 3))

    TenCrop(MeanColor(), 4)(torch.zeros(1, 3, 6, 6, dtype=torch.uint8))


def test_images_smaller_than_the_crops_are_rejected():
    with pytest.raises(ValueError, match="images.*size=224, got 200 x 256"):
        ten_crops(torch.zeros(1, 3, 200, 256), 224)
