"""FCIS: masks and classes of hand-made maps, parameter counts, each loss by hand, hard examples, and training."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from striate.datamodules import DigitScenes
from striate.models import PlainCNN, ResizeAndPad, RPNSettings
from striate.models.detection import ImageBatch
from striate.models.detection.two_stage.roi_head import SamplingSettings, sample_regions
from striate.models.instance import FCIS, FCISSettings, fcis_losses
from striate.models.instance.fcis import FCISMaps
from striate.models.instance.inside_outside import RegionScores, RegionTargets, hardest_regions, region_losses
from striate.tasks.optimizers import build_optimizer, group_parameters

from ...helpers.detector_inputs import mask_map50, overfit, random_images, target


def slim(classes: int = 3, **options: object) -> FCIS:
    """A small FCIS of stride 8 without resizing."""
    torch.manual_seed(0)
    settings = {
        "output_stride": 8,
        "resize": ResizeAndPad(size_divisible=8),
        "channels": 16,
        "rpn_channels": 16,
        "groups": 3,
        "pool_size": 9,
        "rpn": {"anchor_scales": (1.0, 2.0), "proposals": (60, 40)},
    }
    return FCIS(classes, PlainCNN((8, 16, 16)), **{**settings, **options})


# -- inside and outside ----------------------------------------------------------------------------


def half_maps() -> Tensor:
    """Maps of one class for two objects side by side, each four cells wide: 2 x 2 groups, ``[1, 16, 4, 8]``.

    A cell is inside in a left group if it is in the left half of its object, and inside in a right group if it is in
    the right half. The background scores 1 everywhere.
    """
    left = torch.tensor([1.0, 1, 0, 0, 1, 1, 0, 0])
    inside = torch.stack([left, 1 - left]).repeat(2, 1)[:, None].expand(4, 4, 8)  # groups by row, then by column
    background = torch.ones(4, 4, 8)
    return torch.stack([5 * (1 - inside), 5 * inside, background, background], 1).flatten(0, 1)[None]  # outside, inside


def pool_by_hand(scores: Tensor, *regions: list[float]) -> RegionScores:
    """The scores of regions of one image on maps of stride 1."""
    backbone = PlainCNN((4,))
    model = FCIS(1, backbone, output_stride=2, channels=4, rpn_channels=4, groups=2, pool_size=8)
    model.stride = 1
    return model.pool(FCISMaps(None, scores, torch.zeros(1, 32, 4, 8)), [torch.tensor(regions)])


def test_the_same_cell_is_inside_in_one_region_and_outside_in_another() -> None:
    scores = pool_by_hand(half_maps(), [0.0, 0, 4, 4], [4.0, 0, 8, 4], [2.0, 0, 6, 4], [0.0, 0, 8, 4])
    masks = scores.mask_probabilities(torch.zeros(4, dtype=torch.int64))
    expected = [[1] * 8, [1] * 8, [0] * 8, [1, 1, 0, 0, 0, 0, 1, 1]]
    assert [(mask > 0.5).int().tolist() for mask in masks] == [[row] * 8 for row in expected]
    assert masks[0, 0, 0].item() == pytest.approx(1 / (1 + math.exp(-5)))
    # each cell has a high score in one of the two maps, so that all regions look like the class
    torch.testing.assert_close(scores.class_logits(), torch.tensor([[5.0, 1.0]] * 4))


def test_swapped_maps_complement_the_mask_and_keep_the_class() -> None:
    scores = torch.randn(1, 16, 4, 8, generator=torch.Generator().manual_seed(0))
    swapped = scores.unflatten(1, (4, 2, 2)).flip(3).flatten(1, 3)
    regions = [[0.0, 0, 4, 4], [1.0, 1, 8, 3]]
    one, other = pool_by_hand(scores, *regions), pool_by_hand(swapped, *regions)
    labels = torch.zeros(2, dtype=torch.int64)
    torch.testing.assert_close(one.class_logits(), other.class_logits())
    torch.testing.assert_close(one.mask_probabilities(labels), 1 - other.mask_probabilities(labels))
    assert one.mask_probabilities(labels).std() > 0.1


def test_class_is_the_mean_of_the_higher_scores_and_boxes_are_of_objects() -> None:
    scores = torch.zeros(1, 16, 4, 8)
    scores[0, 1::4, :, 0] = 3.0  # inside maps of the class: the first of four columns
    scores[0, 0::4, :, 1] = 1.0  # outside maps: the second
    assert pool_by_hand(scores, [0.0, 0, 4, 4]).class_logits().tolist() == [[1.0, 0.0]]
    model = slim(groups=1, pool_size=2)
    boxes = torch.arange(8.0)[None, :, None, None].expand(1, 8, 4, 4)  # background's, then the object's
    pooled = model.pool(FCISMaps(None, torch.zeros(1, 8, 4, 4), boxes), [torch.tensor([[0.0, 0, 16, 16]])])
    assert pooled.deltas.tolist() == [[4, 5, 6, 7]] and pooled.pairs.shape == (1, 4, 2, 2, 2)


# -- the network -----------------------------------------------------------------------------------


def resnet101_parameters() -> int:
    """Number of weights of ResNet-101 up to its last block."""

    def conv(inputs: int, outputs: int, side: int) -> int:
        return inputs * outputs * side**2 + 2 * outputs  # and the scale and shift after it

    count, inputs = conv(3, 64, 7), 64
    for width, blocks in ((64, 3), (128, 4), (256, 23), (512, 3)):
        count += conv(inputs, 4 * width, 1)  # the shortcut of the first block
        for _ in range(blocks):
            count += conv(inputs, width, 1) + conv(width, width, 3) + conv(width, 4 * width, 1)
            inputs = 4 * width
    return count


@pytest.mark.parametrize(("classes", "scales", "maps"), [(80, (4, 8, 16, 32), 7938), (20, (8, 16, 32), 2058)])
def test_parameters_of_the_papers_networks(classes: int, scales: tuple[float, ...], maps: int) -> None:
    with torch.device("meta"):
        model = FCIS(classes, resize=ResizeAndPad(600, 1000), rpn=RPNSettings(anchor_scales=scales))
    anchors = 3 * len(scales)
    rpn = 9 * 1024 * 512 + 512 + 512 * 6 * anchors + 6 * anchors
    heads = 2048 * 1024 + 1024 + (1024 + 1) * (maps + 392)
    assert resnet101_parameters() == 42_500_160
    assert sum(p.numel() for p in model.parameters()) == resnet101_parameters() + rpn + heads
    assert (model.scores.out_channels, model.boxes.out_channels) == (maps, 392)
    assert model.backbone.strides == (16, 16) and model.rpn.conv.in_channels == 1024
    trained = {name.split(".")[2] for name, p in model.backbone.named_parameters("backbone") if p.requires_grad}
    assert trained == {"2", "3", "4"} and not any(norm.training for norm in model.backbone.train()._norms())
    assert model.lr_factors == {"features": 3.0}


def test_defaults_are_the_authors_for_coco() -> None:
    model = FCIS(2, PlainCNN((4,)), output_stride=2, channels=4, rpn_channels=4)
    r, s = model.rpn.settings, model.settings
    assert (r.anchor_scales, r.before_nms, r.proposals, r.min_size) == ((4, 8, 16, 32), (6000,) * 2, (300,) * 2, 2)
    assert (r.nms_iou, r.samples, r.beta) == (0.7, 256, 1 / 9)
    assert (s.hard_examples, s.samples, s.loss_weights, s.box_std) == (True, 128, (1, 10, 1), (0.2, 0.2, 0.5, 0.5))
    assert (s.foreground_iou, s.background_iou, s.positive_fraction) == (0.5, (0, 0.5), 0.25)
    assert (model.mask_threshold, model.nms_iou, model.vote_iou, model.score_threshold) == (0.4, 0.3, 0.5, 0.001)
    assert (model.groups, model.pool_size, model.refinements, model.max_detections) == (7, 21, 1, 100)


# -- losses ----------------------------------------------------------------------------------------


def scores_by_hand() -> tuple[RegionScores, RegionTargets]:
    """Two regions with objects of classes 1 and 0, and background; two classes, regions of 1 x 2 cells."""
    pairs = torch.zeros(3, 3, 2, 1, 2)
    pairs[0, 1] = torch.tensor([[[0.0, 2.0]], [[3.0, 1.0]]])  # outside, inside: maxima 3 and 2
    pairs[1, 0] = torch.tensor([[[1.0, 1.0]], [[0.0, -1.0]]])  # maxima 1 and 1
    pairs[2, 2] = torch.tensor([[[4.0, 0.0]], [[0.0, 2.0]]])  # background: maxima 4 and 2
    deltas = torch.tensor([[0.5, 0, 0, 0], [0, 3.0, 0, 0], [9.0, 9, 9, 9]])
    targets = RegionTargets(
        torch.tensor([1, 0, 2]),
        torch.tensor([[0.0, 0, 0, 0], [0, 1.0, 0, -0.2]]),
        torch.tensor([[[True, True]], [[False, True]]]),
    )
    return RegionScores(pairs, deltas), targets


CLASSES = [math.log(2 * math.exp(-2.5) + 1), math.log(2 * math.exp(-1) + 1), math.log(2 * math.exp(-3) + 1)]
# inside minus outside: 3 and -1, both inside; -1 and -2, outside and inside
MASKS = [(softplus(torch.tensor([-3.0, 1.0]))).mean().item(), softplus(torch.tensor([-1.0, 2.0])).mean().item(), 0]
BOXES = [0.125, 1.5 + 0.02, 0]


def test_losses_of_each_region_by_hand() -> None:
    losses = region_losses(*scores_by_hand())
    for computed, expected in zip(losses, (CLASSES, MASKS, BOXES), strict=True):
        assert computed.tolist() == pytest.approx(expected, rel=1e-5)


def test_normalization_and_weights_of_the_losses() -> None:
    settings = FCISSettings(samples=128, hard_examples=False)
    losses = fcis_losses(*scores_by_hand(), [3], settings)
    assert losses["loss_class"].item() == pytest.approx(sum(CLASSES) / 3)  # the mean of the regions
    assert losses["loss_mask"].item() == pytest.approx(10 * sum(MASKS) / 128)  # 128 regardless of their number
    assert losses["loss_box"].item() == pytest.approx(sum(BOXES) / 128)
    two = fcis_losses(*scores_by_hand(), [2, 1], settings)
    assert two["loss_class"].item() == pytest.approx(sum(CLASSES) / 3)
    assert two["loss_mask"].item() == pytest.approx(10 * sum(MASKS) / 256)  # per image


def test_the_hardest_regions_of_each_image_are_trained_on() -> None:
    scores, targets = scores_by_hand()
    settings = FCISSettings(samples=2)
    losses = region_losses(scores, targets)
    # totals: 0.15 + 10 * 0.68 + 0.125, 0.55 + 10 * 1.22 + 1.52, 0.09
    assert hardest_regions(losses, [3], settings).tolist() == [True, True, False]
    assert hardest_regions(losses, [3], FCISSettings(samples=1)).tolist() == [False, True, False]
    assert hardest_regions(losses, [1, 2], FCISSettings(samples=1)).tolist() == [True, True, False]
    computed = fcis_losses(scores, targets, [3], settings)
    assert computed["loss_class"].item() == pytest.approx(sum(CLASSES[:2]) / 2)
    assert computed["loss_mask"].item() == pytest.approx(10 * sum(MASKS) / 2)
    pairs = scores.pairs.clone().requires_grad_()
    sum(fcis_losses(scores._replace(pairs=pairs), targets, [3], settings).values()).backward()
    assert pairs.grad[:2].abs().sum() > 0 and not pairs.grad[2].any()


def test_all_regions_or_a_sample_filled_with_easy_background() -> None:
    proposals = [torch.tensor([[0.0, 0, 10, 6], [0, 0, 10, 4], [0, 0, 10, 0.5], [50, 50, 60, 60]])]
    objects = [target([[0, 0, 10, 10]], [1])]
    every = sample_regions(proposals, objects, 3, SamplingSettings(samples=1), all_regions=True)[0]
    assert every.labels.tolist() == [1, 1, 3, 3, 3] and every.objects.tolist() == [0, 0, -1, -1, -1]
    voc = SamplingSettings(samples=4, background_iou=(0.1, 0.5))
    assert len(sample_regions(proposals, objects, 3, voc)[0].labels) == 2  # an object of a quarter, and background
    filled = sample_regions(proposals, objects, 3, voc, fill_background=True)[0]
    assert filled.labels.tolist() == [1, 3, 3, 3]
    assert torch.equal(filled.boxes[1:], proposals[0][1:])


def test_training_masks_are_cells_covered_by_at_least_the_threshold() -> None:
    model = slim(groups=2, pool_size=4)
    masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    masks[0, :, 4:9] = 1  # columns 4 to 8: cells of 4 pixels from 4 on are covered by 1 and by 1/4
    masks[0, 8:, 9] = 1  # and by 1/2 in the lower half
    box = [[0.0, 0, 16, 16]]
    one = {**target(box, [2]), "masks": masks}
    sampled = sample_regions([torch.tensor(box)], [one], 3, SamplingSettings(append_ground_truth=False))
    targets = model._region_targets(sampled, [one], [(16, 16)])
    assert targets.masks[0].int().tolist() == [[0, 1, 0, 0]] * 2 + [[0, 1, 1, 0]] * 2
    assert targets.labels.tolist() == [2] and not targets.offsets.any()


def test_images_without_objects() -> None:
    model = slim()
    empty = {**target(), "masks": torch.zeros(0, 64, 64, dtype=torch.uint8)}
    losses = model.losses(random_images((64, 64)), [empty])
    assert losses["loss_mask"] == 0 and losses["loss_box"] == 0 and losses["loss_class"] > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.score_threshold = 1.0
    detections = model.eval()(random_images((64, 48)))[0]
    assert detections["masks"].dense().shape == (0, 64, 48) and detections["boxes"].shape == (0, 4)


# -- detection -------------------------------------------------------------------------------------


def test_regions_are_refined_and_vote_on_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model = slim(1, groups=1, pool_size=8, mask_threshold=0.4).eval()
    scores = torch.zeros(1, 4, 8, 8)
    scores[0, 1, 2:6, 2:6] = 4.0  # inside: pixels 16 to 47
    scores[0, 0] = 4.0 - scores[0, 1]
    boxes = torch.zeros(1, 8, 8, 8)
    boxes[0, 4] = 2.5  # by half of the region's width to the right, in standard deviations
    monkeypatch.setattr(model, "maps", lambda pixels: FCISMaps(None, scores, boxes))
    monkeypatch.setattr(model.rpn, "propose", lambda *args: [torch.tensor([[0.0, 16, 32, 48], [0, 0, 1.0, 9]])])
    (found,) = model.detect(ImageBatch(torch.zeros(1, 3, 64, 64), [(64, 64)], [(64, 128)]))
    # the region, and the refined region; the small one is dropped, and so is the refined small one
    assert found["regions"].tolist() == [[0, 16, 32, 48], [16, 16, 48, 48]]
    torch.testing.assert_close(
        found["mask_probabilities"].mean((1, 2)), torch.tensor([0.5, 1 / (1 + math.exp(-4))]), atol=0.02, rtol=0
    )
    # both have the same score; the first one is kept, and the other overlaps it by a third
    assert found["boxes"].tolist() == [[0, 16, 32, 48]] and found["votes"].tolist() == [[1, 0]]
    (alone,) = model([torch.zeros(3, 64, 64)])
    assert alone["boxes"].tolist() == alone["masks"].boxes().tolist() == [[16, 16, 32, 48]]
    model.vote_iou = 0.3
    (voted,) = model([torch.zeros(3, 64, 64)])
    assert voted["boxes"].tolist() == [[16, 16, 48, 48]] and voted["masks"].area().tolist() == [
        32 * 32 - 4
    ]  # corners are round
    assert torch.equal(voted["scores"], alone["scores"])
    model.refinements = 0
    assert model([torch.zeros(3, 64, 64)])[0]["boxes"].tolist() == [[16, 16, 32, 48]]


def test_boxes_are_tight_in_pixels_of_the_input_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model = slim(1, groups=1, pool_size=8, refinements=0, resize=ResizeAndPad(fixed_size=(64, 64))).eval()
    scores = torch.zeros(1, 4, 8, 8)
    scores[0, 1, 2:6, 2:6] = 9.0
    scores[0, 0] = 9.0 - scores[0, 1]
    monkeypatch.setattr(model, "maps", lambda pixels: FCISMaps(None, scores, torch.zeros(1, 8, 8, 8)))
    monkeypatch.setattr(model.rpn, "propose", lambda *args: [torch.tensor([[0.0, 0, 64, 64]])])
    (image,) = model([torch.zeros(3, 128, 64)])  # twice as high as the resized image
    # between the centers of cells 1 and 2, the probability is 0.4 at 15.2 and 30.4
    assert image["boxes"].tolist() == [[15, 30, 49, 98]]
    assert image["labels"].tolist() == [0] and image["masks"].dense()[0, 64, 32]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"groups": 10, "pool_size": 9}, "groups.*got 10 > 9"),
        ({"output_stride": 4}, "backbone.*cannot be dilated to output_stride=4"),
        ({"output_stride": 16}, "output_stride: exceeds the last stride.*got 16"),
        ({"mask_threshold": 1.5}, "mask_threshold.*got 1.5"),
        ({"vote_iou": -0.1}, "vote_iou.*got -0.1"),
        ({"refinements": -1}, "refinements.*got -1"),
        ({"roi": {"loss_weights": (1.0, 2.0)}}, "roi.loss_weights.*3 numbers.*got"),
        ({"roi": {"background_iou": (0.5, 0.1)}}, "roi.background_iou.*ascending"),
    ],
)
def test_invalid_arguments(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        slim(**options)


# -- training --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_images_are_overfitted() -> None:
    torch.manual_seed(0)
    data = DigitScenes("instance_segmentation", train_size=8, batch_size=8, num_workers=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    images, targets = batch["image"], batch["target"]
    model = FCIS(
        10,
        PlainCNN((32, 64), depth=3),
        output_stride=4,
        resize=ResizeAndPad(size_divisible=4),
        channels=128,
        rpn_channels=48,
        groups=5,
        pool_size=15,
        rpn=RPNSettings(anchor_scales=(1.0, 1.5, 2.0), anchor_ratios=(1.0, 1.6), proposals=(60, 40), min_size=4),
        roi=FCISSettings(samples=48, hard_examples=False, positive_fraction=0.5, loss_weights=(1.0, 2.0, 1.0)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [300], 0.1)
    overfit(model, images, targets, optimizer, schedule, steps=400)
    assert mask_map50(model(images), targets, 10) >= 0.95


def test_the_new_convolution_learns_at_three_times_the_rate() -> None:
    groups = group_parameters(slim(), backbone_lr_factor=0.5, decay_norm_and_bias=False)
    optimizer = build_optimizer(lambda parameters: torch.optim.SGD(parameters, lr=0.1), groups)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    model = slim(features_lr_factor=1.0)
    assert [group["name"] for group in groups[:4]] == [
        "head",
        "head (no decay)",
        "features (x 3)",
        "features (x 3) (no decay)",
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert sorted({rate for rate, _ in rates.values()}) == pytest.approx([0.05, 0.1, 0.3])
    plain = group_parameters(model, backbone_lr_factor=1.0, decay_norm_and_bias=True)
    assert [group["name"] for group in plain] == ["head", "backbone"]
