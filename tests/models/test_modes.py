"""Evaluation for a while: which modes apply inside, and that each module gets its own back."""

import pytest
import torch
from torch import nn
from torchvision.ops import RoIPool

from striate.models import RoIFullyConnected, RoIHead, RoISettings
from striate.models.classification.tencrop import TenCrop
from striate.models.modes import evaluation_mode
from striate.models.segmentation.inference import augmented_logits, sliding_logits


def mixed() -> nn.Sequential:
    """A network in training mode, of which one part is in evaluation mode."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    net[1].eval()
    return net


def modes(net: nn.Module) -> list[bool]:
    return [module.training for module in net.modules()]


def test_modes_are_restored_part_by_part_after_an_error_too() -> None:
    net = mixed()
    before = modes(net)
    assert before == [True, True, False, True]
    with evaluation_mode(net):
        assert modes(net) == [False] * 4
    assert modes(net) == before
    with pytest.raises(RuntimeError, match="inside"), evaluation_mode(net):
        raise RuntimeError("inside")
    assert modes(net) == before
    with evaluation_mode(net.eval()):
        pass
    assert modes(net) == [False] * 4


def test_modules_that_do_more_than_set_a_flag_are_switched_back() -> None:
    class Merging(nn.Linear):
        merged = False

        def train(self, mode: bool = True) -> "Merging":
            self.merged = not mode
            return super().train(mode)

    net = Merging(1, 1)
    with evaluation_mode(net):
        assert net.merged
    assert not net.merged and net.training


@pytest.mark.parametrize(
    "run",
    [
        lambda net, images: sliding_logits(net, images, (4, 4), 0.5),
        lambda net, images: sliding_logits(net, images, (99, 99), 0.5),
        lambda net, images: augmented_logits(net, images, (1.0,), False),
        lambda net, images: augmented_logits(net, images, (0.5, 1.0), True),
    ],
)
def test_segmentation_inference_evaluates(run) -> None:
    torch.manual_seed(0)
    net, images = mixed(), torch.rand(2, 3, 8, 8)
    net[1].train()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    first = run(net, images)
    assert torch.equal(first, run(net, images))  # no dropout
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(modes(net)) and first.requires_grad
    assert torch.equal(first, run(net.eval(), images))


def test_ten_crops_and_region_heads_evaluate() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 2))
    crops, images = TenCrop(net, 4), torch.rand(2, 3, 6, 6)
    assert torch.equal(crops(images), crops(images)) and all(modes(net))
    assert net[0].num_batches_tracked == 0

    head = RoIHead(
        RoIPool(2, 1.0), RoIFullyConnected(3, 2, hidden=64, dropout=0.5), 64, 2, RoISettings(score_threshold=0)
    )
    region = [torch.tensor([[0.0, 0.0, 6.0, 6.0]])]
    first, second = (head.detect(images[:1], region, [(6, 6)])[0]["scores"] for _ in range(2))
    assert torch.equal(first, second) and len(first) and all(modes(head))
