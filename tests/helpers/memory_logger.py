"""A logger as another library would bring it. Its own module, so that tests and launcher share one class."""

from typing import ClassVar

from pytorch_lightning.loggers import Logger


class MemoryLogger(Logger):
    """A logger of another library, which has a folder."""

    name, version = "memory", "7"
    logged: ClassVar[list] = []
    hyperparameters: ClassVar[list] = []

    def __init__(self, save_dir: str, shout: bool = False):
        super().__init__()
        self.folder = save_dir

    @property
    def save_dir(self):
        return self.folder

    def log_metrics(self, metrics, step=None):
        self.logged.append(metrics)

    def log_hyperparams(self, params, *args):
        self.hyperparameters.append(params)


class FailingLogger(MemoryLogger):
    """A logger whose server has gone."""

    @property
    def experiment(self):
        raise ConnectionError("no client")

    def log_metrics(self, metrics, step=None):
        raise ConnectionError("no metrics")

    log_hyperparams = save = finalize = after_save_checkpoint = log_image = log_metrics
