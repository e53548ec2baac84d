"""Optimizers that update all parameters in one pass."""

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
