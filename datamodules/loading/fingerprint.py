"""A hash of a data set's index, by which runs on the same data can be found."""

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

MAX_DEPTH = 6
"""How deep objects within objects are followed."""

SETTINGS = ("options", "short_side")
"""Attributes of a source that say how it is read, and not what it holds."""


def fingerprint(source: Any) -> str:
    """Hash what a source knows of its samples before it reads an image: files, labels, boxes, masks, sizes.

    Of a path only the last two parts count, so that a copy of the data in another folder has the same fingerprint. The
    content of image files is not read.

    Args:
        source: A source of raw samples; `striate.datamodules.loading.sources.Source`.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{type(source).__name__} {len(source)}".encode())
    _add(digest, source, 0)
    return digest.hexdigest()


def _add(digest: Any, value: Any, depth: int) -> None:
    """Add a value to a hash: its kind and its content, with those of its parts."""
    if depth > MAX_DEPTH:
        return
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, str | Path):
        digest.update("/".join(str(value).replace("\\", "/").rsplit("/", 2)[-2:]).encode() + b"\0")
    elif value is None or isinstance(value, bool | int | float | bytes | np.generic):
        digest.update(repr(value).encode() + b"\0")
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            _add(digest, str(key), depth + 1)
            _add(digest, entry, depth + 1)
    elif isinstance(value, list | tuple | np.ndarray):
        digest.update(f"{len(value)}".encode())
        for entry in value:
            _add(digest, entry, depth + 1)
    elif isinstance(value, set | frozenset):
        _add(digest, sorted(map(str, value)), depth + 1)
    # an object that can be called has parameters too, such as the composer of DigitScenes
    if hasattr(value, "__dict__") and not inspect.isroutine(value) and not isinstance(value, np.ndarray | Path | type):
        _add(digest, {key: entry for key, entry in sorted(vars(value).items()) if key not in SETTINGS}, depth + 1)
