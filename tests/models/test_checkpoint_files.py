"""Damaged checkpoints: noticed at every length and bit, and answered with the checkpoint to use instead."""

import os

import pytest
import torch

import striate
from striate.models.checkpoint_files import DamagedCheckpointError, read_file, usable_checkpoint
from striate.models.weights import load_state_dict_file
from striate.tasks import Classification
from striate.tasks.checkpoints import read_checkpoint
from striate.tests.helpers.fixtures import TinyNet
from striate.tests.helpers.training import make_trainer


@pytest.fixture
def run(tmp_path):
    """Checkpoints of a task: two of one run, one of an earlier run."""
    trainer = make_trainer()
    trainer.strategy.connect(Classification(TinyNet()))
    folders = [tmp_path / f"fit-{number}" / "checkpoints" for number in (1, 2)]
    for age, path in enumerate((folders[1] / "last.ckpt", folders[1] / "best.ckpt", folders[0] / "last.ckpt")):
        trainer.save_checkpoint(path)
        os.utime(path, (1000 - age, 1000 - age))
    return tmp_path


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :]


def test_every_length_and_a_bit_anywhere(run):
    path = run / "fit-2" / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    lengths = [0, 1, 30, *range(100, len(content), len(content) // 40), len(content) - 1]
    for length in lengths:
        path.write_bytes(content[:length])
        with pytest.raises(DamagedCheckpointError):
            read_file(path, mmap=True)
    weights = content.index(read_file_bytes(run))  # PyTorch itself takes no notice of changed weights
    path.write_bytes(flip(content, weights + 2))
    torch.load(path, weights_only=True)
    with pytest.raises(DamagedCheckpointError, match="checksum of .*/data/"):
        read_file(path)
    for position in (content.index(b"data.pkl"), content.index(b"state_dict"), content.index(b"torch._utils") + 3):
        path.write_bytes(flip(content, position))
        with pytest.raises(DamagedCheckpointError):
            read_file(path)


def read_file_bytes(run):
    """The bytes of some weights in the checkpoints of the run."""
    state = read_file(run / "fit-1" / "checkpoints" / "last.ckpt")["state_dict"]
    return max(state.values(), key=torch.Tensor.numel).numpy().tobytes()


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"state_dict": {"a": torch.ones(9), "b": torch.zeros(3)}}, tmp_path / "fast.ckpt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_file(tmp_path / "fast.ckpt")["state_dict"]["a"].sum() == 9


def test_the_next_usable_checkpoint(run, monkeypatch):
    monkeypatch.chdir(run)
    last, best = (run / "fit-2" / "checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    last.write_bytes(last.read_bytes()[:-500])
    assert str(usable_checkpoint(last)) == "fit-2/checkpoints/best.ckpt"
    (last.parent / ".last.ckpt.partial").write_bytes(best.read_bytes())
    best.write_bytes(b"")
    assert str(usable_checkpoint(last)) == "fit-1/checkpoints/last.ckpt"
    (run / "fit-1" / "checkpoints" / "last.ckpt").write_bytes(b"")
    assert usable_checkpoint(last) is None
    with pytest.raises(ValueError, match="^path: not a checkpoint: it is damaged.*; no other checkpoint"):
        read_checkpoint(last, "path")


@pytest.mark.parametrize(
    "load", [striate.load, load_state_dict_file, Classification.load_from_checkpoint, read_checkpoint]
)
def test_all_readers_name_the_file_and_another(run, monkeypatch, load):
    monkeypatch.chdir(run)
    path = (run / "fit-2" / "checkpoints" / "last.ckpt").relative_to(run)
    path.write_bytes(path.read_bytes()[:-500])
    arguments = ["ckpt_path"] if load is read_checkpoint else []
    with pytest.raises(ValueError, match=r"is damaged.*; use fit-2/checkpoints/best\.ckpt$") as error:
        load(path, *arguments)
    assert "\n" not in str(error.value) and (arguments or "fit-2/checkpoints/last.ckpt" in str(error.value))
