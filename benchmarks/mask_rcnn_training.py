"""Accuracy of Mask R-CNN after the same training as torchvision's: same network, first weights, data, steps.

The network is that of ``detection/faster_rcnn_digits`` with a mask branch, and torchvision's `MaskRCNN` is built from
the same parts. Both are trained on the same batches of DigitScenes with the same optimizer and schedule, from the same
weights, with three seeds each; AP of masks is computed by the same metric. The two differ in the random numbers that
sample anchors and regions, and in pasting. Each run takes about two and a half minutes of CPU time.
"""

import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import MaskRCNN as ReferenceMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from striate.benchmarks.harness import Goal, Row
from striate.datamodules import DigitScenes
from striate.models import MaskRCNN, RunLengths, TorchvisionBackbone
from striate.tasks.metrics import COCOInstances

SEEDS = (0, 1, 2)
STEPS, BATCH, WARM_UP, SCENES = 300, 8, 100, 200
CLASSES, SIDE, FPN, HIDDEN, MASKS, SCALE = 10, 64, 64, 256, 64, 56
ANCHORS, RATIOS = ((16,), (24,), (32,), (48,)), (1.0, 1.5, 2.0)


def make_reference(seed: int) -> ReferenceMaskRCNN:
    """Make torchvision's network with random weights."""
    torch.manual_seed(seed)
    trunk = resnet18(weights=None)
    layers = {"layer1": "0", "layer2": "1", "layer3": "2"}
    levels = list(layers.values())
    return ReferenceMaskRCNN(
        BackboneWithFPN(trunk, layers, [64, 128, 256], FPN),
        min_size=SIDE,
        max_size=SIDE,
        rpn_anchor_generator=AnchorGenerator(ANCHORS, (RATIOS,) * len(ANCHORS)),
        rpn_pre_nms_top_n_train=300,
        rpn_post_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=100,
        rpn_post_nms_top_n_test=100,
        rpn_batch_size_per_image=128,
        box_roi_pool=MultiScaleRoIAlign(levels, 7, 2, canonical_scale=SCALE),
        box_head=TwoMLPHead(FPN * 49, HIDDEN),
        box_predictor=FastRCNNPredictor(HIDDEN, CLASSES + 1),
        box_batch_size_per_image=64,
        mask_roi_pool=MultiScaleRoIAlign(levels, 14, 2, canonical_scale=SCALE),
        mask_head=MaskRCNNHeads(FPN, [MASKS] * 2, 1),
        mask_predictor=MaskRCNNPredictor(MASKS, MASKS, CLASSES + 1),
    )


def make_ours(reference: nn.Module) -> MaskRCNN:
    """Make striate's network with the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.pth"
        torch.save(reference.state_dict(), path)
        return MaskRCNN(
            CLASSES,
            TorchvisionBackbone("resnet18", out_indices=(0, 1, 2, 3)),
            detector_weights=str(path),
            min_size=None,
            max_size=None,
            fpn_channels=FPN,
            anchor_sizes=ANCHORS,
            ratios=RATIOS,
            hidden=HIDDEN,
            proposals=(300, 100),
            rpn_samples=128,
            roi_samples=64,
            canonical_scale=SCALE,
            mask_layers=2,
            mask_channels=MASKS,
        ).to(memory_format=torch.channels_last)


class Theirs(nn.Module):
    """torchvision's network behind the interface of striate's: pixels in uint8, labels from 0, masks as run lengths."""

    def __init__(self, network: ReferenceMaskRCNN) -> None:
        super().__init__()
        self.network = network

    def losses(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The losses of images ``[3, H, W]``: scalars."""
        theirs = [{**target, "labels": target["labels"] + 1} for target in targets]
        losses: dict[str, Tensor] = self.network([image / 255 for image in images], theirs)
        return losses

    def forward(self, images: list[Tensor]) -> list[dict[str, Any]]:
        """The detections in images ``[3, H, W]``."""
        with torch.no_grad():
            detections = self.network([image / 255 for image in images])
        return [
            {**one, "labels": one["labels"] - 1, "masks": RunLengths.from_dense(one["masks"][:, 0] > 0.5)}
            for one in detections
        ]


def train(model: Any, batches: list[dict[str, Any]], seed: int) -> None:
    """Train a network for one step per batch, as in the experiment: SGD, warm-up and a cosine, clipped gradients."""
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, weight_decay=1e-4, nesterov=True)

    def factor(step: int) -> float:
        after = max(step - WARM_UP, 0) / max(len(batches) - WARM_UP, 1)
        return min((step + 1) / WARM_UP, 0.5 * (1 + math.cos(math.pi * after)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        torch.stack(list(model.losses(batch["image"], batch["target"]).values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()


def evaluate(model: Any, batches: list[dict[str, Any]]) -> tuple[float, float]:
    """Return AP50 and AP of the predicted masks."""
    metric = COCOInstances(CLASSES)
    model.eval()
    for batch in batches:
        metric.update(model(batch["image"]), batch["target"])
    result = metric.compute()
    return float(result["map50"]), float(result["map"])


def make_batches(seed: int, steps: int, scenes: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compose the batches of training, in the order of this seed, and those of validation."""
    data = DigitScenes(
        "instance_segmentation",
        SIDE,
        train_size=steps * BATCH,
        val_size=scenes,
        batch_size=BATCH,
        eval_batch_size=50,
        num_workers=0,
        seed=seed,
    )
    data.setup("fit")
    return list(data.train_dataloader()), list(data.val_dataloader())


def run(seeds: tuple[int, ...] = SEEDS, steps: int = STEPS, scenes: int = SCENES) -> Iterator[Row]:
    """Train both networks with each seed, and yield a row with all results."""
    sides: dict[str, Callable[[Any], Any]] = {"ours": make_ours, "peer": Theirs}
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for seed in seeds:
        training, validation = make_batches(seed, steps, scenes)
        for side, make in sides.items():
            model = make(make_reference(seed))
            train(model, training, seed)
            found[side].append(evaluate(model, validation))
            sys.stderr.write(f"seed {seed}, {side}: mask AP50 {found[side][-1][0]:.3f}, AP {found[side][-1][1]:.3f}\n")
    for index, metric in enumerate(("AP50", "AP")):
        ours, peer = ([one[index] for one in found[side]] for side in sides)
        mine, theirs = (", ".join(f"{value:.3f}" for value in values) for values in (ours, peer))
        what = f"mask {metric} of Mask R-CNN after {steps} steps on DigitScenes, seeds {', '.join(map(str, seeds))}"
        ratio = statistics.mean(ours) / max(statistics.mean(peer), 1e-9)
        yield Row(
            f"{what}; peer: torchvision", mine, theirs, ratio, Goal(round(1 - _noise(ours, peer), 3), at_least=True)
        )


def _noise(ours: list[float], peer: list[float]) -> float:
    """Twice the standard error of the difference of both means, relative to the peer's; 0 for a single seed."""
    if len(ours) < 2:
        return 0.0
    error = math.sqrt((statistics.variance(ours) + statistics.variance(peer)) / len(ours))
    return 2 * error / max(statistics.mean(peer), 1e-9)
