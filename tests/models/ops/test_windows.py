"""Windows that cover an image, and the options of windows that tasks share."""

import itertools

import pytest

from striate.models.ops.windows import image_windows, window_sides, window_starts


@pytest.mark.parametrize("length, window, overlap", [(100, 30, 0.5), (31, 30, 0.0), (64, 7, 1 / 3), (5, 4, 0.99)])
def test_windows_cover_a_side_evenly_with_the_overlap(length, window, overlap):
    starts = window_starts(length, window, overlap)
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert starts[0] == 0 and starts[-1] == length - window
    assert max(gaps) <= max(1, window * (1 - overlap)) and max(gaps) - min(gaps) <= 1
    fewer = len(starts) - 1  # with one window less the gaps would be too wide
    assert fewer == 1 or (length - window) / (fewer - 1) > window * (1 - overlap) - 1


def test_windows_of_an_image_cover_it_row_by_row():
    windows = image_windows((100, 31), (30, 40), 0.25)
    assert [window[1::2] for window in windows] == [(0, 30), (18, 48), (35, 65), (53, 83), (70, 100)]
    assert {window[::2] for window in windows} == {(0, 31)}
    assert image_windows((20, 30), (20, 30), 0.5) == [(0, 0, 30, 20)]
    # rows come first: the second window is to the right of the first
    assert image_windows((8, 6), (4, 4), 0.5)[1] == (2, 0, 6, 4)


def test_options():
    assert window_sides([3, 5], 0.5) == window_sides((3, 5), 0) == (3, 5)
    for window, overlap, message in (
        (0, 0.5, "window: .*both >= 1, got 0"),
        ([3], 0.5, r"window: .*a height and a width.*got \[3\]"),
        (None, 1, r"overlap: .*\[0, 1\).*got 1"),
        (256, -0.1, "overlap: .*got -0.1"),
    ):
        with pytest.raises(ValueError, match=message):
            window_sides(window, overlap)
