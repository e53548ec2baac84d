"""Peak memory of the training in `training_step`, with each side in new processes.

striate's side imports what a training run needs, and trains through task and Trainer. The peer imports only torch and
torchvision, and runs the bare loop. Two values are reported: the whole process, and its growth after the imports.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from functools import partial

from striate.benchmarks.harness import Goal, Row, interleave, peak_mb, resident_mb, run_fresh

AT_MOST = Goal(1.05, at_least=False)
# network, pixels, batch, steps, repetitions
CASES = (("resnet18", 64, 32, 4, 5),)


def train_ours(network: str, pixels: int, batch: int, steps: int) -> float:
    """Train through task and Trainer, and return the memory after the imports, in MB."""
    from striate.benchmarks import training_case as case_of
    from striate.benchmarks import training_step as ours

    imported = resident_mb()
    case = case_of.Case(network, pixels, batch)
    loader = ours.Turns(case_of.make_batches(case), turns=1, steps=steps)
    ours.fit(ours.make_task(case), loader, ours.AfterStep(lambda: None))
    return imported


def train_peer(network: str, pixels: int, batch: int, steps: int) -> float:
    """Train with the bare loop, and return the memory after the imports, in MB."""
    from striate.benchmarks import training_case as peer

    imported = resident_mb()
    batches = peer.make_batches(peer.Case(network, pixels, batch))
    peer.BareLoop(peer.NormalizedResNet(network)).run(batches[step % len(batches)] for step in range(steps))
    return imported


def child() -> None:
    """Entry point of the new process: train, and print its memory as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("ours", "peer"))
    parser.add_argument("network")
    for number in ("pixels", "batch", "steps"):
        parser.add_argument(number, type=int)
    options = vars(parser.parse_args())
    train = train_ours if options.pop("side") == "ours" else train_peer
    imported = train(**options)
    print(json.dumps({"imported": imported, "peak": peak_mb()}))


def rows_for(network: str, pixels: int, batch: int, steps: int, repetitions: int) -> list[Row]:
    """Measure one case, and return both rows."""
    arguments = (network, str(pixels), str(batch), str(steps))
    sides = {
        side: partial(run_fresh, "striate.benchmarks.training_memory", side, *arguments) for side in ("ours", "peer")
    }
    measured = interleave(sides, repetitions, warm_up=0)
    median = {
        side: {field: statistics.median(result[field] for result in results) for field in ("imported", "peak")}
        for side, results in measured.items()
    }
    what = f"{network}, {pixels} px, batch {batch}"
    peaks = [median[side]["peak"] for side in ("ours", "peer")]
    growth = [median[side]["peak"] - median[side]["imported"] for side in ("ours", "peer")]
    return [
        _row(f"peak memory, whole process ({what})", peaks, AT_MOST),
        _row(f"peak memory minus the memory of the imports ({what})", growth, AT_MOST),
    ]


def _row(what: str, megabytes: list[float], goal: Goal | None) -> Row:
    ours, peer = megabytes
    return Row(what, f"{ours:.0f} MB", f"{peer:.0f} MB", ours / peer, goal)


def run() -> Iterator[Row]:
    """Measure all cases, and yield each row as soon as it is measured."""
    for case in CASES:
        yield from rows_for(*case)


if __name__ == "__main__":
    child()
