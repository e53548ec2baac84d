"""Start of a W&B run: online, or offline if the server cannot be reached; new, or the one that a resumed run had."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_info

from .wandb_guard import describe, quiet_errors, wait_for
from .wandb_logger import RunLogger
from .wandb_records import STEP, last_recorded_step, recorded_keys
from .wandb_run import WandbRun

CONNECT_SECONDS = 30
"""Maximum time to wait for the server at the start."""


def connect(
    folder: Path, options: Mapping[str, Any], offline: bool, timeout: float, known: WandbRun | None = None
) -> RunLogger | None:
    """Start or continue the run of W&B, on the first rank.

    Args:
        folder: Folder of the run.
        options: Arguments of `wandb.init`: ``name``, ``project``, ``entity``, ``group``, ….
        offline: Record on disk only.
        timeout: Maximum time for media, tables, artifacts and the end of the run, in seconds.
        known: The run to continue, if the folder does not say which.

    Returns:
        The logger; None if not even the record on disk can be started, which is reported.
    """
    # the client would report its own errors to W&B, and print lines when that fails
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    with quiet_errors():
        _forget_session()
    known = WandbRun.load(folder) or known
    agent_run = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    if agent_run and known and agent_run != known.id:
        known = None  # an agent has started a run of its own
    arguments = dict(options)
    if known:
        arguments |= {"id": known.id, "entity": known.entity or options.get("entity")}
        arguments |= {"project": known.project or options["project"], "resume": "allow"}
    if os.environ.get("WANDB_SWEEP_ID"):  # W&B takes these from the agent's environment, and warns of others
        for name in ("id", "entity", "project"):
            arguments.pop(name, None)
    sweep = known.sweep if known else ""
    try:
        run, reason = _start(arguments, folder, offline, timeout, sweep)
    except (Exception, SystemExit) as error:
        with quiet_errors():
            _teardown()
        rank_zero_info(f"W&B: nothing is recorded, because W&B's client did not start ({describe(error)}).")
        return None
    offline = offline or bool(reason)
    identity = WandbRun.of(run)
    if known and offline:
        identity = WandbRun(run.id, known.entity or identity.entity, identity.project, known.sweep or identity.sweep)
    with contextlib.suppress(OSError):  # a full disk stops training elsewhere, if at all
        identity.save(folder)
    if offline:
        because = f", because the server cannot be used ({reason})" if reason else ""
        rank_zero_info(f"W&B: recording offline{because}. To upload: wandb sync {folder}/wandb/offline-run-*")
    last = -1
    if known:
        last = last_recorded_step(folder, run.id) if offline else int(run.summary.get(STEP, -1))
    return RunLogger(run, folder, timeout, offline, last, recorded_keys(folder, run.id, last))


def _start(arguments: Mapping[str, Any], folder: Path, offline: bool, timeout: float, sweep: str) -> tuple[Any, str]:
    """The run, and why it is offline although it should be online."""
    if not offline:
        try:
            return wait_for(lambda: _init(arguments, folder, "online", timeout, sweep), CONNECT_SECONDS + timeout), ""
        except (Exception, SystemExit) as error:
            reason = describe(error)
        with quiet_errors():  # its service still holds the run's id
            _teardown()
    else:
        reason = ""
    return _init(arguments, folder, "offline", timeout, sweep), reason


def _init(arguments: Mapping[str, Any], folder: Path, mode: Any, timeout: float, sweep: str) -> Any:
    import wandb

    settings: dict[str, Any] = {
        "silent": True,
        "init_timeout": min(CONNECT_SECONDS, timeout),
        "finish_timeout": timeout,
        "finish_timeout_raises": True,
    }
    settings |= {"sweep_id": sweep} if sweep else {}
    known = wandb.Settings.model_fields
    return wandb.init(
        dir=str(folder),
        mode=mode,
        settings=wandb.Settings(**{name: value for name, value in settings.items() if name in known}),
        **arguments,
    )


def _forget_session() -> None:
    """End the client's session if it has no run, since it keeps the environment in which it began."""
    import wandb

    if wandb.run is None:
        _teardown()


def _teardown() -> None:
    import wandb

    wait_for(wandb.teardown, CONNECT_SECONDS)
