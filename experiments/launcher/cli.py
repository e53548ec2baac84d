"""The launcher: LightningCLI with the defaults that a run should have, and one-line errors with a suggested fix."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace, get_loader
from pytorch_lightning.callbacks import (
    Checkpoint,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
)
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from ...callbacks import (
    CheckpointArtifacts,
    ClassReport,
    GracefulInterrupt,
    LastCheckpoint,
    NetworkSummary,
    Pictures,
    PredictionWriter,
    RandomState,
    RegionStages,
    RunRecord,
    RunReport,
    WandbRecord,
)
from ...callbacks.checkpoint_io import write_atomically
from ...callbacks.tracking.wandb_logger import RunLogger
from ...models.weights import skip_pretrained
from ..runs.run_state import StateWriter
from .argument_origins import CommandLine
from .checkpoints import find_checkpoint, random_parts
from .class_changes import add_logger_folder, apply_class_changes, name_help_class
from .class_paths import prefer_own_classes
from .compat import PlainBar, TerminalBar, ignore_requeue_checkpoints
from .error_reports import one_line_errors
from .finders import FINDERS, FinderResults
from .gpus import share_gpus
from .messages import notice
from .parser import PARSER, prepare_parsing
from .ranks import external_rank, leave_group, receive_config, send_config
from .runs import RUN_FOLDER, Run, RunSettings, WandbSettings, is_first_rank, make_loggers, open_run
from .slurm import remember_job, requeued_run
from .storage import StorageError, explain_storage
from .trust import limit_class_paths, take_trusted_modules

ALLOW_RANDOM = "allow_random_weights"


class StriateCLI(LightningCLI):
    """``striate fit|validate|test|predict``.

    The YAML can name any LightningModule and LightningDataModule. The callbacks and loggers that a run should have are
    added here and not in the YAMLs, where a list would replace them. A callback of the same class in the YAML takes the
    place of the default one.

    Args:
        words: The command line as the user typed it, to suggest how to resume; ``sys.argv`` has full paths in it.
    """

    trainer: pl.Trainer

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.run: Run | None = None
        self.state: StateWriter | None = None
        self.requeued: Path | None = None
        self.loggers: list[Logger] = []
        failed = True
        command_line = CommandLine(sys.argv[2:], Path.cwd())
        with one_line_errors(command_line, self.resolved_config), tempfile.TemporaryDirectory() as self.scratch:
            try:
                super().__init__(
                    pl.LightningModule,
                    pl.LightningDataModule,
                    subclass_mode_model=True,
                    subclass_mode_data=True,
                    save_config_callback=None,
                    seed_everything_default=0,
                    parser_kwargs={**PARSER, **{command: dict(PARSER) for command in self.subcommands()}},
                    auto_configure_optimizers=False,
                )
                leave_group()
                failed = False
            except (OSError, RuntimeError) as error:
                if self.run and (message := explain_storage(error, self.run.folder, self.words)):
                    raise StorageError(message) from error
                raise
            finally:
                self.close(failed)

    def close(self, failed: bool) -> None:
        """Note how the run has ended, end that of W&B, and remove a folder in which nothing is worth keeping."""
        if self.state is not None:
            epochs = self.trainer.current_epoch if self.subcommand == "fit" and hasattr(self, "trainer") else None
            self.state.close(sys.exception() if failed else None, epochs)
        for logger in self.loggers:
            if isinstance(logger, RunLogger):
                logger.finish(exit_code=int(failed))
        if self.run is not None:
            self.run.discard_if_empty(failed)

    def resolved_config(self) -> Any:
        """The configuration of the command; None before it is parsed."""
        return self.config[self.config.subcommand] if hasattr(self, "config") else None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the sections ``run`` and ``wandb``, and the switch for evaluation without weights."""
        parser.add_class_arguments(RunSettings, "run")
        parser.add_class_arguments(WandbSettings, "wandb")
        help_ = "Let validate, test and predict run with random weights; no effect in fit."
        parser.add_argument(f"--{ALLOW_RANDOM}", action="store_true", help=help_)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; checkpoints are loaded safely, and predictions are written instead of kept in memory.

        Lightning would next merge the hyperparameters of the checkpoint into the configuration. Here the configuration
        decides, and a checkpoint of another model is rejected; so the path is set aside until after the merge.
        """
        defaults = {f"{command}.weights_only": True for command in self.subcommands()}
        parser.set_defaults({**defaults, "predict.return_predictions": False})
        scratch = Path(self.scratch)
        received = receive_config(scratch)
        if received is None:
            arguments = add_logger_folder(apply_class_changes(name_help_class(sys.argv[2:]), scratch))
        else:
            arguments = [f"--config={received}"]
        self.config = parser.parse_args([sys.argv[1], *arguments])
        settings = self.config[self.config.subcommand]
        settings.run.name = settings.run.name or default_run_name()
        if received is None and sys.argv[1] == "fit":
            self.requeued = requeued_run(Path(settings.run.root).expanduser() / settings.run.name, self.words)
            if self.requeued is not None and (last := self.requeued / "checkpoints" / "last.ckpt").is_file():
                settings.ckpt_path = str(last)
        if received is None and (settings.trainer.devices not in (1, "1") or external_rank()[1] > 1):
            send_config(yaml.safe_dump(self.dump_section(), sort_keys=False, allow_unicode=True), scratch)
        self.ckpt_path, settings.ckpt_path = settings.ckpt_path, None

    def before_instantiate_classes(self) -> None:
        """Name the run, and find the checkpoint that ``last``, ``best`` or a path stands for."""
        settings = self.section()
        run = settings.run
        share_gpus(settings.trainer.accelerator, settings.trainer.devices)
        if self.ckpt_path is not None:
            settings.ckpt_path = str(find_checkpoint(self.ckpt_path, Path(run.root) / run.name))

    def check_weights(self) -> None:
        """Require weights for everything but training: a checkpoint, or weights that the model has loaded.

        Raises:
            ValueError: Parts of the model have random weights.
        """
        if self.subcommand == "fit" or self.section("ckpt_path") is not None:
            return
        random = random_parts(self.model, self.section("model"))
        if random and not self.section(ALLOW_RANDOM):
            raise ValueError(
                f"--ckpt_path: {self.subcommand} needs trained weights, got none for {', '.join(random)}; pass "
                f"--ckpt_path best (of the last training run) or a path, or --{ALLOW_RANDOM} to use random ones"
            )
        if random and is_first_rank():
            notice(f"random weights in {', '.join(random)} (--{ALLOW_RANDOM}): the results mean nothing")

    def open_run(self) -> None:
        """Create the folder of the run, and let the loggers of the configuration write there."""
        trainer = self.section("trainer")
        if trainer.fast_dev_run or trainer.barebones:  # these save nothing
            return
        if self.requeued is not None:
            self.run = Run(self.requeued.parent, self.requeued.name)
        else:
            self.run = open_run(self.section("run"), str(self.subcommand), self.section("ckpt_path"))
        if is_first_rank():
            self.state = StateWriter(self.run.folder)
            if self.subcommand == "fit":
                remember_job(self.run.folder, self.words)
        for logger in as_list(trainer.logger):
            arguments = logger.get("init_args") if isinstance(logger, Namespace) else None
            if arguments is not None and arguments.get("save_dir", "") in (None, RUN_FOLDER):
                arguments["save_dir"] = str(self.run.folder)

    def section(self, name: str | None = None) -> Any:
        """The resolved configuration of the command, or a section of it."""
        settings = self.config[str(self.subcommand)]
        return settings if name is None else settings[name]

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; without pretrained weights if a checkpoint follows."""
        self.open_run()
        if self.section("ckpt_path") is not None:
            with skip_pretrained():
                super().instantiate_classes()
        else:
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer with the loggers of the run and the callbacks that every run has."""
        self.check_weights()
        if self.state is not None:
            self.state.describe(getattr(self.model, "monitor", None), getattr(self.model, "mode", "min"))
        settings = self.config_init[str(self.subcommand)].trainer
        configured = as_list(settings.get("callbacks"))
        logged = settings.get("logger") is not False
        defaults = self.default_callbacks(settings.get("enable_progress_bar") is not False, logged)
        defaults = [default for default in defaults if not any(isinstance(one, kind(default)) for one in configured)]
        # The defaults come first: at the end of validation, Lightning's weight averaging restores the raw weights. But
        # what saves an interrupted step comes last, because weight averaging and the like are part of the step. A
        # progress bar stops before others print, and the closing summary comes after a bar of the configuration.
        callbacks = sorted(defaults + configured, key=position)
        if self.subcommand != "fit":  # nothing to save or to search, and checkpoint callbacks would warn of the folder
            callbacks = [callback for callback in callbacks if not isinstance(callback, (Checkpoint, *FINDERS))]
            kwargs["enable_checkpointing"] = False
        kwargs["callbacks"] = callbacks
        logger = settings.get("logger")
        if self.run is not None:
            kwargs["default_root_dir"] = settings.get("default_root_dir") or str(self.run.folder)
            if logger is not False:
                loggers = [] if logger in (None, True) else as_list(logger)
                task = getattr(self.model, "kind", None) or ""
                self.loggers = make_loggers(
                    self.run, self.section("wandb"), str(self.subcommand), loggers, task, self.section("ckpt_path")
                )
                kwargs["logger"] = self.loggers
        else:  # what callbacks write is of no use
            kwargs["default_root_dir"] = self.scratch
            if logger in (None, True):
                kwargs["logger"] = CSVLogger(self.scratch)  # Lightning replaces it, and would warn of its default
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, RuntimeError, MisconfigurationException) as error:
            raise ValueError(f"trainer: {error}") from error
        ignore_requeue_checkpoints(trainer)
        write_atomically(trainer)
        return trainer

    def dump_config(self) -> dict[str, Any]:
        """The resolved configuration as plain values, without arguments of this command, such as the checkpoint."""
        config = self.dump_section()
        for logger in as_list(config["trainer"]["logger"]):
            if self.run and isinstance(logger, dict) and logger["init_args"].get("save_dir") == str(self.run.folder):
                logger["init_args"]["save_dir"] = RUN_FOLDER
        return {key: value for key, value in config.items() if key not in ("ckpt_path", ALLOW_RANDOM)}

    def dump_section(self) -> Any:
        """The resolved configuration of the command as plain values."""
        text = self.parser.dump(self.config, skip_link_targets=False, skip_none=False, format="yaml")
        return yaml.safe_load(text)[str(self.config.subcommand)]

    def default_callbacks(self, progress_bar: bool, logged: bool) -> list[pl.Callback]:
        """The callbacks that every run has."""
        record = RunRecord(self.dump_config())
        callbacks: list[pl.Callback] = [
            *([TerminalBar() if sys.stderr.isatty() else PlainBar(refresh_rate=50)] if progress_bar else []),
            record,
            WandbRecord(),
            FinderResults(record, self.section("ckpt_path")),
            Pictures(),
            RegionStages(),
            ClassReport(),
            PredictionWriter(),
            RunReport(),
            GracefulInterrupt(self.words),
        ]
        if self.subcommand != "fit":
            return callbacks
        return [
            *callbacks,
            *([LearningRateMonitor()] if logged else []),
            CheckpointArtifacts(self.section("wandb").checkpoints),
            RandomState(),
            NetworkSummary(max_depth=2),
            *self.checkpoint_callbacks(),
        ]

    def checkpoint_callbacks(self) -> list[pl.Callback]:
        """``best.ckpt`` by the metric of the task, and ``last.ckpt``.

        Two callbacks, because ``save_last`` of Lightning 2.6 skips epochs that were not the best.
        """
        last = LastCheckpoint()
        monitor, mode = getattr(self.model, "monitor", None), getattr(self.model, "mode", "min")
        name = type(self.model).__name__
        if monitor is None:
            if is_first_rank():
                notice(
                    f"only last.ckpt is saved, and no best.ckpt: {name} does not name the metric to select it by; give "
                    'the class the attributes monitor = "val/loss" (a metric that it logs) and mode = "min" or "max"'
                )
            return [last]
        if mode not in ("min", "max"):
            raise ValueError(f"mode: must be 'min' or 'max' on {name}, the better direction of {monitor}, got {mode!r}")
        return [ModelCheckpoint(filename="best", monitor=monitor, mode=mode, enable_version_counter=False), last]


def kind(default: pl.Callback) -> type[pl.Callback]:
    """The class that replaces a default callback: its own; for summaries, bars and checkpoints, any of Lightning's."""
    return next(
        (base for base in (ModelSummary, ProgressBar, ModelCheckpoint) if isinstance(default, base)), type(default)
    )


def position(callback: pl.Callback) -> int:
    """Sort key of callbacks: 0 for progress bars, 2 for those that come last, 1 for all others."""
    return 2 if isinstance(callback, RunReport | GracefulInterrupt) else int(not isinstance(callback, ProgressBar))


def as_list(value: Any) -> list[Any]:
    """A value of the configuration that may be a list: none, one or several."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def default_run_name() -> str:
    """Stem of the last ``--config`` file that names a model, or of the last file if none does.

    The other files only add to the experiment.
    """
    paths = CommandLine(sys.argv[2:], Path.cwd()).configs
    complete = [path for path in paths if names_model(get_loader("yaml")(path.read_text(encoding="utf-8")))]
    return [Path("run"), *paths, *complete][-1].stem


def names_model(config: Any) -> bool:
    """Whether the content of a configuration file names the class of the model."""
    model = config.get("model") if isinstance(config, dict) else None
    return isinstance(model, str) or (isinstance(model, dict) and "class_path" in model)


class QuietFilter(logging.Filter):
    """Drops log lines of Lightning that advertise other products or question what striate does on purpose."""

    dropped = (
        "`weights_only` was not set",
        "💡 Tip",
        "TPU available",
        "Trainer already configured with",
        "Loading `train_dataloader` to estimate",
    )

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record passes the filter."""
        return not record.getMessage().startswith(self.dropped)


def silence_known_warnings() -> None:
    """Ignore warnings of Lightning and torch about behavior that is intended here."""
    for message in (
        ".*does not have many workers.*",
        # defaults of albumentations are tuples, which come back from YAML as lists; lists are accepted
        "(?s).*Dump of a value that does not round-trip.*",
        ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
        "The number of training batches .* is smaller than the logging interval",
        "You're using the WeightAveraging callback, but loading a checkpoint",
        # frozen normalization stays in evaluation mode
        r"Found \d+ module\(s\) in eval mode at the start of training",
        # a resumed run continues in its folder, and evaluation does not need the callbacks of training
        "Checkpoint directory .* exists and is not empty",
        "Be aware that when using `ckpt_path`, callbacks used to create",
    ):
        warnings.filterwarnings("ignore", message=message)
    # the line of code that warned, such as "rank_zero_warn(", says nothing to the user
    warnings.formatwarning = lambda message, category, *_, **__: f"{category.__name__}: {message}\n"
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(QuietFilter())


def launch(words: Sequence[str] | None = None) -> None:
    """Run the command line in ``sys.argv``.

    Args:
        words: The command line as the user typed it; default: that of ``sys.argv``.
    """
    words = list(sys.argv[1:] if words is None else words)
    silence_known_warnings()
    prepare_parsing()
    trusted, sys.argv[2:] = take_trusted_modules(sys.argv[2:])
    with limit_class_paths(trusted), one_line_errors(CommandLine(sys.argv[2:], Path.cwd()), code=2):
        sys.argv[2:] = prefer_own_classes(sys.argv[2:])
        sys.path.append(str(Path.cwd()))  # a YAML can name classes of a file in the working folder
        StriateCLI(words)
