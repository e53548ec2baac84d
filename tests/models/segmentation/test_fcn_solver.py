"""CaffeSGD against Caffe's update rule by hand, and a summed loss against a mean."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.models import CaffeSGD, FCNAlexNet, skip_pretrained
from striate.tasks.optimizers import group_parameters
from striate.tests.helpers.networks import quick_initialization


def test_updates_match_caffe():
    """V <- m V + lr (g + decay w), w <- w - V, with the lr and decay of each parameter."""
    layer = nn.Conv2d(2, 3, 1)
    optimizer = CaffeSGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.5)
    values = {name: p.detach().clone() for name, p in layer.named_parameters()}
    steps = {name: torch.zeros_like(p) for name, p in values.items()}
    for _ in range(3):
        gradients = {name: torch.randn_like(p) for name, p in values.items()}
        for name, parameter in layer.named_parameters():
            parameter.grad = gradients[name].clone()
            lr, decay = (0.1, 0.5) if name == "weight" else (0.2, 0.0)
            steps[name] = 0.9 * steps[name] + lr * (gradients[name] + decay * values[name])
            values[name] = values[name] - steps[name]
        optimizer.step()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.detach(), values[name])


def test_settings_of_groups_take_precedence():
    layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [
        {"params": list(layer.parameters()), "lr": 0.5, "name": "head"},
        {"params": [other.bias], "weight_decay": 0.0, "name": "backbone (no decay)", "lr_factor": 0.1},
    ]
    split = CaffeSGD(groups, lr=0.01, weight_decay=0.1).param_groups
    assert [(g["name"], g["lr"], g["weight_decay"], g.get("lr_factor")) for g in split] == [
        ("head", 0.5, 0.1, None),
        ("head (biases)", 1.0, 0.0, None),
        ("backbone (no decay)", 0.02, 0.0, 0.1),
    ]


def test_fcn_alexnets_solver_decays_every_bias_but_that_of_the_scores():
    with skip_pretrained(), quick_initialization():
        net = FCNAlexNet(5)
    groups = group_parameters(net, backbone_lr_factor=1.0, decay_norm_and_bias=False)
    optimizer = CaffeSGD(groups, lr=0.1, weight_decay=0.5, new_biases_only=True)
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    trained = {name: settings[id(p)] for name, p in net.named_parameters() if p.requires_grad}
    scores = {name: rate for name, rate in trained.items() if not name.startswith("backbone.")}
    assert sorted(rate for rate in scores.values()) == [(0.1, 0.5), (0.2, 0.0)]
    assert scores[next(name for name in scores if name.endswith("bias"))] == (0.2, 0.0)
    biases = [rate for name, rate in trained.items() if name.startswith("backbone.") and name.endswith("bias")]
    assert len(biases) == 7 and set(biases) == {(0.1, 0.5)}
    with pytest.raises(ValueError, match="^new_biases_only: must be false without .*'backbone', got true"):
        CaffeSGD(nn.Linear(2, 2).parameters(), new_biases_only=True)


def test_mean_with_scaled_learning_rate_equals_the_sum():
    """N times the learning rate and 1 / N of the weight decay, as described in `FCN`."""
    torch.manual_seed(0)
    images, target = torch.randn(1, 3, 6, 8), torch.randint(0, 4, (1, 6, 8))
    target[0, 0] = 255
    labeled = int((target != 255).sum())
    nets = [nn.Conv2d(3, 4, 1) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    settings = {"sum": (1e-3, 5e-2), "mean": (1e-3 * labeled, 5e-2 / labeled)}
    for net, (reduction, (lr, decay)) in zip(nets, settings.items(), strict=True):
        optimizer = CaffeSGD(net.parameters(), lr=lr, momentum=0.99, weight_decay=decay)
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(net(images), target, ignore_index=255, reduction=reduction).backward()
            optimizer.step()
    assert labeled == 40
    torch.testing.assert_close(nets[0].weight, nets[1].weight)
    torch.testing.assert_close(nets[0].bias, nets[1].bias)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(nets[0].bias, torch.zeros(4))
