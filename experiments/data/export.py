"""``striate data export``: a data set to disk, in the formats that people and their tools have."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

USAGE = """\
usage: striate data export NAME --format FORMAT DIR [--KEY VALUE …]          NAME: a data module, such as digit_scenes
       striate data export --config FILE --format FORMAT DIR [--KEY VALUE …]

Writes the raw samples of a data set, without augmentation, into a folder that is not there yet.

    --format coco     instances_train2017.json and so on: boxes and exact masks; semantic masks without ignored pixels
             voc      VOCdevkit/VOC2012: boxes, semantic masks, instance masks; images become JPEG
             yolo     data.yaml, images, labels: boxes, or exact outlines of masks
             masks    train/images and train/masks, as MaskFolder reads them: semantic masks
             folder   train/CLASS and so on, as ImageFolder reads them: classification
    --splits train,val,test    some of them; default: those that there are
    --quality 95      of the JPEG files of voc
    --KEY VALUE       any key of the YAML's data section: --task detection, or --data.task detection"""


def export(arguments: Sequence[str]) -> None:
    """Run the command."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)  # noqa: T201
        return
    from typing import Literal

    from ...datamodules.base import VisionDataModule
    from ...datamodules.export import FORMATS, export_data
    from ..launcher.main import fail
    from .section import Option, answered, understand

    options = {
        "format": Option(Literal[tuple(FORMATS)] | None),
        "splits": Option(str | None),
        "quality": Option(int, 95),
    }
    call = understand(arguments, options)
    chosen = call.options
    if chosen.format is None:
        fail(f"--format: give one of {', '.join(FORMATS)}")
    if len(call.positionals) != 1:
        what = "more than one folder: " + ", ".join(call.positionals) if call.positionals else "no folder to write to"
        fail(f"{what}; `striate data export --help` shows how")
    splits = None if chosen.splits is None else [name.strip() for name in chosen.splits.split(",")]
    with answered("interrupted; nothing was written"):
        data = call.build()
        if not isinstance(data, VisionDataModule):
            raise TypeError(f"data.class_path: {type(data).__name__} is no VisionDataModule, whose samples are known")
        done = export_data(data, chosen.format, call.positionals[0], splits, chosen.quality, _bar)
    _report(done, chosen.format)


def _bar(samples: Iterable[Any], split: str, size: int) -> Iterator[Any]:
    """A progress bar on the terminal; where there is none, nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>5}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(samples, total=size, description=split)


def _report(done: Any, format: str) -> None:
    counts = ", ".join(f"{count:,} {split}" for split, count in done.counts.items())
    lines = [f"{done.folder}: {counts} samples of {done.task} as {format}"]
    lines += [f"no {split}: {why}" for split, why in done.absent.items()]
    lines += [f"lost: {count:,} {what}" for what, count in done.lost.items()]
    if done.config is not None:
        lines.append(f"look at it: striate data show --config {done.config}")
    sys.stderr.writelines(f"striate: {line}\n" for line in lines)
