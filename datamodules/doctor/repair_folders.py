"""Writes corrected copies of data sets that are folders of files: links to the valid files, and lists of them."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..annotations.annotation_errors import record_faults
from .records import SplitRecord
from .repair import AnnotationTable, Exclusions, ImageEntry, RepairLog, link, link_below, repair, write_csv, write_lines
from .repair_tables import fix_samples
from .report import Report

_SBD_FOLDERS = ("cls", "inst", "img")


def _kept(report: Report, record: SplitRecord, exclusions: Exclusions, log: RepairLog) -> list[int]:
    """The indices of the images of a split that a corrected copy keeps."""
    root = os.path.abspath(report.data.root)  # type: ignore[attr-defined]  # noqa: PTH100
    listed = [(index, path) for index, path in enumerate(record.paths) if path is not None]
    # images that readers could not list are excluded too
    others = exclusions.get(record.name, {}).keys() - set(record.paths)
    images = [ImageEntry(os.path.relpath(path, root), "the image", path, item=index) for index, path in listed]
    images += [ImageEntry(os.path.relpath(path, root), "the image", path) for path in sorted(others)]
    # the same image listed twice is left to the exclusions, which know its splits
    table = repair(AnnotationTable(images), exclusions.get(record.name, {}), log)
    return [image.item for image in table.images]


def _fix_pairs(
    report: Report,
    exclusions: Exclusions,
    folder: Path,
    log: RepairLog,
    headings: tuple[str, str],
    second: Callable[[SplitRecord, int], str],
) -> dict[str, Any]:
    """Link the kept images, and write ``manifest_SPLIT.csv`` with each image and its label or mask."""
    root = os.path.abspath(report.data.root)  # type: ignore[attr-defined]  # noqa: PTH100
    for record in report.records:
        kept = _kept(report, record, exclusions, log)
        rows = [(link_below(str(record.paths[index]), root, folder), second(record, index)) for index in kept]
        write_csv(folder / f"manifest_{record.name}.csv", headings, rows)
    return {"root": str(folder)}


def fix_class_folders(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write the tree of class folders, with links, and ``manifest_SPLIT.csv`` (path, label)."""
    names = report.data.class_names

    def label(record: SplitRecord, index: int) -> str:
        number = int(report.sources[record.name].labels[index])  # type: ignore[attr-defined]
        return names[number] if 0 <= number < len(names) else ""

    return _fix_pairs(report, exclusions, folder, log, ("path", "label"), label)


def fix_mask_folders(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write the tree of images and masks, with links, and ``manifest_SPLIT.csv`` (image, mask)."""
    root = os.path.abspath(report.data.root)  # type: ignore[attr-defined]  # noqa: PTH100

    def mask(record: SplitRecord, index: int) -> str:
        masks = report.sources[record.name].masks  # type: ignore[attr-defined]
        return link_below(os.path.join(root, os.fsdecode(masks[index])), root, folder)  # noqa: PTH118

    return _fix_pairs(report, exclusions, folder, log, ("image", "mask"), mask)


def fix_image_trees(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write the whole tree, with links, without the images to leave out."""
    data: Any = report.data
    if getattr(data, "class_file", None) is not None:  # it may name images that would be missing
        return fix_samples(report, exclusions, folder, log)
    root = os.path.abspath(data.root)  # noqa: PTH100
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
            mask_folder = getattr(data, "mask_folder", "SegmentationClass")
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
