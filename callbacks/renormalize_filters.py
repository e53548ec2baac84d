"""A limit on the filters of a network, as Zeiler and Fergus use it."""

from typing import Any

import pytorch_lightning as pl

from ..tasks.interfaces import RenormalizesFilters


class RenormalizeFilters(pl.Callback):
    """Rescales, after each optimizer step, the convolution filters with a root mean square above a radius.

    For models with ``renormalize_filters(radius)``, such as `striate.models.ZFNet`. On batches that only accumulate
    gradients it changes nothing, since all filters are within the radius then.

    Args:
        radius: Maximum root mean square of a filter.

    Raises:
        ValueError: `radius` is not above 0.
        TypeError: At set-up: the model has no ``renormalize_filters``.

    Reference:
        Zeiler, Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 3, where the
        radius is 0.1.
    """

    def __init__(self, radius: float = 0.1) -> None:
        if radius <= 0:
            raise ValueError(f"radius: must be > 0 (the paper: 0.1), got {radius}")
        self.radius = radius

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the model has the method, before training starts."""
        if not isinstance(pl_module.model, RenormalizesFilters):
            raise TypeError(
                "RenormalizeFilters: the model must have a method renormalize_filters(radius), as striate.models.ZFNet "
                f"has, got {type(pl_module.model).__name__}; remove the callback, or add the method"
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Rescale the filters of the model."""
        pl_module.model.renormalize_filters(self.radius)  # type: ignore[union-attr, operator]
