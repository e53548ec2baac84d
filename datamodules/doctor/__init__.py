"""The doctor: what is wrong with a data set, said before a GPU finds out (``striate data check``)."""

from ..annotations.fault_kinds import KINDS, Kind
from .collecting import Report, check
from .findings import Finding, Findings
from .fixing import Fix, write_fix
from .formats import FORMATS, Format
from .html import write_html
from .text import print_report

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
