"""The doctor: finds the faults of a data set before training does, and repairs them (``striate data check``)."""

from ..annotations.fault_kinds import KINDS, Kind
from .check import check
from .corrected_copy import Fix, write_fix
from .findings import Finding, Findings
from .formats import FORMATS, Format
from .html_report import write_html
from .report import Report
from .terminal_report import print_report

__all__ = [
    "FORMATS",
    "KINDS",
    "Finding",
    "Findings",
    "Fix",
    "Format",
    "Kind",
    "Report",
    "check",
    "print_report",
    "write_fix",
    "write_html",
]
