"""How a task makes the optimizer and the schedule that it is given, and what it sets on them."""

from collections.abc import Callable
from typing import Any

import torch

FUSED_ON = ("cpu", "cuda")
"""Devices whose optimizers torch fuses."""


def prefer_fused(optimizer: torch.optim.Optimizer) -> None:
    """Let torch update all parameters in one pass, where it can and the optimizer was not told otherwise.

    torch itself prefers ``foreach`` on a GPU and one parameter after another on a CPU. The option is set on the groups,
    not given to the constructor: a constructor's would have the optimizer unscale float16 gradients by itself, which
    leaves none to clip.
    """
    for group in optimizer.param_groups:
        unsaid = "fused" in group and group["fused"] is None and group.get("foreach") is None
        if unsaid and not (group.get("differentiable") or group.get("capturable")):
            able = all(p.device.type in FUSED_ON and p.is_floating_point() for p in group["params"])
            group["fused"] = able or None


def configured(key: str, make: Callable[..., Any], *arguments: Any) -> Any:
    """What an argument of the task makes; an error of it names the argument."""
    try:
        return make(*arguments)
    except (ValueError, TypeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"model.{key}: {error}") from error
