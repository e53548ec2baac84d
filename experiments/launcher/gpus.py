"""One GPU for each of several runs on a machine: agents and sweeps do not share a device."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from .messages import notice

AGENT_VARIABLES = ("WANDB_SWEEP_ID", "STRIATE_SWEEP")
"""Variables of the environment that tell a run that it is one of a sweep."""

_held: list[TextIO] = []  # open until this process ends


def visible_gpus() -> dict[str, str]:
    """The GPUs that this process may use, without starting CUDA: name for ``CUDA_VISIBLE_DEVICES`` -> UUID.

    Numbers mean other GPUs in another container or job on the same machine; UUIDs do not.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = installed_gpus() if chosen != "" else {}
    if chosen is None:
        return {uuid: uuid for uuid in known.values()}
    names = [name.strip() for name in chosen.split(",")]
    return {name: known.get(name, name) for name in names if name not in ("", "-1")}


def installed_gpus() -> dict[str, str]:
    """The UUID of each GPU by its number, from ``nvidia-smi``; empty without NVIDIA's driver."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = process.stdout.splitlines() if process.returncode == 0 else []
    return dict(line.split(", ", 1) for line in lines if ", " in line)


def is_sweep_run() -> bool:
    """Whether an agent of W&B or ``striate sweep`` started this process, and it is the first rank of its run."""
    ranked = any(os.environ.get(name, "0") != "0" for name in ("LOCAL_RANK", "RANK"))
    return any(name in os.environ for name in AGENT_VARIABLES) and not ranked


def claim_gpus(count: int, gpus: Mapping[str, str], folder: Path | None = None) -> list[str]:
    """Take GPUs that no other run of a sweep on this machine has taken, until this process ends.

    Args:
        count: Number of GPUs.
        gpus: Those to choose from: name -> UUID.
        folder: Folder of the lock files; None: one in the folder for temporary files.

    Returns:
        The names of the GPUs; empty if fewer than `count` are free.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"striate-gpus-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[str] = []
    files: list[TextIO] = []
    for gpu, uuid in gpus.items():
        if len(taken) == count:
            break
        file = (folder / f"{uuid.replace('/', '_')}.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        taken.append(gpu)
        files.append(file)
    if len(taken) < count:
        for held in files:
            held.close()
        return []
    _held.extend(files)
    return taken


def share_gpus(accelerator: str, devices: int | str | list[int]) -> None:
    """Restrict a run of a sweep to GPUs of its own, if the machine has several.

    Args:
        accelerator: ``trainer.accelerator``.
        devices: ``trainer.devices``: a number; ``auto`` and -1 mean one GPU here, since a sweep has one run per GPU.
    """
    if not is_sweep_run() or accelerator not in ("auto", "gpu", "cuda") or isinstance(devices, list):
        return
    text = str(devices)
    count = 1 if text in ("auto", "-1") else int(text) if text.isdigit() else 0
    gpus = visible_gpus()
    if len(gpus) < 2 or not 0 < count < len(gpus):
        return
    taken = claim_gpus(count, gpus)
    if taken:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    else:
        notice(f"fewer than {count} of {len(gpus)} GPUs are free: this run shares them; use fewer agents or --jobs")
