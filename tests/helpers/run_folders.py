"""Folders of runs as `striate fit` leaves them, without a training."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

CONFIG = {
    "trainer": {"max_epochs": 3},
    "model": {
        "class_path": "striate.tasks.Classification",
        "init_args": {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}},
    },
    "run": {"name": "small", "root": "runs"},
    "wandb": {"mode": "off", "notes": None},
}


def config_with(**values: Any) -> dict[str, Any]:
    """`CONFIG` with another learning rate (``lr``), optimizer (``optimizer``) or notes (``notes``)."""
    config = json.loads(json.dumps(CONFIG))
    optimizer = config["model"]["init_args"]["optimizer"]
    optimizer["init_args"]["lr"] = values.get("lr", 0.1)
    optimizer["class_path"] = values.get("optimizer", "torch.optim.SGD")
    config["wandb"]["notes"] = values.get("notes")
    return config


def make_run(
    folder: Path,
    config: Mapping[str, Any] | None = CONFIG,
    metrics: Mapping[str, Sequence[Any]] | None = None,
    pictures: Sequence[str] = (),
    **state: Any,
) -> Path:
    """Write the files of a run of ten steps per epoch.

    Args:
        folder: Its folder.
        config: ``config.yaml``; None: there is none.
        metrics: One value per epoch of each metric; None: there is no table.
        pictures: Names of pictures.
        state: Values of ``run_state.json``; without any, there is none.
    """
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.yaml").write_text("# striate: 0\n" + yaml.safe_dump(config))
    if metrics is not None:
        rows = zip(*metrics.values(), strict=True)
        lines = [f"{epoch},{10 * epoch + 9}," + ",".join(map(str, row)) for epoch, row in enumerate(rows)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,step," + ",".join(metrics), *lines, ""]))
    for name in pictures:
        (folder / "pictures").mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(folder / "pictures" / name)
    if state:
        values = {"started": time.time() - 75, "beat": time.time(), "earlier_seconds": 0, "error": "", "epochs": None}
        monitor = {"monitor": "val/acc", "mode": "max", "machine": "another", "pid": 1, "process_start": "1"}
        (folder / "run_state.json").write_text(json.dumps(values | monitor | state))
    return folder
