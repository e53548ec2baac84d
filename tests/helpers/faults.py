"""Assertions on faults by their codes: the counted warning, and the error at which a strict reader stops."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from striate.datamodules.annotations.annotation_errors import DataError


@contextmanager
def warns_of(code: str, first: str = "", count: int = 1) -> Iterator[None]:
    """Expect one warning of dropped annotations.

    Args:
        code: The fault that it counts.
        first: End of the name of the first annotation; a regular expression.
        count: Number of annotations with this fault.
    """
    with pytest.warns(
        UserWarning, match=rf"annotations? of .* dropped: .*\b{count} x .*\({code}, first: .*{first}\)"
    ) as caught:
        yield
    assert len([one for one in caught if " dropped: " in str(one.message)]) == 1


@contextmanager
def stops_at(code: str, match: str | None = None) -> Iterator[None]:
    """Expect a `DataError` with this fault and message."""
    with pytest.raises(DataError, match=match) as caught:
        yield
    assert caught.value.fault is not None and caught.value.fault.code == code
