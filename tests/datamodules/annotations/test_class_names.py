"""Class names that may be mistakes: nearly equal ones, rare ones that resemble a common one, and single ones."""

from pathlib import Path

import pytest

from striate.datamodules.annotations.annotation_errors import record_faults
from striate.datamodules.annotations.class_names import report_suspicious_names, suspicious_names


def test_suspicious_names():
    counts = {"horse": 100, "Horse ": 50, "hrose": 5, "red_light": 30, "red light": 31, "zebra 1": 40, "zebra 2": 40}
    assert suspicious_names(counts | {"emu": 1}) == {
        "Horse ": "nearly equals 'horse' (50 and 100 objects)",
        "red_light": "nearly equals 'red light' (30 and 31 objects)",
        "hrose": "resembles 'horse' (5 and 100 objects)",
        "emu": "occurs once",
    }
    assert not suspicious_names({"cat": 2, "dog": 2000})
    assert "hrose" not in suspicious_names({"horse": 100, "hrose": 6})  # too many for a misspelling


def test_a_warning_or_a_fault_of_each():
    counts = {"cat": 9, "Cat": 3, "emu": 1}
    with pytest.warns(
        UserWarning, match=r"2 of 3 class names .*'Cat' nearly equals 'cat'.*'emu' occurs once.*in names"
    ):
        report_suspicious_names(counts, Path("data"), "names")
    with record_faults() as faults:
        report_suspicious_names(counts, Path("data"), "names")
    assert {fault.code for fault in faults} == {"class-name"}
    assert [fault.names[0] for fault in faults] == ["class 'Cat'", "class 'emu'"]
