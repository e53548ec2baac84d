"""The optimizer of FCN's and other Caffe nets, in which biases have their own learning rate and weight decay."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..ops.checks import check_min


class CaffeSGD(torch.optim.SGD):
    """SGD with a separate learning rate and weight decay for biases, as in the Caffe nets of FCN, R-CNN and SSD.

    One-dimensional parameters count as biases (including those of batch normalization, which these nets do not have).
    With a constant learning rate, PyTorch's momentum equals Caffe's. The learning rate depends on the reduction of the
    loss: see `striate.models.FCN`.

    Args:
        params: Parameters, or parameter groups, whose own learning rate or weight decay takes precedence.
        lr: Learning rate of weights.
        momentum: Factor on the previous step.
        weight_decay: Weight decay of weights.
        bias_lr_factor: Learning rate of biases relative to ``lr``.
        bias_weight_decay: Weight decay of biases.
        new_biases_only: Whether the two apply only to new layers. Biases of the group named ``backbone``, as a task
            names the pretrained layers, then have the learning rate and weight decay of weights, as in the solver of
            FCN-AlexNet.

    Raises:
        ValueError: A number is negative, or ``new_biases_only`` is true and no group is named ``backbone``.

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
        new_biases_only: bool = False,
    ) -> None:
        check_min(0, bias_lr_factor=bias_lr_factor, bias_weight_decay=bias_weight_decay)
        groups: list[dict[str, Any]] = []
        entries: list[Any] = list(params)
        inputs: list[dict[str, Any]] = entries if entries and isinstance(entries[0], dict) else [{"params": entries}]
        if new_biases_only and not any(_of_backbone(group) for group in inputs):
            raise ValueError(
                "new_biases_only: must be false without a parameter group named 'backbone', got true; use a model with "
                "an attribute backbone"
            )
        for group in inputs:
            as_weights = new_biases_only and _of_backbone(group)
            parameters = group["params"]
            parameters = [parameters] if isinstance(parameters, nn.Parameter) else list(parameters)
            weights = [p for p in parameters if p.ndim > 1]  # matrices and kernels
            biases = [p for p in parameters if p.ndim <= 1]
            rate: float = group.get("lr", lr)  # a group may have its own
            if weights:
                groups.append({"weight_decay": weight_decay, **group, "lr": rate, "params": weights})
            if biases:
                factor, decay = (1.0, weight_decay) if as_weights else (bias_lr_factor, bias_weight_decay)
                settings = {"lr": rate * factor, "weight_decay": decay, "params": biases}
                name = {"name": f"{group['name']} (biases)"} if weights and "name" in group else {}
                groups.append({**group, **settings, **name})
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)


def _of_backbone(group: dict[str, Any]) -> bool:
    return str(group.get("name", "")).startswith("backbone")
