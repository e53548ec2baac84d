"""The report of a check, which the check fills, and which the page, the terminal and the repair read."""

from dataclasses import dataclass, field

from ..base import VisionDataModule
from ..loading.sources import Source
from .findings import Findings
from .records import SplitRecord
from .statistics import Statistics

SPLITS = ("train", "val", "test")


@dataclass
class Report:
    """The result of checking a data set.

    Attributes:
        name: Name of the data set, for headings.
        data: The data module.
        findings: The faults.
        statistics: Counts, distributions and suggestions.
        records: What is kept of each split that was read.
        sources: The sources of the splits, to read samples again for pictures.
        notes: Remarks, such as a split that does not exist.
        aliases: Splits that are the same as another, and the name of the other.
        interrupted: Whether the check was stopped early, so that findings may be missing.
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
        """Whether there is no error and no warning; notes do not count."""
        return not self.interrupted and not self.findings.total("error", "warning")

    @property
    def root(self) -> object:
        """The data module's ``root``, if it has one."""
        return getattr(self.data, "root", None)
