"""What a trial of ``striate sweep`` costs beyond ``striate fit`` with the same values.

Both sides train the same short runs in processes of their own, one at a time. The sweep adds its study, its start and
its report, which are spread over its trials. Another row is the time of six trials of the packaged sweep, two at a
time, killed during the third one and resumed.
"""

import csv
import signal
import subprocess
import sys
import tempfile
import time
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
PACKAGED = ["sweep", "sweeps/classification_digits", "--trials", "6", "--jobs", "2"]
LIMIT = 240
"""Seconds for six trials of the packaged sweep."""


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


def time_packaged(folder: Path) -> float:
    """Run six trials of the packaged sweep, kill it during the third one, resume it, and return the seconds.

    Raises:
        RuntimeError: A trial is lost or repeated.
    """
    command, started = [sys.executable, "-m", "striate", *PACKAGED], time.monotonic()
    sweep = folder / "runs" / "classification_digits" / "sweep-1"
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (sweep / "trial-2/fit-1/checkpoints/last.ckpt").is_file():
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)}: exit {process.returncode} before the third trial")
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    subprocess.run([*command, "--resume"], cwd=folder, check=True, capture_output=True)
    seconds = time.monotonic() - started
    with (sweep / "trials.csv").open(newline="") as file:
        numbers = sorted(int(row["trial"]) for row in csv.DictReader(file) if row["val/acc"])
    if numbers != list(range(6)):
        raise RuntimeError(f"must have the results of trials 0 to 5, got {numbers}")
    return seconds


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
    with tempfile.TemporaryDirectory() as folder:
        seconds = time_packaged(Path(folder))
    what = "6 trials of sweeps/classification_digits, killed in the third and resumed"
    yield Row(what, f"{seconds:.0f} s", f"{LIMIT} s (limit)", seconds / LIMIT, Goal(1, at_least=False))
