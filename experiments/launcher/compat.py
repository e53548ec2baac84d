"""Private names of other libraries that the launcher depends on; each has a test that fails when the name moves."""

import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment


class MetricsLogger(CSVLogger):
    """Lightning's CSV logger, but one that appends to the ``metrics.csv`` of a resumed run instead of deleting it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of ``metrics.csv``."""
        if self._experiment is None:
            os.makedirs(self.log_dir, exist_ok=True)  # noqa: PTH103
            self._experiment = AppendingWriter(log_dir=self.log_dir)
        return self._experiment


class AppendingWriter(ExperimentWriter):
    """Keeps an existing file, which Lightning's writer deletes."""

    def _check_log_dir_exists(self) -> None:
        """Adopt the columns of an existing file."""
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                header = file.readline().strip()
            self.metrics_keys = header.split(",") if header else []


def drop_anonymous(logger: WandbLogger) -> None:
    """Remove the argument ``anonymous``, which Lightning passes on and W&B warns of, even if it is None."""
    logger._wandb_init.pop("anonymous", None)
