"""Find the checkpoint that ``--ckpt_path`` stands for, and check it."""

import pickle
import re
from pathlib import Path

import torch

from .messages import did_you_mean


def find_checkpoint(name: str, run_root: Path) -> Path:
    """Find a checkpoint file and check that it can be loaded safely.

    Args:
        name: A path; or ``last`` or ``best``, those of the newest training run in `run_root`.
        run_root: Folder with the runs of the experiment, such as ``runs/quickstart``.

    Raises:
        FileNotFoundError: If there is no such file; the message suggests the nearest.
        ValueError: If the file is not a checkpoint of Lightning.
    """
    if name in ("last", "best"):
        newest = newest_checkpoint(run_root, f"{name}.ckpt")
        if newest is None:
            raise FileNotFoundError(
                f"--ckpt_path {name}: no run in {str(run_root)!r} has a {name}.ckpt; train first, give the path of the "
                "checkpoint, or give --run.name or --run.root if the run has another name or folder"
            )
        path = newest
    else:
        path = Path(name).expanduser()
    if not path.is_file():
        siblings = map(str, path.parent.glob("*.ckpt")) if path.parent.is_dir() else ()
        raise FileNotFoundError(f"--ckpt_path {name}: no such file{did_you_mean(str(path), siblings, cutoff=0.3)}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        unsafe = "weights_only" in str(error) or "Unsupported global" in str(error)
        reason = (
            "it holds pickled objects, which could run code when loaded; only weights and plain values are accepted"
            if unsafe
            else "it is damaged, or was not written by torch.save"
        )
        raise ValueError(f"--ckpt_path {path}: not a checkpoint: {reason}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(
            f"--ckpt_path {path}: weights only, not the checkpoint of a run (no 'state_dict' inside); "
            "to start from weights, pass the file as `weights` of the backbone"
        )
    return path


def newest_checkpoint(run_root: Path, name: str) -> Path | None:
    """Path of the checkpoint `name` in the training run with the highest number that has one."""
    entries = run_root.iterdir() if run_root.is_dir() else ()
    runs = {int(match[1]): entry for entry in entries if (match := re.fullmatch(r"fit-(\d+)", entry.name))}
    candidates = (runs[number] / "checkpoints" / name for number in sorted(runs, reverse=True))
    return next((path for path in candidates if path.is_file()), None)
