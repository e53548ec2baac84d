"""YOLO's format as in Ultralytics: a ``data.yaml``, and one text file of labels per image."""

import json
import os
from pathlib import Path
from typing import Literal, get_args

from ..annotations.annotation_errors import OUTSIDE, DataError, Fault, MissingFileError, record_error
from ..annotations.argument_checks import check_choice
from ..annotations.dataset_layout import layout_error, warn_about_repeated_files, warn_of_same_stems
from ..annotations.objects import ImageTable, ObjectSource, image_numbers
from ..annotations.skipped_files import report_skipped
from ..annotations.text_files import read_text
from ..base import ObjectDataModule, ObjectOptions, Unpack
from ..images.file_names import resolve_names
from ..images.listing import SUPPORTED, list_folder
from .data_yaml import DataYaml, read_data_yaml
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
        **kwargs: Unpack[ObjectOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_choice("task", task, get_args(YoloTask))
        check_choice("points", points, get_args(Points))
        self.points: Points = points
        self.root, self.task, self.skip_empty = Path(root).expanduser(), task, skip_empty
        self._content: DataYaml | None = None

    @property
    def content(self) -> DataYaml:
        """Content of the ``data.yaml``, read at first use."""
        if self._content is None:
            self._content = read_data_yaml(_find_data_yaml(self.root))
        return self._content

    @property
    def has_keypoints(self) -> bool:
        """Whether labels are boxes with keypoints, by the argument `points` or the ``data.yaml``."""
        return self.points == "keypoints" or (self.points == "auto" and self.content.num_keypoints is not None)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, from the ``data.yaml``."""
        return list(self.content.class_names)

    def make_source(self, split: str) -> ObjectSource:
        """Return the images of a split with their objects; without ``test``, it is ``val``."""
        content = self.content
        key = "val" if split == "test" and "test" not in content.splits else split
        if key not in content.splits:
            raise ValueError(f"{content.file}: no images for {key!r}; name their folder or a text file")
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
        return RelativeObjectSource(images, objects, with_masks, self.skip_empty and split == "train")


def _find_data_yaml(root: Path) -> Path:
    """Return the ``data.yaml`` in a folder, or the only other YAML file there."""
    if root.is_file():
        return root
    if (root / "data.yaml").is_file():
        return root / "data.yaml"
    _reject_other_layouts(root)
    others = sorted(path for path in root.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))
    if len(others) != 1:
        problem = f"no file {str(root / 'data.yaml')!r}" + (", and several other *.yaml" if others else "")
        raise _layout_error(problem, root)
    return others[0]


def _reject_other_layouts(root: Path) -> None:
    """Stop at the folders of tools that write no ``data.yaml``, with the one that reads them.

    Raises:
        MissingFileError: CVAT's YOLO 1.1 or darknet (``obj.data``), or Label Studio's YOLO (``classes.txt``).
    """
    kinds = (
        ("obj.data", "obj.names", "obj_train_data", "YOLO 1.1 as CVAT writes it"),
        ("classes.txt", "classes.txt", "images", "YOLO as Label Studio writes it"),
    )
    if any(root.glob("*.y*ml")):
        return
    for mark, list_of_names, images, kind in kinds:
        if (root / mark).is_file() and (root / images).is_dir():
            listed = root / list_of_names
            names = [line.strip() for line in read_text(listed).splitlines()] if listed.is_file() else []
            content = (
                f"{{train: {images}, val: LIST, names: {json.dumps([n for n in names if n], ensure_ascii=False)}}}"
            )
            raise MissingFileError(
                f"root: no file {str(root / 'data.yaml')!r}, got {kind} ({mark}), without it and without validation "
                f"images; write it with {content}, where LIST is a folder or a text file of images for validation"
            )


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
    base = ""
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not (text := line.strip().replace("\\", "/")):
            continue
        if not base:  # the first line shows what the lines are relative to
            base = str(file.parent if (file.parent / text).is_file() else content.root)
        if name := _relative(content.root, base, text):
            names.append(name)
        else:
            remedy = f"images must be in {str(content.root)!r}"
            record_error(Fault("bad-target", file, [number], "line", f"{OUTSIDE}, got {text!r}", remedy))
    return resolve_names(content.root, names)
