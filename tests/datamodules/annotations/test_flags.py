"""Flags are read as what they say, and anything else is recognized as no flag."""

from typing import Any

import pytest

from striate.datamodules.annotations.flags import read_flag


@pytest.mark.parametrize("value", [0, 0.0, -0.0, False, None, "", " ", "0", "0.0", "false", "False", "FALSE"])
def test_false(value: Any) -> None:
    assert read_flag(value) is False


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "1.0", " 1\n", "true", "True"])
def test_true(value: Any) -> None:
    assert read_flag(value) is True


@pytest.mark.parametrize(
    "value", [2, -1, 0.5, float("nan"), float("inf"), 10**30, "2", "-1", "crowd", "yes", "no", "t", [0], {}, "01"]
)
def test_anything_else_is_no_flag(value: Any) -> None:
    assert read_flag(value) is None
