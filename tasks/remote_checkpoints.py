"""Checkpoints that are not files of this machine: artifacts of W&B, URLs, and paths of fsspec such as ``s3://…``."""

import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

WANDB_PREFIX = "wandb:"
"""Begins the name of an artifact of W&B."""

WANDB_TIMEOUT = 60
"""Maximum time to wait for W&B's answer about an artifact, in seconds."""


def is_remote(name: str) -> bool:
    """Whether a checkpoint has to be fetched: an artifact of W&B or a URL, and no path.

    >>> is_remote("wandb:team/digits/checkpoint-ab12cd34:best"), is_remote("s3://bucket/best.ckpt"), is_remote("best")
    (True, True, False)
    """
    return name.startswith(WANDB_PREFIX) or "://" in name


def fetch_checkpoint(name: str, argument: str) -> Path:
    """Fetch a checkpoint into the cache of `torch.hub`, and return its file; the name of a file is returned as it is.

    Args:
        name: ``wandb:ENTITY/PROJECT/NAME:ALIAS``; a URL; a path of fsspec; or a path.
        argument: Name of the argument, for messages.

    Raises:
        ValueError: It cannot be fetched; the message says why.
    """
    if not is_remote(name):
        return Path(name).expanduser()
    folder = Path(torch.hub.get_dir()) / "striate" / hashlib.sha256(name.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        if name.startswith(WANDB_PREFIX):
            file = _fetch_artifact(name, argument, Path(scratch))
        else:
            file = _fetch_url(name, argument, Path(scratch))
        target = folder / file.name
        file.replace(target)  # another process may fetch it too
    return target


def _fetch_artifact(name: str, argument: str, folder: Path) -> Path:
    import wandb

    path = name.removeprefix(WANDB_PREFIX)
    if not re.fullmatch(r"[^/:]+/[^/:]+/[^/:]+:[^/:]+", path):
        raise ValueError(
            f"{argument}: must be wandb:ENTITY/PROJECT/NAME:ALIAS, got {name!r}; the page of the artifact on W&B shows "
            "the name"
        )
    try:
        artifact = wandb.Api(timeout=WANDB_TIMEOUT).artifact(path)
        artifact.download(root=str(folder))
    except Exception as error:  # errors of W&B, of its server and of the network
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{argument}: W&B does not provide it ({reason}), got {name!r}") from error
    return _only_file(folder, argument, name)


def _only_file(folder: Path, argument: str, name: str) -> Path:
    files = sorted(folder.rglob("*.ckpt"))
    if len(files) != 1:
        raise ValueError(f"{argument}: must be an artifact with one .ckpt file, got {len(files)} in {name!r}")
    return files[0]


def _fetch_url(name: str, argument: str, folder: Path) -> Path:
    import fsspec

    file = folder / (Path(name.split("?")[0]).name or "checkpoint.ckpt")
    try:
        source: Any
        with fsspec.open(name, "rb") as source, file.open("wb") as target:
            shutil.copyfileobj(source, target)
    except ImportError as error:  # the package for this kind of storage
        raise ValueError(f"{argument}: {' '.join(str(error).split())}, got {name!r}; install it with pip") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{argument}: cannot be fetched ({reason}), got {name!r}") from error
    return file
