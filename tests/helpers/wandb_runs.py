"""What an offline W&B run has stored."""

import json
import time
from pathlib import Path
from typing import Any

from striate.callbacks.tracking.wandb_records import read_records, read_rows

from .processes import HANG


def read_run(run: Path) -> dict[str, Any]:
    """What the folder of a finished offline run holds: rows of the history, configuration, summary, and the records."""
    (log,) = run.glob("*.wandb")
    deadline = time.monotonic() + HANG
    # the client's process may write on after finish() has returned; its last record says that the run has ended
    while not (records := list(read_records(log))) or records[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < deadline, "the run has no end"
        time.sleep(0.02)
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for record in records:
        for item in [*record.run.config.update, *record.config.update]:
            config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        for item in record.summary.update:
            summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return {"history": list(read_rows(log)), "config": config, "summary": summary, "records": records}


def read_history(run: Path) -> list[dict[str, Any]]:
    """The rows of the history in the folder of an offline run that was finished."""
    rows: list[dict[str, Any]] = read_run(run)["history"]
    return rows


def read_table(run: dict[str, Any], key: str) -> dict[str, Any]:
    """The content of the table that an offline run has logged last under a key, from what `read_run` returns."""
    artifacts = [record.artifact for record in run["records"] if record.HasField("artifact")]
    files = [file for artifact in artifacts for file in artifact.manifest.contents]
    paths = [file.local_path for file in files if file.path == f"{key}.table.json"]
    table: dict[str, Any] = json.loads(Path(paths[-1]).read_text(encoding="utf-8"))
    return table
