"""torchvision's detectors behind `TorchvisionDetector`: the same boxes, scores and losses; labels; weights."""

from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import WeightsEnum, get_model
from torchvision.models.detection import RetinaNet
from torchvision.ops import FrozenBatchNorm2d

from striate.models import SSD300, FasterRCNN, TorchvisionDetector, skip_pretrained

from ...helpers.detector_inputs import (
    SIZES,
    assert_same_detections,
    assert_same_losses,
    random_images,
    random_targets,
    sample_all,
    shake,
    target,
)

SMALL = {"min_size": 64, "max_size": 100}
NETWORKS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": SMALL,
    "fasterrcnn_resnet50_fpn": SMALL,
    "retinanet_resnet50_fpn": SMALL,
    "fcos_resnet50_fpn": SMALL,
    "ssd300_vgg16": {},
    "ssdlite320_mobilenet_v3_large": {},
}
NAMES = [
    *NETWORKS,
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn_v2",
]


def freeze_norms(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_scores_and_losses_equal_the_networks(name):
    detector = TorchvisionDetector(name, 3, options=NETWORKS[name])
    sample_all(shake(detector.network))
    first = detector.labels[0]
    assert detector.labels == (first, first + 1, first + 2)
    images, targets = random_images(*SIZES), random_targets(SIZES, 3)
    floats = [image / 255 for image in images]
    shifted = [{**one, "labels": one["labels"] + first} for one in targets]
    with torch.no_grad():
        expected = detector.network.eval()(floats)
        detector.network.train()
        freeze_norms(detector)
        losses = detector.network(floats, shifted)
    # the mode affects only norms, which are frozen here; VGG-16 has none and is slow
    for mode in (True, False) if name != "ssd300_vgg16" else (True,):
        detector.train(mode)
        freeze_norms(detector)
        modes = [module.training for module in detector.modules()]
        assert_same_detections(detector(images), expected, range(first, first + 3))
        torch.manual_seed(1)
        assert_same_losses({k: v.detach() for k, v in detector.losses(images, targets).items()}, losses)
        assert [module.training for module in detector.modules()] == modes


def test_in_training_mode_norms_use_the_batch_and_sizes_are_drawn():
    options = {"min_size": [32, 64], "max_size": 100}
    detector = TorchvisionDetector("fasterrcnn_mobilenet_v3_large_320_fpn", 2, options=options)
    norm = next(module for module in detector.modules() if isinstance(module, nn.BatchNorm2d))
    sizes = []
    detector.network.backbone.register_forward_hook(lambda module, args, out: sizes.append(args[0].shape[-2:]))
    images, targets = random_images((40, 40), (40, 40)), [target([[1.0, 2.0, 30.0, 20.0]])] * 2
    before = norm.running_mean.clone()
    detector.eval()
    for _ in range(4):
        detector.losses(images, targets)
        detector(images)
    assert torch.equal(norm.running_mean, before)
    assert set(sizes) == {(64, 64)}  # the last size
    detector.train().losses(images, targets)
    assert not torch.equal(norm.running_mean, before)
    for _ in range(8):
        detector.losses(images, targets)
    assert set(sizes) == {(64, 64), (32, 32)}


def test_a_wrapped_model_keeps_its_labels():
    backbone = nn.Conv2d(3, 8, 16, 16)
    backbone.out_channels = 8
    anchors = torchvision.models.detection.anchor_utils.AnchorGenerator(((16, 32, 48),), ((1.0,),))
    model = shake(RetinaNet(backbone, 5, anchor_generator=anchors, min_size=64, max_size=100))
    images = random_images(*SIZES)
    with torch.no_grad():
        expected = model.eval()([image / 255 for image in images])
    detector = TorchvisionDetector.wrap(model, 2, labels=[4, 1]).eval()
    assert detector.backbone is backbone
    for mine, other in zip(detector(images), expected, strict=True):
        kept = (other["labels"] == 4) | (other["labels"] == 1)
        assert torch.allclose(mine["boxes"], other["boxes"][kept])
        assert torch.equal(mine["labels"], (other["labels"][kept] == 1).long())
    targets = random_targets(SIZES, 2)
    their_targets = [{**one, "labels": torch.tensor([4, 1])[one["labels"]]} for one in targets]
    assert_same_losses(
        detector.losses(images, targets), model.train()([image / 255 for image in images], their_targets)
    )
    whole = TorchvisionDetector.wrap(model, 5).eval()
    assert_same_detections(whole(images), expected, range(5))
    with pytest.raises(TypeError, match="model.*got Linear"):
        TorchvisionDetector.wrap(nn.Linear(1, 1), 2)
    with pytest.raises(ValueError, match=r"labels.*2 different.*got \[1, 1\]"):
        TorchvisionDetector.wrap(model, 2, labels=[1, 1])


def test_thresholds_can_be_set():
    detector = TorchvisionDetector("fasterrcnn_mobilenet_v3_large_320_fpn", 3, options=SMALL).eval()
    shake(detector.network)
    images = random_images((64, 64))
    (detected,) = detector(images)
    median = float(detected["scores"][len(detected["scores"]) // 2])
    detector.score_threshold = median
    (fewer,) = detector(images)
    assert 0 < len(fewer["scores"]) < len(detected["scores"])
    assert fewer["scores"].min() > median
    detector.max_detections, detector.nms_iou = 2, 0.99
    assert len(detector(images)[0]["scores"]) == 2
    assert (detector.score_threshold, detector.max_detections, detector.nms_iou) == (median, 2, 0.99)


@pytest.fixture
def published(monkeypatch):
    """Replace downloads by random weights of the same network."""

    def state(entry, *args, **kwargs):
        names = torchvision.models.list_models()
        name = next(name for name in names if torchvision.models.get_model_weights(name) is type(entry))
        torch.manual_seed(2)
        categories = entry.meta["categories"]
        classes = 1000 if categories is None else len(categories)
        no_backbone_weights = {"weights_backbone": None} if name in NAMES else {}
        model = get_model(name, weights=None, num_classes=classes, **no_backbone_weights)
        return (shake(model) if name in NAMES else model).state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", state)


def fingerprint(network):
    """Names and shapes of tensors, trained parameters, and the kind of each norm."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    norms = {
        name: (type(module).__name__, module.eps)
        for name, module in network.named_modules()
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d))
    }
    return shapes, trained, norms


LIGHT = ("fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large")


@pytest.mark.parametrize(
    "name", [name if name in LIGHT else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_with_published_weights_the_network_equals_torchvisions(name, published):
    theirs = get_model(name, weights="DEFAULT")
    detector = TorchvisionDetector(name, 80, weights="COCO_V1")
    assert fingerprint(detector.network) == fingerprint(theirs)
    state = theirs.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in detector.network.state_dict().items())
    with skip_pretrained():
        assert fingerprint(TorchvisionDetector(name, 80, weights="COCO_V1").network) == fingerprint(theirs)
    # ids 12, 26, 29, 30, 45, 66, 68, 69, 71 and 83 are not in use
    assert detector.labels[:13] == (*range(1, 12), 13, 14)
    assert detector.labels[-1] == 90
    assert len(detector.labels) == 80


@pytest.mark.parametrize(
    ("name", "weights", "layers"),
    [
        ("fasterrcnn_resnet50_fpn", "IMAGENET1K_V1", 5),
        pytest.param("fasterrcnn_resnet50_fpn_v2", "IMAGENET1K_V1", 2, marks=pytest.mark.slow),
        ("fasterrcnn_mobilenet_v3_large_fpn", "IMAGENET1K_V1", 4),
        pytest.param("ssd300_vgg16", "IMAGENET1K_FEATURES", None, marks=pytest.mark.slow),
        pytest.param("ssd300_vgg16", "IMAGENET1K_FEATURES", 0, marks=pytest.mark.slow),
    ],
)
def test_backbone_weights_are_loaded_and_first_layers_frozen(name, weights, layers, published):
    theirs = get_model(name, weights_backbone=weights, num_classes=4, trainable_backbone_layers=layers)
    detector = TorchvisionDetector(name, 3, backbone_weights=weights, trainable_layers=layers)
    assert fingerprint(detector.network) == fingerprint(theirs)
    loaded = detector.backbone.state_dict()
    expected = getattr(theirs.backbone, "body", theirs.backbone).state_dict()
    # SSD's later layers are new
    count = sum(torch.equal(value, expected[key]) for key, value in loaded.items())
    assert count >= (27 if name.startswith("ssd") else len(expected))


def test_published_ids_become_classes_and_unused_ids_are_dropped(published):
    detector = TorchvisionDetector("retinanet_resnet50_fpn", 80, weights="COCO_V1", options=SMALL).eval()
    images = random_images(*SIZES)
    with torch.no_grad():
        detector.network.head.classification_head.cls_logits.bias.view(9, 91)[:, [0, 12]] += 0.5
        outputs = detector.network.eval()([image / 255 for image in images])
    assert any(label in (0, 12) for output in outputs for label in output["labels"].tolist())
    kept = []
    for output in outputs:
        used = torch.isin(output["labels"], torch.tensor(detector.labels))
        kept.append({name: value[used] for name, value in output.items()})
    assert_same_detections(detector(images), kept, detector.labels)
    assert TorchvisionDetector("fcos_resnet50_fpn", 90, weights="COCO_V1").labels == tuple(range(1, 91))


def test_with_other_classes_all_but_the_scores_is_loaded(published):
    name = "fasterrcnn_resnet50_fpn"
    state = get_model(name, weights="DEFAULT").state_dict()
    loaded = TorchvisionDetector(name, 7, weights="COCO_V1").network.state_dict()
    other = {
        key for key, value in loaded.items() if value.shape != state[key].shape or not torch.equal(value, state[key])
    }
    scores = ("cls_score.weight", "cls_score.bias", "bbox_pred.weight", "bbox_pred.bias")
    assert other == {f"roi_heads.box_predictor.{name}" for name in scores}
    assert loaded["roi_heads.box_predictor.cls_score.weight"].shape == (8, 1024)


def test_a_checkpoint_of_ours_is_loaded_with_any_prefix(tmp_path):
    name = "ssdlite320_mobilenet_v3_large"
    trained = TorchvisionDetector(name, 3)
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {f"model.{key}": value for key, value in trained.state_dict().items()}}, path)
    again = TorchvisionDetector(name, 3, weights=str(path))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in trained.state_dict().items())
    with pytest.raises(ValueError, match="weights.*does not match.*'fasterrcnn_mobilenet_v3_large_fpn'"):
        TorchvisionDetector("fasterrcnn_mobilenet_v3_large_fpn", 3, weights=str(path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fasterrcnn_resnet5_fpn"}, "did you mean 'fasterrcnn_resnet50_fpn'"),
        ({"name": "maskrcnn_resnet50_fpn"}, "name.*got 'maskrcnn_resnet50_fpn'"),
        ({"name": "ssd300_vgg16", "weights": "COCO_V2"}, "did you mean 'COCO_V1'"),
        (
            {"name": "ssd300_vgg16", "weights": "DEFAULT", "backbone_weights": "DEFAULT"},
            "backbone_weights: has no effect.*got 'DEFAULT'",
        ),
        ({"name": "ssd300_vgg16", "trainable_layers": 2}, "trainable_layers.*got 2 without"),
        ({"name": "ssdlite320_mobilenet_v3_large", "backbone_weights": "DEFAULT"}, "backbone_weights.*got 'DEFAULT'"),
        (
            {"name": "retinanet_resnet50_fpn", "options": {"min_sise": 64}},
            "options.*RetinaNet, got 'min_sise'; did you mean 'min_size'",
        ),
        ({"name": "ssd300_vgg16", "options": {"num_classes": 4}}, "options.*SSD, got 'num_classes'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionDetector(num_classes=3, **arguments)


def test_too_many_trainable_layers(published):
    name = "fasterrcnn_mobilenet_v3_large_fpn"
    with pytest.raises(ValueError, match=f"trainable_layers.*6 for '{name}', got 7"):
        TorchvisionDetector(name, 3, weights="COCO_V1", trainable_layers=7)


def test_weights_that_cannot_be_downloaded_are_named_by_their_key(monkeypatch):
    def unreachable(self, *args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    for make, key in (
        (lambda: FasterRCNN(80, "resnet50", detector_weights="COCO_V1"), "detector_weights: FasterRCNN_ResNet50_FPN"),
        (lambda: TorchvisionDetector("ssd300_vgg16", 90, "COCO_V1"), "weights: SSD300_VGG16_Weights.COCO_V1"),
        (lambda: SSD300.from_torchvision(), "weights: SSD300_VGG16_Weights.COCO_V1"),
        (
            lambda: TorchvisionDetector("ssd300_vgg16", 90, backbone_weights="IMAGENET1K_FEATURES"),
            "backbone_weights: VGG16_Weights.IMAGENET1K_FEATURES",
        ),
    ):
        with pytest.raises(ConnectionError) as caught:
            make()
        assert str(caught.value).startswith(key) and "could not be downloaded (no route)" in str(caught.value)
        assert "or give the path of a file" in str(caught.value)
