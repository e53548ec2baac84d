"""What a trial of ``striate sweep`` costs beyond ``striate fit`` with the same values.

Both sides train the same short runs in processes of their own, one at a time. The sweep adds its study, its start and
its report, which are spread over its trials.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import yaml

from striate.benchmarks.harness import Goal, Row, interleave, median_ratio, time_call

RATES = (0.001, 0.002, 0.003, 0.004)
FIT = [
    "fit",
    "--config=classification/plain_digits_fast",
    "--data.train_size=640",
    "--data.num_workers=0",
    "--wandb.mode=offline",
    "--trainer.max_epochs=1",
]
GOAL = Goal(1.05, at_least=False)


def write_sweep(folder: Path, rates: Sequence[float]) -> Path:
    """Write a sweep whose trials are those of the other side."""
    content = {
        "program": "striate",
        "command": ["${env}", "striate", *FIT, "${args}"],
        "method": "grid",
        "metric": {"name": "val/acc", "goal": "maximize"},
        "parameters": {"model.optimizer.lr": {"values": list(rates)}},
    }
    path = folder / "rates.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def make_sides(folder: Path, rates: Sequence[float]) -> dict[str, Callable[[], None]]:
    """The functions of both sides: a sweep, and the same fits by themselves."""
    sweep = write_sweep(folder, rates)

    def call(*words: str) -> None:
        command = [sys.executable, "-m", "striate", *words]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    def fits() -> None:
        for rate in rates:
            call(*FIT, f"--model.optimizer.lr={rate}")

    return {"ours": lambda: call("sweep", str(sweep), "--jobs", "1"), "peer": fits}


def run(repetitions: int = 3, rates: Sequence[float] = RATES) -> Iterator[Row]:
    """Measure both sides, and yield the row.

    Args:
        repetitions: Number of measurements of each side.
        rates: Learning rates of the trials.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides = make_sides(Path(folder), rates)
        times = interleave({name: partial(time_call, side) for name, side in sides.items()}, repetitions)
    walls = {name: [clock.wall for clock in clocks] for name, clocks in times.items()}
    ours, peer = (sorted(walls[name])[len(walls[name]) // 2] / len(rates) for name in ("ours", "peer"))
    ratio = median_ratio(walls["ours"], walls["peer"])
    yield Row(f"a trial of a sweep of {len(rates)}", f"{ours:.2f} s", f"{peer:.2f} s", ratio, GOAL)
