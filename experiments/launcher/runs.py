"""The folder of a run and its loggers."""

import netrc
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from ...callbacks.compat import wandb_arguments
from ...callbacks.tracking.guarded_loggers import TIMEOUT, guard_logger
from ...callbacks.tracking.run_facts import FACTS_FILE
from ...callbacks.tracking.wandb_checkpoints import Uploads
from ...callbacks.tracking.wandb_connection import CONNECT_SECONDS, connect
from ...callbacks.tracking.wandb_logger import RunLogger
from ...callbacks.tracking.wandb_run import OLD_RUN_FILE, RUN_FILE, WandbRun
from ..runs.run_state import STATE_FILE
from .compat import MetricsLogger
from .messages import notice
from .slurm import JOB_FILE

RUN_FOLDER = "{run}"
"""Stands for the folder of the run, as the ``save_dir`` of a logger."""

RECORDS = ("config.yaml", STATE_FILE, "wandb", RUN_FILE, OLD_RUN_FILE, "uncommitted.diff", FACTS_FILE, JOB_FILE)
"""Files that a run writes before its first result."""

Mode = Literal["auto", "online", "offline", "off"]


@dataclass
class RunSettings:
    """The folder of the run: ``ROOT/NAME/COMMAND-NUMBER``, with a new number for each run.

    Args:
        name: Name of the experiment; None: the name of the configuration file.
        root: Folder of all runs.
    """

    name: str | None = None
    root: str = "runs"


@dataclass
class WandbSettings:
    """Logging to Weights & Biases.

    Args:
        mode: ``online``, ``offline``, or ``off`` for no logging to W&B. ``auto`` follows ``WANDB_MODE`` if that is set;
            else it is online with a login (``WANDB_API_KEY`` or netrc) and offline without one.
        project: Name of the project; None: ``WANDB_PROJECT``, or ``striate``.
        entity: User or team; None: that of the login.
        id: ID of the run to continue; None: that of the folder in which training continues, or a new one.
        name: Name of the run; None: ``WANDB_NAME``, or task, experiment and number, such as
            ``detection/ssd_digits/fit-1``.
        group: Name of the group of runs; None: ``WANDB_RUN_GROUP``, or the name of the experiment.
        tags: Tags of the run.
        notes: Description of the run.
        job_type: Kind of the run; None: ``WANDB_JOB_TYPE``, or the command, such as ``fit``.
        timeout: Maximum time that media, tables, checkpoints and the end of the run may take, in seconds each. What is
            not sent by then remains on disk.
        checkpoints: Checkpoints to upload as versions of an artifact: ``none``; ``best``, of which only the best stays;
            or ``all``, the best and the last of each epoch.

    Raises:
        ValueError: `timeout` is not positive.
    """

    mode: Mode = "auto"
    project: str | None = None
    entity: str | None = None
    id: str | None = None
    name: str | None = None
    group: str | None = None
    tags: Sequence[str] = field(default_factory=list)
    notes: str | None = None
    job_type: str | None = None
    timeout: float = 60.0
    checkpoints: Uploads = "none"

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ValueError(f"wandb.timeout: must be > 0 seconds, got {self.timeout}")


@dataclass(frozen=True)
class Run:
    """An opened run.

    Attributes:
        root: Folder of the experiment, such as ``runs/quickstart``.
        number: Name of the run in that folder, such as ``fit-1``.
        created: The folders that were created for it, the innermost first.
    """

    root: Path
    number: str
    created: Sequence[Path] = ()

    @property
    def folder(self) -> Path:
        """Folder that the run writes to."""
        return self.root / self.number

    def discard_if_empty(self, failed: bool) -> None:
        """Remove the folders created for this run if there are no files in them, or, if it failed, only records."""
        if not self.created or not self.folder.is_dir():
            return
        files = (path.relative_to(self.folder) for path in self.folder.rglob("*") if not path.is_dir())
        records = RECORDS if failed else (STATE_FILE,)
        if any(path.parts[0] not in records for path in files):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in self.created[1:]:
            if not any(folder.iterdir()):
                folder.rmdir()


def is_first_rank() -> bool:
    """Whether this process is rank 0, judged by the environment before the process group exists."""
    return getattr(rank_zero_only, "rank", 0) == 0


def open_run(settings: Any, command: str, checkpoint: str | None) -> Run:
    """Create a new folder for the run, or reuse the one whose checkpoint training resumes from.

    Only the first rank creates a folder; on the others the name is a placeholder that no logger uses.
    """
    root = Path(settings.root).expanduser() / (settings.name or "run")
    if command == "fit" and checkpoint is not None:
        folder = Path(checkpoint).resolve().parent.parent
        if folder.parent == root.resolve() and folder.name.startswith("fit-"):
            return Run(root, folder.name)
    if not is_first_rank():
        return Run(root, f"{command}-other-rank")
    missing = [folder for folder in (root, root.parent) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = (re.fullmatch(rf"{command}-(\d+)", entry.name) for entry in root.iterdir())
        number = 1 + max((int(match[1]) for match in taken if match), default=0)
        while True:
            try:  # two runs that start at once must not share a folder
                (root / f"{command}-{number}").mkdir()
                return Run(root, f"{command}-{number}", (root / f"{command}-{number}", *missing))
            except FileExistsError:
                number += 1
    except OSError as error:
        raise OSError(f"run.root: cannot write there ({error.strerror or error}), got {settings.root!r}") from error


def make_loggers(
    run: Run,
    settings: Any,
    command: str,
    configured: Sequence[Logger] = (),
    task: str = "",
    checkpoint: str | None = None,
) -> list[Logger]:
    """Build the CSV logger, and the W&B logger unless it is off or the command is ``predict``.

    The CSV logger comes first: Lightning writes checkpoints to the folder of the first logger. Loggers of the
    configuration follow, and none of their calls can stop the run; they replace the W&B logger, unless its mode is
    given. A plain `WandbLogger` among them is striate's own W&B logger, with its arguments before those of `settings`.

    Args:
        run: The opened run.
        settings: The section ``wandb`` of the configuration.
        command: The command.
        configured: Loggers of the configuration.
        task: Kind of the task, to begin the name of the run on W&B with.
        checkpoint: The checkpoint from which training continues; None: there is none.
    """
    given = wandb_logger_arguments(configured, run.folder)
    others = [logger for logger in configured if given is None or not isinstance(logger, WandbLogger)]
    for logger in others:
        guard_logger(logger, run.folder)
    # flush often, so that an interrupted run keeps its metrics
    metrics = MetricsLogger(run.root.parent, run.root.name, run.number, flush_logs_every_n_steps=50)
    loggers: list[Logger] = [metrics, *others]
    mode = "off" if configured and given is None and settings.mode == "auto" else resolve_mode(settings.mode)
    if mode == "off" or command == "predict" or any(isinstance(logger, WandbLogger) for logger in others):
        return loggers
    options = wandb_options(settings, run, command, task) | (given or {})
    offline, number = options.pop("offline", False) or mode == "offline", options.pop("id", None)
    if not is_first_rank():
        return [*loggers, RunLogger(None, run.folder, settings.timeout, offline)]
    known = run_to_continue(run, settings, checkpoint if command == "fit" else None)
    if number is not None and settings.id is None:
        known = WandbRun(number, options["entity"] or "", options["project"])
    connected = connect(run.folder, options, offline, settings.timeout, known)
    return loggers if connected is None else [*loggers, connected]


def wandb_logger_arguments(configured: Sequence[Logger], folder: Path) -> dict[str, Any] | None:
    """Arguments of the `WandbLogger` of a configuration for `wandb.init`; None: striate's own cannot replace it.

    Args:
        configured: Loggers of the configuration.
        folder: Folder of the run.
    """
    found = [logger for logger in configured if isinstance(logger, WandbLogger)]
    given = wandb_arguments(found[0]) if len(found) == 1 else None
    if given is not None and given.pop("dir", ".") in (".", str(folder)):
        return given
    for name, seconds in (("INIT", CONNECT_SECONDS), ("FINISH", TIMEOUT)) if found else ():
        # W&B's client would wait for minutes
        os.environ.setdefault(f"WANDB_{name}_TIMEOUT", f"{seconds:g}")
    return None


def run_to_continue(run: Run, settings: Any, checkpoint: str | None) -> WandbRun | None:
    """The run of W&B to continue, if the folder of the run does not say which; None: a new one.

    A checkpoint from another folder continues only the run that ``wandb.id`` names: two trainings that start from it
    would mix in one.
    """
    if settings.id is not None:
        return WandbRun(settings.id, settings.entity or "", settings.project or "")
    known = None if checkpoint is None else WandbRun.of_checkpoint(checkpoint)
    if known is None or not run.created:
        return known
    notice(f"W&B: a new run, the checkpoint is of {known.id}; to continue that one, pass --wandb.id {known.id}")
    return None


def wandb_options(settings: Any, run: Run, command: str, task: str) -> dict[str, Any]:
    """Arguments of `wandb.init` from the section ``wandb``, the environment and the run, in this order."""
    environment = os.environ.get
    return {
        "project": settings.project or environment("WANDB_PROJECT") or "striate",
        "entity": settings.entity,
        "name": settings.name or environment("WANDB_NAME") or "/".join(filter(None, (task, run.root.name, run.number))),
        "group": settings.group or environment("WANDB_RUN_GROUP") or run.root.name,
        "tags": list(settings.tags) or None,
        "notes": settings.notes,
        "job_type": settings.job_type or environment("WANDB_JOB_TYPE") or command,
    }


def resolve_mode(mode: Mode) -> Literal["online", "offline", "off"]:
    """Resolve ``auto``. Without a login the mode is never online, because W&B would ask for one and wait."""
    requested = os.environ.get("WANDB_MODE", "") if mode == "auto" else mode
    if requested in ("off", "disabled", "dryrun_disabled"):
        return "off"
    if requested in ("offline", "dryrun"):
        return "offline"
    if has_login():
        return "online"
    if requested == "online" and is_first_rank():
        notice("W&B: recording offline, because you are not logged in; run `wandb login`")
    return "offline"


def has_login() -> bool:
    """Whether W&B finds an API key in the environment or in netrc, without asking for one."""
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
