"""The check of stored proposals: faults of their boxes, and their recall."""

import warnings
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ..annotations.annotation_errors import DataError, Fault, record_faults
from ..base import VisionDataModule
from ..loading.sources import Source
from ..proposals import SampleProposals
from ..proposals.attach import outside
from ..proposals.recall import RECALL_IOUS, ProposalRecall, object_ranks
from .findings import Finding, box_rows, findings_of, format_box
from .records import SplitRecord


class ProposalCheck(NamedTuple):
    """The result of checking the proposals of a data module."""

    findings: list[Finding]
    recalls: list[ProposalRecall]


def check_stored_proposals(
    data: VisionDataModule, records: Iterable[SplitRecord], sources: Mapping[str, Source]
) -> ProposalCheck:
    """Check the proposals of each split that was read; nothing for a data module without them."""
    result = ProposalCheck([], [])
    for record in records if data.proposals is not None else ():
        with record_faults() as faults, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is recorded
            try:
                stored = data.open_proposals(sources[record.name], record.name)
            except (DataError, ValueError) as error:
                fault = error.fault if isinstance(error, DataError) else None
                found = fault.found if fault is not None else str(error)
                files = data.proposals if isinstance(data.proposals, str) else ", ".join(data.proposals or ())
                result.findings.append(Finding("proposals-file", files, found, record.name))
                continue
        faults_found: list[Fault] = faults
        for fault in faults_found:
            result.findings.extend(findings_of(fault, record.name))
        if stored is not None:
            result.recalls.append(_check_split(record, stored, result.findings))
    return result


def _check_split(record: SplitRecord, stored: SampleProposals, findings: list[Finding]) -> ProposalRecall:
    """Add the findings of a split's images, and return its recall."""
    table, counts, ranks = record.objects(), np.zeros(len(record), np.int64), []
    starts = np.searchsorted(table.image, np.arange(len(record) + 1))
    for index in np.flatnonzero(record.readable).tolist():
        path = record.paths[index]
        location, size = path or f"sample {index}", record.sizes[index].tolist()
        raw = stored.raw_boxes(index)
        counts[index] = len(raw)
        if not len(raw):
            if stored.rows[index] >= 0:  # the file has the image
                findings.append(Finding("no-proposals", location, "", record.name, path, index))
        elif (wrong := outside(raw, size)).any():
            detail = f"{int(wrong.sum())} of {len(raw)}, the first {format_box(raw[wrong][0])} in {size[0]}x{size[1]}"
            boxes = box_rows(raw[wrong]) if np.isfinite(raw[wrong]).all() else ()
            findings.append(Finding("proposal-outside", location, detail, record.name, path, index, boxes=boxes))
        rows = slice(starts[index], starts[index + 1])
        objects = table.boxes[rows][table.with_box[rows]]
        ranks.append(object_ranks(objects, raw))
    merged = np.concatenate(ranks, axis=1) if ranks else np.zeros((len(RECALL_IOUS), 0), np.int64)
    return ProposalRecall(record.name, counts[record.readable], merged)
