"""YOLO's format as Ultralytics has it: a ``data.yaml``, and a text file of labels an image."""

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import yaml

from ..annotations.annotation_errors import OUTSIDE, Fault, record_error
from ..annotations.argument_checks import did_you_mean
from ..annotations.dataset_layout import layout_error
from ..annotations.objects import ImageTable, ObjectSource, image_numbers
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..images.read import IMAGE_SUFFIXES
from .labels import RelativeObjectSource, label_path, read_labels

YoloTask = Literal["detection", "instance_segmentation"]
_SPLITS = ("train", "val", "test")


class YoloDetection(VisionDataModule):
    """Objects in YOLO's format, with boxes or with masks.

    Expected layout::

        ROOT/data.yaml                 path: ., train: images/train, val: images/val, names: {0: cat, 1: dog}
        ROOT/images/train/a.jpg        ROOT/labels/train/a.txt
        ROOT/images/val/b.jpg          ROOT/labels/val/b.txt

    In ``data.yaml``, ``path`` is the folder of the data, relative to the file's own; without it, or where there is no
    such folder on this machine, it is the file's own. ``train``, ``val`` and ``test`` are each a folder, searched
    through all levels, a text file with an image a line, or a list of these; without ``test``, its images are those of
    ``val``. ``names`` is a list, or a number and a name each; ``nc``, if it is there, their number. A text file's lines
    are relative to its folder, or else to ``path``. Nothing may lead out of ``path``; of ``../train/images``, as
    Roboflow writes it, the ``../`` is passed over where the rest is there.

    The labels of an image lie beside it, or, where its path has a folder ``images``, in ``labels`` in place of the last
    of these. A line is ``class x y width height``, or the polygon ``class x1 y1 x2 y2 x3 y3 …``, each number a part of
    the image's width or height; x and y are the centre. A polygon's box is the smallest around it. An image without
    label file has no objects.

    Objects that cannot be used are left out with one warning that counts them, or stop the run when `strict`: a NaN
    or infinite number, numbers that are pixels, a box of no area or outside its image, a polygon of fewer than three
    points; where masks are asked for, a box alone.

    Args:
        root: the ``data.yaml``, by whatever name, or the folder it lies in.
        task: ``detection``; ``instance_segmentation``: with masks, drawn as pycocotools would.
        skip_empty: train without images that have no object; evaluation always has all.
        min_visibility: part of a box's area that a step of augmentation must leave, or its object is removed.
        group_by_aspect: make training batches of images of like shape, so that less is padded.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when files are not there; the message shows that tree and what was found.
        ValueError: for a ``data.yaml`` or a label that is not YOLO's; the message names file and line, or key.

    Batches are `DetectionBatch` or `InstanceSegmentationBatch`. An ``image_id`` is the number in the file's name, or,
    where names are no numbers, its place.
    """

    def __init__(
        self,
        root: str,
        task: YoloTask = "detection",
        skip_empty: bool = False,
        min_visibility: float = 0.0,
        group_by_aspect: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        if task not in get_args(YoloTask):
            raise ValueError(
                f"data.init_args.task: {task!r} is not one of {', '.join(get_args(YoloTask))}"
                f"{did_you_mean(str(task), get_args(YoloTask))}"
            )
        self.root, self.task = Path(root).expanduser(), task
        self.skip_empty, self.min_visibility = skip_empty, min_visibility
        self.group_by_aspect = group_by_aspect
        self._content: DataYaml | None = None

    @property
    def content(self) -> "DataYaml":
        """What ``data.yaml`` says."""
        if self._content is None:
            self._content = read_data_yaml(_find_yaml(self.root))
        return self._content

    @property
    def class_names(self) -> list[str]:
        """The names in ``data.yaml``."""
        return list(self.content.class_names)

    @property
    def variable_size_images(self) -> bool:
        """True: images differ in size."""
        return True

    def make_source(self, split: str) -> ObjectSource:
        """The images of a split."""
        content = self.content
        key = "val" if split == "test" and "test" not in content.splits else split
        if key not in content.splits:
            raise ValueError(f"{content.file}: no key {key!r}, which names the images of that split, or nothing in it")
        names: list[str] = []
        for entry in content.splits[key]:
            names += _images_of(content, key, entry)
        if not names:
            raise ValueError(
                f"{content.file}, {key}: no images in {', '.join(map(repr, content.splits[key]))}; looked for "
                f"{', '.join(IMAGE_SUFFIXES)}"
            )
        images = ImageTable(
            content.root,
            np.array([os.fsencode(name) for name in names], np.bytes_),
            np.zeros((len(names), 2), np.int32),  # what no label says; see RelativeObjectSource
            image_numbers([os.path.splitext(os.path.basename(name))[0] for name in names]),  # noqa: PTH119, PTH122
        )
        images.check(content.file)
        masks = self.task == "instance_segmentation"
        objects, found = read_labels(images, content.class_names, masks, self.strict)
        if not found:
            first = label_path(str(content.root), names[0])
            raise _layout_error(
                f"{content.file}, {key}: none of its {len(names)} images has labels; no file {first!r}", self.root
            )
        return RelativeObjectSource(images, objects, masks, self.skip_empty and split == "train")


class DataYaml(NamedTuple):
    """What a ``data.yaml`` says.

    Attributes:
        file: the file.
        root: the folder of the data, absolute.
        class_names: of the classes 0 to K-1.
        splits: the folders and text files of each split, as written.
    """

    file: Path
    root: Path
    class_names: list[str]
    splits: dict[str, list[str]]


def read_data_yaml(file: Path) -> DataYaml:
    """Read a ``data.yaml``.

    Raises:
        ValueError: for what is not YAML (file and line), or not such a file (file and key).
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{file}{where}: malformed YAML ({error.problem})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not YAML in UTF-8 ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: {type(content).__name__}, not the keys path, train, val, test and names")
    if "names" not in content:
        raise ValueError(f"{file}: no key 'names', the classes{did_you_mean('names', map(str, content))}")
    if "kpt_shape" in content:
        raise ValueError(f"{file}, kpt_shape: its labels have keypoints, which are not read here; export boxes alone")
    splits: dict[str, list[str]] = {}
    for key in _SPLITS:
        entries = content.get(key)
        entries = [entries] if isinstance(entries, str) else entries or []
        if not isinstance(entries, list) or not all(isinstance(entry, str) and entry for entry in entries):
            raise ValueError(f"{file}, {key}: {content[key]!r} is not a folder, a text file, or a list of these")
        if entries:
            splits[key] = entries
    return DataYaml(file, _data_root(file, content.get("path")), _class_names(file, content), splits)


def _class_names(file: Path, content: dict[str, Any]) -> list[str]:
    names, count = content["names"], content.get("nc")
    if isinstance(names, dict):
        if list(names) != list(range(len(names))) and set(names) != set(range(len(names))):
            raise ValueError(f"{file}, names: its numbers are {list(names)[:5]} …, and must be 0 to {len(names) - 1}")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file}, names: {names!r} is not a list of names, or of numbers and names")
    for number, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise ValueError(f"{file}, names: class {number} is {name!r} and not text; put it in quotes")
    if count is not None and count != len(names):
        raise ValueError(f"{file}, nc: {count}, but there are {len(names)} names")
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{file}, names: {twice!r} is there more than once")
    return names


def _data_root(file: Path, path: Any) -> Path:
    own = os.path.abspath(file.parent)  # noqa: PTH100 - Path.resolve would follow links
    if path is not None and not isinstance(path, str):
        raise ValueError(f"{file}, path: {path!r} is not a folder")
    chosen = os.path.normpath(os.path.join(own, os.path.expanduser(path or "")))  # noqa: PTH111, PTH118
    return Path(chosen if os.path.isdir(chosen) else own)  # noqa: PTH112


def _find_yaml(root: Path) -> Path:
    if root.is_file():
        return root
    if (root / "data.yaml").is_file():
        return root / "data.yaml"
    found = sorted(path for path in root.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))
    if len(found) != 1:
        what = f"no file {str(root / 'data.yaml')!r}" + (", and more than one other *.yaml" if found else "")
        raise _layout_error(what, root)
    return found[0]


def _layout_error(problem: str, root: Path) -> FileNotFoundError:
    return layout_error(problem, YoloDetection, root.parent if root.is_file() else root)


def _below(root: Path, base: str, text: str) -> str | None:
    """A path, as it is written, relative to `root`; None where it leads out."""
    full, inside = os.path.normpath(os.path.join(base, text)), str(root).rstrip(os.sep) + os.sep  # noqa: PTH118
    return full.removeprefix(inside) if full.startswith(inside) else "" if full == str(root) else None


def _images_of(content: DataYaml, key: str, entry: str) -> list[str]:
    """The images of a folder or text file of `content`, relative to its root.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: when it, or a line in it, leads out of the root.
    """
    root = content.root
    name = _below(root, str(root), entry)
    if name is None and entry.startswith("../"):
        shorter = _below(root, str(root), entry.removeprefix("../"))
        name = shorter if shorter is not None and (root / shorter).exists() else None
    if name is None:
        raise ValueError(
            f"{content.file}, {key}: {entry!r} leads out of {str(root)!r}; set path to the folder that holds all of it"
        )
    where = root / name
    if where.is_file():
        return _listed(content, where)
    if not where.is_dir():
        raise _layout_error(f"{content.file}, {key}: no folder or file {str(where)!r}", root)
    names = []
    for folder, folders, files in os.walk(where):
        folders[:] = sorted(inner for inner in folders if inner[0] != ".")
        below = folder[len(str(root).rstrip(os.sep)) + 1 :]
        chosen = sorted(file for file in files if file.lower().endswith(IMAGE_SUFFIXES) and file[0] != ".")
        names += [f"{below}/{file}" if below else file for file in chosen]
    return names


def _listed(content: DataYaml, file: Path) -> list[str]:
    """The images that a text file lists, relative to the root."""
    names: list[str] = []
    base = ""
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not (text := line.strip().replace("\\", "/")):
            continue
        if not base:
            base = str(file.parent if (file.parent / text).is_file() else content.root)
        name = _below(content.root, base, text)
        if name:
            names.append(name)
        else:
            found, remedy = f"{OUTSIDE}, got {text!r}", f"the folder is {str(content.root)!r}"
            record_error(Fault("bad-target", file, [number], "line", found, remedy))
    return names
