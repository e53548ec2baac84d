"""Exports a data module: splits, reading in parallel, and a folder that is there whole or not at all."""

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch.utils.data import DataLoader, Dataset

from ..annotations.argument_checks import did_you_mean
from ..base import VisionDataModule
from ..images.read import ImageError
from ..loading.loader import prepare_worker
from ..loading.sources import Sample, Source
from ..loading.targets import check_targets, fill_defaults
from .coco import CocoWriter
from .files import FolderWriter, MaskWriter, YoloWriter
from .voc import VocWriter
from .writer import Settings, Writer, task_of

FORMATS: dict[str, type[Writer]] = {
    "coco": CocoWriter,
    "voc": VocWriter,
    "yolo": YoloWriter,
    "masks": MaskWriter,
    "folder": FolderWriter,
}
SPLITS = ("train", "val", "test")
READ_BACK = "striate.yaml"

Track = Callable[[Iterable[Any], str, int], Iterable[Any]]

_MARK = ".striate-export"


@dataclass(frozen=True)
class Exported:
    """What an export has written.

    Attributes:
        folder: where.
        task: whose targets.
        counts: samples of each split.
        lost: what the format has no place for, and how often; unreadable images too.
        absent: splits that the data module does not have, and why.
        config: a YAML with the ``data`` section that reads the files; None where striate has no such reader.
    """

    folder: Path
    task: str
    counts: dict[str, int]
    lost: dict[str, int]
    absent: dict[str, str]
    config: Path | None


def _untracked(items: Iterable[Any], split: str, size: int) -> Iterable[Any]:
    return items


def export_data(
    data: VisionDataModule,
    format: str,
    folder: str | Path,
    splits: Sequence[str] | None = None,
    quality: int = 95,
    track: Track = _untracked,
) -> Exported:
    """Write a data set to disk: raw samples, without augmentation.

    It is written into ``FOLDER.partial``, which takes its name at the end. An interrupted export leaves nothing; one
    that was killed leaves the partial folder, which the next export to this place replaces.

    Args:
        data: the data set; read by ``data.num_workers`` processes.
        format: one of `FORMATS`.
        folder: must not be there yet, or be empty.
        splits: some of train, val and test; None: train, and the others where there are such.
        quality: of JPEG files, 1 to 100, for ``voc``.
        track: is given the samples of a split, its name and its size, and gives the samples on: for a progress bar.

    Raises:
        FileExistsError: when the folder has files in it.
        ValueError: for another format or split, a format that does not hold the task, targets against the
            conventions.
        ImageError: for an unreadable image, if ``data.strict``; otherwise it is left out and counted.
    """
    if format not in FORMATS:
        raise ValueError(f"format: {format!r} is not one of {', '.join(FORMATS)}{did_you_mean(format, FORMATS)}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: {quality} is not a JPEG quality, 1 to 100")
    with _whole(Path(folder).expanduser()) as place:
        data.prepare_data()
        sources, absent = _open(data, splits)
        settings = Settings(place, "", data.class_names, list(sources), quality)
        writer: Writer | None = None
        counts, unreadable = dict.fromkeys(sources, 0), 0
        for split, source in sources.items():
            for number, raw in enumerate(track(_samples(source, data.num_workers), split, len(source))):
                if isinstance(raw, ImageError):
                    if data.strict:
                        raise raw
                    unreadable += 1
                    continue
                with _named(f"sample {number} of {split} ({type(data).__name__})"):
                    sample, task = _checked(raw, number, len(settings.class_names))
                writer = writer or _writer(format, settings._replace(task=task))
                with _named(f"sample {number} of {split} ({type(data).__name__})"):
                    if task != writer.settings.task:
                        raise ValueError(f"has targets of {task}, and those before it of {writer.settings.task}")
                    writer.add(split, number, sample)
                counts[split] += 1
        if writer is None:
            raise ValueError(f"none of the {unreadable} images can be read")
        writer.close()
        lost = Counter({"unreadable images left out": unreadable}) + writer.lost
        config = _read_back(writer, Path(folder).expanduser())
    config = None if config is None else Path(folder).expanduser() / config.name
    return Exported(Path(folder).expanduser(), writer.settings.task, counts, dict(lost), absent, config)


@contextlib.contextmanager
def _named(sample: str) -> Iterator[None]:
    """Put a sample's name before what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{sample} {error}") from None


def _checked(raw: Sample, number: int, num_classes: int) -> tuple[Sample, str]:
    """A sample with each field of its targets, and their task."""
    sample = fill_defaults(raw, number) if "boxes" in raw else raw
    check_targets(sample, num_classes)
    return sample, task_of(sample)


def _writer(format: str, settings: Settings) -> Writer:
    """The writer of a format, if that holds the task."""
    kind = FORMATS[format]
    if settings.task not in kind.tasks:
        others = [name for name, other in FORMATS.items() if settings.task in other.tasks]
        raise ValueError(
            f"format: {format} holds {', '.join(kind.tasks)}, and these are samples of {settings.task}; "
            f"give --format {' or '.join(others)}"
        )
    return kind(settings)


def _open(data: VisionDataModule, splits: Sequence[str] | None) -> tuple[dict[str, Source], dict[str, str]]:
    """The sources of the splits, and why others are not there."""
    for split in splits or ():
        if split not in SPLITS:
            raise ValueError(f"splits: {split!r} is not one of {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    sources: dict[str, Source] = {}
    absent: dict[str, str] = {}
    for split in splits or SPLITS:
        try:
            source = data.make_source(split)
        except (FileNotFoundError, ValueError) as error:
            if splits is not None or split == "train":
                raise
            absent[split] = str(error).splitlines()[0]
            continue
        if source is not None:
            sources[split] = source
        elif splits is not None:
            raise ValueError(f"splits: {type(data).__name__} has no {split} split")
        else:
            absent[split] = f"{type(data).__name__} has none"
    return sources, absent


class _Read(Dataset):
    """A source whose unreadable images come as the error they would raise, also from another process."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample | ImageError:
        try:
            return self.source[index]
        except ImageError as error:
            return error


def _as_it_is(sample: Any) -> Any:
    return sample


def _samples(source: Source, num_workers: int) -> Iterator[Sample | ImageError]:
    """All samples in their order."""
    dataset = _Read(source)
    yield from DataLoader(
        dataset, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is, worker_init_fn=prepare_worker
    )


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes its name when all is done, and is removed when it is not."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "a folder with files in it" if folder.is_dir() else "a file"
        raise FileExistsError(f"{str(folder)!r} is {what}, and an export overwrites nothing: name another folder")
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        if not (partial / _MARK).is_file():
            raise FileExistsError(
                f"{str(partial)!r} is in the way, and no export has left it: move it, or name another"
            )
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    (partial / _MARK).touch()
    try:
        yield partial
        (partial / _MARK).unlink()
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _read_back(writer: Writer, folder: Path) -> Path | None:
    """Write the configuration that reads the export, to the place where it is written now."""
    reader = writer.reader()
    if reader is None:
        return None
    arguments = {"root": str(folder.resolve()), **reader.arguments}
    content = {"data": {"class_path": f"striate.datamodules.{reader.name}", "init_args": arguments}}
    shown = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    path = writer.settings.root / READ_BACK
    path.write_text(
        "# Reads this folder: striate data show --config THIS_FILE, or beside an experiment's own YAML:\n"
        f"# striate fit --config EXPERIMENT.yaml --config THIS_FILE. If the folder moves, change root.\n{shown}",
        encoding="utf-8",
    )
    return path
