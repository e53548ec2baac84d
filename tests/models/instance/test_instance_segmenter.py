"""The interface of instance segmenters: masks of the input image, and checked targets."""

import pytest
import torch
from torch import Tensor

from striate.models.detection import ImageBatch, ResizeAndPad
from striate.models.instance import InstanceSegmenter, check_mask_targets


class OneObject(InstanceSegmenter):
    """Finds one object in each image: the left half of the resized image, filled but for its lower half."""

    def __init__(self) -> None:
        super().__init__(2, ResizeAndPad(fixed_size=(8, 16)))

    def detect(self, batch: ImageBatch) -> list[dict[str, Tensor]]:
        half = torch.tensor([[[0.6, 0.6], [0.0, 0.0]]])
        one = {"boxes": torch.tensor([[0.0, 0.0, 8.0, 8.0]]), "scores": torch.ones(1), "labels": torch.ones(1).long()}
        return [{**one, "mask_probabilities": half.repeat_interleave(4, 1).repeat_interleave(4, 2)}] * len(batch.sizes)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {"loss_mask": torch.stack([target["masks"].float().sum() for target in targets]).sum()}


def test_masks_are_in_pixels_of_the_input_image() -> None:
    images = [torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(3, 24, 32, dtype=torch.uint8)]
    small, large = OneObject()(images)
    assert set(small) == {"boxes", "scores", "labels", "masks"}
    assert small["masks"].dense().int().tolist() == [[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]
    # cells of 3 x 2 pixels; the value falls to 0 over one cell, so a pixel at the border has 2/3 (3/4) * 0.6 < 0.5
    assert large["boxes"].tolist() == [[0, 0, 16, 24]] and large["masks"].boxes().tolist() == [[1, 1, 15, 11]]
    strict = OneObject()
    strict.mask_threshold = 0.7
    assert len(strict(images)[0]["masks"].edges) == 0


def targets(masks: Tensor, count: int) -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]]).repeat(count, 1)
    return [
        {"boxes": boxes, "labels": torch.zeros(count, dtype=torch.int64), "masks": masks, "image_id": torch.tensor(7)}
    ]


def test_losses_take_masks_of_the_input_image() -> None:
    images = torch.zeros(1, 3, 4, 6, dtype=torch.uint8)
    assert OneObject().losses(images, targets(torch.ones(2, 4, 6, dtype=torch.bool), 2))["loss_mask"] == 48
    assert OneObject().losses(images, targets(torch.ones(0, 4, 6, dtype=torch.uint8), 0))["loss_mask"] == 0


@pytest.mark.parametrize(
    ("masks", "error", "words"),
    [
        (torch.ones(1, 4, 6), TypeError, "bool or uint8.*got torch.float32"),
        (torch.ones(2, 4, 6, dtype=torch.uint8), ValueError, r"\[1, 4, 6\].*got \[2, 4, 6\]"),
        (torch.ones(1, 6, 4, dtype=torch.uint8), ValueError, r"\[1, 4, 6\].*got \[1, 6, 4\]"),
        (torch.zeros(1, 4, 6, dtype=torch.uint8), ValueError, "mask 0 must not be empty"),
        (torch.full((1, 4, 6), 255, dtype=torch.uint8), ValueError, "mask 0 must be 0 or 1, got 255"),
    ],
)
def test_invalid_masks_are_named(masks: Tensor, error: type[Exception], words: str) -> None:
    images = torch.zeros(1, 3, 4, 6, dtype=torch.uint8)
    with pytest.raises(error, match=rf"targets\[0\] \(image_id 7\).*{words}"):
        OneObject().losses(images, targets(masks, 1))


def test_missing_masks() -> None:
    with pytest.raises(ValueError, match=r"targets\[0\].*must have masks.*got labels"):
        check_mask_targets(torch.zeros(1, 3, 4, 6), [{"labels": torch.zeros(0)}])
