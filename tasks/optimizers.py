"""Instantiation of a task's optimizer and schedule, and the options of them that all tasks have."""

from collections.abc import Callable
from typing import Any, TypedDict

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from .interfaces import HasBackbone, HasLearningRateFactors
from .schedules import Horizon, Schedule

FUSED_DEVICES = ("cpu", "cuda")
"""Devices with fused optimizers in torch."""


class TaskOptions(TypedDict, total=False):
    """Arguments that all tasks pass on to `striate.tasks.Task`, which documents them and defines their defaults."""

    optimizer: OptimizerCallable
    scheduler: Schedule | LRSchedulerCallable | None
    backbone_lr_factor: float
    decay_norm_and_bias: bool


def group_parameters(model: nn.Module, backbone_lr_factor: float, decay_norm_and_bias: bool) -> list[dict[str, Any]]:
    """Group the trainable parameters of a model by learning-rate factor and weight decay.

    One-dimensional parameters are biases and the scales and shifts of normalization layers. They are not decayed,
    unless ``decay_norm_and_bias``. Groups without parameters are left out.

    Args:
        model: Its ``backbone``, if it has one, gets separate groups, and so do its ``lr_factors`` other than 1.
        backbone_lr_factor: Learning rate of the backbone, relative to the rest; kept in the groups as ``lr_factor``.
        decay_norm_and_bias: Apply weight decay to one-dimensional parameters too.
    """
    backbone = model.backbone if isinstance(model, HasBackbone) else None
    parts: dict[int, str] = {}  # of parameters, by id
    factors: dict[str, float] = {}
    for name, factor in model.lr_factors.items() if isinstance(model, HasLearningRateFactors) else ():
        if factor != 1:
            factors[f"{name} (x {factor:g})"] = factor
            parts |= {id(p): f"{name} (x {factor:g})" for p in model.get_submodule(name).parameters()}
    if isinstance(backbone, nn.Module):
        factors["backbone"] = backbone_lr_factor
        parts |= {id(p): "backbone" for p in backbone.parameters()}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            part = parts.get(id(parameter), "head")
            decayed = decay_norm_and_bias or parameter.ndim > 1
            groups.setdefault((part, decayed), []).append(parameter)
    return [
        {"params": parameters, "name": part if decayed else f"{part} (no decay)"}
        | ({} if decayed else {"weight_decay": 0.0})
        | ({"lr_factor": factors[part]} if part in factors else {})
        for (part, decayed), parameters in sorted(groups.items(), reverse=True)
    ]


def build_optimizer(factory: OptimizerCallable, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build an optimizer over parameter groups, whose ``lr_factor`` scales their learning rate.

    Raises:
        ValueError: There are no parameters to train, or the optimizer rejects its arguments.
    """
    if not groups:
        raise ValueError("frozen_stages: must leave parameters to train, got a model that is frozen entirely")
    optimizer = instantiate("optimizer", factory, groups)
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("lr_factor", 1.0)
    prefer_fused(optimizer)
    return optimizer


def build_scheduler(
    scheduler: Schedule | LRSchedulerCallable,
    optimizer: torch.optim.Optimizer,
    trainer: pl.Trainer,
    monitor: str,
    mode: str,
) -> dict[str, Any]:
    """Build Lightning's ``lr_scheduler`` dictionary from a `Schedule` or from a callable that builds a torch scheduler.

    Args:
        scheduler: The task's argument.
        optimizer: The optimizer to schedule.
        trainer: Its settings give the length of training.
        monitor: Metric for plateau schedules.
        mode: ``max`` or ``min``, the better direction of `monitor`.
    """
    if not isinstance(scheduler, Schedule):
        built = instantiate("scheduler", scheduler, optimizer)
        plateau = isinstance(built, torch.optim.lr_scheduler.ReduceLROnPlateau)
        return {"scheduler": built} | ({"monitor": monitor} if plateau else {})
    steps = trainer.estimated_stepping_batches  # sets up the loader, without which the next line has no batches
    steps_per_epoch = max(-(-trainer.num_training_batches // trainer.accumulate_grad_batches), 1)
    horizon = Horizon(float(steps), float(steps_per_epoch))
    return instantiate("scheduler", scheduler.build, optimizer, horizon, monitor, mode)


def prefer_fused(optimizer: torch.optim.Optimizer) -> None:
    """Let torch update all parameters in one pass, where it can and the optimizer has no other setting.

    By itself torch uses ``foreach`` on a GPU and a loop over parameters on a CPU. The option is set on the parameter
    groups and not in the constructor: a constructor's ``fused`` makes the optimizer unscale float16 gradients itself,
    which leaves none to clip.
    """
    for group in optimizer.param_groups:
        unset = "fused" in group and group["fused"] is None and group.get("foreach") is None
        if unset and not (group.get("differentiable") or group.get("capturable")):
            supported = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in group["params"])
            group["fused"] = supported or None


def instantiate(argument: str, factory: Callable[..., Any], *args: Any) -> Any:
    """Call ``factory(*args)``; errors name the task's argument that the factory comes from."""
    try:
        return factory(*args)
    except (ValueError, TypeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{argument}: {error}") from error
