"""Weights from files: what is read, how names are matched, what is refused and in which words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate.models import load_state_dict_file, load_weights, skip_pretrained
from striate.models.weights import pretrained_is_skipped


class Net(nn.Module):
    """Two parts, one of them with buffers."""

    body: Any
    head: Any

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)


def filled(value: float = 0.5) -> dict[str, Tensor]:
    return {k: torch.full_like(v, value) for k, v in Net().state_dict().items()}


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + k: v for k, v in state.items()}


def is_filled(module: nn.Module, value: float = 0.5) -> bool:
    return all(bool((p == value).all()) for p in module.parameters())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3, "hyper_parameters": {"lr": 0.1, "model": {"class_path": "x"}}},
        lambda s: {"model": s, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "args": ["a"]},
        lambda s: {"model_state_dict": s},
    ],
    ids=["raw", "lightning", "torchvision-reference", "model_state_dict"],
)
def test_reads_the_usual_containers(tmp_path: Path, wrap) -> None:
    torch.save(wrap(filled()), tmp_path / "w.pt")
    state = load_state_dict_file(tmp_path / "w.pt")
    assert list(state) == list(Net().state_dict())
    assert (state["head.weight"] == 0.5).all()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights file at .*nowhere\.pt"):
        load_state_dict_file(tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    "content", [b"hello, I am text\n", b"", b"\x89PNG\r\n\x1a\n" + bytes(64), b"PK\x03\x04" + bytes(50)]
)
def test_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pt is not a checkpoint that torch\.load can read"):
        load_state_dict_file(path)


def test_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_state_dict_file(tmp_path)


class Touch:
    """Unpickled, it writes a file."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (Path(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    trap, path = tmp_path / "trap", tmp_path / "w.pt"
    torch.save({"state_dict": filled(), "extra": Touch(str(trap))}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"was refused: .* would run code from the file.*save its state_dict\(\) alone"
    ):
        load_state_dict_file(path)
    assert not trap.exists()


def test_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="was refused"):
        load_state_dict_file(tmp_path / "w.pt")


def test_file_without_tensors_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "best": 0.5}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"holds no state dict.*found the keys \['best', 'epoch'\]"):
        load_state_dict_file(tmp_path / "w.pt")
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(ValueError, match="found list"):
        load_state_dict_file(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "prefix", ["", "model.", "module.", "_orig_mod.", "model._orig_mod.", "module._orig_mod.net.", "a.b."]
)
def test_prefixes_are_found(prefix: str) -> None:
    net = Net()
    report = load_weights(net, prefixed(prefix, filled()))
    assert is_filled(net)
    assert report.complete
    assert set(report.loaded) == set(net.state_dict())
    assert report.prefix == prefix.replace("_orig_mod.", "")


def test_compiled_part_within_a_whole() -> None:
    state = {k.replace("body.", "body._orig_mod."): v for k, v in prefixed("model.", filled()).items()}
    net = Net()
    assert load_weights(net, state).complete
    assert is_filled(net)


def test_part_is_taken_out_of_a_whole() -> None:
    whole = prefixed("model.backbone.", filled(0.5)) | {
        "model.head.weight": torch.ones(7, 4),
        "criterion.w": torch.ones(1),
    }
    net = Net()
    report = load_weights(net, whole)
    assert report.prefix == "model.backbone."
    assert report.complete
    assert is_filled(net)


def test_the_best_of_several_parts_is_taken_by_shape() -> None:
    state = prefixed("aux.", {"weight": torch.zeros(2, 9), "bias": torch.zeros(2)})
    state |= prefixed("main_head.", {"weight": torch.ones(2, 4), "bias": torch.ones(2)})
    layer = nn.Linear(4, 2)
    assert load_weights(layer, state).prefix == "main_head."
    assert is_filled(layer, 1.0)


def test_allowed_prefixes_are_obeyed() -> None:
    state = prefixed("student.", filled(1.0)) | prefixed("teacher.", filled(2.0))
    net = Net()
    load_weights(net, state, prefixes=["teacher."])
    assert is_filled(net, 2.0)
    with pytest.raises(ValueError, match="does not fit Net"):
        load_weights(net, state, prefixes=["ema."])


def test_aliases_are_other_names() -> None:
    state = {f"module.{k.replace('body.', 'features.')}": v for k, v in filled().items()}
    aliases = {k.replace("body.", "features."): k for k in Net().state_dict()}
    net = Net()
    assert load_weights(net, state, aliases=aliases).complete
    assert is_filled(net)
    assert load_weights(net, filled(0.25), aliases=aliases).complete
    assert is_filled(net, 0.25)


def test_mismatch_lists_each_kind_and_changes_nothing() -> None:
    state = filled()
    del state["body.0.bias"]
    state["head.weight"] = torch.zeros(1000, 4)
    state |= {f"extra.{i}": torch.zeros(1) for i in range(13)}
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_weights(net, state, origin="weights.pt")
    message = str(caught.value)
    first = "weights.pt does not fit Net (7 of 9 tensors fit, and the file has 13 that are unknown here):"
    assert message.splitlines()[0] == first
    assert "1 missing (in the model, not in the file): body.0.bias" in message
    assert "13 unexpected (in the file, not in the model): extra.0, extra.1, " in message
    assert "extra.9, and 3 more" in message
    assert "extra.10" not in message
    assert "1 of another shape: head.weight: [1000, 4] in the file, [2, 4] in the model" in message
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_not_strict_loads_what_fits_and_reports_the_rest() -> None:
    state = prefixed("model.", filled())
    del state["model.body.0.bias"]
    state["model.head.weight"] = torch.zeros(3, 4)
    state["model.other"] = torch.zeros(1)
    net = Net()
    report = load_weights(net, state, strict=False)
    assert report.missing == ("body.0.bias",)
    assert report.unexpected == ("other",)
    assert report.mismatched == {"head.weight": ((3, 4), (2, 4))}
    assert not report.complete
    assert "head.bias" in report.loaded
    assert (net.body[0].weight == 0.5).all()
    assert not (net.head.weight == 0.5).any()


def test_ignored_names_are_no_surprise() -> None:
    state = filled() | {"fc.weight": torch.zeros(1), "fcx.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"1 unexpected .*: fcx\.weight"):
        load_weights(Net(), state, ignore=[r"fc\."])


def test_nothing_that_fits_is_an_error_even_when_not_strict() -> None:
    with pytest.raises(ValueError, match=r"0 of 8 tensors fit\); wanted"):
        load_weights(Net(), {"conv9.weight": torch.zeros(1)}, strict=False)


def test_files_from_before_batches_were_counted() -> None:
    state = {k: v for k, v in filled().items() if not k.endswith("num_batches_tracked")}
    net = Net()
    load_weights(net, state)
    assert is_filled(net)


def test_path_is_named_in_the_error(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not fit Linear"):
        load_weights(nn.Linear(2, 2), str(tmp_path / "other.pth"))


def test_skip_pretrained_ends_with_its_block_even_by_an_error() -> None:
    assert not pretrained_is_skipped()
    with pytest.raises(RuntimeError), skip_pretrained():
        with skip_pretrained():
            assert pretrained_is_skipped()
        assert pretrained_is_skipped()
        raise RuntimeError
    assert not pretrained_is_skipped()
