"""What a run is about, for its folder and the loggers: source revision, versions, hardware, data set and network."""

import contextlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from ... import __version__
from ...datamodules.loading.fingerprint import fingerprint
from ...tasks.flops import count_flops

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "albumentations", "timm", "wandb", "numpy")
"""Packages whose versions are recorded, where they are installed."""

FACTS_FILE = "run_facts.json"
"""File in the folder of a run."""

MAX_DIFF = 10_000_000
"""Maximum size of the changes that are kept beside the git revision, in bytes."""


def environment() -> dict[str, str]:
    """Versions, device and, in a git checkout, the revision of the working folder."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    entries = {
        "striate": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": pl.__version__,
        "platform": platform.platform(),
        "device": device,
    }
    if revision := git("rev-parse", "HEAD"):
        entries["git"] = revision + (", with uncommitted changes" if git("status", "--porcelain", "-uno") else "")
    return entries


def environment_facts() -> dict[str, Any]:
    """The same as nested values: ``versions``, ``hardware`` and, in a git checkout, ``git``."""
    versions = {"striate": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package.replace("-", "_")] = version(package)
        except PackageNotFoundError:
            continue
    hardware: dict[str, Any] = {"platform": platform.platform(), "cpus": os.cpu_count(), "gpus": 0}
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        hardware |= {"gpus": torch.cuda.device_count(), "gpu": torch.cuda.get_device_name(), "gpu_memory": memory}
    facts: dict[str, Any] = {"versions": versions, "hardware": hardware}
    if revision := git("rev-parse", "HEAD"):
        remote = git("config", "--get", "remote.origin.url")
        facts["git"] = {"revision": revision, "dirty": bool(git("status", "--porcelain", "-uno")), "remote": remote}
    return facts


def git(*arguments: str) -> str:
    """The output of git in the working folder; empty if it fails or there is none."""
    try:
        process = subprocess.run(["git", *arguments], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return process.stdout.decode(errors="replace").strip("\n") if process.returncode == 0 else ""


def save_diff(path: Path) -> bool:
    """Write the changes since the git revision to a file, unless there are none or too many; whether it was written."""
    diff = git("diff", "HEAD", "--no-color", "--no-ext-diff")
    if not diff or len(diff) > MAX_DIFF:
        return False
    path.write_text(diff + "\n", encoding="utf-8")
    return True


def dataset_facts(data: Any) -> dict[str, Any]:
    """Name, sizes, classes and fingerprints of the data of a trainer; empty without a data module.

    Args:
        data: The data module. Sizes and fingerprints need one of striate, after its ``setup``.
    """
    if data is None:
        return {}
    names = getattr(data, "class_names", None)
    facts: dict[str, Any] = {"name": type(data).__name__}
    if isinstance(root := getattr(data, "root", None), str | Path):
        facts["root"] = str(root)
    if names is not None:
        facts |= {"num_classes": len(names), "class_names": list(names)}
    for split, dataset in getattr(data, "datasets", {}).items():
        facts[split] = {"samples": len(dataset), "fingerprint": fingerprint(dataset.source)}
    return facts


def network_facts(trainer: pl.Trainer, task: pl.LightningModule) -> dict[str, Any]:
    """Class and number of parameters of a task's network, and its FLOPs on the first validation image if it has one."""
    network = getattr(task, "model", task)
    parameters = list(network.parameters())
    facts: dict[str, Any] = {
        "class": type(network).__name__,
        "parameters": sum(one.numel() for one in parameters),
        "trainable_parameters": sum(one.numel() for one in parameters if one.requires_grad),
    }
    # a sharded network would wait for the other ranks
    if isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy) and (image := first_image(trainer)) is not None:
        with contextlib.suppress(Exception):  # a network of one's own may take no single image, or be compiled
            facts |= {"flops": count_flops(network, image), "flops_image_size": list(image.shape[-2:])}
    return facts


def first_image(trainer: pl.Trainer) -> Tensor | None:
    """The first readable validation or test image, on the device. Shape: ``[1, 3, H, W]``."""
    datasets = getattr(trainer.datamodule, "datasets", {})  # type: ignore[attr-defined]
    dataset = datasets.get("val", datasets.get("test"))
    if dataset is None or not len(dataset) or "image" not in (sample := dataset[0]):
        return None
    image = torch.as_tensor(sample["image"])
    image = image.permute(2, 0, 1) if image.shape[-1] == 3 else image
    moved: Tensor = trainer.strategy.batch_to_device(image[None].contiguous())
    return moved
