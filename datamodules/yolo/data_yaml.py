"""Reads a dataset's ``data.yaml``, as Ultralytics defines it."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..annotations.annotation_errors import DataError, MissingFileError
from ..annotations.argument_checks import did_you_mean
from ..annotations.class_names import reject_similar_names
from ..annotations.text_files import read_text


class DataYaml(NamedTuple):
    """Content of a ``data.yaml``.

    Attributes:
        file: The file.
        root: Folder of the dataset, absolute.
        class_names: Names of the numbers 0 to K-1 in labels.
        splits: Folders and text files of each split, as written.
        num_keypoints: Count of the numbers of each label's keypoints, from ``kpt_shape``; None: no such key.
    """

    file: Path
    root: Path
    class_names: list[str]
    splits: dict[str, list[str]]
    num_keypoints: int | None = None


def read_data_yaml(file: Path, merge: bool = False) -> DataYaml:
    """Read a ``data.yaml``.

    Args:
        file: The file.
        merge: Whether names may be the same, or differ only in case, blanks or Unicode form.

    Raises:
        ValueError: The file is not YAML (with file and line), or not a ``data.yaml`` (with file and key).
    """
    try:
        content = _load(read_text(file))
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
    return DataYaml(
        file, root, _class_names(file, content, merge), splits, _num_keypoints(file, content.get("kpt_shape"))
    )


def _load(text: str) -> Any:
    """Parse YAML; class names that YAML would read as numbers stay as written, such as 007, which is 7 otherwise."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value == "names" and isinstance(value, yaml.CollectionNode):
                names = [name for _, name in value.value] if isinstance(value, yaml.MappingNode) else value.value
                for name in names:
                    if name.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
                        name.tag = "tag:yaml.org,2002:str"
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _num_keypoints(file: Path, shape: Any) -> int | None:
    """Return the count of the numbers of a label's keypoints: points times 2 or 3."""
    if shape is None:
        return None
    is_pair = isinstance(shape, list) and len(shape) == 2 and all(type(side) is int for side in shape)
    if not is_pair or shape[0] < 1 or shape[1] not in (2, 3):
        raise ValueError(f"{file}, kpt_shape: must be the number of keypoints and 2 or 3, got {shape!r}")
    return int(shape[0] * shape[1])


def _class_names(file: Path, content: dict[str, Any], merge: bool) -> list[str]:
    names, count = content["names"], content.get("nc")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise ValueError(f"{file}, names: numbers must be 0 to {len(names) - 1}, got {list(names)[:5]} …")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file}, names: must be a list of names, or of numbers and names, got {names!r}")
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"{file}, names: class {number} must be text, got {name!r}; put it in quotes")
    if count is not None and count != len(names):
        raise ValueError(f"{file}, nc: must be {len(names)}, the number of names, got {count}")
    names = [name.strip() for name in names]
    if merge:
        return names
    if len(set(names)) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{file}, names: each name must be unique, got {duplicate!r} more than once")
    reject_similar_names(names, file, "names")
    return names


def _data_root(file: Path, path: Any) -> Path:
    """Return the folder ``path`` of the file, or the file's own folder where that does not exist on this machine."""
    file_folder = os.path.abspath(file.parent)  # noqa: PTH100 - Path.resolve would follow links
    if path is not None and not isinstance(path, str):
        raise ValueError(f"{file}, path: must be a folder, got {path!r}")
    folder = os.path.normpath(os.path.join(file_folder, os.path.expanduser(path or "")))  # noqa: PTH111, PTH118
    return Path(folder if os.path.isdir(folder) else file_folder)  # noqa: PTH112


def read_tool_folder(root: Path, merge: bool = False) -> DataYaml | None:
    """Read the folder of a tool that writes no ``data.yaml``; None: it is not one.

    Args:
        root: ``obj.data``, as CVAT and darknet have it, names a list of images for each split and the file of the class
            names. Label Studio writes ``classes.txt`` beside the folder ``images``, without splits.
        merge: See `read_data_yaml`.

    Raises:
        MissingFileError: There is no file of class names.
    """
    folder = Path(os.path.abspath(root))  # noqa: PTH100 - Path.resolve would follow links
    if (root / "obj.data").is_file():
        file = root / "obj.data"
        lines = (line.partition("#")[0].partition("=") for line in read_text(file).splitlines())
        values = {key.strip(): value.strip() for key, _, value in lines}
        names = root / without_data(root, values.get("names", "obj.names"))
        keys = (("train", "train"), ("val", "valid"), ("test", "test"))
        splits = {split: [without_data(root, values[key])] for split, key in keys if values.get(key)}
    elif (root / "classes.txt").is_file() and (root / "images").is_dir():
        file = names = root / "classes.txt"
        splits = {"train": ["images"]}
    else:
        return None
    if not names.is_file():
        raise MissingFileError(f"{file}, names: no file {str(names)!r}")
    lines_of_names = read_text(names).rstrip().splitlines()
    return DataYaml(file, folder, _class_names(names, {"names": lines_of_names}, merge), splits)


def without_data(root: Path, name: str) -> str:
    """Return the name of a file as it is, or without its first folder, if it exists only so.

    What CVAT and darknet write begins with a folder ``data`` that need not exist.
    """
    shorter = name.partition("/")[2]
    return shorter if shorter and not (root / name).is_file() and (root / shorter).is_file() else name
