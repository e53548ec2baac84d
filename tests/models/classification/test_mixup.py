"""Mixup and CutMix against counted pixels, and against torchvision with the same random numbers."""

import pytest
import torch
from torchvision.transforms import v2

from striate.models.classification.mixup import BatchMixer, cutmix, cutmix_box, mixup, soft_targets


def test_mixup_by_hand():
    images = torch.tensor([0, 100, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 2, 2)
    targets = torch.eye(3)
    mixed, soft = mixup(images, targets, 0.75, torch.tensor([1, 2, 0]))
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed[:, 0, 0, 0], torch.tensor([25 / 255, (75 + 63.75) / 255, 0.75]))
    assert soft.tolist() == [[0.75, 0.25, 0.0], [0.0, 0.75, 0.25], [0.25, 0.0, 0.75]]


def test_mixup_keeps_the_scale_of_float_images():
    images = torch.tensor([0.0, 1.0])[:, None, None, None]
    assert mixup(images, torch.eye(2), 0.25, torch.tensor([1, 0]))[0].flatten().tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("lam", "center", "box"),
    [
        (0.75, (10, 4), (5, 2, 15, 6)),  # half of each side of 20 x 8
        (0.75, (0, 0), (0, 0, 5, 2)),  # clipped to a quarter at the corner
        (0.75, (19, 7), (14, 5, 20, 8)),
        (0.0, (10, 4), (0, 0, 20, 8)),
        (1.0, (10, 4), (10, 4, 10, 4)),  # empty
    ],
)
def test_cutmix_box_by_hand(lam, center, box):
    assert cutmix_box(8, 20, lam, center) == box


def test_cutmix_targets_equal_the_counted_pixels():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 9, 13)
    partners = torch.tensor([3, 4, 0, 2, 1])
    for center in [(0, 0), (6, 4), (12, 8), (12, 0), (3, 7)]:
        for lam in (0.05, 0.3, 0.6, 0.99):
            mixed, soft = cutmix(images, torch.eye(5), cutmix_box(9, 13, lam, center), partners)
            assert mixed.dtype == torch.uint8
            counted = torch.stack([(mixed[:, 0] == k).sum((1, 2)) for k in range(5)], 1) / (9 * 13)
            torch.testing.assert_close(soft, counted)


def test_cutmix_pastes_inside_the_box_and_copies():
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    before = images.clone()
    mixed, _ = cutmix(images, torch.eye(2), (1, 2, 4, 3), torch.tensor([1, 0]))
    assert torch.equal(mixed[0, :, 2, 1:4], images[1, :, 2, 1:4])
    outside = torch.ones(4, 5, dtype=torch.bool)
    outside[2, 1:4] = False
    assert torch.equal(mixed[..., outside], before[..., outside])
    assert torch.equal(images, before)


def test_cutmix_against_torchvision_with_the_same_random_numbers():
    images, labels = torch.rand(4, 3, 16, 24), torch.tensor([0, 1, 2, 1])
    theirs = v2.CutMix(num_classes=3)
    for seed in range(10):
        torch.manual_seed(seed)
        params = theirs.make_params([images])
        torch.manual_seed(seed)
        expected_images, expected_targets = theirs(images, labels)
        partners = torch.tensor([3, 0, 1, 2])  # torchvision rolls the batch by one
        mixed, soft = cutmix(images, soft_targets(labels, 3), params["box"], partners)
        torch.testing.assert_close(mixed, expected_images)
        torch.testing.assert_close(soft, expected_targets)


def test_cutmix_box_against_torchvision_with_the_same_random_numbers():
    theirs = v2.CutMix(num_classes=3)
    for seed in range(20):
        torch.manual_seed(seed)
        params = theirs.make_params([torch.zeros(1, 3, 17, 30)])
        torch.manual_seed(seed)
        lam = float(theirs._dist.sample(()))
        x, y = int(torch.randint(30, (1,))), int(torch.randint(17, (1,)))
        assert cutmix_box(17, 30, lam, (x, y)) == params["box"]


def test_soft_targets_take_indices_and_probabilities():
    assert soft_targets(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    probabilities = torch.tensor([[0.25, 0.75]])
    assert soft_targets(probabilities, 2) is probabilities
    with pytest.raises(ValueError, match="labels.*num_classes=3.*got 2"):
        soft_targets(probabilities, 3)


def constant_images(count: int, size: int = 8) -> torch.Tensor:
    """Return images [count, 3, size, size]; all pixels of image k are k."""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 3, size, size)


def test_batch_mixer_with_cutmix_only():
    mixer = BatchMixer(mixup_alpha=0, cutmix_alpha=1.0, num_classes=6)
    cut = 0
    for _ in range(20):
        mixed, soft = mixer(constant_images(6), torch.arange(6))
        assert mixed.dtype == torch.uint8
        counted = torch.stack([(mixed[:, 0] == k).sum((1, 2)) for k in range(6)], 1) / 64
        torch.testing.assert_close(soft, counted)
        cut += int((soft.max(1).values < 1).any())
    assert cut > 10


def test_batch_mixer_with_mixup_only_mixes_pixels_and_targets_alike():
    mixer = BatchMixer(mixup_alpha=1.0, cutmix_alpha=0, num_classes=6)
    shares = []
    for _ in range(200):
        mixed, soft = mixer(constant_images(6), torch.arange(6))
        torch.testing.assert_close(mixed[:, 1, 2, 3] * 255, soft @ torch.arange(6.0))
        shares.append(float(soft[0, 0]))
    assert 0.4 < sum(shares) / len(shares) < 0.75  # lambda is uniform, and one in six images is its own partner


def test_batch_mixer_switches_between_both():
    mixer = BatchMixer(mixup_alpha=0.2, cutmix_alpha=1.0, switch_prob=0.25, num_classes=2)
    cut = sum(mixer(constant_images(2), torch.arange(2))[0].dtype == torch.uint8 for _ in range(400))
    assert 60 < cut < 140


def test_batch_mixer_off():
    for mixer in (BatchMixer(0, 0, num_classes=2), BatchMixer(prob=0.0, num_classes=2)):
        images = constant_images(2)
        mixed, soft = mixer(images, torch.tensor([1, 0]))
        assert mixed is images
        assert soft.tolist() == [[0, 1], [1, 0]]


def test_batch_mixer_follows_the_seed():
    def draw_targets() -> torch.Tensor:
        torch.manual_seed(3)
        return BatchMixer(num_classes=4)(constant_images(4), torch.arange(4))[1]

    assert torch.equal(draw_targets(), draw_targets())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixup_alpha": -1}, "mixup_alpha.*got -1"),
        ({"cutmix_alpha": -0.1}, "cutmix_alpha.*got -0.1"),
        ({"switch_prob": 1.5}, "switch_prob.*got 1.5"),
        ({"prob": -0.5}, "prob.*got -0.5"),
    ],
)
def test_batch_mixer_rejects_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchMixer(**arguments)
