"""Training step and inference of Faster R-CNN, ResNet-50 with a pyramid, at 800 pixels, compared with torchvision.

The peer is torchvision's reference as its training script builds it: frozen batch normalization, three of five layers
of the trunk trained, float images. striate's side is `striate.models.FasterRCNN` as in the experiment, with the same
weights, channels-last as set by `Task`, and uint8 images. Both resize, detect and train on the same images, alternately
in one process; the first losses must agree. There is one image per step, so that a step takes seconds instead of a
minute on two cores.

``python -m benchmarks gpu`` measures the same on a GPU: striate in bfloat16 with a compiled trunk, compared with the
reference as it is, and with autocast.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as ReferenceFasterRCNN
from torchvision.models.detection import MaskRCNN as ReferenceMaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from striate.benchmarks.harness import Clock, Goal, Row, compare, interleave, time_call
from striate.models import FasterRCNN, TorchvisionBackbone
from striate.models.instance import MaskRCNN

SIZE = (600, 800)  # resized to 800 x 1066
CLASSES = 90
OBJECTS = 7  # about as many as an image of COCO
LR = 1e-4  # too small to change what is computed
AT_MOST = Goal(1.0, at_least=False)
PARTS = ("training step", "inference")
TOLERANCE = 0.1  # of the first losses: the two sides sample anchors with different random numbers


Network = Literal["Faster R-CNN", "Mask R-CNN"]


def make_reference(network: Network = "Faster R-CNN", side: int = 800) -> ReferenceFasterRCNN:
    """Make torchvision's model, with random weights that keep activations in range.

    Args:
        network: The network.
        side: Length of the shorter side of resized images, in pixels.
    """
    torch.manual_seed(0)
    trunk = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    for name, buffer in trunk.named_buffers():
        if name.endswith("bn3.weight"):
            buffer.fill_(0.2)  # otherwise each block with frozen norms would double the activations
    kind = ReferenceFasterRCNN if network == "Faster R-CNN" else ReferenceMaskRCNN
    return kind(trunk, num_classes=CLASSES + 1, min_size=side)


def make_ours(reference: nn.Module) -> FasterRCNN:
    """Make striate's model with the same weights, as in ``detection/faster_rcnn_resnet50_fpn_coco``, or its like."""
    kind = MaskRCNN if isinstance(reference, ReferenceMaskRCNN) else FasterRCNN
    backbone = TorchvisionBackbone("resnet50", frozen_stages=2, freeze_norm=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.pth"
        torch.save(reference.state_dict(), path)
        sizes = reference.transform.min_size  # type: ignore[union-attr]
        model = kind(CLASSES, backbone, detector_weights=str(path), min_size=sizes)
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


@dataclass
class Pair:
    """striate's network and torchvision's, on the same batch.

    Attributes:
        ours: striate's; on a GPU it runs under autocast, and its trunk is compiled.
        reference: torchvision's.
        device: ``cpu`` or ``cuda``.
        pixels: Images ``[3, H, W]``, uint8.
        floats: The same images, in [0, 1].
        targets: Targets for striate.
        theirs: The same targets, with torchvision's labels.
    """

    ours: FasterRCNN
    reference: ReferenceFasterRCNN
    device: str
    pixels: list[Tensor]
    floats: list[Tensor]
    targets: list[dict[str, Tensor]]
    theirs: list[dict[str, Tensor]]

    @classmethod
    def make(cls, network: Network, images: int, device: str, side: int = 800, backend: str = "inductor") -> "Pair":
        """Make both networks and a batch of images ``[3, 600, 800]``, whose shorter side becomes `side` pixels."""
        reference = make_reference(network, side).to(device)
        ours = make_ours(reference).to(device)
        if device != "cpu":
            ours.backbone.compile(dynamic=True, backend=backend)
        pixels, targets = make_batch(images, device)
        theirs = [{**target, "labels": target["labels"] + 1} for target in targets]
        return cls(ours, reference, device, pixels, [image / 255 for image in pixels], targets, theirs)

    def training(self) -> dict[str, Training]:
        """Training steps of both, on a GPU also of the reference with autocast."""
        gpu = self.device != "cpu"
        self.ours.train()
        self.reference.train()
        losses = partial(self.reference, self.floats, self.theirs)
        sides = {
            "ours": Training(self.ours, partial(self.ours.losses, self.pixels, self.targets), self.device, half=gpu),
            "peer": Training(self.reference, losses, self.device, half=False),
        }
        if gpu:
            sides["autocast"] = Training(self.reference, losses, self.device, half=True)
        return sides

    def inference(self) -> dict[str, Callable[[], None]]:
        """Inference of both, on a GPU also of the reference with autocast."""
        gpu = self.device != "cpu"
        self.ours.eval()
        self.reference.eval()
        sides = {
            "ours": detecting(self.ours, self.pixels, self.device, gpu),
            "peer": detecting(self.reference, self.floats, self.device, False),
        }
        if gpu:
            sides["autocast"] = detecting(self.reference, self.floats, self.device, True)
        return sides


def measure(pair: Pair, repetitions: int, warm_up: int = 1) -> Iterator[dict[str, list[Clock]]]:
    """Time striate and the reference: training steps, then inference."""
    training = pair.training()
    steps = interleave({name: partial(time_call, side) for name, side in training.items()}, repetitions, warm_up)
    check_same_work(training)
    yield steps
    passes = pair.inference()
    yield interleave({name: partial(time_call, call) for name, call in passes.items()}, repetitions, warm_up)


def rows_for(what: str, measured: dict[str, list[Clock]], goal: Goal) -> list[Row]:
    """Compare striate with the reference and, if it was measured, with the reference under autocast."""
    rows = compare(what, measured["ours"], measured["peer"], goal)
    if "autocast" in measured:
        rows += compare(f"{what}; peer: reference with autocast", measured["ours"], measured["autocast"])
    return rows


def run(network: Network = "Faster R-CNN", goal: Goal = AT_MOST) -> Iterator[Row]:
    """Measure on the CPU, and yield each row as soon as it is measured.

    Args:
        network: The network.
        goal: Goal of the ratio of times.
    """
    measured = measure(Pair.make(network, images=1, device="cpu"), repetitions=5)
    for part, times in zip(PARTS, measured, strict=True):
        yield from rows_for(f"{part} ({network} R50-FPN, 800 px)", times, goal)
