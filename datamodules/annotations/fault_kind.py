"""One kind of fault of a data set, a row of the table `KINDS`."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Kind:
    """One row of `KINDS`.

    Attributes:
        title: Heading for a list of such faults, in the plural.
        severity: ``error``: a sample or an object is lost or taught wrong; ``warning``: a metric measured on this data
            would mislead; ``note``: worth knowing. Errors and warnings make the exit code 1.
        advice: The consequence, and what to do about it.
        fixed: What ``--fix`` does about it; empty: a person must decide.
        sentence: The fault in messages, where ``{found}`` stands for the value found; empty: no reader reports it.
        excludes_sample: Whether a corrected copy leaves out the whole sample. ``objectless``: only where the fault
            concerns no single object, such as the label of an image or a mask of all its pixels.
    """

    title: str
    severity: Severity
    advice: str
    fixed: str = ""
    sentence: str = ""
    excludes_sample: bool | Literal["objectless"] = False
