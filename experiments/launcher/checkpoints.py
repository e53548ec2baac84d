"""Find the checkpoint that ``--ckpt_path`` stands for, and check it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from torch import nn

from ...models.weights import parts_without_weights, reports_weights
from ...tasks.checkpoints import read_checkpoint
from ...tasks.remote_checkpoints import fetch_checkpoint


def find_checkpoint(name: str, run_root: Path) -> Path:
    """Find a checkpoint file and check that it can be loaded safely.

    Args:
        name: A path; ``wandb:ENTITY/PROJECT/NAME:ALIAS``, a URL or a path of fsspec, which are fetched; or ``last`` or
            ``best``, those of the newest training run in `run_root`.
        run_root: Folder with the runs of the experiment, such as ``runs/quickstart``.

    Raises:
        FileNotFoundError: If there is no such file; the message suggests the nearest.
        ValueError: If the file is not a checkpoint of Lightning.
    """
    if name in ("last", "best"):
        path = newest_checkpoint(run_root, name)
    else:
        path = fetch_checkpoint(name, "--ckpt_path")
    read_checkpoint(path, f"--ckpt_path {path}")
    return path


def newest_checkpoint(run_root: Path, name: str) -> Path:
    """Path of the checkpoint ``last`` or ``best`` of the newest training run; never that of an earlier one.

    Raises:
        FileNotFoundError: If there is no run, or the newest has no such checkpoint; the message names what there is.
    """
    entries = run_root.iterdir() if run_root.is_dir() else ()
    runs = {int(match[1]): entry for entry in entries if (match := re.fullmatch(r"fit-(\d+)", entry.name))}
    if not runs:
        raise FileNotFoundError(
            f"--ckpt_path {name}: no training run in {str(run_root)!r}; train first, give the path of the checkpoint, "
            "or give --run.name or --run.root if the run has another name or folder"
        )
    newest = runs[max(runs)]
    path = newest / "checkpoints" / f"{name}.ckpt"
    if path.is_file():
        return path
    others = sorted(newest.rglob("*.ckpt")) or [
        other for number in sorted(runs, reverse=True) if (other := runs[number] / "checkpoints" / path.name).is_file()
    ]
    hint = f"give a path, such as {others[0]}" if others else "train first"
    raise FileNotFoundError(f"--ckpt_path {name}: the newest run, {newest}, has no {path.name}; {hint}")


def random_parts(task: nn.Module, config: Any) -> list[str]:
    """Return the parts of a task's model that have random weights, as far as can be known without a checkpoint.

    Models of striate report what they have loaded. Of other models, an argument that names weights is taken as proof.

    Args:
        task: The task; without an attribute ``model``, it is itself the model.
        config: Resolved configuration of the task.
    """
    model: Any = getattr(task, "model", None)
    model = model if isinstance(model, nn.Module) else task
    if not any(True for _ in model.parameters()) or (not reports_weights(model) and names_weights(config)):
        return []
    return parts_without_weights(model)


def names_weights(config: Any) -> bool:
    """Whether a configuration has a value for an argument that names weights, such as ``weights: DEFAULT``."""
    if isinstance(config, Mapping | Namespace):
        entries = dict(config.items()) if isinstance(config, Mapping) else vars(config)
        return any(
            (
                (re.search(r"(^|_)(weights|pretrained|checkpoint|ckpt)", key) and isinstance(value, str | Path | bool))
                and bool(value)
            )
            or names_weights(value)
            for key, value in entries.items()
        )
    return isinstance(config, list | tuple) and any(map(names_weights, config))
