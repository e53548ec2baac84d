"""striate: classic and modern vision networks in PyTorch Lightning, each checked against its paper.

The five tasks (classification, classification with localization, semantic segmentation, object detection, instance
segmentation) share backbones and data modules. This module imports nothing heavy. Import what you need from
``striate.models``, ``striate.tasks``, ``striate.datamodules`` and ``striate.callbacks``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from .tasks import Task

__version__ = "0.1.0"


def load(path: "str | PathLike[str]", trusted_modules: "Sequence[str] | None" = None, **kwargs: Any) -> "Task":
    """Load a trained task from its checkpoint, ready to predict.

    The checkpoint names the task's class and its classes, and how its images are read and transformed. `Task.predict`
    of the result takes paths, PIL images, arrays and tensors of any size.

    Args:
        path: A checkpoint, such as ``runs/quickstart/fit-1/checkpoints/best.ckpt``; or one that is fetched: an artifact
            of W&B, ``wandb:ENTITY/PROJECT/NAME:ALIAS``, a URL, or a path of fsspec, such as ``s3://…``.
        trusted_modules: Packages that class paths in the checkpoint may name, at any depth, such as
            ``["striate", "torch"]``; None: all. A checkpoint is code: its class paths are imported and called.
        kwargs: Arguments of the task to replace, such as ``score_threshold``; ``model``, the network, for a task that
            was built in Python, whose checkpoint holds weights only; ``map_location``, as in `torch.load`.

    Returns:
        The task in evaluation mode.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not the checkpoint of a task, or its class has not been imported or is not trusted.
        TypeError: ``model`` is needed and missing.
    """
    from .tasks.loading import load_task

    return load_task(path, trusted_modules, **kwargs)
