"""Bookkeeping of images that could not be read."""

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn


class UnreadableImages:
    """Collects the images that the batches report as unreadable, each once.

    Attributes:
        reasons: Path -> reason, of this rank.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self._warned = 0

    def add(self, batch: Mapping[str, Any]) -> None:
        """Record the entries ``path: reason`` of a batch."""
        for message in batch.get("unreadable", ()):
            path, _, reason = message.partition(": ")
            self.reasons[path] = reason

    def gather(self, world_size: int) -> dict[str, str]:
        """Merge the records of all ranks; every rank must call this at the same time."""
        if world_size == 1:
            return dict(self.reasons)
        per_rank: list[dict[str, str]] = [{}] * world_size
        torch.distributed.all_gather_object(per_rank, self.reasons)
        return {path: reason for reasons in per_rank for path, reason in reasons.items()}

    def warn(self, world_size: int) -> None:
        """Warn if images were added since the last warning; every rank must call this at the same time."""
        reasons = self.gather(world_size)
        if len(reasons) > self._warned:
            path, reason = next(iter(reasons.items()))
            rank_zero_warn(
                f"{len(reasons)} image(s) skipped (could not be read), the first: {path}: {reason}; set strict: true "
                "in the data module to stop at such a file"
            )
            self._warned = len(reasons)
