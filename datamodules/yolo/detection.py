"""YOLO's format as in Ultralytics: a ``data.yaml``, and one text file of labels per image."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..annotations.annotation_errors import OUTSIDE, AbsentSplitError, DataError, Fault, MissingFileError, record_error
from ..annotations.argument_checks import check_choice
from ..annotations.dataset_layout import layout_error, warn_about_repeated_files, warn_of_same_stems
from ..annotations.objects import ImageTable, ObjectSource, image_numbers
from ..annotations.similar_names import merged_classes
from ..annotations.skipped_files import report_skipped
from ..annotations.text_files import read_text
from ..base import ObjectDataModule, ObjectOptions, Unpack
from ..images.file_names import resolve_names
from ..images.listing import SUPPORTED, list_folder
from ..loading.splits import optional_val_fraction, random_split
from .data_yaml import DataYaml, read_data_yaml, read_tool_folder, without_data
from .keypoints import Points
from .labels import RelativeObjectSource, label_path, read_labels

YoloTask = Literal["detection", "instance_segmentation"]


class YoloDetection(ObjectDataModule):
    """Objects in YOLO's format, with boxes or with masks.

    Expected layout::

        ROOT/data.yaml                 path: ., train: images/train, val: images/val, names: {0: cat, 1: dog}
        ROOT/images/train/a.jpg        ROOT/labels/train/a.txt
        ROOT/images/val/b.jpg          ROOT/labels/val/b.txt

    In ``data.yaml``, ``path`` is the folder of the dataset, relative to the file's own folder, which is also the
    default where ``path`` is missing or does not exist on this machine. ``train``, ``val`` and ``test`` are each a
    folder, searched recursively, a text file with one image per line, or a list of these; without ``test``, its images
    are those of ``val``. ``names`` is a list, or maps numbers to names; ``nc`` is their count, if present. The lines of
    a text file are relative to its folder, or else to ``path``. Nothing may lead out of ``path``; in
    ``../train/images``, as Roboflow writes it, the ``../`` is ignored if the rest exists.

    The labels of an image are beside it or, if its path has a folder ``images``, in a folder ``labels`` that replaces
    the last of these. A line is ``class x y width height``, with the center x, y, or a polygon
    ``class x1 y1 x2 y2 x3 y3 …``, in fractions of the image's width and height. The box of a polygon is the smallest
    around it. An image without label file has no objects. Of labels with keypoints, if ``data.yaml`` has ``kpt_shape``,
    the boxes are read.

    Without a ``data.yaml``, the folders of two tools are read: CVAT's YOLO 1.1 (``obj.data``, ``obj.names``,
    ``obj_train_data/``, ``train.txt``), as darknet has it, and Label Studio's YOLO (``classes.txt``, ``images/``,
    ``labels/``). These have no images for validation, or rarely: set `val_fraction`.

    Objects that cannot be used are left out with one warning that counts them, or stop the run if `strict`: a NaN or
    infinite number, numbers in pixels, a box without area or outside its image, a polygon of fewer than three points;
    for a task with masks, a box without polygon.

    Args:
        root: The ``data.yaml``, under any name, or its folder.
        task: ``detection``; ``instance_segmentation``: with masks, rasterized as by pycocotools.
        skip_empty: Whether to train without images that have no object; evaluation always includes all images.
        points: What follows the first numbers of a label. ``polygons``: a label with more than four numbers is a
            polygon, or an oriented box, which is one of four points. ``keypoints``: it is a box with keypoints, which
            are left out. ``auto``: the latter if ``data.yaml`` has ``kpt_shape``, otherwise the former; the run stops
            if all labels look like boxes with keypoints.
        val_fraction: Fraction of the training images held out for validation if there is no ``val``, determined by
            `seed`.
        merge_similar_classes: Whether names that are the same, or differ only in case, blanks or Unicode form, are one
            class, with the first of these names; they are rejected otherwise.
        **kwargs: ``min_visibility`` and ``group_by_aspect`` of `ObjectDataModule`, and the loader options of
            `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files are missing; the message shows the expected layout.
        ValueError: The ``data.yaml`` or a label is not YOLO's; the message has the file, and the key or line.

    Batches are `DetectionBatch` or `InstanceSegmentationBatch`. An ``image_id`` is the number in the file name, or the
    image's position where names are not numbers.
    """

    def __init__(
        self,
        root: str,
        task: YoloTask = "detection",
        skip_empty: bool = False,
        points: Points = "auto",
        val_fraction: float | None = None,
        merge_similar_classes: bool = False,
        **kwargs: Unpack[ObjectOptions],
    ) -> None:
        super().__init__(**kwargs)
        val_fraction = optional_val_fraction(val_fraction)
        check_choice("task", task, get_args(YoloTask))
        check_choice("points", points, get_args(Points))
        self.points: Points = points
        self.val_fraction, self.merge_similar_classes = val_fraction, merge_similar_classes
        self.root, self.task, self.skip_empty = Path(root).expanduser(), task, skip_empty
        self._content: DataYaml | None = None

    @property
    def content(self) -> DataYaml:
        """Content of the ``data.yaml``, or what a tool writes instead of one, read at first use."""
        if self._content is None:
            self._content = _read_content(self.root, self.merge_similar_classes)
        return self._content

    @property
    def has_keypoints(self) -> bool:
        """Whether labels are boxes with keypoints, by the argument `points` or the ``data.yaml``."""
        return self.points == "keypoints" or (self.points == "auto" and self.content.num_keypoints is not None)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, from the ``data.yaml``."""
        names = self.content.class_names
        return merged_classes(names)[0] if self.merge_similar_classes else list(names)

    def make_source(self, split: str) -> ObjectSource:
        """Return the images of a split with their objects; without ``test``, it is ``val``.

        Raises:
            AbsentSplitError: There are no images for it, and none are held out.
        """
        content = self.content
        key = "val" if split == "test" and "test" not in content.splits else split
        held_out = key == "val" and "val" not in content.splits
        if self.val_fraction is not None and "val" in content.splits:
            raise ValueError(
                f"val_fraction: must be null, since {content.file} names images for validation, got {self.val_fraction}"
            )
        key = "train" if held_out and self.val_fraction is not None else key
        if key not in content.splits:
            advice = ", or set val_fraction: 0.1" if held_out else ""
            raise AbsentSplitError(f"{content.file}: no images for {key!r}; name their folder or a text file{advice}")
        source = self._read(key, self.skip_empty and split == "train")
        if self.val_fraction is not None and key != "test":
            mask = random_split(len(source.images.names), self.val_fraction, self.seed)
            source.selected = source.selected[mask[source.selected] == held_out]
        return source

    def _read(self, key: str, skip_empty: bool) -> ObjectSource:
        """Read the images that a key of the ``data.yaml`` names, and their labels."""
        content = self.content
        names = [name for entry in content.splits[key] for name in _list_images(content, key, entry)]
        if not names:
            raise ValueError(
                f"{content.file}, {key}: no images in {', '.join(map(repr, content.splits[key]))}; searched for "
                f"{SUPPORTED}"
            )
        stems = [os.path.splitext(os.path.basename(name))[0] for name in names]  # noqa: PTH119, PTH122
        images = ImageTable.of_names(content.root, names, ids=image_numbers(stems))
        images.check(content.file)
        warn_about_repeated_files(content.file, names, "and count double")
        warn_of_same_stems(content.root, names, "and each has all objects of its label file")
        with_masks = self.task == "instance_segmentation"
        points: Points = "keypoints" if self.has_keypoints else self.points
        if with_masks and points == "keypoints":
            raise DataError(
                f"{content.file}: task: instance_segmentation needs polygons, got labels with keypoints; set task: "
                "detection, or points: polygons if they are polygons"
            )
        objects, num_label_files = read_labels(
            images, content.class_names, with_masks, self.strict, points, content.num_keypoints
        )
        if not num_label_files:
            first = label_path(str(content.root), names[0])
            raise _layout_error(
                f"{content.file}, {key}: none of its {len(names)} images has labels; no file {first!r}", self.root
            )
        if self.merge_similar_classes:
            label_of = np.array(merged_classes(content.class_names)[1], np.int32)
            objects = replace(objects, labels=label_of[objects.labels])
        return RelativeObjectSource(images, objects, with_masks, skip_empty)


def _read_content(root: Path, merge: bool) -> DataYaml:
    """Read the ``data.yaml`` in a folder, the only other YAML file there, or what a tool writes instead of one."""
    if root.is_file():
        return read_data_yaml(root, merge)
    if (root / "data.yaml").is_file():
        return read_data_yaml(root / "data.yaml", merge)
    others = sorted(path for path in root.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))
    if not others and (content := read_tool_folder(root, merge)) is not None:
        return content
    if len(others) != 1:
        problem = f"no file {str(root / 'data.yaml')!r}" + (", and several other *.yaml" if others else "")
        raise _layout_error(problem, root)
    return read_data_yaml(others[0], merge)


def _layout_error(problem: str, root: Path) -> MissingFileError:
    return layout_error(problem, YoloDetection, root.parent if root.is_file() else root)


def _relative(root: Path, base: str, text: str) -> str | None:
    """Return a path that is written relative to `base` as one relative to `root`; None if it leads out."""
    path, prefix = os.path.normpath(os.path.join(base, text)), str(root).rstrip(os.sep) + os.sep  # noqa: PTH118
    return path.removeprefix(prefix) if path.startswith(prefix) else "" if path == str(root) else None


def _list_images(content: DataYaml, key: str, entry: str) -> list[str]:
    """List the images in a folder or text file of a split, relative to the root.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It, or a line in it, leads out of the root.
    """
    root = content.root
    name = _relative(root, str(root), entry)
    if name is None and entry.startswith("../"):
        shorter = _relative(root, str(root), entry.removeprefix("../"))
        name = shorter if shorter is not None and (root / shorter).exists() else None
    if name is None:
        raise ValueError(
            f"{content.file}, {key}: must not lead out of {str(root)!r}, got {entry!r}; set path to the folder of all "
            "images"
        )
    path = root / name
    if path.is_file():
        return _read_list(content, path)
    if not path.is_dir():
        raise _layout_error(f"{content.file}, {key}: no folder or file {str(path)!r}", root)
    listing = list_folder(path)
    report_skipped([listing], labels_beside=True)
    return [f"{name}/{image}" if name else image for image in listing.images]


def _read_list(content: DataYaml, file: Path) -> list[str]:
    """Read the images that a text file lists, relative to the root."""
    names: list[str] = []
    base, without_first = "", False
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not (text := line.strip().replace("\\", "/")):
            continue
        if not base:  # the first line shows what the lines are relative to
            base = str(file.parent if (file.parent / text).is_file() else content.root)
            without_first = without_data(Path(base), text) != text
        text = text.partition("/")[2] if without_first else text
        if name := _relative(content.root, base, text):
            names.append(name)
        else:
            remedy = f"images must be in {str(content.root)!r}"
            record_error(Fault("bad-target", file, [number], "line", f"{OUTSIDE}, got {text!r}", remedy))
    return resolve_names(content.root, names)
