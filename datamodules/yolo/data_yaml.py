"""Reads a dataset's ``data.yaml``, as Ultralytics defines it."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..annotations.annotation_errors import DataError, Fault, record_error
from ..annotations.argument_checks import did_you_mean
from ..annotations.similar_names import describe_similar, similar_names
from ..annotations.text_files import read_text


class DataYaml(NamedTuple):
    """Content of a ``data.yaml``.

    Attributes:
        file: The file.
        root: Folder of the dataset, absolute.
        class_names: Names of the classes 0 to K-1.
        splits: Folders and text files of each split, as written.
        num_keypoints: Count of the numbers of each label's keypoints, from ``kpt_shape``; None: no such key.
    """

    file: Path
    root: Path
    class_names: list[str]
    splits: dict[str, list[str]]
    num_keypoints: int | None = None


def read_data_yaml(file: Path) -> DataYaml:
    """Read a ``data.yaml``.

    Raises:
        ValueError: The file is not YAML (with file and line), or not a ``data.yaml`` (with file and key).
    """
    try:
        content = yaml.safe_load(read_text(file))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        position = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{file}{position}: malformed YAML ({error.problem})") from error
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: a number of thousands of digits
        if isinstance(error, DataError):
            raise
        raise ValueError(f"{file}: must be YAML ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: must have the keys path, train, val, test and names, got {type(content).__name__}")
    if "names" not in content:
        raise ValueError(f"{file}: no key 'names' for the classes{did_you_mean('names', map(str, content))}")
    splits: dict[str, list[str]] = {}
    for key in ("train", "val", "test"):
        entries = content.get(key)
        entries = [entries] if isinstance(entries, str) else entries or []
        if not isinstance(entries, list) or not all(isinstance(entry, str) and entry for entry in entries):
            raise ValueError(f"{file}, {key}: must be a folder, a text file, or a list of these, got {content[key]!r}")
        if entries:
            splits[key] = entries
    root = _data_root(file, content.get("path"))
    return DataYaml(file, root, _class_names(file, content), splits, _num_keypoints(file, content.get("kpt_shape")))


def _num_keypoints(file: Path, shape: Any) -> int | None:
    """Return the count of the numbers of a label's keypoints: points times 2 or 3."""
    if shape is None:
        return None
    is_pair = isinstance(shape, list) and len(shape) == 2 and all(type(side) is int for side in shape)
    if not is_pair or shape[0] < 1 or shape[1] not in (2, 3):
        raise ValueError(f"{file}, kpt_shape: must be the number of keypoints and 2 or 3, got {shape!r}")
    return int(shape[0] * shape[1])


def _class_names(file: Path, content: dict[str, Any]) -> list[str]:
    names, count = content["names"], content.get("nc")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise ValueError(f"{file}, names: numbers must be 0 to {len(names) - 1}, got {list(names)[:5]} …")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file}, names: must be a list of names, or of numbers and names, got {names!r}")
    for number, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise ValueError(f"{file}, names: class {number} must be text, got {name!r}; put it in quotes")
    if count is not None and count != len(names):
        raise ValueError(f"{file}, nc: must be {len(names)}, the number of names, got {count}")
    names = [str(name).strip() for name in names]
    if len(set(names)) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{file}, names: each name must be unique, got {duplicate!r} more than once")
    if similar := similar_names(names):
        found = f"names must not differ only in case, blanks or Unicode form, got {describe_similar(similar)}"
        record_error(Fault("similar-classes", file, ["names"], "entry", found, "rename one of them"))
    return names


def _data_root(file: Path, path: Any) -> Path:
    """Return the folder ``path`` of the file, or the file's own folder where that does not exist on this machine."""
    file_folder = os.path.abspath(file.parent)  # noqa: PTH100 - Path.resolve would follow links
    if path is not None and not isinstance(path, str):
        raise ValueError(f"{file}, path: must be a folder, got {path!r}")
    folder = os.path.normpath(os.path.join(file_folder, os.path.expanduser(path or "")))  # noqa: PTH111, PTH118
    return Path(folder if os.path.isdir(folder) else file_folder)  # noqa: PTH112
