"""Checkpoints are replaced as a whole: full disks, kills and other file systems for temporary files."""

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile

import pytest
import torch
from pytorch_lightning.plugins.io import AsyncCheckpointIO

from striate.callbacks import AtomicCheckpointIO
from striate.callbacks.checkpoint_io import write_atomically
from striate.tests.helpers.processes import HANG
from striate.tests.helpers.training import make_trainer


def content(size, value):
    return {"state_dict": {"weight": torch.full((size,), value)}}


def value_of(path):
    return torch.load(path, weights_only=True)["state_dict"]["weight"][0].item()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_written_beside_its_target(tmp_path, monkeypatch):
    seen = []
    real = os.fsync

    def sync(descriptor):
        seen.append(names(tmp_path / "checkpoints"))
        real(descriptor)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))  # the folder for temporary files is not used
    monkeypatch.setattr(os, "fsync", sync)
    io, path = AtomicCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    io.save_checkpoint(content(3, 1.0), path)
    assert seen == [[".last.ckpt.partial"], ["last.ckpt"]] and value_of(path) == 1
    io.save_checkpoint(content(3, 2.0), path)
    assert seen[2] == [".last.ckpt.partial", "last.ckpt"] and value_of(path) == 2


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    """A limit on the size of files stands in for the disk; the error is the same but for its number."""
    io, path = AtomicCheckpointIO(), tmp_path / "best.ckpt"
    io.save_checkpoint(content(3, 1.0), path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError) as error:
            io.save_checkpoint(content(100_000, 2.0), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert error.value.errno == errno.EFBIG
    assert value_of(path) == 1 and names(tmp_path) == ["best.ckpt"]


KILLED = """
import os, signal, sys, torch
from striate.callbacks import AtomicCheckpointIO
real = os.fsync
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
AtomicCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.full((3,), 2.0)}}, sys.argv[1])
"""


def test_what_a_killed_write_has_left_is_removed(tmp_path):
    path = tmp_path / "epoch=3.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(3, 1.0), path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=HANG)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".epoch=3.ckpt.partial", "epoch=3.ckpt"] and value_of(path) == 1
    AtomicCheckpointIO().save_checkpoint(content(3, 3.0), tmp_path / "epoch=4.ckpt")
    assert names(tmp_path) == ["epoch=3.ckpt", "epoch=4.ckpt"]


def test_another_plugin_is_kept():
    trainer = make_trainer()
    write_atomically(trainer)
    assert type(trainer.strategy.checkpoint_io) is AtomicCheckpointIO
    trainer = make_trainer(plugins=[AsyncCheckpointIO()])
    write_atomically(trainer)
    assert type(trainer.strategy.checkpoint_io) is AsyncCheckpointIO
