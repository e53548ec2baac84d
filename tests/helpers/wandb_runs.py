"""What an offline W&B run has stored: the rows of its history."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

from .processes import HANG

BLOCK, HEADER = 32768, 7
"""Bytes of a block of LevelDB's log format, and of the header of the file and of each record."""


def read_history(run: Path) -> list[dict[str, Any]]:
    """The rows of the history in the folder of an offline run that was finished."""
    (log,) = run.glob("*.wandb")
    deadline = time.monotonic() + HANG
    # the client's process may write on after finish() has returned; its last record says that the run has ended
    while not (records := list(_records(log.read_bytes()))) or records[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < deadline, "the run has no end"
        time.sleep(0.02)
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                *outer, name = item.nested_key or [item.key]
                place = row
                for key in outer:
                    place = place.setdefault(key, {})
                place[name] = json.loads(item.value_json)
            rows.append(row)
    return rows


def _records(data: bytes) -> Iterator[wandb_internal_pb2.Record]:
    """The complete records of a log: each in one part (type 1), or in a first, middle and last part (2, 3, 4)."""
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
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""
