"""A full disk, and a folder that is gone or read-only, while a run trains."""

import errno
import os
import shutil

import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image

from striate.experiments.launcher.compat import MetricsWriter, parse_rows
from striate.experiments.launcher.storage import explain_storage
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import CLASSIFICATION, launch, launch_error

RUN = "runs/small/fit-1"


class Vanish(pl.Callback):
    """Removes the folder of the run at the start of epoch 1."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            shutil.rmtree(RUN)


@pytest.fixture
def fail(workdir, monkeypatch, capsys):
    """Train, let a function fail with an error of the system in its n-th call, and return the message."""
    make_folder(workdir / "data", per_class=8)
    (workdir / "small.yaml").write_text(yaml.safe_dump(CLASSIFICATION))

    def run(owner, name, call, number):
        real, calls = getattr(owner, name), []

        def function(*args, **kwargs):
            calls.append(1)
            if len(calls) >= call:
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, function)
            return launch_error(capsys, 1, "fit", "--config", "small.yaml")

    return run


@pytest.mark.parametrize(
    "owner, name, call, number, reason, advice",
    [
        (torch, "save", 4, errno.ENOSPC, "No space left on device", "free space"),
        (MetricsWriter, "save", 12, errno.EDQUOT, "Disk quota exceeded", "free space"),
        (Image.Image, "save", 3, errno.EROFS, "Read-only file system", "make the folder writable"),
    ],
    ids=["checkpoint", "metrics", "pictures"],
)
def test_a_disk_that_cannot_be_written(workdir, fail, owner, name, call, number, reason, advice):
    message = fail(owner, name, call, number)
    assert message.startswith(f"run.root: cannot write to {RUN} ({reason}); {advice}, then resume from the last good ")
    assert f", {RUN}/checkpoints/last.ckpt: " in message and message.endswith("--config small.yaml --ckpt_path last")
    launch("fit", "--config", "small.yaml", "--ckpt_path", "last")
    launch("fit", "--config", "small.yaml", "--run.name", "whole")
    tables = [(workdir / "runs" / run / "fit-1" / "metrics.csv").read_text() for run in ("small", "whole")]
    assert tables[0] == tables[1]


def test_a_disk_that_is_full_before_the_first_checkpoint(fail):
    assert fail(torch, "save", 1, errno.ENOSPC).endswith("; free space, then start anew")


def test_a_folder_that_is_gone(workdir, capsys):
    make_folder(workdir / "data", per_class=8)
    config = yaml.safe_load(yaml.safe_dump(CLASSIFICATION))
    config["trainer"]["callbacks"] = [{"class_path": f"{__name__}.Vanish"}]
    (workdir / "small.yaml").write_text(yaml.safe_dump(config))
    message = launch_error(capsys, 1, "fit", "--config", "small.yaml")
    assert (message.startswith("run.root: ") and "training stopped" not in message) or "is gone" in message
    assert f"{RUN}" in message and "metrics.csv" in message


def test_a_missing_data_file_is_another_error(workdir):
    (workdir / RUN).mkdir(parents=True)
    error = FileNotFoundError(errno.ENOENT, "No such file", "data/cat/1.png")
    assert explain_storage(error, workdir / RUN, ["fit"]) is None
    error.filename = f"{RUN}/metrics.csv"
    assert "got 'runs/small/fit-1/metrics.csv'; make the folder" in str(explain_storage(error, workdir / RUN, ["fit"]))


def test_a_row_that_was_cut_off_is_dropped():
    assert [row["step"] for row in parse_rows(b"loss,step\r\n0.5,1\r\n0.4,2\r\n0.3,1")] == ["1", "2"]
