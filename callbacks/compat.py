"""Private names of W&B and Lightning that the callbacks use, in one module; tests fail when one moves."""

import functools
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.plugins.environments import SLURMEnvironment

GROUND_TRUTH = "ground_truth"
"""Name of the layer that never changes, so that it is stored once."""


def wandb_image(pixels: Any, first: Any = None, boxes: Any = None, masks: Any = None, caption: str = "") -> Any:
    """A `wandb.Image` that refers to the file of an image logged before, if there is one, instead of storing it again.

    W&B's client copies the pixels into the run each time that an image is logged. The browser only needs their path,
    and files of boxes and masks per step. The layer of the ground truth refers to the files of the first image too.

    Args:
        pixels: RGB uint8.
        first: An image as returned by this function; None or not logged yet: the pixels are stored.
        boxes: Layers of boxes by name, in W&B's format.
        masks: Layers of masks by name, in W&B's format.
        caption: Text below the image.

    Shape:
        - pixels: ``[H, W, 3]``.
    """
    stored = first is not None and first.is_bound()
    layers = {
        name: _reuse_ground_truth(kind, getattr(first, f"_{name}") if stored else None)
        for name, kind in (("boxes", boxes), ("masks", masks))
    }
    image = _image_class()(first if stored else pixels, **layers)
    image._caption = caption  # the constructor takes that of the first image
    return image


def _reuse_ground_truth(layers: Mapping[str, Any] | None, logged: Mapping[str, Any] | None) -> Any:
    """The layers, with that of the ground truth replaced by the one that is logged."""
    if not layers or not logged or GROUND_TRUTH not in logged:
        return layers
    return {**layers, GROUND_TRUTH: logged[GROUND_TRUTH]}


@functools.cache
def _image_class() -> Any:
    import wandb

    class StoredImage(wandb.Image):
        """An image that is not copied if its file is in the run's folder."""

        def bind_to_run(self, run: Any, key: Any, step: Any, id_: Any = None, ignore_copy_err: Any = None) -> None:
            """Store the layers that are not stored yet, and the image unless it is."""
            if self._path is None or not self._path.startswith(run.dir):
                super().bind_to_run(run, key, step, id_, ignore_copy_err)
                return
            self._run = run
            for layer in (*(self._boxes or {}).values(), *(self._masks or {}).values()):
                if not layer.is_bound():
                    layer.bind_to_run(run, key, step, id_, ignore_copy_err)

    return StoredImage


def wandb_arguments(logger: WandbLogger) -> dict[str, Any] | None:
    """What Lightning's logger for W&B would pass to `wandb.init`, without None, and ``offline``.

    Returns:
        The arguments; None if the logger does more than to start a run: a subclass, or one that uploads checkpoints,
        renames metrics or has settings of the client.
    """
    given = {name: value for name, value in logger._wandb_init.items() if value is not None}
    mode = given.pop("mode", "online")
    plain = type(logger) is WandbLogger and not (logger._log_model or logger._prefix or logger._checkpoint_name)
    if not plain or mode not in ("online", "offline") or given.keys() & {"settings", "sync_tensorboard"}:
        return None
    given.pop("resume", None)
    return given | {"offline": logger._offline or mode == "offline"}


def saved_step(checkpoint: ModelCheckpoint) -> int:
    """The number of training steps in the last checkpoint that Lightning's callback has saved; 0: none."""
    return checkpoint._last_global_step_saved


def logged_step(trainer: pl.Trainer) -> int:
    """The step under which Lightning logs the metrics of the validation that is running, or of the last training step.

    Steps are counted from 0, and their number increases only after the validation that follows a step. `global_step`
    has increased by then, and counts each of several optimizers.
    """
    steps = stepped_batches(trainer)
    return steps if trainer.validating or trainer.state.fn != "fit" else max(steps - 1, 0)


def stepped_batches(trainer: pl.Trainer) -> int:
    """The number of training steps that Lightning has counted; right after loading a checkpoint, its last step."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def slurm_environment(trainer: pl.Trainer) -> SLURMEnvironment | None:
    """What Lightning knows of the SLURM job that it runs in; None: it runs in none."""
    environment = trainer._accelerator_connector.cluster_environment
    return environment if isinstance(environment, SLURMEnvironment) else None


def log_step(trainer: pl.Trainer) -> None:
    """Log the metrics of the training step that is ending, if they are due; Lightning does so after the callbacks."""
    trainer._logger_connector.update_train_step_metrics()
