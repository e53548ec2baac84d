"""How the benchmarks process their measurements; the measuring itself is not tested."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml

from striate.benchmarks import __main__ as program
from striate.benchmarks import region_features, region_lineage, region_lineage_report
from striate.benchmarks.harness import Goal, Row
from striate.benchmarks.training_step import check_same_work


def test_a_failing_benchmark_keeps_the_results_of_the_others(monkeypatch, capsys, tmp_path):
    def run(name):
        if name == "broken":
            raise RuntimeError("the last losses differ")
        yield Row(name, "1 ms", "2 ms", 0.5, Goal(1.0, at_least=False))

    monkeypatch.setattr(program, "run", run)
    monkeypatch.setattr(program, "BENCHMARKS", dict.fromkeys(("first", "broken", "last"), ""))
    with pytest.raises(SystemExit, match="failed.*broken"):
        program.main(["--markdown", str(tmp_path / "table.md")])
    out, err = capsys.readouterr()
    assert "first" in out and "last" in out and "the last losses differ" in err
    assert [line.split(" | ")[0] for line in (tmp_path / "table.md").read_text().splitlines()[2:4]] == [
        "| first",
        "| last",
    ]
    program.main(["first"])  # nothing failed


def test_a_row_is_printed_and_written_before_the_next_is_measured(monkeypatch, capsys, tmp_path):
    table = tmp_path / "table.md"

    def run():
        yield Row("step", "1 ms", "2 ms", 0.5)
        assert "| step | 1 ms | 2 ms | 0.500 |" in capsys.readouterr().out
        assert "| step | 1 ms | 2 ms | 0.500 |" in table.read_text()
        raise KeyboardInterrupt

    monkeypatch.setattr("striate.benchmarks.training_memory.run", run)
    with pytest.raises(KeyboardInterrupt):
        program.main(["training_memory", "--markdown", str(table)])
    assert table.read_text().splitlines()[0].startswith("| measurement |")


@pytest.mark.parametrize("name", program.BENCHMARKS)
def test_every_benchmark_yields_its_rows(name):
    assert inspect.isgeneratorfunction(importlib.import_module(f"striate.benchmarks.{name}").run)


def test_sides_that_did_different_work_are_rejected():
    def check(ours, peer, steps=4):
        check_same_work("case", 4, {"ours": torch.tensor(ours), "peer": torch.tensor(peer)}, {"ours": 4, "peer": steps},
                        0.05)  # fmt: skip

    check(0.5, 0.51)
    check(2.0e-5, 2.3e-5)  # both have memorized the batches
    with pytest.raises(RuntimeError, match="the last losses differ"):
        check(0.5, 0.55)
    with pytest.raises(RuntimeError, match="must make 4 steps"):
        check(0.5, 0.5, steps=3)


def test_table_and_picture_of_the_lineage(tmp_path):
    labels = {name: method.label for name, method in region_lineage.METHODS.items()}
    needs = [name for name, method in region_lineage.METHODS.items() if method.proposals]
    assert needs == ["rcnn", "spp", "fast_rcnn"]
    found = {"proposals": {"seconds": 30.0, "bytes": 2e6}}
    for name in labels:
        found[f"train-{name}"] = {"stages": {"network": 50.0}, "bytes": 0.0, "ap50": 0.5}
        found[f"test-{name}"] = {"network": 0.05 if name == "rcnn" else 0.01, "proposals": 0.02}
    found["train-rcnn"] = {"stages": {"network": 50.0, "features": 40.0, "SVMs, boxes": 5.0}, "bytes": 3e6, "ap50": 0.7}
    lines = region_lineage_report.table(found, labels, needs).splitlines()
    assert "| R-CNN | 30 s | 50 s | 40 s | 5 s | 125 s | 5.0 MB | 0.700 | 84 h | 66.0 % |" in lines
    assert "| Fast R-CNN | 10.0 ms | 5.0 | 30.0 ms | 0.32 s | 147 |" in lines
    assert "| Faster R-CNN | 10.0 ms | 5.0 | 10.0 ms | 0.198 s | 237 |" in lines  # proposes its own
    region_lineage_report.draw(found, labels, needs, tmp_path / "bars.png")
    assert 0 < (tmp_path / "bars.png").stat().st_size < 100_000


def test_recipes_of_the_lineage_get_the_same_trunk():
    """The overrides of R-CNN and SPP-net are what Fast R-CNN's and Faster R-CNN's recipes have."""
    trunks = []
    for name in ("rcnn", "spp", "fast_rcnn", "faster_rcnn"):
        method = region_lineage.METHODS[name]
        text = (Path(region_lineage.__file__).parents[1] / f"experiments/detection/{method.recipe}.yaml").read_text()
        model = yaml.safe_load(text)["model"]["init_args"]["model"]["init_args"]
        trunk = {**model["backbone"]["init_args"], "hidden": model["hidden"]}
        for word in method.overrides:
            key, _, value = word.partition("=")
            trunk[key.rpartition(".")[2]] = yaml.safe_load(value)
        trunks.append(trunk)
    assert all(trunk == {"widths": [32, 64], "depth": 3, "hidden": 256} for trunk in trunks), trunks


def test_what_is_measured_is_not_measured_again(tmp_path):
    calls = []
    for value in (1.0, 2.0):
        found = region_lineage.measure(tmp_path, "part", lambda value=value: calls.append(value) or {"seconds": value})
    assert found == {"seconds": 1.0} and calls == [1.0]


def test_measurements_of_other_sizes_are_not_mixed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(region_lineage, "store_proposals", lambda folder, scenes: {"seconds": 1.0, "bytes": 1})
    words = ["region_lineage", "--folder", str(tmp_path), "--only", "proposals"]
    program.main([*words, "--scenes", "20"])
    for changed, message in (
        (["--scenes", "30"], "--folder: .* has measurements of other sizes"),
        (["--scenes", "20", "--images", "1"], "--images: must be at least 2, got 1"),
        (["--scenes", "20", "--only", "train-yolo"], "--only: no part 'train-yolo'; choose from proposals, train-slid"),
    ):
        with pytest.raises(SystemExit):
            program.main([*words, *changed])
        assert re.search(message, capsys.readouterr().err)


def test_svms_with_hard_negatives_score_as_those_of_all_negatives(monkeypatch):
    monkeypatch.setattr(region_features, "IMAGES", 20)
    monkeypatch.setattr(region_features, "PROPOSALS", 20)
    monkeypatch.setattr(region_features, "FEATURES", 16)
    row = region_features.svm_row(region_features.make_regions())
    assert float(row.what.split("differ by ")[1].split(" %")[0]) < 5
