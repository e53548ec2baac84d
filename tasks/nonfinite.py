"""A loss that is no number: training stops there, with what is needed to find the cause."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SHOWN = 16
"""Images that a message names."""


class NonFiniteError(RuntimeError):
    """A loss, or a weight, is NaN or infinite."""


class Step(NamedTuple):
    """A training step whose losses have yet to be looked at.

    Attributes:
        finite: whether the sum of the losses is a finite number, on every rank; ``[]`` bool, on the CPU.
        ready: when `finite` is there; None: now.
        losses: by name, and their sum.
        batch: what names its images: ``index``, ``path``, and ``image_id`` of its targets, as far as there.
        where: the step, in words.
    """

    finite: Tensor
    ready: torch.cuda.Event | None
    losses: dict[str, Tensor]
    batch: dict[str, Any]
    where: str


class LossWatch:
    """Looks whether losses are finite numbers, without waiting for a GPU.

    On a CPU a step is looked at before its gradients are computed. On a GPU the verdict is copied while the GPU works
    on, and read one step later: when the next step has been queued. Whoever is about to save weights calls `settle`
    first. The ranks of DDP agree on the verdict, so that all stop at the same step.
    """

    def __init__(self) -> None:
        self._pending: Step | None = None

    def see(self, total: Tensor, losses: Mapping[str, Tensor], batch: Mapping[str, Any], where: str) -> None:
        """Take note of a step.

        Args:
            total: sum of the losses, ``[]``.
            losses: by name.
            batch: whose images are named.
            where: the step, in words.

        Raises:
            NonFiniteError: this step's loss, or on a GPU the one's before, is not finite.
        """
        before, self._pending = self._pending, _step(total, losses, batch, where)
        if before is not None:
            _judge(before)
        if self._pending.ready is None:
            self.settle()

    def settle(self) -> None:
        """Look at what is still pending; every rank must ask, at the same time.

        Raises:
            NonFiniteError: that loss is not finite.
        """
        before, self._pending = self._pending, None
        if before is not None:
            _judge(before)


def _step(total: Tensor, losses: Mapping[str, Tensor], batch: Mapping[str, Any], where: str) -> Step:
    finite = total.detach().isfinite()
    if _ranks() > 1:
        agreed = finite.to(torch.int32)
        torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MIN)
        finite = agreed > 0
    ready = None
    if finite.is_cuda:
        finite = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
    kept = {name: loss.detach() for name, loss in losses.items()}
    named = {key: batch[key] for key in ("index", "path") if key in batch}
    if isinstance(targets := batch.get("target"), list):  # masks are not to be held for a step more
        named["target"] = [{key: target[key] for key in ("image_id",) if key in target} for target in targets]
    return Step(finite, ready, {**kept, "their sum": total.detach()} if len(kept) > 1 else kept, named, where)


def _judge(step: Step) -> None:
    if step.ready is not None:
        step.ready.synchronize()
    if bool(step.finite):
        return
    said = _description(step)
    if _ranks() > 1:
        everyones: list[str] = [""] * _ranks()
        torch.distributed.all_gather_object(everyones, said)
        said = "; ".join(f"rank {rank}: {own}" for rank, own in enumerate(everyones) if own)
    raise NonFiniteError(
        f"the loss is not a finite number {step.where}: {said}. Checkpoints that were saved are from before. What "
        "often helps: a lower learning rate or a warmup, trainer.gradient_clip_val, or more bits (trainer.precision)"
    )


def _description(step: Step) -> str:
    """The losses and images of this rank's share; nothing where that is finite."""
    values = {name: float(loss) for name, loss in step.losses.items()}
    if all(torch.isfinite(torch.tensor(value)) for value in values.values()):
        return ""
    listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    names = image_names(step.batch)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{listed}; the batch: {', '.join(names[:SHOWN])}{more}"


def image_names(batch: Mapping[str, Any]) -> list[str]:
    """What a user finds the images of a batch by: paths, else the ids of the source, else their numbers in it."""
    if "path" in batch:
        return [str(path) for path in batch["path"]]
    targets = batch.get("target")
    if isinstance(targets, list) and targets and all("image_id" in target for target in targets):
        return [f"image_id {int(target['image_id'])}" for target in targets]
    return [f"sample {int(number)}" for number in batch.get("index", ())]


def _ranks() -> int:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1


def check_weights(model: nn.Module, where: str) -> None:
    """Refuse weights that are no numbers. A gradient may be none while its loss is one.

    Args:
        model: whose parameters are looked at; on a GPU this waits for it.
        where: the step, in words.

    Raises:
        NonFiniteError: names the first such parameter.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.is_floating_point()}
    if not parameters:
        return
    device = next(iter(parameters.values())).device
    finite = torch.stack([value.isfinite().all().to(device) for value in parameters.values()])
    if bad := [name for name, good in zip(parameters, finite.tolist(), strict=True) if not good]:
        raise NonFiniteError(
            f"{len(bad)} of {len(parameters)} weights are not finite numbers {where}, the first: {bad[0]}. They are "
            "not saved; checkpoints that were are from before. The losses were finite, so a gradient was not: "
            "trainer.detect_anomaly finds where"
        )
