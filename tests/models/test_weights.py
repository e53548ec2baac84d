"""Loading weights: reading checkpoints, matching names and shapes, errors."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate.models import load_state_dict_file, load_weights, skip_pretrained
from striate.models.weights import pretrained_is_skipped


class Net(nn.Module):
    """A module with two parts, one of them with buffers."""

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


def test_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_state_dict_file(tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    "content", [b"hello, I am text\n", b"", b"\x89PNG\r\n\x1a\n" + bytes(64), b"PK\x03\x04" + bytes(50)]
)
def test_file_that_is_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pt is not a checkpoint"):
        load_state_dict_file(path)


def test_folder_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_state_dict_file(tmp_path)


class Touch:
    """An object that writes a file when it is unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (Path(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_rejected_and_not_run(tmp_path: Path, zipped: bool) -> None:
    trap, path = tmp_path / "trap", tmp_path / "w.pt"
    torch.save({"state_dict": filled(), "extra": Touch(str(trap))}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"was rejected.*run code.*state_dict\(\)"):
        load_state_dict_file(path)
    assert not trap.exists()


def test_pickled_module_is_rejected(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="was rejected"):
        load_state_dict_file(tmp_path / "w.pt")


def test_error_lists_the_content_of_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "best": 0.5}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"no state dict.*got the keys \['best', 'epoch'\]"):
        load_state_dict_file(tmp_path / "w.pt")
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(ValueError, match="got list"):
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


def test_compiled_part_of_a_model() -> None:
    state = {k.replace("body.", "body._orig_mod."): v for k, v in prefixed("model.", filled()).items()}
    net = Net()
    assert load_weights(net, state).complete
    assert is_filled(net)


def test_part_is_loaded_from_a_larger_model() -> None:
    state = prefixed("model.backbone.", filled(0.5)) | {
        "model.head.weight": torch.ones(7, 4),
        "criterion.w": torch.ones(1),
    }
    net = Net()
    report = load_weights(net, state)
    assert report.prefix == "model.backbone."
    assert report.complete
    assert is_filled(net)


def test_prefix_with_the_best_shapes_is_selected() -> None:
    state = prefixed("aux.", {"weight": torch.zeros(2, 9), "bias": torch.zeros(2)})
    state |= prefixed("main_head.", {"weight": torch.ones(2, 4), "bias": torch.ones(2)})
    layer = nn.Linear(4, 2)
    assert load_weights(layer, state).prefix == "main_head."
    assert is_filled(layer, 1.0)


def test_only_allowed_prefixes_are_removed() -> None:
    state = prefixed("student.", filled(1.0)) | prefixed("teacher.", filled(2.0))
    net = Net()
    load_weights(net, state, prefixes=["teacher."])
    assert is_filled(net, 2.0)
    with pytest.raises(ValueError, match="does not match Net"):
        load_weights(net, state, prefixes=["ema."])


def test_aliases_are_alternative_names() -> None:
    state = {f"module.{k.replace('body.', 'features.')}": v for k, v in filled().items()}
    aliases = {k.replace("body.", "features."): k for k in Net().state_dict()}
    net = Net()
    assert load_weights(net, state, aliases=aliases).complete
    assert is_filled(net)
    assert load_weights(net, filled(0.25), aliases=aliases).complete
    assert is_filled(net, 0.25)


def test_error_lists_differences_and_the_module_is_unchanged() -> None:
    state = filled()
    del state["body.0.bias"]
    state["head.weight"] = torch.zeros(1000, 4)
    state |= {f"extra.{i}": torch.zeros(1) for i in range(13)}
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_weights(net, state, origin="weights.pt")
    message = str(caught.value)
    assert message.startswith("weights.pt does not match Net (7 of 9 tensors match, 13 unexpected)")
    assert re.search(r"1 missing .*: body\.0\.bias", message)
    assert re.search(r"13 unexpected .*: extra\.0, extra\.1, ", message)
    assert "extra.9, and 3 more" in message
    assert "extra.10" not in message
    assert "head.weight: [1000, 4] in the file, [2, 4] in the model" in message
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_not_strict_loads_the_matching_tensors() -> None:
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


def test_ignored_names_are_not_unexpected() -> None:
    state = filled() | {"fc.weight": torch.zeros(1), "fcx.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"1 unexpected .*: fcx\.weight"):
        load_weights(Net(), state, ignore=[r"fc\."])


def test_no_matching_tensor_is_an_error_without_strict_too() -> None:
    with pytest.raises(ValueError, match=r"0 of 8 .*expected.*'body.*got.*'conv9\.weight'"):
        load_weights(Net(), {"conv9.weight": torch.zeros(1)}, strict=False)


def test_files_without_num_batches_tracked() -> None:
    state = {k: v for k, v in filled().items() if not k.endswith("num_batches_tracked")}
    net = Net()
    load_weights(net, state)
    assert is_filled(net)


def test_error_names_the_path(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not match Linear"):
        load_weights(nn.Linear(2, 2), str(tmp_path / "other.pth"))


def test_skip_pretrained_ends_with_its_block_also_after_an_error() -> None:
    assert not pretrained_is_skipped()
    with pytest.raises(RuntimeError), skip_pretrained():
        with skip_pretrained():
            assert pretrained_is_skipped()
        assert pretrained_is_skipped()
        raise RuntimeError
    assert not pretrained_is_skipped()
