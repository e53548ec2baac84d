"""Losses for semantic segmentation: by hand, against independent references, and with all pixels ignored."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax
from torchvision.ops import sigmoid_focal_loss

from striate.models import (
    DiceLoss,
    LovaszSoftmax,
    OhemCrossEntropy,
    PixelCrossEntropy,
    SoftmaxFocalLoss,
    WeightedLosses,
    lovasz_softmax,
    ohem_cross_entropy,
    pixel_cross_entropy,
    soft_dice_loss,
    softmax_focal_loss,
)

ALL = {
    "cross-entropy": PixelCrossEntropy(),
    "weighted": PixelCrossEntropy([0.5, 2.0, 1.0]),
    "smoothed": PixelCrossEntropy(label_smoothing=0.1),
    "sum": PixelCrossEntropy(reduction="sum"),
    "dice": DiceLoss(),
    "smooth dice": DiceLoss(smooth=1.0),
    "focal": SoftmaxFocalLoss(),
    "flat focal": SoftmaxFocalLoss(gamma=0.5, class_weights=[0.5, 2.0, 1.0]),
    "lovasz": LovaszSoftmax(),
    "lovasz per image": LovaszSoftmax(per_image=True),
    "ohem": OhemCrossEntropy(min_kept=3),
    "weighted ohem": OhemCrossEntropy(min_kept=3, class_weights=[0.5, 2.0, 1.0]),
    "sum of two": WeightedLosses({"ce": PixelCrossEntropy(), "dice": DiceLoss()}, {"dice": 0.5}),
}


def pair(seed=0, classes=3, size=(2, 4, 5), ignored=0.2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size[0], classes, *size[1:], generator=generator, dtype=dtype)
    mask = torch.randint(0, classes, size, generator=generator).to(torch.uint8)
    mask[torch.rand(size, generator=generator) < ignored] = 255
    return logits, mask


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [(2, 4, 5), (0, 4, 5), (1, 1, 1)])
def test_loss_and_gradients_are_zero_without_valid_pixels(name, size):
    logits = torch.full((size[0], 3, *size[1:]), 50.0).requires_grad_()
    loss = ALL[name](logits * 1.0, torch.full(size, 255, dtype=torch.uint8))
    assert loss.ndim == 0 and loss.item() == 0.0
    loss.backward()
    assert logits.grad is not None and torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", ALL)
def test_gradients_match_finite_differences(name):
    logits, mask = pair()
    loss = ALL[name].double()
    assert torch.autograd.gradcheck(lambda x: loss(x, mask), (logits.requires_grad_(),))


@pytest.mark.parametrize("name", ALL)
def test_predictions_at_ignored_pixels_have_no_effect(name):
    logits, mask = pair(1, dtype=torch.float32)
    other = logits + 9 * torch.randn_like(logits) * (mask == 255)[:, None]
    torch.testing.assert_close(ALL[name].float()(other, mask), ALL[name](logits, mask))
    logits.requires_grad_()
    ALL[name](logits, mask).backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0
    assert (logits.grad.movedim(1, -1)[mask == 255] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_half_precision_and_saturated_logits_are_finite(name):
    logits, mask = pair(2, dtype=torch.float32)
    for scale, dtype in ((300, torch.float32), (300, torch.bfloat16), (1, torch.float16)):
        scaled = (scale * logits).to(dtype).requires_grad_()
        loss = ALL[name].float()(scaled, mask)
        loss.backward()
        assert loss.dtype == torch.float32 and torch.isfinite(loss) and torch.isfinite(scaled.grad).all()


@pytest.mark.parametrize("name", ALL)
def test_better_predictions_have_lower_losses(name):
    _, mask = pair(3)
    target = F.one_hot(mask.long().clamp(max=2), 3).movedim(-1, 1).double()
    values = [ALL[name].double()(scale * target, mask).item() for scale in (-2.0, 0.0, 1.0, 3.0)]
    assert values == sorted(values, reverse=True) and values[0] > values[3] + 0.5


def test_cross_entropy_by_hand():
    logits, mask = pair(4)
    log_p = log_softmax(logits.numpy(), axis=1)
    weights = np.array([0.5, 2.0, 1.0])
    losses, factors, smooth = [], [], []
    for b, y, x in itertools.product(*map(range, mask.shape)):
        if (k := int(mask[b, y, x])) != 255:
            losses.append(-log_p[b, k, y, x])
            factors.append(weights[k])
            smooth.append(-log_p[b, :, y, x].mean())
    losses, factors, smooth = map(np.array, (losses, factors, smooth))
    assert pixel_cross_entropy(logits, mask).item() == pytest.approx(losses.mean())
    assert pixel_cross_entropy(logits, mask, reduction="sum").item() == pytest.approx(losses.sum())
    weighted = (losses * factors).sum() / factors.sum()
    assert pixel_cross_entropy(logits, mask, torch.tensor(weights)).item() == pytest.approx(weighted)
    expected = (0.9 * losses + 0.1 * smooth).mean()
    assert pixel_cross_entropy(logits, mask, label_smoothing=0.1).item() == pytest.approx(expected)
    reference = F.cross_entropy(logits, mask.long(), torch.tensor(weights), ignore_index=255, label_smoothing=0.1)
    actual = PixelCrossEntropy(weights.tolist(), label_smoothing=0.1).double()(logits, mask)
    torch.testing.assert_close(actual, reference)


def test_dice_by_hand():
    # two classes, p(1) = 3/4, 1/4, 1/2, 3/4; targets 1, 0, 1, ignored
    logits = torch.tensor([3.0, 1 / 3, 1.0, 3.0]).log().reshape(1, 1, 2, 2)
    logits = torch.cat([torch.zeros_like(logits), logits], 1)
    mask = torch.tensor([[[1, 0], [1, 255]]], dtype=torch.uint8)
    one = 1 - 2 * (3 / 4 + 1 / 2) / ((3 / 4 + 1 / 4 + 1 / 2) + 2)
    zero = 1 - 2 * (3 / 4) / ((1 / 4 + 3 / 4 + 1 / 2) + 1)
    assert soft_dice_loss(logits, mask).item() == pytest.approx((one + zero) / 2)
    smoothed = (1 - (2 * 1.25 + 1) / (3.5 + 1) + 1 - (2 * 0.75 + 1) / (2.5 + 1)) / 2
    assert soft_dice_loss(logits, mask, smooth=1.0).item() == pytest.approx(smoothed)
    only = torch.tensor([[[1, 255], [1, 255]]], dtype=torch.uint8)  # class 0 is absent, and excluded from the mean
    assert soft_dice_loss(logits, only).item() == pytest.approx(1 - 2 * 1.25 / (1.25 + 2))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_two_classes_matches_torchvision(gamma):
    logits, mask = pair(5, classes=2)
    valid = mask != 255
    difference = (logits[:, 1] - logits[:, 0])[valid]
    target = (mask[valid] == 1).double()
    plain = sigmoid_focal_loss(difference, target, alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(softmax_focal_loss(logits, mask, gamma), plain)
    weighted = sigmoid_focal_loss(difference, target, alpha=0.3, gamma=gamma, reduction="mean")
    weights = torch.tensor([0.7, 0.3], dtype=torch.float64)
    torch.testing.assert_close(softmax_focal_loss(logits, mask, gamma, weights), weighted)


def test_focal_loss_with_gamma_zero_is_cross_entropy():
    logits, mask = pair(6)
    torch.testing.assert_close(softmax_focal_loss(logits, mask, 0.0), pixel_cross_entropy(logits, mask))


def jaccard_losses(labels, mask, classes):
    """Return 1 - IoU of each class in the mask, for predicted labels."""
    valid = mask != 255
    losses = []
    for k in range(classes):
        target, predicted = (mask == k)[valid], (labels == k)[valid]
        if target.any():
            losses.append(1 - (target & predicted).sum() / (target | predicted).sum())
    return losses


def test_lovasz_of_hard_predictions_is_one_minus_iou():
    for seed in range(5):
        logits, mask = pair(seed, classes=4, size=(3, 4, 4))
        labels = logits.argmax(1)
        hard = 1e4 * F.one_hot(labels, 4).movedim(-1, 1).double()
        expected = np.mean(jaccard_losses(labels.numpy(), mask.numpy(), 4))
        assert lovasz_softmax(hard, mask).item() == pytest.approx(expected, abs=1e-12)
        each = [np.mean(jaccard_losses(labels[i].numpy(), mask[i].numpy(), 4)) for i in range(3)]
        assert lovasz_softmax(hard, mask, per_image=True).item() == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize("per_image", [False, True])
def test_lovasz_rejects_invalid_classes(per_image):
    logits, mask = pair()
    mask[1, 0, :2] = torch.tensor([3, 254])
    with pytest.raises(ValueError, match=r"mask.*0 to 2.*got \[3, 254\]"):
        lovasz_softmax(logits, mask, per_image)


def test_lovasz_is_the_choquet_integral_of_the_jaccard_loss():
    """The extension of a set function f at m is the integral over t from 0 to 1 of f({i: m_i >= t})."""
    logits, mask = pair(7, classes=3, size=(1, 3, 4))
    probabilities = logits.softmax(1).numpy()
    valid = (mask != 255).numpy()[0]
    losses = []
    for k in range(3):
        target = (mask.numpy()[0] == k)[valid]
        errors = np.abs(target - probabilities[0, k][valid])
        levels = np.concatenate([[0], np.sort(errors)])
        total = 0.0
        for low, high in itertools.pairwise(levels):
            wrong = errors >= high  # the pixels in the set at all levels between the two
            predicted = target ^ wrong
            total += (high - low) * (1 - (target & predicted).sum() / (target | predicted).sum())
        losses.append(total)
    assert lovasz_softmax(logits, mask).item() == pytest.approx(np.mean(losses), abs=1e-12)


def test_ohem_selects_hard_pixels_and_at_least_min_kept():
    # probabilities of the target: 0.9, 0.8, 0.6, 0.3, and an ignored pixel
    p = torch.tensor([0.9, 0.8, 0.6, 0.3, 0.1], dtype=torch.float64)
    logits = torch.stack([p.log(), (1 - p).log()]).reshape(1, 2, 1, 5)
    mask = torch.tensor([[[0, 0, 0, 0, 255]]], dtype=torch.uint8)

    def mean(*selected):
        return -sum(map(math.log, selected)) / len(selected)

    for min_kept, selected in ((1, (0.6, 0.3)), (3, (0.8, 0.6, 0.3)), (100, (0.9, 0.8, 0.6, 0.3))):
        assert ohem_cross_entropy(logits, mask, 0.7, min_kept).item() == pytest.approx(mean(*selected))
    assert ohem_cross_entropy(logits, mask, 0.2, 1).item() == pytest.approx(mean(0.3))
    assert ohem_cross_entropy(logits, mask, 1.0, 1).item() == pytest.approx(mean(0.9, 0.8, 0.6, 0.3))
    mask[0, 0, 3] = 1  # now p = 0.7, with twice the weight
    weights = torch.tensor([1.0, 2.0], dtype=torch.float64)
    expected = -(math.log(0.6) + 2 * math.log(0.7)) / 3
    assert ohem_cross_entropy(logits, mask, 0.71, 1, weights).item() == pytest.approx(expected)


def test_weighted_sum_of_losses():
    logits, mask = pair(8)
    loss = WeightedLosses({"ce": PixelCrossEntropy(), "dice": DiceLoss()}, {"dice": 0.25})
    terms = loss.terms(logits, mask)
    torch.testing.assert_close(terms["ce"], pixel_cross_entropy(logits, mask))
    torch.testing.assert_close(terms["dice"], 0.25 * soft_dice_loss(logits, mask))
    torch.testing.assert_close(loss(logits, mask), terms["ce"] + terms["dice"])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PixelCrossEntropy(label_smoothing=1.0), r"label_smoothing.*got 1\.0"),
        (lambda: PixelCrossEntropy(reduction="none"), "reduction.*'mean', 'sum', got 'none'"),
        (lambda: PixelCrossEntropy([1.0, -1.0]), r"class_weights.*got \[1.0, -1.0\]"),
        (lambda: PixelCrossEntropy([1.0])(*pair()), "class_weights.*3, got 1"),
        (lambda: DiceLoss(-1), "smooth.*got -1"),
        (lambda: SoftmaxFocalLoss(-1), "gamma.*got -1"),
        (lambda: OhemCrossEntropy(0), "threshold.*got 0"),
        (lambda: OhemCrossEntropy(min_kept=0), "min_kept.*got 0"),
        (lambda: WeightedLosses({}), "losses.*at least one"),
        (lambda: WeightedLosses({"ce": DiceLoss()}, {"dce": 1}), "weights.*ce, got dce"),
    ],
)
def test_invalid_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_class_weights_are_not_saved():
    assert not PixelCrossEntropy([1.0, 2.0]).state_dict()
