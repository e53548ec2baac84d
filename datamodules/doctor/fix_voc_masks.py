"""A corrected copy of VOC's masks, or SBD's: lists without the images that are to be left out."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..annotations.annotation_errors import record_faults
from .fixes import Log, excluded, link, list_excluded, log_excluded

if TYPE_CHECKING:
    from .collecting import Report
_SBD = ("cls", "inst", "img")


def fix_voc_masks(report: "Report", folder: Path, log: Log) -> dict[str, Any] | None:
    """``ImageSets/Segmentation/SPLIT.txt`` of each year, SBD's ``SPLIT.txt``; the folders of files are linked."""
    data: Any = report.data
    left_out = excluded(report, log)
    init_args: dict[str, Any] = {"root": str(folder)} | ({"sbd": None} if data.sets.sbd is not None else {})
    year_of_sbd = data.sets.devkit / "VOC2012"  # where its images may be
    for record in report.records:
        with record_faults(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            members = data.sets.members(record.name)
        stems: dict[tuple[Path, bool], list[str]] = {}
        for member in members:
            if os.path.abspath(data.sets.image(member)) not in left_out[record.name]:  # noqa: PTH100
                stems.setdefault((member.folder, member.is_sbd), []).append(member.stem)
        init_args[record.name] = []
        for (home, is_sbd), names in stems.items():
            copy = folder / "benchmark_RELEASE/dataset" if is_sbd else folder / "VOCdevkit" / home.name
            lists = copy if is_sbd else copy / "ImageSets" / "Segmentation"
            lists.mkdir(parents=True, exist_ok=True)
            (lists / f"{record.name}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            init_args[record.name].append(f"{'sbd' if is_sbd else home.name.removeprefix('VOC')}_{record.name}")
            _link_folders(home, copy, _SBD if is_sbd else _folders(data))
            if is_sbd:
                _link_folders(year_of_sbd, folder / "VOCdevkit/VOC2012", ("JPEGImages",))
    for split, other in report.aliases.items():
        init_args[split] = init_args.get(other, [])
    list_excluded(folder, left_out)
    log_excluded(left_out, data.root, log)
    return init_args if all(init_args.get(split) for split in ("train", "val")) else None


def _folders(data: Any) -> tuple[str, ...]:
    return "JPEGImages", "SegmentationObject", getattr(data, "mask_folder", "SegmentationClass")


def _link_folders(home: Path, copy: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (home / name).is_dir() and not (copy / name).exists():
            link(home / name, copy / name)
