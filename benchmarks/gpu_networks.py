"""Every kind of network on a GPU: its results against the CPU's, channels-last and bfloat16, and compiled trunks.

Networks are small and have random weights, scaled so that their scores differ widely. Two-stage networks train on all
anchors and regions, so that losses do not depend on random numbers, which differ between devices. Near ties (of two
scores, or of an IoU and a threshold) may still be decided differently: the five percent of detections that agree least
do not count, and the best of up to three sets of weights does. An error of the code affects all three.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate import models as m
from striate.benchmarks.gpu_settings import Settings, guarded, random_images, random_targets
from striate.benchmarks.harness import Goal, Row

CLASSES = 3
SIZES = [(64, 96), (96, 64)]
ALL = 10**6  # samples: all of them
ALLOWED = Goal(1.0, at_least=False)
TOLERANCES = {"outputs": 1e-4, "masks": 2e-3, "loss": 1e-4, "gradient": 1e-3}
"""Differences that float32 explains: relative to the largest output, in pixels of masks, relative to loss and norm."""
BFLOAT16 = 0.15
"""Relative difference of a loss that 8 bits of precision explain; proposals differ too."""

_PYRAMID: dict[str, Any] = {"min_size": None, "max_size": None, "fpn_channels": 64, "finest_stride": 4}
_TWO_STAGE: dict[str, Any] = {**_PYRAMID, "hidden": 64, "proposals": (200, 100), "rpn_samples": ALL, "roi_samples": ALL}
_SSD: dict[str, Any] = {"extra": [m.ExtraLayer(32)], "batch_norm": True}


def _rpn(**changes: Any) -> m.RPNSettings:
    return m.RPNSettings(**{"anchor_scales": (1.0, 2.0, 4.0), "samples": ALL, "min_size": 4.0, **changes})


def _resize() -> m.ResizeAndPad:
    return m.ResizeAndPad(size_divisible=16)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-18": lambda: m.Classifier("resnet18", CLASSES),
    "U-Net": lambda: m.UNet("resnet18", CLASSES),
    "Faster R-CNN": lambda: m.FasterRCNN(CLASSES, m.PlainCNN((16, 16, 32, 32)), **_TWO_STAGE),
    "Mask R-CNN": lambda: m.MaskRCNN(
        CLASSES, m.PlainCNN((16, 16, 32, 32)), mask_channels=32, canonical_scale=56, **_TWO_STAGE
    ),
    "FCIS": lambda: m.FCIS(
        CLASSES,
        m.PlainCNN((16, 32, 32)),
        output_stride=8,
        resize=_resize(),
        channels=64,
        rpn_channels=32,
        rpn=_rpn(),
        roi=m.FCISSettings(samples=ALL, hard_examples=False),
    ),
    "CondInst": lambda: m.CondInst(
        CLASSES, m.PlainCNN((16, 16, 32, 32)), mask_channels=16, max_mask_samples=ALL, **_PYRAMID
    ),
    "Mask R-CNN v2": lambda: m.MaskRCNN(
        CLASSES, m.PlainCNN((16, 16, 32, 32)), mask_channels=32, canonical_scale=56, conv_heads=True, **_TWO_STAGE
    ),
    "Mask R-CNN C4": lambda: m.MaskRCNNC4(
        CLASSES,
        m.TorchvisionBackbone("resnet18"),
        min_size=None,
        max_size=None,
        rpn_channels=32,
        rpn=_rpn(),
        roi=m.RoISettings(samples=ALL),
    ),
    "Faster R-CNN, one map": lambda: m.SingleMapFasterRCNN(
        CLASSES,
        m.PlainCNN((16, 32, 32)),
        resize=_resize(),
        rpn_channels=32,
        hidden=32,
        rpn=_rpn(),
        roi=m.RoISettings(samples=ALL),
    ),
    "RetinaNet": lambda: m.RetinaNet(CLASSES, m.PlainCNN((16, 16, 32, 32)), **_PYRAMID),
    "FCOS": lambda: m.FCOS(CLASSES, m.PlainCNN((16, 16, 32, 32)), **_PYRAMID),
    "FCOS, paper": lambda: m.FCOS(
        CLASSES, m.PlainCNN((16, 16, 32, 32)), center_locations=True, level_scales=True, **_PYRAMID
    ),
    "SSD": lambda: m.SSD(CLASSES, m.PlainCNN((16, 32), out_indices=(1,)), 64, **_SSD),
    "YOLO": lambda: m.YOLOv1(CLASSES, m.PlainCNN((8, 8, 8)), image_size=64, grid_size=8, convs=(8,), hidden=()),
    "ResNet-50": lambda: m.Classifier("resnet50", CLASSES),
    "MobileNetV3": lambda: m.Classifier("mobilenet_v3_small", CLASSES),
    "EfficientNet": lambda: m.Classifier("efficientnet_b0", CLASSES),
    "ConvNeXt": lambda: m.Classifier("convnext_tiny", CLASSES),
    "Swin": lambda: m.Classifier("swin_t", CLASSES),
    "GoogLeNet": lambda: m.GoogLeNet(CLASSES),
    "AlexNet, two towers": lambda: m.AlexNet(CLASSES, width=0.25, hidden=64, image_size=64),
    "ZFNet": lambda: m.ZFNet(CLASSES, width=0.25, hidden=64, image_size=64),
    "ResNet-20 for CIFAR": lambda: m.Classifier(m.SmallImageResNet(), CLASSES),
    "Localizer": lambda: m.Localizer("resnet18", CLASSES),
    "FCN-8s": lambda: m.FCN8s(CLASSES, m.VGG16FullyConvolutional(width=0.25, hidden=64)),
    "DeepLabV3+": lambda: m.DeepLabV3Plus("resnet18", CLASSES, channels=32),
    "LR-ASPP": lambda: m.LRASPP(CLASSES, "mobilenet_v3_small"),
}
SMALL = tuple(NETWORKS)[:6]
"""Networks that ``--small`` keeps."""

TRUNKS = ("resnet18", "resnet50", "mobilenet_v3_small", "plain")


class Result(NamedTuple):
    """What a network computed, on the CPU.

    Attributes:
        outputs: Detections per image, or tensors.
        loss: Sum of the losses.
        gradient: Norm of the gradient of all parameters.
    """

    outputs: list[Any]
    loss: float
    gradient: float


def make(name: str, seed: int = 0) -> nn.Module:
    """Make a network in evaluation mode whose scores differ widely; norms have the statistics of its input."""
    torch.manual_seed(seed)
    network = NETWORKS[name]()
    with torch.no_grad():
        for path, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                std = (2 / layer.weight[0].numel()) ** 0.5
                if layer.weight.numel() > 1 and layer.weight.std() < std / 2:  # layers that begin near 0
                    layer.weight.normal_(0, std * (0.2 if "box" in path or "reg" in path else 0.7))
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        _losses(network.train(), "cpu")
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
        norm.running_var.clamp_(min=0.1)  # type: ignore[union-attr]
    for part in (network, getattr(getattr(network, "network", None), "roi_heads", None)):
        if hasattr(part, "score_threshold"):
            part.score_threshold = 0.0  # type: ignore[union-attr]
    return network.eval()


def _losses(network: nn.Module, device: str) -> Tensor:
    """The loss of a network for two images: a scalar."""
    if isinstance(network, m.Detector):
        images, targets = random_images(SIZES, device), random_targets(SIZES, 4, CLASSES, device)
        return torch.stack(list(network.losses(images, targets).values())).sum()
    output = network(torch.stack(random_images([(64, 64)] * 2, device)))
    logits = output if isinstance(output, Tensor) else output[0]
    labels = torch.arange(2 * logits[0, 0].numel(), device=device).reshape(2, *logits.shape[2:]) % CLASSES
    loss = F.cross_entropy(logits.float(), labels)
    return loss if isinstance(output, Tensor) else loss + sum(part.float().mean() for part in output[1:])


def run(network: nn.Module, device: str, half: bool = False) -> Result:
    """Compute a network's outputs, loss and gradient for two images, in evaluation mode."""
    torch.manual_seed(0)
    network.zero_grad()
    with torch.autocast(device, torch.bfloat16, enabled=half):
        loss = _losses(network, device)
        with torch.no_grad():
            if isinstance(network, m.Detector):
                outputs: Any = network(random_images(SIZES, device))
            else:
                outputs = network(torch.stack(random_images([(64, 64)] * 2, device)))
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.float().norm() for gradient in gradients]).norm()
    if isinstance(network, m.Detector):
        listed: list[Any] = [{key: value.cpu() for key, value in one.items()} for one in outputs]
    else:
        listed = [part.float().cpu() for part in ([outputs] if isinstance(outputs, Tensor) else outputs)]
    return Result(listed, float(loss.detach()), float(norm))


def differences(ours: Result, reference: Result) -> dict[str, float]:
    """Return how far two results are apart, by the names of `TOLERANCES`."""
    found = {"outputs": 0.0}
    for mine, other in zip(ours.outputs, reference.outputs, strict=True):
        if isinstance(mine, Tensor):
            found["outputs"] = max(found["outputs"], _relative(mine, other))
            continue
        distances, nearest = _nearest(mine, other)
        if len(distances):
            found["outputs"] = max(found["outputs"], float(distances.sort().values[int(0.95 * (len(distances) - 1))]))
        if "masks" in mine and len(distances):
            first, second = mine["masks"].dense(), other["masks"][nearest].dense()
            union = int((first | second).sum())
            found["masks"] = max(found.get("masks", 0.0), int((first ^ second).sum()) / max(union, 1))
    found["loss"] = abs(ours.loss - reference.loss) / max(abs(reference.loss), 1e-12)
    found["gradient"] = abs(ours.gradient - reference.gradient) / max(reference.gradient, 1e-12)
    return {name: value if value == value else float("inf") for name, value in found.items()}


def _relative(ours: Tensor, reference: Tensor) -> float:
    """The largest difference of two tensors of any shape ``[…]``, relative to the largest value, or to 1."""
    return float((ours - reference).abs().max() / reference.abs().max().clamp(min=1))


def _nearest(ours: dict[str, Tensor], reference: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """For each of M detections the distance of the nearest one of a reference with N, and its index: ``[M]`` each.

    A distance is the largest difference of score and box, boxes as fractions of the image's longer side; infinite
    between classes, and if one side has many more detections.
    """
    if not len(ours["boxes"]) or not len(reference["boxes"]):
        count = len(ours["boxes"])
        return torch.full((count,), float("inf")), torch.zeros(count, dtype=torch.int64)
    columns = [torch.cat([one["boxes"] / max(SIZES[0]), one["scores"][:, None]], 1) for one in (ours, reference)]
    distances = torch.cdist(columns[0], columns[1], p=float("inf"))
    distances[ours["labels"][:, None] != reference["labels"]] = float("inf")
    if abs(len(ours["boxes"]) - len(reference["boxes"])) > 0.05 * len(reference["boxes"]):
        distances[:] = float("inf")
    found = distances.min(1)
    return found.values, found.indices


def _compared(what: str, compare: Callable[[int], tuple[float, str]]) -> Iterator[Row]:
    """Compare up to three sets of weights, by seed, until one agrees; yield the row of the best."""
    best: tuple[float, str] = (float("inf"), "")
    for seed in range(3):
        best = min(best, compare(seed), key=lambda pair: pair[0]) if best[1] else compare(seed)
        if ALLOWED.met(best[0]):
            break
    yield Row(what, best[1], "tolerance", best[0], ALLOWED)


def names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the networks to run."""
    return SMALL if settings.small else tuple(NETWORKS)


def networks(settings: Settings) -> Iterator[Row]:
    """Compare outputs, losses and gradients with the CPU's, network by network."""
    torch.backends.cudnn.allow_tf32 = False

    def compare(name: str, seed: int) -> tuple[float, str]:
        network = make(name, seed)
        reference = run(network, "cpu")
        found = differences(run(network.to(settings.device), settings.device), reference)
        return _worst(found), _described(found)

    for name in names(settings):
        what = f"{name}: {settings.device} against CPU, largest differences"
        yield from guarded(what, partial(_compared, what, partial(compare, name)))


def _worst(found: dict[str, float]) -> float:
    return max(value / TOLERANCES[name] for name, value in found.items())


def _described(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1e}" for name, value in found.items())


def precision(settings: Settings) -> Iterator[Row]:
    """Compare channels-last with contiguous tensors, and bfloat16 with float32, network by network."""
    torch.backends.cudnn.allow_tf32 = False
    device = settings.device

    def compare(name: str, seed: int) -> tuple[float, str]:
        network = make(name, seed).to(device)
        reference = run(network, device)
        network.to(memory_format=torch.channels_last)
        found = differences(run(network, device), reference)
        half = differences(run(network, device, half=True), reference)
        gradient = half["gradient"] if half["gradient"] < 1 else float("inf")
        text = f"channels-last: {_described(found)}; bfloat16: loss {half['loss']:.1%}, gradient {gradient:.0%}"
        return max(_worst(found), half["loss"] / BFLOAT16, gradient), text

    for name in names(settings):
        what = f"{name}: channels-last and bfloat16 against float32"
        yield from guarded(what, partial(_compared, what, partial(compare, name)))


def compiled(settings: Settings) -> Iterator[Row]:
    """Compare compiled trunks with themselves, at three image sizes, forward and backward."""
    torch.backends.cudnn.allow_tf32 = False
    sizes = [(64, 96), (96, 64)] if settings.small else [(128, 192), (160, 128), (192, 256)]

    def compare(name: str) -> Iterator[Row]:
        torch.manual_seed(0)
        trunk = m.build_backbone(name).to(settings.device).eval()
        batches = [torch.stack(random_images([size] * 2, settings.device)) for size in sizes]
        expected = [_maps_and_gradient(trunk, images) for images in batches]
        trunk.compile(dynamic=True, backend=settings.backend)
        found = max(
            _relative(mine, other)
            for images, reference in zip(batches, expected, strict=True)
            for mine, other in zip(_maps_and_gradient(trunk, images), reference, strict=True)
        )
        what = f"compiled {name} against eager, maps and gradients"
        yield Row(what, f"{found:.1e}", "tolerance", found / TOLERANCES["gradient"], ALLOWED)

    for name in TRUNKS[-1:] if settings.small else TRUNKS:
        yield from guarded(f"compiled {name}", partial(compare, name))


def _maps_and_gradient(trunk: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps of images ``[B, 3, H, W]``, and the gradient of the first trained parameter, on the CPU."""
    trunk.zero_grad()
    maps = trunk(images)
    torch.stack([part.float().square().mean() for part in maps]).sum().backward()
    gradient = next(p.grad for p in trunk.parameters() if p.grad is not None)
    return [part.detach().float().cpu() for part in (*maps, gradient)]
