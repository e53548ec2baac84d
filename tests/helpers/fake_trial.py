"""A stand-in for ``striate fit`` in tests of sweeps: writes metrics at once, and takes no time.

Its parameters, as ``--KEY=VALUE``: ``quality``, the metric of every epoch; ``epochs``; ``metric``, the name of the
metric; ``fail``, which ends it with an error; ``wrong.call``, the value of ``wrong`` with which it does not parse;
``checkpoint``, with which it writes one. It can wait: with ``gate``, the trial whose number ends the name of this file
waits after its first epoch until the file exists; with ``paced``, each epoch waits until the study has the value of the
one before; with ``meet``, until so many trials have started.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

HANG = 300


def wait(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + HANG
    while not happened():
        if time.monotonic() > deadline:
            sys.exit("striate: hangs")
        time.sleep(0.05)


def reported(study: Path, trial: int) -> int:
    """Number of values that a study in a journal file has of a trial."""
    return sum(
        f'"trial_id":{trial},' in line and '"intermediate_value"' in line for line in study.read_text().splitlines()
    )


def main() -> None:
    """Run the stand-in."""
    values = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
    root, name = Path(values["run.root"]), values["run.name"]
    number = int(name.removeprefix("trial-"))
    with (root / "starts.txt").open("a") as file:
        file.write(f"{number} {values.get('ckpt_path', '')}\n")
    if values.get("fail") in ("1", "True", str(number)):
        sys.exit(f"striate: model.lr: must be positive, got trial {number}")
    if values.get("wrong.call", "") == values.get("wrong", "no"):
        sys.stderr.write("striate: --wrong: no such key\n")
        sys.exit(2)
    folder = root / name / "fit-1"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(f"# python: 3\nmodel: {{quality: {values['quality']}}}\nrun: {{root: x}}\n")
    wait(lambda: len((root / "starts.txt").read_text().splitlines()) >= int(values.get("meet", 1)))
    gate = Path(values["gate"]) if "gate" in values else None
    with (folder / "metrics.csv").open("w") as table:
        table.write(f"step,epoch,{values.get('metric', 'val/acc')}\n")
        for epoch in range(int(values.get("epochs", 2))):
            table.write(f"{epoch},{epoch},{values['quality']}\n")
            table.flush()
            if values.get("checkpoint"):
                (folder / "checkpoints" / "last.ckpt").write_text("weights")
            if gate is not None and gate.name.endswith(str(number)):
                wait(gate.exists)
            if values.get("paced"):
                wait(lambda count=epoch + 1: reported(root / "study.journal", number) >= count)


if __name__ == "__main__":
    main()
