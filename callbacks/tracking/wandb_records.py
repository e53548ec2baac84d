"""What W&B's client has recorded on disk: the ``.wandb`` files of a run's folder."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEP = "trainer/global_step"
"""Name of the training step in the rows of a history, as in those of Lightning's logger."""

BLOCK, HEADER = 32768, 7
"""Bytes of a block of LevelDB's log format, and of the header of the file and of each record."""


def read_records(path: Path) -> Iterator[Any]:
    """The complete records of a ``.wandb`` file up to a damaged one; it may still be growing or end within one."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # its classes are made when it is imported
    data = path.read_bytes()
    position, parts = HEADER, b""
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:  # the rest of a block is empty
            position += BLOCK - position % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + HEADER])
        position += HEADER + length
        if position > len(data):
            return
        parts += data[position - length : position]
        if kind in (1, 4):  # a record is one part (type 1), or a first, middle and last part (2, 3, 4)
            record = messages.Record()
            try:
                record.ParseFromString(parts)
            except DecodeError:  # after a power failure
                return
            yield record
            parts = b""


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of the history in a ``.wandb`` file; dotted keys are nested."""
    for record in read_records(path):
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                *outer, name = item.nested_key or [item.key]
                inner = row
                for key in outer:
                    inner = inner.setdefault(key, {})
                inner[name] = json.loads(item.value_json)
            yield row


def last_recorded_step(folder: Path, run_id: str) -> int:
    """The last training step that W&B's files below the folder of a run hold; -1: none."""
    return max((int(row[STEP]) for row in _recorded_rows(folder, run_id)), default=-1)


def recorded_keys(folder: Path, run_id: str, step: int) -> set[str]:
    """Names of the metrics and media of a training step in W&B's files below the folder of a run."""
    return {key for row in _recorded_rows(folder, run_id) if row[STEP] == step for key in row}


def _recorded_rows(folder: Path, run_id: str) -> Iterator[dict[str, Any]]:
    for path in folder.glob(f"wandb/*-{run_id}/run-{run_id}.wandb"):
        yield from (row for row in read_rows(path) if STEP in row)
