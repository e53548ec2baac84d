"""Identity of a run on W&B, stored in the run's folder and in its checkpoints."""

import contextlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ..atomic_files import replace_text

RUN_FILE = "wandb_run.json"
"""File in the folder of a run that identifies its run on W&B."""

OLD_RUN_FILE = "wandb_id.txt"
"""The same in folders of earlier versions: the id alone."""


@dataclass(frozen=True)
class WandbRun:
    """Which run of W&B a run is.

    Attributes:
        id: ID of the run.
        entity: User or team; empty: not known, as offline.
        project: Name of the project.
        sweep: ID of the sweep it belongs to; empty: none.
    """

    id: str
    entity: str = ""
    project: str = ""
    sweep: str = ""

    @classmethod
    def of(cls, run: Any) -> "WandbRun":
        """Which run a run of W&B's client is."""
        return cls(run.id, run.entity or "", run.project or "", run.sweep_id or "")

    @classmethod
    def load(cls, folder: Path) -> "WandbRun | None":
        """Read the identity from the folder of a run; None if it has none."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            values = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
            return cls(**{field.name: str(values.get(field.name, "")) for field in fields(cls)})
        with contextlib.suppress(OSError):
            return cls((folder / OLD_RUN_FILE).read_text(encoding="utf-8").strip())
        return None

    @classmethod
    def of_checkpoint(cls, path: str | Path) -> "WandbRun | None":
        """Read the identity from a checkpoint; None if its run was not recorded on W&B."""
        callbacks = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("callbacks", {})
        values = callbacks.get("WandbRecord", {}).get("run")
        return cls(**values) if values else None

    def save(self, folder: Path) -> None:
        """Write it to the folder of a run."""
        replace_text(folder / RUN_FILE, json.dumps(asdict(self), indent=1) + "\n")
