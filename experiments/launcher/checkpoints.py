"""Which checkpoint ``--ckpt_path`` means, and whether it is one."""

import difflib
import pickle
import re
from pathlib import Path

import torch


def find_checkpoint(given: str, run_root: Path) -> Path:
    """The file that `given` means.

    Args:
        given: a path, or ``last`` or ``best``: those of the newest training run in `run_root`.
        run_root: the folder of the experiment's runs, such as ``runs/quickstart``.

    Raises:
        FileNotFoundError: when there is no such file; the message names the nearest.
        ValueError: when the file is not a checkpoint of Lightning's.
    """
    if given in ("last", "best"):
        path = newest(run_root, f"{given}.ckpt")
        if path is None:
            raise FileNotFoundError(
                f"--ckpt_path {given}: no run in {str(run_root)!r} has left a {given}.ckpt; train first, "
                "give the checkpoint's path, or --run.name / --run.root if the run has another name or place"
            )
    else:
        path = Path(given).expanduser()
    if not path.is_file():
        siblings = [str(found) for found in path.parent.glob("*.ckpt")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(str(path), siblings, n=1, cutoff=0.3)
        raise FileNotFoundError(f"--ckpt_path {given}: no such file{f'; did you mean {near[0]!r}?' if near else ''}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        unsafe = "weights_only" in str(error) or "Unsupported global" in str(error)
        reason = (
            "it holds pickled objects, which could run code when loaded; only weights and plain values are accepted"
            if unsafe
            else "it is damaged, or not a file of torch.save"
        )
        raise ValueError(f"--ckpt_path {path}: not a checkpoint: {reason}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(
            f"--ckpt_path {path}: weights alone, not a checkpoint of a run (no 'state_dict' inside); "
            "to start from weights, give the file as the backbone's `weights` instead"
        )
    return path


def newest(run_root: Path, name: str) -> Path | None:
    """The checkpoint `name` of the training run with the highest number that has one."""
    entries = run_root.iterdir() if run_root.is_dir() else ()
    runs = {int(match[1]): entry for entry in entries if (match := re.fullmatch(r"fit-(\d+)", entry.name))}
    candidates = (runs[number] / "checkpoints" / name for number in sorted(runs, reverse=True))
    return next((path for path in candidates if path.is_file()), None)
