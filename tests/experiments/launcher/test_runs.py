"""Folders of runs, and the mode of W&B."""

import pytest
import torch

from striate.callbacks.tracking.wandb_run import WandbRun
from striate.experiments.launcher.runs import (
    Run,
    RunSettings,
    WandbSettings,
    has_login,
    open_run,
    resolve_mode,
    run_to_continue,
    wandb_options,
)


@pytest.fixture
def logged_out(monkeypatch, tmp_path):
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_a_login_wandb_is_offline_and_never_asks(logged_out, capsys):
    assert not has_login()
    assert resolve_mode("auto") == "offline"
    assert resolve_mode("online") == "offline"
    assert "W&B: recording offline" in capsys.readouterr().err


def test_a_key_or_netrc_is_a_login(logged_out, monkeypatch):
    (logged_out / ".netrc").write_text("machine api.wandb.ai\n login user\n password secret\n")
    (logged_out / ".netrc").chmod(0o600)
    assert resolve_mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")  # the login is for another server
    assert resolve_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert resolve_mode("auto") == "online"


@pytest.mark.parametrize("value, mode", [("offline", "offline"), ("disabled", "off"), ("online", "online")])
def test_the_environment_decides_auto_and_the_yaml_overrules_it(logged_out, monkeypatch, value, mode):
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv("WANDB_MODE", value)
    assert resolve_mode("auto") == mode
    assert resolve_mode("off") == "off"
    assert resolve_mode("offline") == "offline"


def test_runs_are_numbered_and_resumed_in_their_folder(tmp_path):
    settings = RunSettings(name="a", root=str(tmp_path))
    assert [open_run(settings, "fit", None).number for _ in range(3)] == ["fit-1", "fit-2", "fit-3"]
    assert open_run(settings, "test", None).number == "test-1"
    (tmp_path / "a" / "fit-12").mkdir()
    assert open_run(settings, "fit", None).number == "fit-13"
    last = tmp_path / "a" / "fit-2" / "checkpoints" / "last.ckpt"
    assert open_run(settings, "fit", str(last)).folder == tmp_path / "a" / "fit-2"
    assert open_run(settings, "fit", str(tmp_path / "elsewhere" / "last.ckpt")).number == "fit-14"
    with pytest.raises(OSError, match=r"run.root: cannot write there .*, got '.*file"):
        (tmp_path / "file").touch()
        open_run(RunSettings(name="a", root=str(tmp_path / "file")), "fit", None)


def test_a_checkpoint_from_elsewhere_starts_a_new_run_of_wandb_unless_its_id_is_given(tmp_path, capsys):
    known = {"id": "abcd1234", "entity": "team", "project": "digits", "sweep": ""}
    path = tmp_path / "last.ckpt"
    torch.save({"callbacks": {"WandbRecord": {"run": known}}}, path)
    in_place, new = Run(tmp_path, "fit-1"), Run(tmp_path, "fit-2", (tmp_path / "fit-2",))
    assert run_to_continue(in_place, WandbSettings(), path) == WandbRun(**known)
    assert run_to_continue(new, WandbSettings(), path) is None
    assert "pass --wandb.id abcd1234" in capsys.readouterr().err
    given = WandbSettings(id="abcd1234", project="digits")
    assert run_to_continue(new, given, path) == WandbRun("abcd1234", "", "digits")
    torch.save({"state_dict": {}}, path)
    assert run_to_continue(in_place, WandbSettings(), path) is run_to_continue(new, WandbSettings(), None) is None
    with pytest.raises(ValueError, match=r"wandb.timeout: must be > 0 seconds, got 0"):
        WandbSettings(timeout=0)


def test_settings_of_wandb_come_before_the_environment_and_defaults(logged_out, monkeypatch, tmp_path):
    run = Run(tmp_path / "ssd_digits", "fit-3")
    options = wandb_options(WandbSettings(), run, "fit", "detection")
    assert options == {
        "project": "striate", "entity": None, "name": "detection/ssd_digits/fit-3", "group": "ssd_digits",
        "tags": None, "notes": None, "job_type": "fit",
    }  # fmt: skip
    for name in ("PROJECT", "NAME", "RUN_GROUP", "JOB_TYPE"):
        monkeypatch.setenv(f"WANDB_{name}", f"environment's {name}")
    options = wandb_options(WandbSettings(name="mine", tags=["a"]), run, "fit", "detection")
    assert options["name"] == "mine" and options["tags"] == ["a"]
    assert options["project"] == "environment's PROJECT" and options["group"] == "environment's RUN_GROUP"
    assert options["job_type"] == "environment's JOB_TYPE"
