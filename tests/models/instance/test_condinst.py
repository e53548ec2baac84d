"""CondInst: losses and masks against plain computations, images without objects, weights of detectors, overfitting."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.datamodules import DigitScenes
from striate.models import FCOS, PlainCNN
from striate.models.instance import CondInst
from striate.models.instance.condinst import MaskBranch
from striate.models.instance.dynamic_heads import Instances, double_size, dynamic_logits

from ...helpers.detector_inputs import mask_map50, overfit, random_images, random_targets, target


def slim(classes: int = 3, **options: object) -> CondInst:
    """A small CondInst without resizing, with strides 4, 8, 16, 32 and 64."""
    torch.manual_seed(0)
    settings = {"fpn_channels": 64, "head_depth": 1, "mask_channels": 16, "mask_layers": 1, "finest_stride": 4}
    sizes = {"min_size": None, "max_size": None}
    return CondInst(classes, PlainCNN((8, 16, 16, 16)), **{**settings, **sizes, **options})


def with_masks(targets: list[dict[str, Tensor]], sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
    """Targets whose masks ``[N, H, W]`` fill their boxes."""
    result = []
    for one, (height, width) in zip(targets, sizes, strict=True):
        y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
        x1, y1, x2, y2 = (one["boxes"][:, side, None, None] for side in range(4))
        result.append({**one, "masks": ((x > x1) & (x < x2) & (y > y1) & (y < y2)).to(torch.uint8)})
    return result


def test_head_is_the_papers() -> None:
    model = CondInst(80, "resnet18")
    parameters = dict(model.named_parameters())
    assert parameters["controller.weight"].shape == (169, 256, 3, 3) and (parameters["controller.bias"] == 0).all()
    assert abs(float(parameters["controller.weight"].detach().std()) - 0.01) < 1e-3
    assert len(model.mask_branch.refine) == 3 and model.mask_stride == 8
    branch = sum(p.numel() for p in model.mask_branch.parameters())
    assert branch == 3 * (256 * 128 * 9 + 256) + 4 * (128 * 128 * 9 + 256) + 128 * 8 + 8
    assert model.network.head.level_scales.shape == (5,)
    output, _, features = model.eval()._run(model.resize(random_images((96, 128))))
    assert features.shape[1] == 8 and output.anchors[0][0].tolist() == [0, 0, 8, 8]


def test_units_are_the_largest_distances_of_the_levels() -> None:
    model = CondInst(2, "resnet18", min_size=None, max_size=None, fpn_channels=64)
    output, towers, _ = model._run(model.resize(random_images((128, 128))))
    first = torch.tensor([0, *output.counts[:-1]]).cumsum(0)
    instances = model._instances(towers, output.anchors[0], first * 0, first)
    assert instances.units.tolist() == [64, 128, 256, 512, 1024]
    assert instances.locations.tolist() == [[half, half] for half in (4, 8, 16, 32, 64)]


def test_mask_branch_adds_levels_whose_centers_stay_in_place() -> None:
    branch = MaskBranch(1, 1, 0, 1, 2)
    for block in branch.refine:
        block[0].weight.data.zero_()[0, 0, 1, 1] = 1
        block[1].weight.data.fill_((1 + block[1].eps) ** 0.5)  # running statistics 0 and 1
    branch.tower[0].weight.data.fill_(1)
    fine, coarse = torch.tensor([[[[1.0, 2, 3]] * 3]]), torch.tensor([[[[0.0, 8.0]] * 2]])
    features = branch.eval()([fine, coarse])
    torch.testing.assert_close(features[0, 0], torch.tensor([1.0, 4, 9]).expand(3, 3))  # 0, 2, 6, (8) of the coarse one


def test_losses_by_a_plain_computation() -> None:
    sizes = [(60, 90), (64, 64)]
    model, images = slim().eval(), random_images(*sizes)
    targets = with_masks(random_targets(sizes, 3), sizes)
    losses = model.losses(images, targets)
    batch = model.resize(images)
    output, towers, features = model._run(batch)
    whole = torch.cat([model.controller(tower).flatten(2) for tower in towers], 2)  # [2, 169, A]
    values = []
    for index, (height, width) in enumerate(sizes):
        for location, number in enumerate(model.match(targets, output)[index].tolist()):
            if number >= 0:
                square = output.anchors[index][location]
                instance = Instances(
                    whole[index, None, :, location], square.view(2, 2).mean(0)[None], 8 * (square[2:3] - square[:1])
                )
                logits = dynamic_logits(features[index, :, : -(-height // 4), : -(-width // 4)], instance, 4)
                p = F.interpolate(logits[None], scale_factor=2, mode="bilinear")[0, 0].sigmoid()[
                    : -(-height // 2), : -(-width // 2)
                ]
                t = targets[index]["masks"][number].float()
                t = F.avg_pool2d(t[None, None], 2)[0, 0]  # cells of 2 pixels
                values.append(1 - 2 * (p * t).sum() / ((p * p).sum() + (t * t).sum() + 1e-5))
    assert len(values) > 10
    torch.testing.assert_close(losses["loss_mask"], torch.stack(values).mean(), atol=1e-5, rtol=1e-5)
    fcos = FCOS(
        3,
        model.backbone,
        fpn_channels=64,
        head_depth=1,
        finest_stride=4,
        min_size=None,
        max_size=None,
        center_locations=True,
        level_scales=True,
    ).eval()
    fcos.network.load_state_dict(model.network.state_dict())
    for name, loss in fcos.losses(images, targets).items():
        torch.testing.assert_close(losses[name], loss)
    assert set(losses) == {"loss_classification", "loss_bbox_regression", "loss_bbox_ctrness", "loss_mask"}


def test_at_most_some_locations_are_trained_on() -> None:
    sizes = [(64, 64), (64, 64)]
    targets = with_masks(random_targets(sizes, 3), sizes)
    seen = []
    model = slim(max_mask_samples=5)
    at = model._instances
    model._instances = lambda *arguments: seen.append(arguments[3]) or at(*arguments)
    for seed in range(2):
        torch.manual_seed(seed)
        model.losses(random_images(*sizes), targets)
    assert len(seen[0]) == len(seen[1]) == 5 and not torch.equal(*seen)


def test_images_without_objects() -> None:
    model = slim()
    empty = {**target(), "masks": torch.zeros(0, 64, 64, dtype=torch.uint8)}
    losses = model.losses(random_images((64, 64), (64, 64)), [empty, empty])
    assert losses["loss_mask"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.score_threshold = 1.0
    detections = model.eval()(random_images((64, 48)))[0]
    assert detections["masks"].dense().shape == (0, 64, 48) and detections["boxes"].shape == (0, 4)


def test_masks_by_a_plain_computation() -> None:
    """In an image that is resized, from the logits to pixels in one step."""
    model = slim(score_threshold=0.0, min_size=64, max_detections=7).eval()
    torch.nn.init.normal_(model.controller.weight, 0, 0.3)
    image = random_images((96, 150))[0]  # resized to 64 x 100
    (detected,) = model([image])
    (raw,) = model.detect(model.resize([image]))
    assert raw["resized"] == (64, 100) and raw["features"].shape[1:] == (16, 25)
    logits = double_size(dynamic_logits(raw["features"], raw["instances"], 4))  # cells of 2 pixels, or 3
    expected = F.interpolate(logits.sigmoid()[None], scale_factor=3, mode="bilinear")[0]
    assert detected["masks"].size == (96, 150) and expected.shape == (7, 96, 150)
    near = (expected - 0.5).abs() < 1e-4
    assert torch.equal(detected["masks"].dense() | near, (expected > 0.5) | near)
    assert 0.05 < detected["masks"].dense().float().mean() < 0.95
    model.mask_threshold = 0.8
    assert model([image])[0]["masks"].area().sum() < detected["masks"].area().sum()


def test_few_objects_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = slim(score_threshold=0.0, max_detections=20).eval()
    torch.nn.init.normal_(model.controller.weight, 0, 0.3)
    images = random_images((64, 64))
    together = model(images)[0]["masks"]
    counts = []
    logits = model._logits
    monkeypatch.setattr(model, "_logits", lambda f, i, s: counts.append(len(i.parameters)) or logits(f, i, s))
    monkeypatch.setattr("striate.models.instance.condinst._CELLS_AT_ONCE", 3 * 4 * 16 * 16)
    apart = model(images)[0]["masks"]
    assert counts == [3, 3, 3, 3, 3, 3, 2]
    assert torch.equal(together.edges, apart.edges) and torch.equal(together.offsets, apart.offsets)


def test_padding_of_a_batch_does_not_enter_the_masks() -> None:
    """The network sees the padding; given the same features and parameters, the masks are those of the image alone."""
    model = slim(score_threshold=0.0, max_detections=5).eval()
    torch.nn.init.normal_(model.controller.weight, 0, 0.3)
    (alone,) = model.detect(model.resize(random_images((50, 61))))
    padded = torch.full((2, 8, 24, 40), 100.0)
    rows, columns = alone["features"].shape[1:]
    assert (rows, columns) == (13, 16)
    padded[1, :, :rows, :columns] = alone["features"]
    assert torch.equal(model._image_features(padded, 1, (50, 61)), alone["features"])
    masks = model.paste({**alone, "features": model._image_features(padded, 1, (50, 61))}, (50, 61))
    assert torch.equal(masks.edges, model.paste(alone, (50, 61)).edges)
    sizes = [(50, 61), (96, 160)]
    assert [one["masks"].size for one in model(random_images(*sizes))] == sizes


def test_masks_are_equivariant_to_flips() -> None:
    """From the features on; strided convolutions are not."""
    model = slim()
    features, parameters = torch.randn(8, 16, 16), torch.randn(3, 169) * 0.5
    instances = Instances(parameters, torch.rand(3, 2) * 64, torch.full((3,), 64.0))
    mirrored = parameters.clone()
    mirrored[:, 0:80:10].neg_()  # the weights of x
    flipped = Instances(mirrored, instances.locations * torch.tensor([-1, 1]) + torch.tensor([64, 0]), instances.units)
    results = [
        model.paste({"resized": (64, 64), "features": maps, "instances": some}, (96, 96)).dense()
        for maps, some in ((features, instances), (features.flip(2), flipped))
    ]
    assert 0.05 < results[0].float().mean() < 0.95
    assert (results[0].flip(2) != results[1]).float().mean() < 1e-3  # rounding at values of a half


def test_checkpoint_of_a_detector_leaves_controller_and_mask_branch_new(tmp_path) -> None:
    settings = {"fpn_channels": 64, "head_depth": 1, "finest_stride": 4, "min_size": None, "max_size": None}
    for options, new in (
        ({}, {"controller", "mask_branch", "network"}),
        ({"level_scales": True}, {"controller", "mask_branch"}),
    ):
        torch.manual_seed(1)
        detector = FCOS(3, PlainCNN((8, 16, 16, 16)), **settings, **options)
        torch.save(detector.state_dict(), tmp_path / "detector.pth")
        model = slim(detector_weights=str(tmp_path / "detector.pth"))
        assert model.load_report is not None
        assert {name.split(".")[0] for name in model.load_report.missing} == new
        for name in ("head.regression_head.bbox_reg.weight", "backbone.body.stages.0.0.weight"):
            torch.testing.assert_close(model.network.state_dict()[name], detector.network.state_dict()[name])
    torch.save({k: v for k, v in slim().state_dict().items() if "controller" not in k}, tmp_path / "partial.pth")
    with pytest.raises(ValueError, match=r"(?s)detector_weights.*does not match.*controller"):
        slim(detector_weights=str(tmp_path / "partial.pth"))


def test_under_autocast_masks_stay_finite() -> None:
    model = slim(score_threshold=0.0)
    sizes = [(64, 320)]
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.losses(random_images(*sizes), with_masks([target([[250.0, 7.0, 301.0, 50.0]])], sizes))
        (detected,) = model.eval()(random_images(*sizes))
        (raw,) = model.detect(model.resize(random_images(*sizes)))
    assert losses["loss_mask"].dtype == torch.float32 and 0 < losses["loss_mask"] < 1
    assert raw["instances"].parameters.dtype == torch.float32 and len(detected["masks"]) == len(detected["boxes"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_threshold": -0.1}, "mask_threshold.*got -0.1"),
        ({"mask_layers": -1}, "mask_layers.*got -1"),
        ({"mask_channels": 0}, "mask_channels.*got 0"),
        ({"mask_features": 0}, "mask_features.*got 0"),
        ({"max_mask_samples": 0}, "max_mask_samples.*got 0"),
        ({"fpn_channels": 32}, "fpn_channels.*CondInst, got 32"),
        ({"radius": 0}, "radius.*got 0"),
    ],
)
def test_invalid_arguments(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        slim(**options)


@pytest.mark.slow
def test_overfits_eight_scenes() -> None:
    data = DigitScenes(task="instance_segmentation", image_size=64, train_size=8, val_size=8, batch_size=8)
    data.setup("fit")
    scenes = next(iter(data.val_dataloader()))
    images, targets = list(scenes["image"]), scenes["target"]
    model = slim(10, mask_channels=32, mask_layers=2, head_depth=2, score_threshold=0.05)
    optimizer = torch.optim.AdamW(model.parameters(), 0.003)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=250)
    overfit(model, images, targets, optimizer, schedule, steps=250)
    assert mask_map50(model.eval()(images), targets, 10) >= 0.95
    padded = model([*images, *random_images((96, 64))])[:8]  # the network sees the padding, so results differ a little
    assert mask_map50(padded, targets, 10) >= 0.95
