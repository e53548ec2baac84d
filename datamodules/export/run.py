"""Export a data module: splits, parallel reading, and a folder that is written completely or not at all."""

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch.utils.data import DataLoader, Dataset

from ..annotations.argument_checks import check_choice
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
    """Result of an export.

    Attributes:
        folder: Folder with the files.
        task: Task of the samples.
        counts: Number of samples per split.
        lost: Counts of what the format cannot store, and of unreadable images.
        absent: Splits that the data module does not have, with the reason.
        config: YAML file with the ``data`` section that reads the files; None if striate has no such reader.
    """

    folder: Path
    task: str
    counts: dict[str, int]
    lost: dict[str, int]
    absent: dict[str, str]
    config: Path | None


def export_data(
    data: VisionDataModule,
    format: str,
    folder: str | Path,
    splits: Sequence[str] | None = None,
    quality: int = 95,
    track: Track | None = None,
) -> Exported:
    """Write a data set to disk: raw samples, without augmentation.

    Files are written to ``FOLDER.partial``, which is renamed at the end. An interrupted export leaves no files. A
    killed one leaves the partial folder, which the next export to the same folder replaces.

    Args:
        data: The data set; read by ``data.num_workers`` processes.
        format: One of `FORMATS`.
        folder: Folder to create; an existing one must be empty.
        splits: Some of train, val and test; None: train, and the others if they exist.
        quality: Quality of JPEG files, 1 to 100, for ``voc``.
        track: Called with the samples of a split, its name and its size; returns the samples. For a progress bar.

    Raises:
        FileExistsError: The folder is not empty.
        ValueError: The format or a split is unknown, the format does not support the task, or targets are invalid.
        ImageError: An image is unreadable, and ``data.strict`` is set; otherwise it is skipped and counted.
    """
    check_choice("format", format, list(FORMATS))
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: must be in [1, 100], got {quality}")
    folder = Path(folder).expanduser()
    with _atomic_folder(folder) as partial:
        data.prepare_data()
        sources, absent = _open(data, splits)
        settings = Settings(partial, "", data.class_names, list(sources), quality)
        writer: Writer | None = None
        counts, unreadable = dict.fromkeys(sources, 0), 0
        for split, source in sources.items():
            samples: Iterable[Any] = _samples(source, data.num_workers)
            for index, raw in enumerate(track(samples, split, len(source)) if track else samples):
                if isinstance(raw, ImageError):
                    if data.strict:
                        raise raw
                    unreadable += 1
                    continue
                name = f"sample {index} of {split} ({type(data).__name__})"
                with _prefix_errors(name):
                    sample, task = _checked(raw, index, len(settings.class_names))
                writer = writer or _make_writer(format, settings._replace(task=task))
                with _prefix_errors(name):
                    if task != writer.settings.task:
                        raise ValueError(f"targets: must be of {writer.settings.task} like those before, got {task}")
                    writer.add(split, index, sample)
                counts[split] += 1
        if writer is None:
            raise ValueError(f"data: need at least one readable image, got {unreadable} unreadable")
        writer.close()
        lost = Counter({"unreadable images omitted": unreadable}) + writer.lost
        config = _write_config(writer, folder)
    config = None if config is None else folder / config.name
    return Exported(folder, writer.settings.task, counts, dict(lost), absent, config)


@contextlib.contextmanager
def _prefix_errors(sample: str) -> Iterator[None]:
    """Prefix errors with the name of their sample."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{sample}: {error}") from None


def _checked(raw: Sample, index: int, num_classes: int) -> tuple[Sample, str]:
    """Return a sample with all fields of its targets, and their task."""
    sample = fill_defaults(raw, index) if "boxes" in raw else raw
    check_targets(sample, num_classes)
    return sample, task_of(sample)


def _make_writer(format: str, settings: Settings) -> Writer:
    """Return the writer of a format, if it supports the task."""
    writer_class = FORMATS[format]
    if settings.task not in writer_class.tasks:
        others = [name for name, other in FORMATS.items() if settings.task in other.tasks]
        raise ValueError(
            f"format: {format} supports {', '.join(writer_class.tasks)}, got samples of {settings.task}; "
            f"use {' or '.join(others)}"
        )
    return writer_class(settings)


def _open(data: VisionDataModule, splits: Sequence[str] | None) -> tuple[dict[str, Source], dict[str, str]]:
    """Return the sources of the splits, and the reasons for absent ones."""
    for split in splits or ():
        check_choice("splits", split, SPLITS)
    sources: dict[str, Source] = {}
    absent: dict[str, str] = {}
    for split in splits or SPLITS:
        try:
            source = data.open_source(split)
        except (FileNotFoundError, ValueError) as error:
            if splits is not None or split == "train":
                raise
            absent[split] = str(error).splitlines()[0]
            continue
        if source is not None:
            sources[split] = source
        elif splits is not None:
            raise ValueError(f"splits: {type(data).__name__} does not have this split, got {split!r}")
        else:
            absent[split] = f"{type(data).__name__} does not have this split"
    return sources, absent


class _ErrorsAsItems(Dataset):
    """A source that returns the error of an unreadable image, also from a worker process."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample | ImageError:
        try:
            return self.source[index]
        except ImageError as error:
            return error


def _identity(sample: Any) -> Any:  # a lambda cannot be sent to workers
    return sample


def _samples(source: Source, num_workers: int) -> Iterator[Sample | ImageError]:
    """Read all samples of a source in order."""
    dataset = _ErrorsAsItems(source)
    yield from DataLoader(
        dataset, batch_size=None, num_workers=num_workers, collate_fn=_identity, worker_init_fn=prepare_worker
    )


@contextlib.contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a partial folder, which is renamed to `folder` on success and removed on failure."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        kind = "a folder with files" if folder.is_dir() else "a file"
        raise FileExistsError(f"folder: must be new or empty, got {str(folder)!r}, {kind}; choose another folder")
    partial = folder.with_name(folder.name + ".partial")
    if partial.exists():
        if not (partial / _MARK).is_file():
            raise FileExistsError(
                f"folder: {str(partial)!r} exists and is not from an export; move it, or choose another folder"
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


def _write_config(writer: Writer, folder: Path) -> Path | None:
    """Write the YAML file that reads the export from `folder` into the partial folder; return its path."""
    reader = writer.reader()
    if reader is None:
        return None
    arguments = {"root": str(folder.resolve()), **reader.arguments}
    content = {"data": {"class_path": f"striate.datamodules.{reader.name}", "init_args": arguments}}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    path = writer.settings.root / READ_BACK
    path.write_text(
        "# Reads this folder: striate data show --config THIS_FILE, or beside an experiment's own YAML:\n"
        f"# striate fit --config EXPERIMENT.yaml --config THIS_FILE. If the folder moves, change root.\n{text}",
        encoding="utf-8",
    )
    return path
