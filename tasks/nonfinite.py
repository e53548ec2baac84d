"""Detection of NaN and infinite losses and weights: training stops with a message that helps to find the cause."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

MAX_NAMES = 16
"""Maximum number of images that a message names."""


class NonFiniteError(RuntimeError):
    """A loss, or a weight, is NaN or infinite."""


class _Step(NamedTuple):
    """A training step with losses that have yet to be checked.

    Attributes:
        finite: Whether the sum of the losses is finite, on every rank; ``[]`` bool, on the CPU.
        ready: Event after which `finite` is valid; None: it is valid now.
        losses: The losses by name, and their sum.
        batch: The fields that name its images: ``index``, ``path``, and ``image_id`` of its targets, if present.
        name: The step, in words.
    """

    finite: Tensor
    ready: torch.cuda.Event | None
    losses: dict[str, Tensor]
    batch: dict[str, Any]
    name: str


class NonFiniteGuard:
    """Checks that losses are finite, without waiting for a GPU.

    On a CPU a step is checked before its gradients are computed. On a GPU the result is copied while the GPU continues,
    and read one step later, when the next step has been queued. Call `flush` before weights are saved. The ranks of DDP
    exchange the result, so that all stop at the same step.
    """

    def __init__(self) -> None:
        self._pending: _Step | None = None

    def check(self, total: Tensor, losses: Mapping[str, Tensor], batch: Mapping[str, Any], step: str) -> None:
        """Check a step, on a GPU the previous one.

        Args:
            total: Sum of the losses, ``[]``.
            losses: The losses by name, a scalar each.
            batch: The batch, for the names of its images.
            step: The step, in words.

        Raises:
            NonFiniteError: The loss is NaN or infinite.
        """
        previous, self._pending = self._pending, _record(total, losses, batch, step)
        if previous is not None:
            _raise_if_nonfinite(previous)
        if self._pending.ready is None:
            self.flush()

    def flush(self) -> None:
        """Check the step that is still pending; every rank must call this at the same time.

        Raises:
            NonFiniteError: Its loss is NaN or infinite.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            _raise_if_nonfinite(pending)


def _record(total: Tensor, losses: Mapping[str, Tensor], batch: Mapping[str, Any], name: str) -> _Step:
    """Start the check of a total loss, a scalar, and keep the details for a message."""
    finite = total.detach().isfinite()
    if _world_size() > 1:
        on_all_ranks = finite.to(torch.int32)
        torch.distributed.all_reduce(on_all_ranks, op=torch.distributed.ReduceOp.MIN)
        finite = on_all_ranks > 0
    ready = None
    if finite.is_cuda:
        finite = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
    by_name = {loss_name: loss.detach() for loss_name, loss in losses.items()}
    if len(by_name) > 1:
        by_name["their sum"] = total.detach()
    fields = {key: batch[key] for key in ("index", "path") if key in batch}
    if isinstance(targets := batch.get("target"), list):  # ids only: masks must not stay in memory for another step
        fields["target"] = [{key: target[key] for key in ("image_id",) if key in target} for target in targets]
    return _Step(finite, ready, by_name, fields, name)


def _raise_if_nonfinite(step: _Step) -> None:
    if step.ready is not None:
        step.ready.synchronize()
    if bool(step.finite):
        return
    description = _description(step)
    if _world_size() > 1:
        per_rank: list[str] = [""] * _world_size()
        torch.distributed.all_gather_object(per_rank, description)
        description = "; ".join(f"rank {rank}: {text}" for rank, text in enumerate(per_rank) if text)
    raise NonFiniteError(
        f"loss: must be finite, got NaN or infinity {step.name}: {description}. Saved checkpoints are from before that "
        "step; lower the learning rate, add a warmup, or set the trainer's gradient_clip_val or a higher precision"
    )


def _description(step: _Step) -> str:
    """Losses and images of this rank; empty if its losses are finite."""
    values = {name: float(loss) for name, loss in step.losses.items()}
    if all(torch.isfinite(torch.tensor(value)) for value in values.values()):
        return ""
    listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    names = image_names(step.batch)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"{listed}; the batch: {', '.join(names[:MAX_NAMES])}{more}"


def image_names(batch: Mapping[str, Any]) -> list[str]:
    """Names by which a user can find the images of a batch: paths, else the source's ids, else sample numbers."""
    if "path" in batch:
        return [str(path) for path in batch["path"]]
    targets = batch.get("target")
    if isinstance(targets, list) and targets and all("image_id" in target for target in targets):
        return [f"image_id {int(target['image_id'])}" for target in targets]
    return [f"sample {int(number)}" for number in batch.get("index", ())]


def _world_size() -> int:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if distributed else 1


def check_weights(model: nn.Module, step: str) -> None:
    """Check that all weights are finite. A gradient can be NaN although its loss is finite.

    Args:
        model: Its parameters are checked; on a GPU this waits for it.
        step: The step, in words.

    Raises:
        NonFiniteError: Names the first parameter with a NaN or infinite value.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.is_floating_point()}
    if not parameters:
        return
    device = next(iter(parameters.values())).device
    finite = torch.stack([value.isfinite().all().to(device) for value in parameters.values()])
    if invalid := [name for name, ok in zip(parameters, finite.tolist(), strict=True) if not ok]:
        raise NonFiniteError(
            f"weights: must be finite, got NaN or infinity in {len(invalid)} of {len(parameters)} parameters {step}, "
            f"the first: {invalid[0]}. They are not saved; earlier checkpoints are good. All losses were finite, so a "
            "gradient was not; set the trainer's detect_anomaly to find the operation"
        )
