"""The check of a data set, from opening its splits to the findings and figures of a report."""

import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..annotations.annotation_errors import record_faults
from ..annotations.fault_kinds import KINDS
from ..base import VisionDataModule
from ..images.read import IMAGE_SUFFIXES
from ..loading.sources import Source
from . import faults as reader_faults
from .duplicates import exact_groups, near_pairs
from .findings import Finding, Findings, excludes_sample
from .formats import SPLITS, format_of
from .reading import Work, read_all
from .records import SplitRecord
from .statistics import Statistics, figures
from .suggestions import suggestions

SMALLEST = 32  # pixels: smaller images have too little in them to be told apart by their looks
Progress = Callable[[str, int, int], None]


@dataclass
class Report:
    """What the check of a data set found.

    Attributes:
        name: what was checked, for headings.
        data: the data module.
        findings: what is wrong.
        statistics: figures and suggestions.
        records: what is kept of each split that was read.
        sources: where the splits' samples come from, to read the pictured ones again.
        notes: remarks, such as a split that is not there.
        aliases: splits that are the same as another, and which.
        interrupted: whether it was stopped early, so that findings may be missing.
    """

    name: str
    data: VisionDataModule
    findings: Findings
    statistics: Statistics
    records: list[SplitRecord]
    sources: dict[str, Source]
    notes: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong that a corrected copy, or a person, should mend; notes do not count."""
        return not self.interrupted and not self.findings.total("error", "warning")


def check(
    data: VisionDataModule,
    splits: Sequence[str] = SPLITS,
    processes: int | None = None,
    ignored: Iterable[str] = (),
    name: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read a whole data set, and say what is wrong with it.

    Samples are read as their source gives them, without augmentation. Ctrl-C ends the reading, and what was found so
    far is reported.

    Args:
        data: any data module; it is read anew, whatever it has opened before.
        splits: of these.
        processes: to read with; None: as many as there are cores; 0: this process alone.
        ignored: kinds of findings (`KINDS`) to pass over.
        name: what to call the data set; None: the data module's class.
        progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        ValueError: for a kind or a split that does not exist.
    """
    ignored = frozenset(ignored)
    for given, known in ((ignored, KINDS), (splits, SPLITS)):
        if unknown := [one for one in given if one not in known]:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(known)}")
    checkup = _Checkup(data, Findings(ignored), progress or (lambda *_: None))
    interrupted = False
    try:
        checkup.open(splits)
        checkup.read(cores() if processes is None else processes)
        checkup.compare()
        checkup.look_for_orphans()
    except KeyboardInterrupt:
        interrupted = True
    statistics = figures(checkup.records, checkup.class_names or [], one_each=not data.variable_size_images)
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


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


class _Checkup:
    """The steps of a check, and what they have found."""

    def __init__(self, data: VisionDataModule, findings: Findings, progress: Progress) -> None:
        self.data, self.findings, self.progress = data, findings, progress
        self.class_names: list[str] | None = None
        self.sources: dict[str, Source] = {}
        self.records: list[SplitRecord] = []
        self.notes: list[str] = []
        self.aliases: dict[str, str] = {}
        self.blamed: set[str] = set()  # images of which a reader has said that something is wrong
        self.skipped = False  # whether a split that is there was not opened
        self._known: set[tuple[str, ...]] = set()
        self._paths: dict[str, list[str] | None] = {}

    # -- opening -----------------------------------------------------------------------------------

    def open(self, splits: Sequence[str]) -> None:
        """Open the splits; what readers complain of becomes findings."""
        known = format_of(self.data)
        self.skipped = not set(SPLITS if known is None else known.splits(self.data)) <= set(splits)
        try:
            self.data.prepare_data()  # a configuration that asks for a download gets it
        except Exception as error:
            self.notes.append(f"The data could not be prepared: {reader_faults.first_line(error)}")
        for number, split in enumerate(splits):
            self.progress("opening", number, len(splits))
            with record_faults() as found, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what readers warn of is read here anyway
                source, paths = None, None
                try:
                    source = self.data.make_source(split)
                    if source is None:
                        self.notes.append(f"There is no {split} split.")
                    else:
                        self.class_names = self.class_names or list(self.data.class_names)
                        paths = files_of(source)
                except Exception as error:  # readers name what is wrong; of others any error is one to report
                    self._cannot_open(split, error)
                    source = None
            self.blamed |= reader_faults.add_faults(self.findings, found, split, self._known)
            if source is None or self._same_as_before(split, paths, len(source)):
                continue
            self.sources[split], self._paths[split] = source, paths
            if known is not None and paths is not None:
                self.notes += known.notes(self.data, split, paths)
            classes = len(self.class_names or ())
            self.records.append(SplitRecord.empty(split, len(source), classes, paths))
            if not len(source):
                self.findings.add(Finding("unopened-split", split, "it has no images", split))
        self.progress("opening", len(splits), len(splits))

    def _cannot_open(self, split: str, error: Exception) -> None:
        message = reader_faults.first_line(error)
        if reader_faults.is_absent(error, split):
            self.notes.append(f"There is no {split} split.")
        else:
            self.skipped = True
            self.findings.add(Finding("unopened-split", split, message, split))

    def _same_as_before(self, split: str, paths: list[str] | None, size: int) -> bool:
        for other, known in self._paths.items():
            if paths is not None and known is not None and size and paths == known:
                self._is_alias(split, other)
                return True
        return False

    def _is_alias(self, split: str, other: str) -> None:
        self.aliases[split] = other
        if other == "train":
            self.findings.add(
                Finding("leaked-split", split, f"it has the images of {other}, and is checked once", split)
            )
        else:
            self.notes.append(f"{split} is the same as {other}, and checked once.")

    # -- reading -----------------------------------------------------------------------------------

    def read(self, processes: int) -> None:
        """Look at each sample of each split, once."""
        works = [Work(self.sources[record.name], self._paths[record.name], self.class_names) for record in self.records]
        total, done = sum(len(record) for record in self.records), 0
        looked_at = read_all(works, processes if total > 1 else 0)
        late: list[Finding] = []
        try:
            self.progress("reading", 0, total)
            for task, looked in looked_at:
                record = self.records[task.split]
                record.take(task.start, looked)
                for number, one in enumerate(looked, start=task.start):
                    record.faulty[number] = any(excludes_sample(finding) for finding in one.findings)
                    late += [replace(finding, split=record.name) for finding in one.findings]
                done += len(looked)
                self.progress("reading", done, total)
        finally:
            looked_at.close()  # type: ignore[attr-defined]
            # processes finish in any order; the report does not
            order = {record.name: number for number, record in enumerate(self.records)}
            for finding in sorted(late, key=lambda one: (order[one.split], one.index or 0)):
                if not (finding.code == "missing-image" and finding.image in self.blamed):
                    self.findings.add(finding)

    # -- images that are the same --------------------------------------------------------------------

    def compare(self) -> None:
        """Find images that are the same, or look the same, within and across splits."""
        if not self.records:
            return
        self.progress("comparing", 0, 1)
        self._drop_repeated_splits()
        records = self.records
        readable = np.concatenate([record.readable for record in records])
        digests = np.concatenate([record.digests for record in records])
        pool = _Pool(records, self.class_names or [])
        groups = exact_groups(digests, readable)
        for group in groups:
            for finding in pool.same(group):
                self.findings.add(finding)
        alone = readable.copy()
        for group in groups:
            alone[group[1:]] = False
        sizes = np.concatenate([record.sizes for record in records])
        large = alone & (sizes.min(axis=1) >= SMALLEST)
        if (alone & ~large).any():
            count = int((alone & ~large).sum())
            self.notes.append(
                f"{count} images are smaller than {SMALLEST} pixels, and compared pixel for pixel, not by their looks."
            )
        gradients = np.concatenate([record.gradients for record in records])
        looks = np.concatenate([record.looks for record in records])
        for finding in pool.alike(near_pairs(gradients, looks, np.flatnonzero(large))):
            self.findings.add(finding)
        self.progress("comparing", 1, 1)

    def _drop_repeated_splits(self) -> None:
        """A split that has another's files, or images that are in none, in the same order is that split."""
        kept: list[SplitRecord] = []
        for record in self.records:
            twins = (one for one in kept if one.is_twin(record))
            if record.readable.any() and (twin := next(twins, None)) is not None:
                self._is_alias(record.name, twin.name)
            else:
                kept.append(record)
        self.records = kept

    # -- files that nothing lists ---------------------------------------------------------------------

    def look_for_orphans(self) -> None:
        """Find image and annotation files that no split reads."""
        if self.skipped:
            self.notes.append("Files that nothing lists were not looked for, since not all splits were opened.")
            return
        listed = {path for paths in self._paths.values() for path in paths or ()}
        if any(paths is None for paths in self._paths.values()):
            listed |= {path for record in self.records for path in record.paths if path is not None}
        known = format_of(self.data)
        try:
            if known is not None and known.orphans is not None:
                orphans: Iterable[tuple[str, str, str]] = known.orphans(self.data, listed | self.blamed)
            else:
                code = "unused-image"
                beside = reader_faults.orphans_beside(listed, IMAGE_SUFFIXES, self.blamed)
                orphans = ((code, path, "") for path in beside)
            for code, path, detail in orphans:
                image = path if code != "orphan-annotation" else None
                self.findings.add(Finding(code, path, detail, image=image))
        except OSError as error:
            self.notes.append(f"Files that nothing lists could not be looked for: {error}")


class _Pool:
    """The images of all splits, numbered through."""

    def __init__(self, records: Sequence[SplitRecord], names: Sequence[str]) -> None:
        self.records, self.names = records, names
        self.starts = np.cumsum([0, *(len(record) for record in records)])
        self.labels = [record.labels() for record in records]

    def place(self, number: int) -> tuple[int, int]:
        """Which split, and which of its samples."""
        split = int(np.searchsorted(self.starts, number, side="right")) - 1
        return split, number - int(self.starts[split])

    def same(self, group: np.ndarray) -> Iterator[Finding]:
        """Findings of images with the same pixels: each but the first of its split, each that an earlier split has."""
        members: dict[int, list[int]] = {}
        for number in group.tolist():
            split, index = self.place(number)
            members.setdefault(split, []).append(index)
        for split, indices in members.items():
            for index in indices[1:]:
                yield self._finding("duplicate-image", "the same pixels as", (split, index), (split, indices[0]))
        for first, second in itertools.combinations(members, 2):
            for index in members[second]:
                yield self._finding("leaked-image", "the same pixels as", (second, index), (first, members[first][0]))

    def alike(self, pairs: np.ndarray) -> Iterator[Finding]:
        """Findings of pairs that look the same: the second of each, once for each split of the first."""
        said: set[tuple[int, int]] = set()
        for first, second in pairs.tolist():
            one, other = self.place(second), self.place(first)
            if (second, other[0]) not in said:
                said.add((second, other[0]))
                yield self._finding("near-duplicate" if one[0] == other[0] else "near-leak", "looks like", one, other)

    def _named(self, label: int) -> str:
        return self.names[label] if 0 <= label < len(self.names) else f"class {label}"

    def _finding(self, code: str, word: str, one: tuple[int, int], other: tuple[int, int]) -> Finding:
        (split, index), (other_split, other_index) = one, other
        record, second = self.records[split], self.records[other_split]
        names = [
            owner.paths[number] or f"sample {number}" for owner, number in ((record, index), (second, other_index))
        ]
        listed_twice = names[0] == names[1] and record.paths[index] is not None
        detail = f"{'the very file of' if listed_twice else word} {second.name}: {names[1]}"
        labels = [self.labels[place] for place in (split, other_split)]
        if labels[0] is not None and labels[1] is not None and labels[0][index] != labels[1][other_index]:
            own, there = (self._named(int(label)) for label in (labels[0][index], labels[1][other_index]))
            detail += f"; with another label ({own}, there {there})"
        return Finding(
            code, names[0], detail, record.name, record.paths[index], index, other=(second.name, other_index)
        )


def files_of(source: Source) -> list[str] | None:
    """The file of each sample's image, where a source says so in ``files()``; None: it does not."""
    files = getattr(source, "files", None)
    if not callable(files):
        return None
    paths = [os.path.abspath(path) for path in files()]  # noqa: PTH100 - Path.resolve would follow links
    return paths if len(paths) == len(source) else None
