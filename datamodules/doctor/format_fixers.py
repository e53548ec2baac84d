"""Writers of corrected copies: how each format is read, repaired and written."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..annotations.annotation_errors import AbsentSplitError, record_faults
from ..annotations.annotation_table import (
    AnnotationTable,
    ImageEntry,
    ObjectEntry,
    link,
    rounded,
    write_csv,
    write_lines,
)
from ..annotations.mask_files import MaskedFiles
from ..annotations.objects import confined
from ..annotations.similar_names import label_lookup
from ..coco.annotation_table import correct_areas, read_coco_table, write_coco_table
from ..folders.instances import InstanceMasks
from ..tables.annotation_table import TableFile
from ..voc.annotation_table import read_voc_table, write_voc_table
from ..voc.segmentation import VOCSegmentation
from ..yolo.annotation_table import read_yolo_table, write_yolo_table
from .findings import format_box
from .records import SplitRecord
from .repair import Exclusions, Fixer, RepairLog, repair
from .report import SPLITS, Report

_SIDES = ("x1", "y1", "x2", "y2")
_SBD_FOLDERS = ("cls", "inst", "img")


def fix_coco(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write ``FOLDER/annotations/*.json``, and link the images below ``FOLDER/IMAGES/``."""
    data: Any = report.data
    init_args: dict[str, Any] = {"root": str(folder)}
    done: dict[tuple[str, str], tuple[str, str]] = {}
    for split, names in data.files.items():
        annotations, images = names
        if names not in done:
            file = data.root / annotations
            try:
                content, table = read_coco_table(file, data.root / images, data.task, data.options.box_format)
            except (ValueError, OSError, KeyError, TypeError) as error:
                log.remaining.append(f"{file}: not corrected, cannot be read ({type(error).__name__}: {error})")
                continue
            table = repair(table, exclusions.get(split, {}), log)
            done[names] = _inside(annotations, f"annotations/{split}.json"), _inside(images, f"{split}_images")
            for entry in correct_areas(table):
                log.add(file, entry.name, "bad-area", "computed from the mask or the box")
            target, links = (folder / name for name in done[names])
            write_coco_table(content, table, target, links, data.options.box_format)
        if split != "test" or names != data.files["val"]:
            init_args[f"{split}_annotations"], init_args[f"{split}_images"] = done[names]
    return init_args


def _inside(name: str, default: str) -> str:
    return os.path.normpath(name) if confined(name) else default


def fix_voc(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write ``Annotations``, ``ImageSets/Main`` and links in ``JPEGImages``: in ``FOLDER``, or by year as in VOC."""
    data: Any = report.data
    layout, label_of = data.layout, label_lookup(data.class_names, data.merge_similar_classes)
    splits_of: dict[Any, list[str]] = {}  # by image set
    for split in SPLITS:
        try:
            for image_set in layout.image_sets(split):
                splits_of.setdefault(image_set, []).append(split)
        except AbsentSplitError as error:
            if split == "train" or layout.year is not None:
                log.remaining.append(f"{split}: not corrected, {str(error).splitlines()[0]}")
    for image_set, splits in splits_of.items():
        with_held_out = [*splits, *(["val"] if data.val_fraction is not None else [])]
        excluded = {path: reason for split in with_held_out for path, reason in exclusions.get(split, {}).items()}
        try:
            table = read_voc_table(layout, image_set, label_of, excluded)
        except (ValueError, OSError) as error:
            log.remaining.append(f"{image_set.name}: not corrected, cannot be read ({error})")
            continue
        home = folder
        if layout.year is not None or isinstance(layout.homes, dict):
            home = (folder / "VOCdevkit" if layout.year is not None else folder) / image_set.home.folder.name
        name = f"{splits[0]}.txt" if image_set.file is None else image_set.file.name
        write_voc_table(repair(table, excluded, log), home, name)
    names = {} if data.name_counts is None else {"class_names": data.class_names}
    return {"root": str(folder)} | names


def fix_yolo(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write ``FOLDER/data.yaml``, lists of images, and ``labels``, and link ``images``."""
    data: Any = report.data
    root, names = os.path.abspath(data.content.root), data.content.class_names  # noqa: PTH100
    with_masks = data.task != "detection"
    content: dict[str, Any] = {"path": ".", "names": dict(enumerate(names)), "nc": len(names)}
    for record in report.records:
        table = read_yolo_table(record.sizes_by_path(), root, len(names), with_masks, data.has_keypoints)
        table = repair(table, exclusions[record.name], log)
        write_yolo_table(table, root, folder, f"{record.name}.txt")
        content[record.name] = f"{record.name}.txt"
    content |= {split: content[other] for split, other in report.aliases.items() if split in data.content.splits}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return {"root": str(folder / "data.yaml")} | ({} if data.val_fraction is None else {"val_fraction": None})


def fix_table(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write ``FOLDER/train.csv`` …, and link the images below ``FOLDER/files`` by the same paths."""
    data: Any = report.data
    init_args: dict[str, Any] = {"root": str(folder / "files")} if data.root is not None else {}
    sizes = {path: size for record in report.records for path, size in record.sizes_by_path().items()}
    for split, name in data.tables.items():
        if name is None:
            continue
        excluded = dict(exclusions.get(split, {}))
        if split == "train" and data.tables["val"] is None:  # val is held out of it
            excluded |= exclusions.get("val", {})
        try:
            source = TableFile(Path(name).expanduser(), data)
        except (ValueError, OSError, KeyError) as error:
            log.remaining.append(f"{name}: not corrected, cannot be read ({type(error).__name__}: {error})")
            continue
        source.write(repair(source.read(sizes), excluded, log), folder, folder / f"{split}.csv")
        init_args[split] = str(folder / f"{split}.csv")
    return init_args


def _root(report: Report) -> str:
    """The absolute path of the data module's root; the file system's without one."""
    return os.path.abspath(report.root if isinstance(report.root, str | Path) else os.sep)  # noqa: PTH100


def _kept(report: Report, record: SplitRecord, exclusions: Exclusions, log: RepairLog) -> list[int]:
    """The indices of the images of a split that a corrected copy keeps."""
    root, excluded = _root(report), exclusions.get(record.name, {})
    listed: dict[str, int | None] = {path: index for index, path in enumerate(record.paths) if path is not None}
    listed = dict.fromkeys(sorted(excluded.keys() - listed)) | listed  # with those that the reader left out
    images = [ImageEntry(os.path.relpath(path, root), "the image", path, item=listed[path]) for path in listed]
    return [image.item for image in repair(AnnotationTable(images), excluded, log).images]


def fix_folders(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write the tree of class folders, or of images and masks, with links; list them in ``manifest_SPLIT.csv``."""
    root, names = _root(report), report.data.class_names
    for record in report.records:
        source: Any = report.sources[record.name]
        rows = []
        for index in _kept(report, record, exclusions, log):
            image = link_below(str(record.paths[index]), root, folder)
            if isinstance(source, MaskedFiles):
                mask = os.path.join(root, os.fsdecode(source.masks[index]))  # noqa: PTH118
                rows.append((image, link_below(mask, root, folder)))
            else:
                label = int(source.labels[index])
                rows.append((image, names[label] if 0 <= label < len(names) else ""))
        headings = ("image", "mask") if isinstance(source, MaskedFiles) else ("path", "label")
        write_csv(folder / f"manifest_{record.name}.csv", headings, rows)
    return {"root": str(folder)}


def fix_image_trees(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write the whole tree, with links, without the images to leave out."""
    root = _root(report)
    if (
        isinstance(report.data, InstanceMasks) and report.data.class_file is not None
    ):  # it may name images that would be missing
        return fix_samples(report, exclusions, folder, log)
    for record in report.records:
        _kept(report, record, exclusions, log)
    excluded = {path for reasons in exclusions.values() for path in reasons}
    for base, _, names in os.walk(root, followlinks=True):
        for name in names:
            path = os.path.join(base, name)  # noqa: PTH118 - a hundred thousand times
            if path not in excluded:
                link_below(path, root, folder)
    return {"root": str(folder)}


def fix_voc_masks(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write ``ImageSets/Segmentation/SPLIT.txt`` of each year and SBD's ``SPLIT.txt``; link the folders of files."""
    data: Any = report.data
    init_args: dict[str, Any] = {"root": str(folder)} | ({"sbd": None} if data.sets.sbd is not None else {})
    for record in report.records:
        _kept(report, record, exclusions, log)
        with record_faults(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            members = data.sets.members(record.name)
        stems: dict[tuple[Path, bool], list[str]] = {}
        for member in members:
            if os.path.abspath(data.sets.image(member)) not in exclusions[record.name]:  # noqa: PTH100
                stems.setdefault((member.folder, member.is_sbd), []).append(member.stem)
        init_args[record.name] = []
        for (home, is_sbd), names in stems.items():
            copy = folder / "benchmark_RELEASE/dataset" if is_sbd else folder / "VOCdevkit" / home.name
            lists = copy if is_sbd else copy / "ImageSets" / "Segmentation"
            write_lines(lists / f"{record.name}.txt", names)
            init_args[record.name].append(f"{'sbd' if is_sbd else home.name.removeprefix('VOC')}_{record.name}")
            mask_folder = data.mask_folder if isinstance(data, VOCSegmentation) else "SegmentationClass"
            _link_folders(home, copy, _SBD_FOLDERS if is_sbd else ("JPEGImages", "SegmentationObject", mask_folder))
            if is_sbd:  # its images may be those of VOC 2012
                _link_folders(data.sets.devkit / "VOC2012", folder / "VOCdevkit/VOC2012", ("JPEGImages",))
    for split, other in report.aliases.items():
        init_args[split] = init_args.get(other, [])
    return init_args if all(init_args.get(split) for split in ("train", "val")) else None


def _link_folders(home: Path, copy: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (home / name).is_dir():
            link(home / name, copy / name)


def link_below(path: str, root: Path | str, folder: Path) -> str:
    """Link a file to its position below `root`, below `folder`; return that position."""
    position = os.path.relpath(path, root)
    link(path, folder / position)
    return position


def fix_samples(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write tables for a data set in a format without a writer, if labels or boxes are all that it has."""
    kind, many = report.statistics.kind, report.data.variable_size_images
    in_files = report.records and all(path is not None for record in report.records for path in record.paths)
    if not in_files or kind not in ("labels", "boxes") or _has_masks(report) or report.records[0].name != "train":
        count = sum(map(len, exclusions.values()))
        samples = "1 sample to leave out is" if count == 1 else f"{count:,} samples to leave out are"
        listed = f": {samples} listed in excluded.csv" if count else ""
        log.remaining.append(f"nothing can be corrected automatically{listed}")
        return None
    boxes = kind == "boxes"
    init_args: dict[str, Any] = {}
    for record in report.records:
        table = repair(_sample_table(record, boxes, report.statistics.class_names), exclusions[record.name], log)
        rows: list[list[Any]] = []
        for image, entries in table.objects_of().items():
            path, outside = image.path, os.path.relpath(image.path, _root(report)).startswith("..")
            if not outside:
                path = f"files/{link_below(path, _root(report), folder / 'files')}"
            for entry in entries:
                sides = [rounded(side) for side in entry.box] if boxes and entry.box is not None else []
                rows.append([path, entry.item, *sides])
            if many and boxes and not entries:
                rows.append([path, "", "", "", "", ""])
        write_csv(folder / f"{record.name}.csv", ("path", "label", *(_SIDES if boxes else ())), rows)
        init_args[record.name] = str(folder / f"{record.name}.csv")
    init_args |= {split: init_args[other] for split, other in report.aliases.items() if other in init_args}
    name = type(report.data).__name__
    log.remaining.append(f"a corrected copy of {name} is written as tables, not in its own format")
    reader = "Manifest" if not boxes else "DetectionManifest" if many else "LocalizationManifest"
    return {"class_path": f"striate.datamodules.{reader}", **init_args, "class_names": report.statistics.class_names}


def _has_masks(report: Report) -> bool:
    for record in report.records:
        for index in np.flatnonzero(record.readable & ~record.excluded)[:1]:
            return "masks" in report.sources[record.name][int(index)]
    return False


def _sample_table(record: SplitRecord, boxes: bool, class_names: list[str]) -> AnnotationTable:
    """The inspected samples of a split, all of them in files."""
    sizes = record.sizes_by_path()
    images = [ImageEntry(path, "the image", path, sizes[path]) for path in record.paths if path is not None]
    found = record.objects()
    objects = [
        ObjectEntry(images[image], "an object", format_box(box), int(label), box, class_names[label])
        for image, box, label, counts in zip(found.image, found.boxes, found.labels, found.not_crowd, strict=True)
        if counts
    ]
    return AnnotationTable(images, objects, boxes)


FIXERS: dict[str, Fixer] = {
    "coco": fix_coco,
    "voc": fix_voc,
    "yolo": fix_yolo,
    "masks": fix_folders,
    "folder": fix_folders,
    "manifest": fix_table,
    "detection_manifest": fix_table,
    "localization_manifest": fix_table,
    "voc_segmentation": fix_voc_masks,
    "voc_instances": fix_voc_masks,
    "instance_masks": fix_image_trees,
    "cityscapes": fix_image_trees,
    "ade20k": fix_image_trees,
}
"""Writer of a corrected copy for each format (`FORMATS`); all others are written by `fix_samples`."""
