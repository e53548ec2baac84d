"""Training step and inference of Faster R-CNN, ResNet-50 with a pyramid, at 800 pixels, compared with torchvision.

The peer is torchvision's reference as its training script builds it: frozen batch normalization, three of five layers
of the trunk trained, float images. striate's side is `striate.models.FasterRCNN` as in the experiment, with the same
weights, channels-last as set by `Task`, and uint8 images. Both resize, detect and train on the same images, alternately
in one process; the first losses must agree. There is one image per step, so that a step takes seconds instead of a
minute on two cores.

On a GPU: striate in bfloat16 with a compiled trunk, compared with the reference as it is, and with autocast.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as ReferenceFasterRCNN
from torchvision.models.detection import MaskRCNN as ReferenceMaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from striate.benchmarks.harness import Clock, Goal, Row, interleave, time_call
from striate.benchmarks.training_step import compare
from striate.models import FasterRCNN, TorchvisionBackbone
from striate.models.instance import MaskRCNN

SIZE = (600, 800)  # resized to 800 x 1066
CLASSES = 90
OBJECTS = 7  # about as many as an image of COCO
LR = 1e-4  # too small to change what is computed
AT_MOST = Goal(1.0, at_least=False)
AT_MOST_ON_GPU = Goal(0.7, at_least=False)
TOLERANCE = 0.1  # of the first losses: the two sides sample anchors with different random numbers


Network = Literal["Faster R-CNN", "Mask R-CNN"]


def make_reference(network: Network = "Faster R-CNN") -> ReferenceFasterRCNN:
    """Make torchvision's model, with random weights that keep activations in range."""
    torch.manual_seed(0)
    trunk = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    for name, buffer in trunk.named_buffers():
        if name.endswith("bn3.weight"):
            buffer.fill_(0.2)  # otherwise each block with frozen norms would double the activations
    kind = ReferenceFasterRCNN if network == "Faster R-CNN" else ReferenceMaskRCNN
    return kind(trunk, num_classes=CLASSES + 1)


def make_ours(reference: nn.Module) -> FasterRCNN:
    """Make striate's model with the same weights, as in ``detection/faster_rcnn_resnet50_fpn_coco``, or its like."""
    kind = MaskRCNN if isinstance(reference, ReferenceMaskRCNN) else FasterRCNN
    backbone = TorchvisionBackbone("resnet50", frozen_stages=2, freeze_norm=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.pth"
        torch.save(reference.state_dict(), path)
        model = kind(CLASSES, backbone, detector_weights=str(path))
    return model.to(memory_format=torch.channels_last)


def make_batch(images: int, device: str) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Make images of smooth noise, ``[3, H, W]`` each, and targets: boxes ``[OBJECTS, 4]``, labels, filled masks."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(images, 3, SIZE[0] // 8, SIZE[1] // 8, generator=generator)
    pixels = (nn.functional.interpolate(coarse, size=SIZE, mode="bilinear") * 255).to(torch.uint8)
    corner = torch.rand(images, OBJECTS, 2, generator=generator) * torch.tensor([500.0, 350.0])
    side = 20 + torch.rand(images, OBJECTS, 2, generator=generator) * torch.tensor([280.0, 220.0])
    labels = torch.randint(0, CLASSES, (images, OBJECTS), generator=generator)
    boxes = torch.cat([corner, corner + side], -1)
    rows, columns = torch.arange(SIZE[0])[:, None], torch.arange(SIZE[1])
    x1, y1, x2, y2 = boxes[..., None, None].unbind(2)  # [images, OBJECTS, 1, 1] each
    masks = ((columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2)).to(torch.uint8)
    targets = ({"boxes": b, "labels": n, "masks": m} for b, n, m in zip(boxes, labels, masks, strict=True))
    return list(pixels.to(device)), [{key: value.to(device) for key, value in one.items()} for one in targets]


class Training:
    """A hand-written training step.

    Attributes:
        first: Sum of the losses of the first step.
    """

    def __init__(self, model: nn.Module, losses: Callable[[], dict[str, Tensor]], device: str, half: bool) -> None:
        self.losses, self.device, self.half = losses, device, half
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(trained, LR, momentum=0.9, weight_decay=1e-4)
        self.first: float | None = None

    def __call__(self) -> None:
        """Make one training step on the batch."""
        torch.manual_seed(0)
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            total = torch.stack(list(self.losses().values())).sum()
        total.backward()
        self.optimizer.step()
        if self.device != "cpu":
            torch.cuda.synchronize()
        if self.first is None:
            self.first = float(total.detach())


def detecting(model: nn.Module, images: Any, device: str, half: bool) -> Callable[[], None]:
    """Return a function that runs inference once."""

    def call() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=half):
            model(images)
        if device != "cpu":
            torch.cuda.synchronize()

    return call


def check_same_work(sides: dict[str, Training]) -> None:
    """Check that the first losses of all sides agree within `TOLERANCE`.

    Raises:
        RuntimeError: If they differ.
    """
    losses = {name: side.first for name, side in sides.items() if side.first is not None}
    low, high = min(losses.values()), max(losses.values())
    if not high - low <= TOLERANCE * high:
        raise RuntimeError(f"the first losses differ: {losses}")


def measure(network: Network, images: int, device: str, repetitions: int) -> Iterator[dict[str, list[Clock]]]:
    """Time striate and the reference, on a GPU also the reference with autocast: training steps, then inference."""
    reference = make_reference(network).to(device)
    ours = make_ours(reference).to(device)
    gpu = device != "cpu"
    if gpu:
        ours.backbone.compile(dynamic=True)
    pixels, targets = make_batch(images, device)
    floats = [image / 255 for image in pixels]
    theirs = [{**target, "labels": target["labels"] + 1} for target in targets]
    ours.train()
    reference.train()
    training = {
        "ours": Training(ours, partial(ours.losses, pixels, targets), device, half=gpu),
        "peer": Training(reference, partial(reference, floats, theirs), device, half=False),
    }
    if gpu:
        training["autocast"] = Training(reference, partial(reference, floats, theirs), device, half=True)
    warm_up = 5 if gpu else 1
    steps = interleave({name: partial(time_call, side) for name, side in training.items()}, repetitions, warm_up)
    check_same_work(training)
    yield steps
    ours.eval()
    reference.eval()
    passes = {"ours": detecting(ours, pixels, device, gpu), "peer": detecting(reference, floats, device, False)}
    if gpu:
        passes["autocast"] = detecting(reference, floats, device, True)
    yield interleave({name: partial(time_call, call) for name, call in passes.items()}, repetitions, warm_up)


def rows_for(what: str, measured: dict[str, list[Clock]], goal: Goal) -> list[Row]:
    """Compare striate with the reference and, if it was measured, with the reference under autocast."""
    rows = compare(what, measured["ours"], measured["peer"], goal)
    if "autocast" in measured:
        rows += compare(f"{what}; peer: reference with autocast", measured["ours"], measured["autocast"])
    return rows


def run(network: Network = "Faster R-CNN", cpu_goal: Goal = AT_MOST) -> Iterator[Row]:
    """Measure on the CPU and, if there is one, on a GPU; yield each row as soon as it is measured.

    Args:
        network: The network.
        cpu_goal: Goal of the ratio of times on the CPU.
    """
    name, parts = f"{network} R50-FPN, 800 px", ("training step", "inference")
    for part, measured in zip(parts, measure(network, images=1, device="cpu", repetitions=5), strict=True):
        yield from rows_for(f"{part} ({name})", measured, cpu_goal)
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
        for part, measured in zip(parts, measure(network, images=8, device="cuda", repetitions=20), strict=True):
            yield from rows_for(f"{part} ({name}, batch 8, {gpu})", measured, AT_MOST_ON_GPU)
