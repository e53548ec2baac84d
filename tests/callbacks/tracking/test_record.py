"""What a run says of its folder at the end."""

import pytest

from striate.callbacks.tracking.record import describe


@pytest.mark.parametrize("count, said", [(0, "0 pictures"), (1, "1 picture"), (2, "2 pictures")])
def test_one_picture_is_no_plural(tmp_path, count, said):
    (tmp_path / "pictures").mkdir()
    for number in range(count):
        (tmp_path / "pictures" / f"{number}.png").touch()
    assert describe(tmp_path).splitlines()[1:] == [f"    pictures     {said}"]
