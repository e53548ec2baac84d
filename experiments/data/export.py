"""``striate data export``: write a data set to disk in a common format."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...datamodules.export import Exported

USAGE = """\
usage: striate data export NAME --format FORMAT DIR [--KEY VALUE …]          NAME: a data module, such as digit_scenes
       striate data export --config FILE --format FORMAT DIR [--KEY VALUE …]

Writes the samples of a data set without augmentation to a new folder.

    --format coco     instances_train2017.json etc.: boxes and exact masks; semantic masks without ignored pixels
             voc      VOCdevkit/VOC2012: boxes, semantic masks, instance masks; images become JPEG
             yolo     data.yaml, images, labels: boxes, or exact outlines of masks
             masks    train/images and train/masks for MaskFolder: semantic masks
             folder   train/CLASS etc. for ImageFolder: classification
    --splits train,val,test    splits to export; default: all that exist
    --quality 95      quality of the JPEG files of voc
    --KEY VALUE       any key of the data section: --task detection, or --data.task detection"""


def export(arguments: Sequence[str]) -> None:
    """Run ``striate data export``.

    Args:
        arguments: The command line behind ``striate data export``.
    """
    from typing import Literal

    from ...datamodules.export import FORMATS, export_data
    from ..launcher.messages import fail
    from .build_data import Option, parse_data_command

    options = {
        "format": Option(Literal[tuple(FORMATS)] | None),
        "splits": Option(str | None),
        "quality": Option(int, 95),
    }
    call = parse_data_command(arguments, options)
    if call.options.format is None:
        fail(f"--format: missing; use one of {', '.join(FORMATS)}")
    if len(call.positionals) != 1:
        problem = f"one folder, got {', '.join(call.positionals)}" if call.positionals else "a folder to write to"
        fail(f"give {problem}; see `striate data export --help`")
    splits = None if call.options.splits is None else [name.strip() for name in call.options.splits.split(",")]
    with call.one_line_errors("interrupted; nothing was written"):
        data = call.build_vision()
        exported = export_data(data, call.options.format, call.positionals[0], splits, call.options.quality, track)
    report(exported, call.options.format)


def track(samples: Iterable[Any], split: str, size: int) -> Iterator[Any]:
    """Yield samples behind a progress bar on the error stream; without a terminal there is no bar."""
    from .progress import progress_bar

    with progress_bar() as progress:
        yield from progress.track(samples, total=size, description=split)


def report(exported: "Exported", format: str) -> None:
    """Print what was exported, what is missing and what the format cannot represent."""
    from ..launcher.messages import notice

    counts = ", ".join(f"{count:,} {split}" for split, count in exported.counts.items())
    notice(f"{exported.folder}: {counts} samples of {exported.task} as {format}")
    for split, reason in exported.absent.items():
        notice(f"no {split}: {reason}")
    for what, count in exported.lost.items():
        notice(f"lost: {count:,} {what}")
    if exported.config is not None:
        notice(f"to view it: striate data show --config {exported.config}")
