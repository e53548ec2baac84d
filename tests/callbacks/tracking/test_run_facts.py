"""What a run is about: data set, network, source code."""

import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from striate.callbacks.tracking.run_facts import dataset_facts, environment_facts, save_diff
from striate.datamodules.loading.dataset import TransformedDataset
from striate.datamodules.loading.fingerprint import fingerprint
from striate.tasks.flops import count_flops


class Source(list):
    """A source whose index can be changed."""

    def __init__(self, **index):
        super().__init__([{}] * 3)
        self.__dict__.update(index)


def test_a_fingerprint_is_that_of_the_index_and_not_of_its_place():
    def known(root="/data", label=1, box=3.0, short_side=None):
        paths = [f"{root}/train/cat/{n}.jpg" for n in range(3)]
        boxes = [{"boxes": np.array([[0, 0, box, 4]]), "name": {"b", "a"}}]
        return fingerprint(Source(paths=paths, labels=np.array([0, label]), objects=boxes, short_side=short_side))

    assert known() == known() == known(root="/elsewhere/copy") == known(short_side=256)
    assert len({known(), known(label=0), known(box=4.0), known(root="/data/sub/other/x")}) == 3
    assert len(known()) == 16 and int(known(), 16)


def test_facts_of_a_data_module():
    datasets = {split: TransformedDataset(Source(a=n)) for n, split in enumerate(("train", "val"))}
    data = SimpleNamespace(class_names=["cat", "dog"], root="pets", datasets={})
    assert dataset_facts(data) == {
        "name": "SimpleNamespace", "root": "pets", "num_classes": 2, "class_names": ["cat", "dog"]
    }  # fmt: skip
    data.datasets = datasets
    facts = dataset_facts(data)
    assert facts["train"]["samples"] == 3 and facts["train"]["fingerprint"] != facts["val"]["fingerprint"]
    assert dataset_facts(None) == {}


def test_flops_are_those_of_the_formulas_and_change_nothing():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 64, 5)
    )
    net.eval()
    net[2].train()
    before = torch.get_rng_state()
    assert count_flops(net, torch.rand(1, 3, 8, 8)) == 2 * (64 * 4 * 3 * 9 + 4 * 64 * 5)
    torch.rand(0)
    assert net[2].training and not net[0].training and net[1].num_batches_tracked == 0
    torch.set_rng_state(before)
    count_flops(net, image := torch.zeros(1, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), before) and not image.any()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "train.py").write_text("rate = 1\n")
    for words in (["init", "-q"], ["add", "train.py"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    return tmp_path


def test_changes_since_the_revision_are_kept(repository):
    diff = repository / "uncommitted.diff"
    assert environment_facts()["git"]["dirty"] is False and not save_diff(diff) and not diff.exists()
    (repository / "train.py").write_text("rate = 2\n")
    facts = environment_facts()["git"]
    assert facts["dirty"] is True and len(facts["revision"]) == 40 and facts["remote"] == ""
    assert save_diff(diff) and "-rate = 1\n+rate = 2\n" in diff.read_text()
