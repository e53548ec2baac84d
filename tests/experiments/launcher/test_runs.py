"""Folders of runs, and the mode of W&B."""

import pytest

from striate.experiments.launcher.runs import RunSettings, has_login, open_run, resolve_mode


@pytest.fixture
def logged_out(monkeypatch, tmp_path):
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
