"""Jobs that SLURM starts again: find the run that the same job had begun, and continue it.

A requeued job has its old number and the variable ``SLURM_RESTART_COUNT``. Any other job starts a new run.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ...callbacks.atomic_files import replace_text
from .messages import notice

JOB_FILE = "slurm_job.json"
"""File in the folder of a run that says which job and which command of its script it belongs to."""


def job_name() -> str | None:
    """Number of the SLURM job of this process, with that of its task in an array; None: there is no job."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    if not SLURMEnvironment.detect():
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID")


def remember_job(folder: Path, words: Sequence[str]) -> None:
    """Write to the folder of a run which job it belongs to, if it belongs to one.

    Args:
        folder: Folder of the run.
        words: The command line as the user typed it.
    """
    if (name := job_name()) is not None:
        replace_text(folder / JOB_FILE, json.dumps({"job": name, "command": list(words)}) + "\n")


def requeued_run(root: Path, words: Sequence[str]) -> Path | None:
    """The folder of the run that this job had begun when it was started before; None if it starts for the first time.

    Args:
        root: Folder with the runs of the experiment.
        words: The command line as the user typed it. A script may have several.
    """
    if int(os.environ.get("SLURM_RESTART_COUNT") or 0) == 0 or (name := job_name()) is None:
        return None
    for file in sorted(root.glob(f"fit-*/{JOB_FILE}"), key=lambda path: path.stat().st_mtime, reverse=True):
        if json.loads(file.read_text(encoding="utf-8")) == {"job": name, "command": list(words)}:
            notice(f"job {name} was requeued: continuing {file.parent}")
            return file.parent
    return None
