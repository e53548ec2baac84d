"""The W&B logger of a run: one row per training step, none twice, and no failure that stops training."""

import numbers
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only

from .wandb_guard import Guard, quiet_errors
from .wandb_records import STEP
from .wandb_run import WandbRun

EPOCH_AXIS = ("val/", "test/")
"""Prefixes of metrics that are plotted over epochs; the others are plotted over training steps."""

FATAL = "filestream: fatal error"
"""In the client's own log if the server has refused the history for good."""


class RunLogger(WandbLogger):
    """Lightning's logger for a run that is connected already, with one row of W&B's history per training step.

    Metrics and media of a step are collected and sent as one row when the next step begins, or at the end. Steps that a
    resumed run already has are not sent again. Errors of W&B are reported in one line each, and calls that may wait are
    bounded in time.

    Args:
        run: The run of W&B; None on other ranks than the first.
        folder: Folder of the run.
        timeout: Maximum time for media, tables, artifacts and the end of the run, in seconds.
        offline: Whether the run is recorded on disk only.
        last_step: The last training step that the run already has; -1: none.
        restored: Names of the metrics and media that this step already has.
    """

    def __init__(
        self,
        run: Any,
        folder: Path,
        timeout: float,
        offline: bool,
        last_step: int = -1,
        restored: Collection[str] = (),
    ) -> None:
        super().__init__(experiment=run, save_dir=str(folder))
        self.folder, self.offline, self.last_step = folder, offline, last_step
        self.restored = restored
        self.guard = Guard(timeout, f"the run continues, and its record is in {record_folder(run, folder)}")
        self._row: dict[str, Any] = {}
        self._row_step: int | None = None
        self._defined: set[str] = set()
        self._finished = False

    @property
    def active(self) -> bool:
        """Whether this process records the run; False on other ranks than the first, and after `finish`."""
        return getattr(rank_zero_only, "rank", 0) == 0 and not self._finished

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add metrics or media to the row of a step; without a step, to the current row."""
        if step is not None:
            self.begin_row(step)
            if step < self.last_step:
                return
            if step == self.last_step:
                missing = {key: value for key, value in metrics.items() if key not in self.restored}
                metrics = {**missing, "epoch": metrics["epoch"]} if missing and "epoch" in metrics else missing
        self._row.update(metrics)
        if self._row_step is None:
            self.flush()

    def log_media(self, what: str, build: Callable[[], Mapping[str, Any]], step: int) -> None:
        """Add media to the row of a step; the function that builds them may fail.

        Args:
            what: What they are, for the message if they fail.
            build: Returns the media by key. Not called for steps that the run already has, nor after `finish`.
            step: Training step.
        """
        if not self.active or step < self.last_step:
            return
        self.begin_row(step)
        if media := self.guard.call(what, build, waits=True):
            self.log_metrics(media, step)

    def begin_row(self, step: int) -> None:
        """Send the current row if it belongs to another step."""
        if step != self._row_step:
            self.flush()
            self._row_step = step

    def flush(self) -> None:
        """Send the current row: the numbers first, which never waits, and then the media."""
        row, self._row = self._row, {}
        if not row or not self.active:
            return
        row |= {} if self._row_step is None else {STEP: self._row_step}
        plain = {key: value for key, value in row.items() if isinstance(value, numbers.Number | str)}
        media = {key: value for key, value in row.items() if key not in plain}
        run = self.experiment

        def log_plain() -> None:
            for key in plain.keys() - self._defined:
                self._define(key)
            run.log(plain, commit=not media)

        self.guard.call("recording metrics", log_plain)
        if media:
            self.guard.call(f"recording {', '.join(media)}", lambda: run.log(media, commit=False), waits=True)
            self.guard.call("recording metrics", lambda: run.log({}, commit=True))

    def _define(self, key: str) -> None:
        """Choose the axis that a metric is plotted over."""
        self._defined.add(key)
        if key in (STEP, "epoch"):
            self.experiment.define_metric(key)
        else:
            axis = "epoch" if key.startswith(EPOCH_AXIS) else STEP
            self.experiment.define_metric(key, step_metric=axis)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Record configuration, as nested values."""
        if self.active:
            self.guard.call("recording the configuration", lambda: super(RunLogger, self).log_hyperparams(params))

    @rank_zero_only
    def log_file(
        self, path: Path, name: str, kind: str, aliases: Collection[str] = (), metadata: Mapping[str, Any] | None = None
    ) -> Any:
        """Upload a file as an artifact of the run.

        Args:
            path: The file.
            name: Name of the artifact, which is followed by the ID of the run.
            kind: Type of the artifact, such as ``model``.
            aliases: Names of this version.
            metadata: Plain values that are stored with it.

        Returns:
            The artifact; None if it failed, which is reported.
        """

        def upload() -> Any:
            import wandb

            artifact = wandb.Artifact(f"{name}-{self.experiment.id}", type=kind, metadata=dict(metadata or {}))
            artifact.add_file(str(path))
            return self.experiment.log_artifact(artifact, aliases=list(aliases) or None)

        return self.guard.call(f"uploading {path.name}", upload, waits=True) if self.active else None

    @rank_zero_only
    def update_summary(self, values: Mapping[str, Any]) -> None:
        """Set values of the run's summary."""
        if self.active:
            self.guard.call("recording the summary", lambda: self.experiment.summary.update(dict(values)))

    def identity(self) -> dict[str, str]:
        """Which run of W&B this is, as plain values."""
        return asdict(WandbRun.load(self.folder) or WandbRun(str(self.experiment.id)))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send the current row at the end of a stage."""
        self.flush()

    def finish(self, exit_code: int) -> None:
        """End the run, and print where the record is if the server has not received all of it.

        Args:
            exit_code: 0 for success; W&B shows other runs as failed.
        """
        if not self.active or self.experiment is None:
            return
        self.flush()
        self._finished = True
        run, reason = self.experiment, ""
        log = Path(str(run.settings.log_internal))
        # the client itself stops uploading after the timeout; the margin is for its other steps
        guard = Guard(self.guard.timeout + 15, self.guard.advice)
        guard.report = lambda what, reason: None  # type: ignore[method-assign]
        if guard.call("finishing", lambda: run.finish(exit_code=exit_code) or True, waits=True) is None:
            reason = f"not done after {self.guard.timeout:g} s"
        elif not self.offline and log.is_file() and FATAL in log.read_text(errors="replace"):
            reason = "the server has refused it"
        if reason:
            place = record_folder(run, self.folder)
            rank_zero_info(
                f"W&B: the record is not complete on the server ({reason}), but in {place}. To send what is missing, "
                "repeat the command with --ckpt_path last; to upload all of it as another run: "
                f"wandb sync --include-online --id NEW_ID {place}"
            )


def record_folder(run: Any, folder: Path) -> Path:
    """The folder of W&B's record on disk, relative to the working folder if it is in it; that of the run if unknown."""
    place = folder
    with quiet_errors():
        place = Path(run.settings.sync_dir)
        place = place.resolve().relative_to(Path.cwd())
    return Path(place)
