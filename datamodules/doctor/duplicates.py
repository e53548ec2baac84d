"""Findings of images that are the same, or look the same, within and across the splits of a data set."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from .findings import Finding, class_label
from .records import SplitRecord


class ImagePool:
    """The images of all splits, numbered consecutively."""

    def __init__(self, records: Sequence[SplitRecord], class_names: Sequence[str]) -> None:
        self.records, self.class_names = records, class_names
        self.starts = np.cumsum([0, *(len(record) for record in records)])
        self.labels = [record.labels() for record in records]
        self.digests = np.concatenate([record.digests for record in records])

    def position(self, number: int) -> tuple[int, int]:
        """Return the index of an image's split, and its index in the split."""
        split = int(np.searchsorted(self.starts, number, side="right")) - 1
        return split, number - int(self.starts[split])

    def label(self, split: int, index: int) -> int | None:
        """Return the class of an image; None in splits with several objects per image."""
        labels = self.labels[split]
        return None if labels is None else int(labels[index])

    def location(self, split: int, index: int) -> str:
        """Return the file of an image, or its number."""
        return self.records[split].paths[index] or f"sample {index}"

    def same(self, group: np.ndarray) -> Iterator[Finding]:
        """Yield findings for images ``[N]`` with the same pixels: repeats in a split, and each that an earlier has."""
        members: dict[int, list[int]] = {}
        for number in group.tolist():
            split, index = self.position(number)
            members.setdefault(split, []).append(index)
        for split, indices in members.items():
            for index in indices[1:]:
                yield self._finding("duplicate-image", "the same pixels as", (split, index), (split, indices[0]))
        for first, second in itertools.combinations(members, 2):
            for index in members[second]:
                yield self._finding("leaked-image", "the same pixels as", (second, index), (first, members[first][0]))

    def alike(self, pairs: np.ndarray) -> Iterator[Finding]:
        """Yield findings for pairs ``[P, 2]`` that look the same: the second of each, once per split of the first."""
        reported: set[tuple[int, int]] = set()
        for first, second in pairs.tolist():
            one, other = self.position(second), self.position(first)
            if (second, other[0]) not in reported:
                reported.add((second, other[0]))
                yield self._finding("near-duplicate" if one[0] == other[0] else "near-leak", "looks like", one, other)

    def _finding(self, code: str, relation: str, one: tuple[int, int], other: tuple[int, int]) -> Finding:
        split, other_split = self.records[one[0]].name, self.records[other[0]].name
        path = self.records[one[0]].paths[one[1]]
        if path is not None and path == self.records[other[0]].paths[other[1]]:
            relation = "the same file as"
        detail = f"{relation} {other_split}: {self.location(*other)}"
        label, other_label = self.label(*one), self.label(*other)
        if label is not None and other_label is not None and label != other_label:
            names = [class_label(self.class_names, number) for number in (label, other_label)]
            detail += f"; with another label ({names[0]}, there {names[1]})"
        return Finding(code, self.location(*one), detail, split, path, one[1], other=(other_split, other[1]))
