"""The check of a data set, from opening its splits to the findings and statistics of a report."""

import itertools
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, Fault, record_faults
from ..annotations.argument_checks import did_you_mean
from ..annotations.fault_kinds import KINDS
from ..base import VisionDataModule
from ..images.similarity import exact_groups, near_pairs
from ..loading.loader import usable_cores
from ..loading.sources import HasAbsence, HasFiles, Source
from ..proposals.recall import ProposalRecall
from .duplicates import ImagePool
from .findings import Finding, Findings, findings_of
from .formats import format_of, unlisted_images
from .proposal_check import check_stored_proposals
from .reading import Work, read_all
from .records import SplitRecord
from .report import SPLITS, Report
from .statistics import Statistics, statistics_of
from .suggestions import suggestions
from .tiny_boxes import tiny_box_findings

MIN_SIDE = 32
"""Side in pixels below which images have too little detail to be compared by appearance."""
Progress = Callable[[str, int, int], None]


def check(
    data: VisionDataModule,
    splits: Sequence[str] = SPLITS,
    processes: int | None = None,
    ignored: Iterable[str] = (),
    name: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read a whole data set and report its faults.

    Samples are read from their sources, without augmentation. Ctrl-C ends the reading; the report then has what was
    found so far.

    Args:
        data: Any data module. It is read again, even if it was read before.
        splits: Splits to check.
        processes: Number of worker processes; None: one per core; 0: this process alone.
        ignored: Kinds of findings (`KINDS`) to skip.
        name: Name of the data set; None: the data module's class.
        progress: Called with the current step, the number of finished items, and the total.

    Raises:
        ValueError: For an unknown kind or split.
    """
    ignored = frozenset(ignored)
    for argument, values, known in (("ignored", ignored, KINDS), ("splits", splits, SPLITS)):
        for value in values:
            if value not in known:
                hint = did_you_mean(value, known)
                raise ValueError(f"{argument}: must be among {', '.join(known)}, got {value!r}{hint}")
    checkup = _Checkup(data, Findings(ignored), progress or (lambda *_: None))
    interrupted = False
    try:
        checkup.open(splits)
        checkup.read(usable_cores() if processes is None else processes)
        checkup.find_tiny_boxes()
        checkup.check_proposals()
        checkup.compare()
        checkup.look_for_unlisted_files()
    except KeyboardInterrupt:
        interrupted = True
    statistics = statistics_of(checkup.records, checkup.class_names or [], one_each=not data.variable_size_images)
    statistics.proposals = checkup.proposals
    checkup.findings.update(absent_classes(statistics, checkup.present_classes))
    statistics.suggestions = suggestions(statistics)
    return Report(
        name or type(data).__name__,
        data,
        checkup.findings,
        statistics,
        checkup.records,
        checkup.sources,
        checkup.notes,
        checkup.aliases,
        interrupted,
    )


def first_line(error: Exception) -> str:
    """Format an error in one line, with its type unless a reader raised it on purpose."""
    expected = isinstance(error, ValueError | FileNotFoundError | ImportError) and str(error)
    text = str(error) if expected else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


class _Checkup:
    """The steps of a check, and their results."""

    def __init__(self, data: VisionDataModule, findings: Findings, progress: Progress) -> None:
        self.data, self.findings, self.progress = data, findings, progress
        self.format = format_of(data)
        self.class_names: list[str] | None = None
        self.present_classes: set[int] | None = None  # of the training set, where its reader knows them
        self.sources: dict[str, Source] = {}
        self.records: list[SplitRecord] = []
        self.notes: list[str] = []
        self.aliases: dict[str, str] = {}
        self.proposals: list[ProposalRecall] = []
        self.faulty_images: set[str] = set()  # images for which a reader has recorded a fault
        self.incomplete = False  # whether an existing split was not opened
        self._recorded: set[tuple[str, ...]] = set()
        self._paths: dict[str, list[str] | None] = {}

    # -- opening -----------------------------------------------------------------------------------

    def open(self, splits: Sequence[str]) -> None:
        """Open the splits; faults that readers record become findings."""
        existing = SPLITS if self.format is None else self.format.splits(self.data)
        self.incomplete = not set(existing) <= set(splits)
        try:
            self.data.prepare_data()  # downloads, if the configuration says so
        except Exception as error:
            self.notes.append(f"The data could not be prepared: {first_line(error)}")
        for number, split in enumerate(splits):
            self.progress("opening", number, len(splits))
            with record_faults() as faults, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what readers warn of is recorded anyway
                source, paths = None, None
                try:
                    source = self.data.open_source(split)
                    if source is None:
                        self.notes.append(f"There is no {split} split.")
                    else:
                        self.class_names = self.class_names or list(self.data.class_names)
                        paths = source_files(source)
                except Exception as error:  # for any error of a reader, the other splits are still checked
                    self._cannot_open(split, error)
                    source = None
            for fault in faults:
                self._add(fault, split)
            if source is not None and split != "test":
                self._look_for_objects(source, split)
            if source is not None and not self._same_as_before(split, paths, len(source)):
                self._register(split, source, paths)
        self.progress("opening", len(splits), len(splits))

    def _look_for_objects(self, source: Source, split: str) -> None:
        """Add a finding if a source knows that it has no usable object."""
        with record_faults():  # its samples are inspected later
            if split == "train":
                self.present_classes = self.data.present_classes(source)
            fault = source.absence(training=split == "train") if isinstance(source, HasAbsence) else None
        if fault is not None:
            self._add(fault, split)

    def _register(self, split: str, source: Source, paths: list[str] | None) -> None:
        self.sources[split], self._paths[split] = source, paths
        if self.format is not None and paths is not None:
            self.notes += self.format.notes(self.data, split, paths)
        self.records.append(SplitRecord(split, len(source), len(self.class_names or ()), paths))
        if not len(source):
            self.findings.add(Finding("unopened-split", split, "it has no images", split))

    def _add(self, fault: Fault, split: str) -> None:
        """Add the findings of a fault, unless it was recorded before: a reader may open a file for two splits."""
        self.faulty_images.update(os.path.abspath(path) for path in fault.images or ())  # noqa: PTH100
        key = (str(fault.file), fault.code, fault.found, fault.unit, *map(str, fault.names))
        if key not in self._recorded:
            self._recorded.add(key)
            self.findings.update(findings_of(fault, split))

    def _cannot_open(self, split: str, error: Exception) -> None:
        if split == "test" and isinstance(error, AbsentSplitError):  # many data sets have none
            self.notes.append(f"There is no {split} split.")
        else:
            self.incomplete = True
            self.findings.add(Finding("unopened-split", split, first_line(error), split))

    def _same_as_before(self, split: str, paths: list[str] | None, size: int) -> bool:
        for other, known in self._paths.items():
            if paths is not None and known is not None and size and paths == known:
                self._is_alias(split, other)
                return True
        return False

    def _is_alias(self, split: str, other: str) -> None:
        self.aliases[split] = other
        if other == "train":
            detail = f"it has the images of {other}, and is checked once"
            self.findings.add(Finding("leaked-split", split, detail, split))
        else:
            self.notes.append(f"{split} is the same as {other}, and checked once.")

    # -- reading -----------------------------------------------------------------------------------

    def read(self, processes: int) -> None:
        """Inspect each sample of each split once."""
        works = [Work(self.sources[record.name], self._paths[record.name], self.class_names) for record in self.records]
        total, done = sum(len(record) for record in self.records), 0
        results = read_all(works, processes if total > 1 else 0)
        found: list[Finding] = []
        try:
            self.progress("reading", 0, total)
            for task, summaries in results:
                record = self.records[task.split]
                record.add(task.start, summaries)
                found += [replace(finding, split=record.name) for one in summaries for finding in one.findings]
                done += len(summaries)
                self.progress("reading", done, total)
        finally:
            results.close()  # type: ignore[attr-defined]
            # processes finish in any order; the report does not depend on it
            order = {record.name: number for number, record in enumerate(self.records)}
            found.sort(key=lambda one: (order[one.split], one.index or 0))
            known = self.faulty_images
            self.findings.update(one for one in found if one.code != "missing-image" or one.image not in known)

    def find_tiny_boxes(self) -> None:
        """Find boxes that are too small to be meant."""
        self.findings.update(tiny_box_findings(self.records, self.class_names or []))

    def check_proposals(self) -> None:
        """Find faults of the stored proposals, if there are any, and compute their recall."""
        checked = check_stored_proposals(self.data, self.records, self.sources)
        self.findings.update(checked.findings)
        self.proposals = checked.recalls
        self.notes += map(str, self.proposals)

    # -- duplicates --------------------------------------------------------------------------------

    def compare(self) -> None:
        """Find images that are the same, or look the same, within and across splits."""
        if not self.records:
            return
        self.progress("comparing", 0, 1)
        self._drop_repeated_splits()
        records = self.records
        readable = np.concatenate([record.readable for record in records])
        pool = ImagePool(records, self.class_names or [])
        groups = exact_groups(pool.digests, readable)
        self.findings.update(itertools.chain.from_iterable(map(pool.same, groups)))
        distinct = readable.copy()
        for group in groups:
            distinct[group[1:]] = False
        large = np.concatenate([record.sizes for record in records]).min(axis=1) >= MIN_SIDE
        if small := int((distinct & ~large).sum()):
            self.notes.append(
                f"{small} images are smaller than {MIN_SIDE} pixels; they are compared by pixels, not by appearance."
            )
        gradients = np.concatenate([record.gradients for record in records])
        appearances = np.concatenate([record.appearances for record in records])
        self.findings.update(pool.alike(near_pairs(gradients, appearances, np.flatnonzero(distinct & large))))
        self.progress("comparing", 1, 1)

    def _drop_repeated_splits(self) -> None:
        """Treat a split as another one if it has the same images in the same order, in files or in memory."""
        kept: list[SplitRecord] = []
        for record in self.records:
            twins = (one for one in kept if one.is_twin(record))
            if record.readable.any() and (twin := next(twins, None)) is not None:
                self._is_alias(record.name, twin.name)
            else:
                kept.append(record)
        self.records = kept

    # -- unlisted files ----------------------------------------------------------------------------

    def look_for_unlisted_files(self) -> None:
        """Find image and annotation files that no split reads."""
        if self.incomplete:
            self.notes.append("Unlisted files were not looked for, since not all splits were opened.")
            return
        listed = {path for paths in self._paths.values() for path in paths or ()}
        if any(paths is None for paths in self._paths.values()):
            listed |= {path for record in self.records for path in record.paths if path is not None}
        search = unlisted_images if self.format is None else self.format.unlisted
        try:
            for code, path, detail in search(self.data, listed | self.faulty_images):
                image = path if code != "orphan-annotation" else None
                self.findings.add(Finding(code, path, detail, image=image))
        except OSError as error:
            self.notes.append(f"Unlisted files could not be looked for: {error}")


def absent_classes(statistics: Statistics, present: Collection[int] | None) -> Iterator[Finding]:
    """Yield a finding for each class that a training set does not have, if it has others.

    One that no split has is noted only, except in masks, where values may be mapped wrongly.

    Args:
        statistics: Counts of what was read.
        present: Classes that its reader knows of; None: they are those that were counted, if all images could be read.
    """
    train = next((split for split in statistics.splits if split.name == "train"), None)
    if train is None or (present is None and train.readable < train.images):
        return
    present = set(np.flatnonzero(train.counts).tolist()) if present is None else present
    absent = [label for label in range(len(statistics.class_names)) if label not in present]
    for label in absent if len(absent) < len(statistics.class_names) else []:
        unit = {"pixels": "pixel", "labels": "image"}.get(statistics.kind, "object")
        others = [split.name for split in statistics.splits if split.counts[label] and split is not train]
        elsewhere = f"; it occurs in {' and '.join(others)}" if others else ""
        detail = f"class {label} has no {unit}{elsewhere}"
        code = "absent-class" if others or statistics.kind == "pixels" else "unused-class"
        yield Finding(code, statistics.class_names[label], detail, train.name)


def source_files(source: Source) -> list[str] | None:
    """Return the file of each sample's image if the source lists them in ``files()``; else None."""
    if not isinstance(source, HasFiles):
        return None
    paths = [os.path.abspath(path) for path in source.files()]  # noqa: PTH100 - Path.resolve would follow links
    return paths if len(paths) == len(source) else None
