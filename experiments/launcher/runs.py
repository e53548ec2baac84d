"""Where a run is kept, and which loggers watch it."""

import netrc
import os
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only

Mode = Literal["auto", "online", "offline", "off"]


@dataclass
class RunSettings:
    """Where the run is kept: ``ROOT/NAME/COMMAND-NUMBER``, a new number each time.

    Args:
        name: of the experiment; None: the name of the configuration file.
        root: folder of all runs.
    """

    name: str | None = None
    root: str = "runs"


@dataclass
class WandbSettings:
    """Weights & Biases.

    Args:
        mode: ``auto`` is online where a login exists (``WANDB_API_KEY`` or netrc) and offline elsewhere, and follows
            ``WANDB_MODE`` where that is set; ``off`` leaves W&B out.
        project: the project; None: ``WANDB_PROJECT``, or ``striate``.
        entity: user or team; None: the login's own.
        group: runs to show together.
        tags: labels of the run.
        notes: a description.
    """

    mode: Mode = "auto"
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: Sequence[str] = field(default_factory=list)
    notes: str | None = None


@dataclass(frozen=True)
class Run:
    """An opened run.

    Attributes:
        root: the experiment's folder, such as ``runs/quickstart``.
        number: this run's name in it, such as ``fit-1``.
    """

    root: Path
    number: str

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.root / self.number


def is_first_rank() -> bool:
    """Whether this process writes, as far as the environment tells before the ranks have met."""
    return getattr(rank_zero_only, "rank", 0) == 0


def open_run(settings: Any, command: str, checkpoint: str | None) -> Run:
    """Claim a new folder, or the old one where training is resumed from a checkpoint inside it.

    Only the first rank creates a folder; on the others the name is a placeholder, which no logger uses.
    """
    root = Path(settings.root).expanduser() / (settings.name or "run")
    if command == "fit" and checkpoint is not None:
        folder = Path(checkpoint).resolve().parent.parent
        if folder.parent == root.resolve() and folder.name.startswith("fit-"):
            return Run(root, folder.name)
    if not is_first_rank():
        return Run(root, f"{command}-other-rank")
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = (re.fullmatch(rf"{command}-(\d+)", entry.name) for entry in root.iterdir())
        number = 1 + max((int(match[1]) for match in taken if match), default=0)
        while True:
            try:  # two runs started at once must not share a folder
                (root / f"{command}-{number}").mkdir()
                return Run(root, f"{command}-{number}")
            except FileExistsError:
                number += 1
    except OSError as error:
        raise OSError(f"run.root {settings.root!r}: cannot write there ({error.strerror or error})") from error


class MetricsLogger(CSVLogger):
    """Lightning's CSV logger, which goes on with the ``metrics.csv`` of a resumed run instead of deleting it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of ``metrics.csv``."""
        if self._experiment is None:
            os.makedirs(self.log_dir, exist_ok=True)  # noqa: PTH103
            self._experiment = _AppendingWriter(log_dir=self.log_dir)
        return self._experiment


class _AppendingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Take over the columns of a file that is there; the parent would delete it."""
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                header = file.readline().strip()
            self.metrics_keys = header.split(",") if header else []


def make_loggers(run: Run, settings: Any, command: str) -> list[Logger]:
    """``metrics.csv`` always; W&B unless it is off or the command is ``predict``."""
    # flushed often, so that an interrupted run leaves what it measured
    loggers: list[Logger] = [MetricsLogger(run.root.parent, run.root.name, run.number, flush_logs_every_n_steps=50)]
    mode = resolve_mode(settings.mode)
    if mode == "off" or command == "predict":
        return loggers
    loggers.append(_wandb_logger(run, settings, command, offline=mode == "offline"))
    return loggers


def _wandb_logger(run: Run, settings: Any, command: str, offline: bool) -> WandbLogger:
    import wandb

    def build(offline: bool) -> WandbLogger:
        logger = WandbLogger(
            name=f"{run.root.name}/{run.number}",
            save_dir=str(run.folder),
            offline=offline,
            id=_run_id(run),
            project=settings.project or os.environ.get("WANDB_PROJECT") or "striate",
            entity=settings.entity,
            group=settings.group or run.root.name,
            tags=list(settings.tags),
            notes=settings.notes,
            job_type=command,
            # a dead network must not hold the run up for long
            settings=wandb.Settings(init_timeout=30, silent=True),
            mode="offline" if offline else "online",
        )
        logger._wandb_init.pop("anonymous", None)  # W&B warns of it, even of None
        return logger

    logger = build(offline)
    if is_first_rank() and not offline:
        try:
            logger.experiment  # noqa: B018 - connects
        except (wandb.errors.CommError, wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
            rank_zero_info(f"W&B cannot be reached ({error}); this run is recorded offline instead.")
            logger, offline = build(offline=True), True
    if offline:
        rank_zero_info(f"W&B: recording offline. To upload: wandb sync {run.folder}/wandb/offline-run-*")
    return logger


def _run_id(run: Run) -> str | None:
    """The W&B id of this run, kept in its folder so that a resumed run continues the same W&B run."""
    if not is_first_rank():
        return None
    path = run.folder / "wandb_id.txt"
    if not path.is_file():
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()


def resolve_mode(mode: Mode) -> Literal["online", "offline", "off"]:
    """What ``auto`` means here. Online is never chosen without a login, since W&B would ask for one and wait."""
    wanted = os.environ.get("WANDB_MODE", "") if mode == "auto" else mode
    if wanted in ("off", "disabled", "dryrun_disabled"):
        return "off"
    if wanted in ("offline", "dryrun"):
        return "offline"
    if has_login():
        return "online"
    if wanted == "online" and is_first_rank():
        sys.stderr.write("striate: W&B was asked to be online, but there is no login here (`wandb login`)\n")
    return "offline"


def has_login() -> bool:
    """Whether W&B finds an API key without asking: in the environment or in netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    candidates = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for candidate in filter(None, candidates):
        try:
            if netrc.netrc(str(Path(candidate).expanduser())).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
