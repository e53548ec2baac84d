"""Training on a GPU: many objects, one-process DDP, and speed and memory compared with torchvision's and timm's loops.

The parts of ``python -m benchmarks gpu`` after those of `gpu_networks`. On a CPU with ``small`` they only show that the
script runs.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection as tv

from striate import models as m
from striate.benchmarks import detection_step
from striate.benchmarks.gpu_networks import ALLOWED, TOLERANCES, make
from striate.benchmarks.gpu_settings import (
    PACKAGES_OF_TASKS,
    Settings,
    guarded,
    missing,
    random_images,
    random_targets,
    skipped,
)
from striate.benchmarks.harness import Clock, Goal, Row, elapsed, interleave, median_ratio, read_clock, time_call
from striate.benchmarks.training_case import MEAN, STD

CLASSES = 90
FASTER = Goal(0.7, at_least=False)
NOT_MORE = Goal(1.0, at_least=False)
AHEAD = Goal(1.0, at_least=True)
OBJECTS = {"Faster R-CNN": 5000, "RetinaNet": 5000, "FCOS": 5000, "Mask R-CNN": 1000, "FCIS": 1000, "CondInst": 1000}
"""Network -> number of objects in its image."""
PEERS: dict[str, Callable[..., nn.Module]] = {
    "Faster R-CNN": tv.fasterrcnn_resnet50_fpn,
    "RetinaNet": tv.retinanet_resnet50_fpn,
    "FCOS": tv.fcos_resnet50_fpn,
    "Mask R-CNN": tv.maskrcnn_resnet50_fpn,
}


def objects(settings: Settings) -> Iterator[Row]:
    """Measure the peak memory of a training step on one image with very many objects; torchvision's too."""
    for name in ("Mask R-CNN", "FCIS") if settings.small else OBJECTS:
        count = OBJECTS[name]
        what = f"peak memory of a training step, {count:,} objects ({name}, ResNet-50)"
        yield from guarded(what, partial(_objects, what, name, 20 if settings.small else count, settings))


def _objects(what: str, name: str, count: int, settings: Settings) -> Iterator[Row]:
    side = 64 if settings.small else 800
    sizes = [(side, side * 4 // 3)]
    backbone = m.TorchvisionBackbone("resnet50", frozen_stages=2, freeze_norm=True)
    kind = {"Faster R-CNN": m.FasterRCNN, "Mask R-CNN": m.MaskRCNN, "CondInst": m.CondInst}.get(name)
    make_model: Callable[..., m.Detector] = kind or getattr(m, name)
    options = {"resize": m.ResizeAndPad(side, size_divisible=16)} if name == "FCIS" else {"min_size": side}
    model = make_model(CLASSES, backbone, **options).to(settings.device).to(memory_format=torch.channels_last).train()
    batch = partial(random_targets, sizes, count, CLASSES, settings.device, largest=0.05, masks=OBJECTS[name] < 5000)

    def ours() -> None:
        with torch.autocast(settings.device, torch.bfloat16):
            loss = torch.stack(list(model.losses(random_images(sizes, settings.device), batch()).values())).sum()
        loss.backward()

    used = settings.peak_memory(ours)
    if name not in PEERS:
        yield Row(what, f"{used:.0f} MB")
        return
    model.cpu()
    reference = PEERS[name](weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=side)
    reference.to(settings.device).train()

    def theirs() -> None:
        targets = [{**target, "labels": target["labels"] + 1} for target in batch()]
        floats = [image / 255 for image in random_images(sizes, settings.device)]
        with torch.autocast(settings.device, torch.bfloat16):
            torch.stack(list(reference(floats, targets).values())).sum().backward()

    try:
        peer = settings.peak_memory(theirs)
    except torch.OutOfMemoryError:
        available = torch.cuda.get_device_properties(0).total_memory / 2**20
        yield Row(what, f"{used:.0f} MB", f"more than {available:.0f} MB", used / available, NOT_MORE)
        return
    yield Row(what, f"{used:.0f} MB", f"{peer:.0f} MB", used / peer, NOT_MORE)


class SumOfLosses(nn.Module):
    """A detector whose `forward` returns the sum of its losses, a scalar, so that DDP can wrap it."""

    def __init__(self, model: m.Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        """The sum of the losses for images ``[3, H_i, W_i]``: a scalar."""
        return torch.stack(list(self.model.losses(images, targets).values())).sum()


def ddp(settings: Settings) -> Iterator[Row]:
    """Compare gradients under one-process DDP with those without; then train through task and Trainer under DDP."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{Path(folder) / 'store'}"
        torch.distributed.init_process_group("nccl" if settings.gpu else "gloo", store, rank=0, world_size=1)
        try:
            for name in ("Mask R-CNN", "FCIS", "CondInst"):
                yield from guarded(f"one-process DDP, {name}", partial(_ddp, name, settings))
        finally:
            torch.distributed.destroy_process_group()
    what = "one-process DDP through task and Trainer, Mask R-CNN: weights after two steps against those without DDP"
    if absent := missing(PACKAGES_OF_TASKS):
        yield skipped(what, absent)
    else:
        yield from guarded(what, partial(_trainer_ddp, what, settings))


def _ddp(name: str, settings: Settings) -> Iterator[Row]:
    device, sizes = settings.device, [(64, 96), (96, 64)]
    network = make(name).to(device)
    assert isinstance(network, m.Detector)
    loss = SumOfLosses(network)
    # with objects, and without: every parameter must get a gradient in each step
    batches = [(random_images(sizes, device), random_targets(sizes, count, 3, device)) for count in (4, 0, 2)]
    wrapped = nn.parallel.DistributedDataParallel(loss, device_ids=[0] if settings.gpu else None)
    worst = 0.0
    for images, targets in batches:
        gradients = []
        for module in (loss, wrapped):
            network.zero_grad()
            torch.manual_seed(0)
            module(images, targets).backward()
            gradients.append([p.grad.detach().clone() for p in network.parameters() if p.grad is not None])
        scale = max(float(gradient.abs().max()) for gradient in gradients[0])
        for alone, shared in zip(*gradients, strict=True):
            worst = max(worst, float((alone - shared).abs().max()) / scale)
    what = f"one-process DDP, {name}: gradients against those without DDP, with and without objects"
    yield Row(what, f"{worst:.1e}", "tolerance", worst / TOLERANCES["gradient"], ALLOWED)


def _trainer_ddp(what: str, settings: Settings) -> Iterator[Row]:
    import pytorch_lightning as pl

    from striate.tasks import InstanceSegmentation

    sizes = [(64, 96), (96, 64)]
    batches = [
        {
            "image": random_images(sizes, "cpu"),
            "target": [
                {**target, **{name: torch.zeros(count, dtype=torch.bool) for name in ("iscrowd", "difficult")}}
                | {"image_id": torch.tensor(0), "area": torch.ones(count)}
                for target in random_targets(sizes, count, 3, "cpu")
            ],
            "index": torch.arange(2),
            "unreadable": [],
        }
        for count in (4, 0)
    ]
    weights = []
    for strategy in ("auto", "ddp"):
        network = make("Mask R-CNN")
        task = InstanceSegmentation(network, optimizer=partial(torch.optim.SGD, lr=1e-3))
        trainer = pl.Trainer(
            accelerator="gpu" if settings.gpu else "cpu",
            devices=1,
            strategy=strategy,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        torch.manual_seed(0)
        trainer.fit(task, torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
        weights.append(torch.cat([p.detach().cpu().flatten() for p in network.parameters()]))
    found = float((weights[0] - weights[1]).abs().max() / weights[0].abs().max())
    yield Row(what, f"{found:.1e}", "tolerance", found / TOLERANCES["gradient"], ALLOWED)


def steps(network: detection_step.Network, settings: Settings) -> Iterator[Row]:
    """Measure training step, inference and their peak memory, compared with torchvision's reference."""
    images, repetitions, warm_up, side = (1, 1, 0, 64) if settings.small else (8, 15, 4, 800)
    pair = detection_step.Pair.make(network, images, settings.device, side, settings.backend)
    name = f"{network} R50-FPN, {side} px, batch {images}"
    for part, times in zip(detection_step.PARTS, detection_step.measure(pair, repetitions, warm_up), strict=True):
        yield from detection_step.rows_for(f"{part} ({name})", times, FASTER)
        calls = pair.training() if part == detection_step.PARTS[0] else pair.inference()
        memory = {side: settings.peak_memory(call) for side, call in calls.items()}
        for peer in sorted(memory.keys() - {"ours"}, reverse=True):
            what = f"peak memory of {part} ({name}){'; peer: reference with autocast' if peer == 'autocast' else ''}"
            mine, theirs = (f"{memory[side]:.0f} MB" for side in ("ours", peer))
            yield Row(what, mine, theirs, memory["ours"] / memory[peer])


class ImageLoop:
    """Training steps of a classifier on batches of uint8 images from the CPU, in bfloat16 and channels-last.

    Args:
        model: The network, of pixels in uint8 or of normalized images.
        optimizer: Updates the network.
        batches: Pairs of images ``[B, 3, H, W]``, uint8, and labels ``[B]``, in pinned memory on a GPU.
        settings: The device.
        normalize: Whether images are normalized here, on the device, as timm's loader does.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: list[tuple[Tensor, Tensor]],
        settings: Settings,
        normalize: bool,
    ) -> None:
        """Set the network to training mode; images are ``[B, 3, H, W]``."""
        self.model, self.optimizer, self.batches, self.settings = model.train(), optimizer, batches, settings
        self.statistics = [torch.tensor(v, device=settings.device)[:, None, None] * 255 for v in (MEAN, STD)]
        self.normalize = normalize

    def __call__(self) -> None:
        """Make one step on each batch."""
        device = self.settings.device
        for images, labels in self.batches:
            pixels, target = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            if self.normalize:
                mean, std = self.statistics
                pixels = pixels.float().sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16):
                loss = F.cross_entropy(self.model(pixels), target)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.settings.synchronize()


def resnet50(settings: Settings) -> Iterator[Row]:
    """Measure images per second of ResNet-50 in bfloat16, compared with timm's loop with its options for speed."""
    import timm
    from timm.optim import create_optimizer_v2

    size, pixels, count, repetitions = (2, 64, 1, 1) if settings.small else (256, 224, 8, 6)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        images = torch.randint(0, 256, (size, pixels, pixels, 3), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 1000, (size,), generator=generator)
        pair = (images.permute(0, 3, 1, 2), labels)
        batches.append((pair[0].pin_memory(), pair[1].pin_memory()) if settings.gpu else pair)
    sides = {}
    for side in ("ours", "peer"):
        network = m.Classifier("resnet50", 1000) if side == "ours" else timm.create_model("resnet50", num_classes=1000)
        network.to(settings.device).to(memory_format=torch.channels_last)
        optimizer: torch.optim.Optimizer
        if side == "ours":
            optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=1e-4, fused=True)
        else:
            optimizer = create_optimizer_v2(network, opt="momentum", lr=0.1, momentum=0.9, weight_decay=1e-4)
        sides[side] = ImageLoop(network, optimizer, batches, settings, normalize=side == "peer")
    name = f"ResNet-50, bfloat16, {pixels} px, batch {size}; peer: timm with --amp --channels-last"
    times = interleave({side: partial(time_call, loop) for side, loop in sides.items()}, repetitions)
    yield _images_per_second(f"images/s, training step ({name})", times, size * count, AHEAD)
    memory = {side: settings.peak_memory(loop) for side, loop in sides.items()}
    mine, theirs = (f"{memory[side]:.0f} MB" for side in ("ours", "peer"))
    yield Row(f"peak memory ({name})", mine, theirs, memory["ours"] / memory["peer"], NOT_MORE)
    what = f"images/s through task and Trainer ({name})"
    if absent := missing(PACKAGES_OF_TASKS):
        yield skipped(what, absent)
    else:
        trainer = partial(_trainer_times, batches, repetitions, settings)
        yield from guarded(what, lambda: [_images_per_second(what, {**times, "ours": trainer()}, size * count, AHEAD)])
    if not settings.small:
        for loop in sides.values():
            loop.model.compile()
        times = interleave({side: partial(time_call, loop) for side, loop in sides.items()}, repetitions, warm_up=2)
        yield _images_per_second(f"the same training step, both compiled ({name})", times, size * count)


def _images_per_second(what: str, times: dict[str, list[Clock]], images: int, goal: Goal | None = None) -> Row:
    """Compare the speeds of both sides, for this number of images per measurement."""
    ours, peer = ([images / clock.wall for clock in times[side]] for side in ("ours", "peer"))
    mine, theirs = (f"{sorted(speeds)[len(speeds) // 2]:.0f}" for speeds in (ours, peer))
    return Row(what, mine, theirs, median_ratio(ours, peer), goal)


def _trainer_times(batches: list[tuple[Tensor, Tensor]], repetitions: int, settings: Settings) -> list[Clock]:
    """Train ResNet-50 on images ``[B, 3, H, W]`` through the Trainer; return the time of each pass after the first."""
    import pytorch_lightning as pl

    from striate.tasks import Classification

    class Passes(pl.Callback):
        """Read the clock after each pass over the batches."""

        def __init__(self) -> None:
            self.readings: list[Any] = []

        def on_train_batch_end(self, *_: Any) -> None:
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps % len(batches) == 0:
                settings.synchronize()
                self.readings.append(read_clock())

    passes = Passes()
    samples = [
        {"image": images, "label": labels, "index": torch.arange(len(labels)), "unreadable": []}
        for images, labels in batches
    ]
    task = Classification(
        m.Classifier("resnet50", 1000), optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4)
    )
    trainer = pl.Trainer(
        accelerator="gpu" if settings.gpu else "cpu",
        devices=1,
        precision="bf16-mixed",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[passes],
    )
    trainer.fit(task, torch.utils.data.DataLoader(samples * (repetitions + 1), batch_size=None))  # type: ignore[arg-type]
    return elapsed(passes.readings)
