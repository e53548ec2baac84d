"""Tests of computing proposals: the same in any number of processes, and after being killed at any moment."""

import subprocess
import sys
import time

import numpy as np
import pytest

from striate.datamodules.images.read import ImageError
from striate.datamodules.proposals import ProposalJob, compute_proposals, read_proposals

from ...helpers.samples import NumberedImages
from ...helpers.stored_proposals import brightest, job, scenes, write


def test_each_image_has_its_own_boxes_in_order(tmp_path):
    table = read_proposals(write(tmp_path / "p.npz"))
    assert [split["images"] for split in table.settings["splits"]] == [12, 5]
    assert table.names[:2].tolist() == ["train/0", "train/1"] and table.names[12] == "val/0"
    sources = [scenes().make_source(split) for split in ("train", "val")]
    images = [source[index]["image"] for source in sources for index in range(len(source))]
    for row, image in enumerate(images):
        np.testing.assert_array_equal(table.boxes[slice(*table.offsets[row : row + 2])], brightest(image))
    assert table.sizes.tolist() == [[32, 32]] * 17
    assert table.boxes.dtype == np.int16  # whole numbers
    assert not (tmp_path / "p.npz.partial").exists()


def test_any_number_of_processes_writes_the_same_file(tmp_path):
    assert write(tmp_path / "a.npz").read_bytes() == write(tmp_path / "b.npz", processes=2).read_bytes()


def test_fractions_of_pixels_are_kept(tmp_path):
    table = read_proposals(write(tmp_path / "p.npz", propose=lambda image: np.array([[0.5, 1, 2, 3]])))
    assert table.boxes.dtype == np.float32 and table.boxes[0].tolist() == [0.5, 1, 2, 3]


@pytest.mark.parametrize("processes", [0, 2])
def test_a_killed_computation_resumes_and_gives_the_same_file(tmp_path, processes):
    path, partial = tmp_path / "p.npz", tmp_path / "p.npz.partial"
    command = [sys.executable, "-m", "striate.tests.helpers.stored_proposals", str(path), str(processes)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        while process.poll() is None and not (partial.exists() and partial.stat().st_size > 400):
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not path.exists() and partial.exists()
    computed = []

    def counting(image):
        computed.append(image)
        return brightest(image)

    write(path, propose=counting)
    assert len(computed) < 17
    assert path.read_bytes() == write(tmp_path / "whole.npz").read_bytes()


def journal(tmp_path):
    """The journal of a computation that failed after six images."""
    calls = []

    def failing(image):
        if len(calls) == 6:
            raise KeyboardInterrupt
        calls.append(image)
        return brightest(image)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "p.npz", propose=failing)
    return tmp_path / "p.npz.partial"


def test_any_cut_of_the_journal_is_resumed(tmp_path):
    partial, expected = journal(tmp_path), write(tmp_path / "whole.npz").read_bytes()
    content = partial.read_bytes()
    for length in [0, 3, *range(content.index(b"\n"), len(content), 37), len(content)]:
        partial.write_bytes(content[:length])
        write(tmp_path / "p.npz")
        assert (tmp_path / "p.npz").read_bytes() == expected, length
        (tmp_path / "p.npz").unlink()


def test_a_damaged_record_is_computed_again(tmp_path):
    partial, expected = journal(tmp_path), write(tmp_path / "whole.npz").read_bytes()
    content = bytearray(partial.read_bytes())
    content[-5] ^= 64
    partial.write_bytes(content)
    write(tmp_path / "p.npz")
    assert (tmp_path / "p.npz").read_bytes() == expected


def test_resuming_with_other_settings_names_the_first(tmp_path):
    journal(tmp_path)
    with pytest.raises(ValueError, match=r"out: must be new .*p\.npz\.partial was begun with mode 'x' instead of 'y'"):
        write(tmp_path / "p.npz", mode="y")
    with pytest.raises(ValueError, match="begun with other images"):
        write(tmp_path / "p.npz", scenes(seed=1))


def test_a_complete_file_is_kept_and_one_of_other_settings_refused(tmp_path):
    path = write(tmp_path / "p.npz")
    write(path, propose=None)  # nothing is computed
    with pytest.raises(ValueError, match=r"out: must be a new file, got .*p\.npz', which has mode 'x' instead of 'y'"):
        write(path, mode="y")


def test_splits_with_the_same_images_are_computed_once(tmp_path):
    source = scenes().make_source("val")
    compute_proposals(ProposalJob("D", {"val": source, "test": source}, {}), brightest, tmp_path / "p.npz", 0)
    assert len(read_proposals(tmp_path / "p.npz").names) == 5


def test_unreadable_images_are_named_and_have_none(tmp_path):
    unreadable = compute_proposals(
        ProposalJob("D", {"train": NumberedImages(4, broken=[2])}, {}),
        lambda image: np.array([[0, 0, 8, 8]]),
        tmp_path / "p.npz",
        0,
    )
    assert unreadable == [str(ImageError("2.jpg", "broken"))]
    table = read_proposals(tmp_path / "p.npz")
    assert np.diff(table.offsets).tolist() == [1, 1, 0, 1] and table.sizes[2].tolist() == [0, 0]


def test_progress_counts_what_is_there_already(tmp_path):
    journal(tmp_path)
    seen = []
    compute_proposals(job(scenes()), brightest, tmp_path / "p.npz", 0, lambda done, total: seen.append((done, total)))
    assert seen[0] == (6, 17) and seen[-1] == (17, 17)
