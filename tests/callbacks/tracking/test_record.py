"""The list of files at the end of a run."""

import pytest

from striate.callbacks.tracking.record import describe_run


@pytest.mark.parametrize("count, text", [(0, "0 plots"), (1, "1 plot"), (2, "2 plots")])
def test_plots_are_counted(tmp_path, count, text):
    (tmp_path / "pictures").mkdir()
    for number in range(count):
        (tmp_path / "pictures" / f"{number}.png").touch()
    assert describe_run(tmp_path).splitlines()[1:] == [f"    pictures     {text}"]
