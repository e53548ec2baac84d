"""Checkpoints that are fetched from elsewhere."""

import http.server
import threading

import fsspec
import pytest

from striate.tasks.remote_checkpoints import fetch_checkpoint


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch"


def test_paths_stay_paths(tmp_path):
    assert fetch_checkpoint("runs/a/fit-1/best.ckpt", "ckpt_path").parts[-1] == "best.ckpt"
    assert fetch_checkpoint(str(tmp_path / "missing.ckpt"), "ckpt_path") == tmp_path / "missing.ckpt"


def test_files_of_fsspec_are_fetched_anew_each_time(cache):
    for content in (b"first", b"second"):
        with fsspec.open("memory://runs/best.ckpt", "wb") as file:
            file.write(content)
        path = fetch_checkpoint("memory://runs/best.ckpt", "ckpt_path")
        assert path.name == "best.ckpt" and path.is_relative_to(cache) and path.read_bytes() == content
    assert len(list(path.parent.iterdir())) == 1  # no scratch file is left


def test_a_plain_url_is_fetched(tmp_path):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    (tmp_path / "last.ckpt").write_bytes(b"weights")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert fetch_checkpoint(f"{url}/last.ckpt", "ckpt_path").read_bytes() == b"weights"
        with pytest.raises(ValueError, match=r"ckpt_path: cannot be fetched \(.*\), got 'http://.*/no.ckpt'"):
            fetch_checkpoint(f"{url}/no.ckpt", "ckpt_path")
        server.shutdown()


@pytest.mark.parametrize(
    "name, message",
    [
        ("wandb:digits/checkpoint-1", r"ckpt_path: must be wandb:ENTITY/PROJECT/NAME:ALIAS, got 'wandb:digits/"),
        ("nosuch://bucket/best.ckpt", r"ckpt_path: cannot be fetched \(Protocol not known: nosuch.*\), got 'nosuch:"),
        ("memory://runs/none.ckpt", r"ckpt_path: cannot be fetched \(.*none.ckpt\), got 'memory:"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(name, message):
    with pytest.raises(ValueError, match=message) as error:
        fetch_checkpoint(name, "ckpt_path")
    assert "\n" not in str(error.value)
