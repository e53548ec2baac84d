"""The launcher: LightningCLI with the defaults that a run should have, and errors that say what to change."""

import logging
import os
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytorch_lightning as pl
import yaml
from jsonargparse import get_loader, set_loader
from pytorch_lightning.callbacks import (
    Checkpoint,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    RichProgressBar,
    TQDMProgressBar,
)
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from ...callbacks import (
    ConfusionMatrix,
    GracefulInterrupt,
    NetworkSummary,
    Pictures,
    PredictionWriter,
    RandomState,
    RunRecord,
    RunReport,
)
from ...models.weights import skip_pretrained
from .checkpoints import find_checkpoint
from .explain import condense, explain, own_names_first
from .main import fail, typed
from .runs import RunSettings, WandbSettings, is_first_rank, make_loggers, open_run


class Parser(LightningArgumentParser):
    """LightningCLI's parser, whose errors are one line that names the key."""

    folder = Path()
    """Where the command was given: jsonargparse changes the working folder while it reads a file."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Explain what is wrong with the call, on the first rank only, and exit with 2."""
        if is_first_rank():
            fail(explain(message, sys.argv[2:], self.folder))
        raise SystemExit(2)


class StriateCLI(LightningCLI):
    """``striate fit|validate|test|predict``.

    Any LightningModule and LightningDataModule can be named in the YAML. The callbacks and loggers a run should
    have are added here, and not in the YAMLs, because a list there would replace them; one of the same class in
    the YAML takes the place of the default.
    """

    trainer: pl.Trainer

    def __init__(self) -> None:
        Parser.folder = Path.cwd()
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """``run.*`` and ``wandb.*``."""
        parser.add_class_arguments(RunSettings, "run")
        parser.add_class_arguments(WandbSettings, "wandb")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Lightning's, with checkpoints loaded safely and predictions written instead of kept in memory."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        defaults = {"weights_only": True} | ({"return_predictions": False} if subcommand == "predict" else {})
        parser.set_defaults(defaults)
        return parser

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint that ``last``, ``best`` or a path means, and see that it is one.

        Lightning's version merges the checkpoint's hyperparameters into the configuration; here the configuration
        rules, and a checkpoint of another model is refused.
        """
        settings = self.config[self.config.subcommand]
        run = settings.run
        run.name = run.name or default_run_name()
        if settings.ckpt_path is None and self.config.subcommand != "fit" and is_first_rank():
            sys.stderr.write(
                f"striate: no --ckpt_path: {self.config.subcommand} uses the weights that the YAML names, and random "
                "ones where it names none (--ckpt_path best is the last training run's best)\n"
            )
        if settings.ckpt_path is not None:
            settings.ckpt_path = str(find_checkpoint(settings.ckpt_path, Path(run.root) / run.name))

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; a checkpoint to come makes pretrained weights needless."""
        if self._get(self.config, "ckpt_path") is not None:
            with skip_pretrained():
                super().instantiate_classes()
        else:
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """The trainer with the run's loggers and the callbacks that every run has."""
        settings = self._get(self.config_init, "trainer")
        given = settings.get("callbacks") or []
        given = list(given) if isinstance(given, list | tuple) else [given]
        logged = settings.get("logger") is not False
        defaults = self.default_callbacks(settings.get("enable_progress_bar") is not False, logged)
        ours = [callback for callback in defaults if not any(isinstance(own, _kind(callback)) for own in given)]
        # ours come first: at the end of validation, Lightning's weight averaging puts the raw weights back; but what
        # saves an interrupted step comes last, for weight averaging and the like are part of the step
        kwargs["callbacks"] = sorted(ours + given, key=lambda callback: isinstance(callback, GracefulInterrupt))
        if self.subcommand != "fit":  # nothing to save, and a checkpoint's own callbacks would complain of the place
            kwargs["callbacks"] = [c for c in kwargs["callbacks"] if not isinstance(c, Checkpoint)]
            kwargs["enable_checkpointing"] = False
        if settings.get("logger") in (None, True):
            run = open_run(self._get(self.config, "run"), str(self.subcommand), self._get(self.config, "ckpt_path"))
            kwargs["logger"] = make_loggers(run, self._get(self.config_init, "wandb"), str(self.subcommand))
            kwargs["default_root_dir"] = settings.get("default_root_dir") or str(run.root)
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, RuntimeError, MisconfigurationException) as error:
            raise ValueError(f"trainer: {error}") from error

    def default_callbacks(self, progress_bar: bool, logged: bool) -> list[pl.Callback]:
        """What every run has."""
        self._dump_config()
        callbacks: list[pl.Callback] = [
            RunRecord({key: value for key, value in self.config_dump.items() if key != "ckpt_path"}),
            Pictures(),
            ConfusionMatrix(),
            PredictionWriter(),
            RunReport(),
        ]
        if progress_bar:
            callbacks.append(RichProgressBar() if sys.stderr.isatty() else TQDMProgressBar(refresh_rate=50))
        if self.subcommand != "fit":
            return callbacks
        return [
            *callbacks,
            *([LearningRateMonitor()] if logged else []),
            RandomState(),
            GracefulInterrupt(typed),
            NetworkSummary(max_depth=2),
            *self.checkpoint_callbacks(),
        ]

    def checkpoint_callbacks(self) -> list[pl.Callback]:
        """``best.ckpt`` by the task's metric, and ``last.ckpt``.

        Two callbacks, since Lightning's ``save_last`` (2.6) passes over epochs that were not the best.
        """
        last = ModelCheckpoint(filename="last", enable_version_counter=False)
        if (monitor := getattr(self.model, "monitor", None)) is None:
            return [last]
        mode = getattr(self.model, "mode", "min")
        return [ModelCheckpoint(filename="best", monitor=monitor, mode=mode, enable_version_counter=False), last]


def _kind(default: pl.Callback) -> type[pl.Callback]:
    """What takes the place of a default callback: one of its class, and of summaries any of Lightning's."""
    return ModelSummary if isinstance(default, ModelSummary) else type(default)


def default_run_name() -> str:
    """The name, without its suffix, of the last ``--config`` file that names a model; the others add to an experiment.

    Where none does, of the last.
    """
    given = [
        Path(argument.removeprefix("--config="))
        for before, argument in zip(["", *sys.argv], sys.argv, strict=False)
        if before in ("--config", "-c") or argument.startswith("--config=")
    ]
    whole = [path for path in given if _names_a_model(path)]
    return [Path("run"), *given, *whole][-1].stem


def _names_a_model(path: Path) -> bool:
    content = get_loader("yaml")(path.read_text(encoding="utf-8"))
    model = content.get("model") if isinstance(content, dict) else None
    return isinstance(model, str) or (isinstance(model, dict) and "class_path" in model)


def accept_none() -> None:
    """Let ``None`` on the command line mean ``null``.

    jsonargparse (4.53) itself writes ``None`` when it hands an override such as ``--model.model.backbone.weights
    null`` down through nested classes, and would then read it as text.
    """
    load = get_loader("yaml")
    set_loader("yaml", lambda text: None if text.strip() == "None" else load(text), (yaml.YAMLError,))


class _Quiet(logging.Filter):
    """Leaves out what Lightning says of other products, and of what striate has decided on purpose."""

    noise = (
        "`weights_only` was not set",
        "💡 Tip",
        "TPU available",
        "Trainer already configured with",
        "Loading `train_dataloader` to estimate",
    )

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is shown."""
        return not record.getMessage().startswith(self.noise)


def launch() -> None:
    """Run the command line in ``sys.argv``; what the user can mend is answered in one line, without traceback.

    ``STRIATE_TRACEBACK=1`` in the environment shows the traceback too.
    """
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # albumentations' defaults are tuples, which YAML has not; they come back as lists, and that is accepted
    warnings.filterwarnings("ignore", message="(?s).*Dump of a value that does not round-trip.*")
    warnings.filterwarnings("ignore", message=".*`isinstance.treespec, LeafSpec.` is deprecated.*")
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")
    warnings.filterwarnings("ignore", message="You're using the WeightAveraging callback, but loading a checkpoint")
    # frozen normalisation stays in evaluation mode on purpose
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    # a resumed run goes on in its own folder, and evaluation needs none of training's callbacks
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks used to create")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_Quiet())
    accept_none()
    sys.argv[2:] = own_names_first(sys.argv[2:])
    sys.path.append(str(Path.cwd()))  # so that a YAML can name the classes of a file lying here
    try:
        StriateCLI()
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MisconfigurationException) as error:
        message = user_message(error)
        if message is None or os.environ.get("STRIATE_TRACEBACK"):
            raise
        if is_first_rank():
            fail(message, code=1)
        raise SystemExit(1) from None


def user_message(error: BaseException) -> str | None:
    """What to tell the user, when the error was raised on purpose by striate; None for anything unforeseen."""
    text = str(error)
    if match := re.match(r"You restored a checkpoint with current_epoch=(\d+),? but .*max_epochs=(\d+)", text):
        return (
            f"trainer.max_epochs: {match[2]}, but the checkpoint of --ckpt_path is of epoch {match[1]}, from 0; "
            "give more to go on, or leave --ckpt_path out to start anew"
        )
    if "Original Traceback" in text:  # from a loader's worker, whose last line is "Type: message"
        raised_in = [line for line in text.splitlines() if line.strip().startswith('File "')][-1:]
        ours = any(str(Path(__file__).parents[2]) in line and "site-packages" not in line for line in raised_in)
        return text.rstrip().splitlines()[-1].split(": ", 1)[-1] if ours else None
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if frame.f_globals.get("__name__", "").startswith("striate."):
        return text or None  # without a message a traceback says more
    # jsonargparse wraps what a class of the configuration objected to
    return condense(text) if text.startswith("Does not validate against any of the Union subtypes") else None
