"""Training step of U-Net with ResNet-34 through task and Trainer, compared with segmentation-models-pytorch.

The peer is the loop of that package's examples: logits, cross-entropy with 255 ignored, SGD with the same settings for
all parameters. Both sides train a copy of the same weights on the same batches, alternately in one process. The peer's
encoder expects normalized float32 images, which users' loaders provide, so the peer gets those; striate gets uint8, and
normalizes within the step. The package is not a dependency of striate. Without it, nothing is measured: run
``pip install segmentation-models-pytorch``, or install it into a folder on PYTHONPATH.
"""

import copy
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from striate.benchmarks.harness import Clock, Goal, Row, compare
from striate.benchmarks.training_case import LR, MEAN, MOMENTUM, STD, BareLoop, Case
from striate.benchmarks.training_step import measure_sides
from striate.models import TorchvisionBackbone, UNet
from striate.models.segmentation.losses import IGNORE_INDEX

PEER = "segmentation_models_pytorch"
CASES = (Case("resnet34", pixels=224, batch=4),)
CLASSES = 21
WEIGHT_DECAY = 1e-4
TOLERANCE = 0.02  # of the last losses: batch norms amplify rounding from step to step
AT_MOST = Goal(1.0, at_least=False)


def make_batches(case: Case, count: int) -> list[dict[str, Any]]:
    """Make batches as striate's loaders do, with the tensors that the peer's loaders would provide added."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randint, generator=generator, dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    batches = []
    for _ in range(count):
        image = draw(0, 256, (case.batch, case.pixels, case.pixels, 3)).permute(0, 3, 1, 2)
        mask = draw(0, CLASSES, (case.batch, case.pixels, case.pixels))
        mask[:, :8] = IGNORE_INDEX
        batches.append(
            {
                "image": image,
                "mask": mask,
                "index": torch.arange(case.batch),
                "unreadable": [],
                "float": ((image / 255 - mean) / std).contiguous(),
                "long": mask.long(),
            }
        )
    return batches


def same_weights(network: nn.Module, name: str) -> UNet:
    """Make striate's network with the peer's weights."""
    model = UNet(name, CLASSES)
    assert isinstance(model.backbone, TorchvisionBackbone)  # true for the networks in CASES
    trunk = {f"encoder.{theirs}": f"backbone.{ours}" for theirs, ours in model.backbone.torchvision_names().items()}
    model.load_state_dict(
        {
            trunk.get(key, key.removeprefix("decoder.").replace("segmentation_head.0", "head")): value
            for key, value in network.state_dict().items()
        }
    )
    return model


def measure(case: Case, turns: int = 7, steps: int = 3) -> dict[str, list[Clock]]:
    """Measure the median step of each turn, per side."""
    from striate.tasks import SemanticSegmentation

    torch.manual_seed(0)
    network = importlib.import_module(PEER).Unet(case.network, encoder_weights=None, classes=CLASSES)
    task = SemanticSegmentation(
        same_weights(network, case.network),
        optimizer=partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
        decay_norm_and_bias=True,
    )
    sides = {
        side: BareLoop(model, WEIGHT_DECAY, inputs="float", target="long")
        for side, model in (("peer", copy.deepcopy(network)), ("control", network))
    }
    return measure_sides(case, task, sides, make_batches(case, steps), turns, steps, TOLERANCE)


def run() -> Iterator[Row]:
    """Measure; the first turn is a warm-up. Yield no rows if the peer is not installed."""
    if importlib.util.find_spec(PEER) is None:
        sys.stderr.write(
            "skipped: segmentation-models-pytorch is not installed; "
            "run pip install segmentation-models-pytorch (striate itself does not need it)\n"
        )
        return
    for case in CASES:
        measured = measure(case)
        peer = measured["peer"]
        what = f"training step (U-Net {case}); peer: segmentation-models-pytorch"
        yield from compare(what, measured["ours"], peer, AT_MOST)
        yield from compare(
            f"control: segmentation-models-pytorch against itself (U-Net {case})", measured["control"], peer
        )
