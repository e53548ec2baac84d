"""The optimizer of the Caffe nets of FCN's time: biases learn at twice the rate and are not decayed."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class CaffeSGD(torch.optim.SGD):
    """SGD with a rate and a weight decay of their own for biases, as FCN's, R-CNN's and SSD's Caffe nets have them.

    One-dimensional parameters count as biases (among them a batch normalisation's, which those nets do not have). With
    a constant rate torch's momentum is Caffe's. Loss and rate belong together: see `striate.models.FCN`.

    Args:
        params: Parameters, or groups of them; in a group a rate or a decay of its own goes before the ones given here.
        lr: Learning rate of weights.
        momentum: Factor on the last step.
        weight_decay: Times the weights added to their gradient.
        bias_lr_factor: Learning rate of biases relative to ``lr``.
        bias_weight_decay: The same for biases.

    Example:
        >>> groups = CaffeSGD(torch.nn.Linear(2, 3).parameters(), lr=0.1, weight_decay=5e-4).param_groups
        >>> [(group["lr"], group["weight_decay"]) for group in groups]
        [(0.1, 0.0005), (0.2, 0.0)]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        bias_lr_factor: float = 2.0,
        bias_weight_decay: float = 0.0,
    ) -> None:
        groups: list[dict[str, Any]] = []
        entries: list[Any] = list(params)
        given: list[dict[str, Any]] = entries if entries and isinstance(entries[0], dict) else [{"params": entries}]
        for group in given:
            parameters = group["params"]
            parameters = [parameters] if isinstance(parameters, nn.Parameter) else list(parameters)
            weights = [p for p in parameters if p.ndim > 1]
            biases = [p for p in parameters if p.ndim <= 1]
            rate: float = group.get("lr", lr)
            if weights:
                groups.append({"weight_decay": weight_decay, **group, "lr": rate, "params": weights})
            if biases:
                own = {"lr": rate * bias_lr_factor, "weight_decay": bias_weight_decay, "params": biases}
                name = {"name": f"{group['name']} (biases)"} if weights and "name" in group else {}
                groups.append({**group, **own, **name})
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
