"""Keeping the filters of a network from growing, as Zeiler and Fergus do."""

from typing import Any

import pytorch_lightning as pl


class RenormalizeFilters(pl.Callback):
    """Shrinks, after each optimizer step, every convolution's filter whose root mean square exceeds a radius.

    For models with ``renormalize_filters(radius)``, such as `striate.models.ZFNet`. On batches that only accumulate
    gradients it changes nothing, for the weights are then within the radius already.

    Args:
        radius: largest root mean square of a filter.

    Raises:
        ValueError: for a radius that is not positive.
        TypeError: at set-up, when the model has no ``renormalize_filters``.

    Reference:
        Zeiler, Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 3, where the
        radius is 0.1.
    """

    def __init__(self, radius: float = 0.1) -> None:
        if radius <= 0:
            raise ValueError(f"RenormalizeFilters: radius={radius}; give a positive root mean square (the paper: 0.1)")
        self.radius = radius

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """See that the model can do it, before training starts."""
        model = getattr(pl_module, "model", None)
        if not callable(getattr(model, "renormalize_filters", None)):
            raise TypeError(
                f"RenormalizeFilters: {type(model).__name__} has no method renormalize_filters(radius), as "
                "striate.models.ZFNet has; take the callback out of trainer.callbacks, or give the model the method"
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Renormalise."""
        pl_module.model.renormalize_filters(self.radius)  # type: ignore[union-attr, operator]
