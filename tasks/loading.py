"""Loading of a task from its checkpoint alone: `striate.load`."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from .base import Task
from .checkpoints import TRANSFORM_KEY, read_checkpoint
from .class_paths import find_class
from .remote_checkpoints import fetch_checkpoint
from .trusted_modules import trust_only


def load_task(path: str | PathLike[str], trusted_modules: Sequence[str] | None = None, **kwargs: Any) -> Task:
    """Load the task of a checkpoint, in evaluation mode; see `striate.load`."""
    with trust_only(trusted_modules):
        return _load(path, **kwargs)


def _load(path: str | PathLike[str], **kwargs: Any) -> Task:
    file = fetch_checkpoint(str(path), "path")
    content = read_checkpoint(file, f"path {str(path)!r}")
    name = content.get("hyper_parameters", {}).get("_class_path") or content.get("task")
    if not isinstance(name, str):
        raise ValueError(
            f"path: must be a checkpoint that names the class of its task, got {str(path)!r}; call the class's own "
            "method, such as striate.tasks.Detection.load_from_checkpoint(path, model=…)"
        )
    cls = find_class(name)
    if not issubclass(cls, Task):
        raise ValueError(f"path: must be the checkpoint of a striate.tasks.Task, got {str(path)!r} of {name}")
    task: Task = cls.load_from_checkpoint(file, **kwargs)
    if TRANSFORM_KEY not in content and not task.variable_size_images:
        rank_zero_warn(
            f"images are predicted in their own size: {path} does not hold the transform of its validation images; "
            "set task.val_transform, such as to [albumentations.Resize(224, 224)]"
        )
    return task.eval()
