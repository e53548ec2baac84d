"""``python -m benchmarks region_lineage``: sliding window, R-CNN, SPP-net, Fast R-CNN and Faster R-CNN on one data set.

Each detector is trained from its packaged recipe, for the same number of steps on the same scenes of DigitScenes, in
one thread. R-CNN, SPP-net, Fast R-CNN and Faster R-CNN have the same trunk and as many hidden units: those of
``fast_rcnn_digits``. The trunk of the sliding window has no padding, as its single pass requires. Selective search
computes the proposals once, for all detectors that need some.

At 64 pixels a region is half of its image and the networks are slim. So test times are also measured for a photograph
of 500 x 375 pixels with 2,000 proposals and VGG-16. They do not depend on the weights, which are random. There, R-CNN's
time is that of fewer regions, times their share: it is proportional to their number.

What is measured is stored in a folder: a command that is run again measures only what is missing.
"""

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch

from striate.benchmarks.region_lineage_report import draw, table
from striate.callbacks.region_stages import REPORT
from striate.models import RCNN, FastRCNN, Proposer, SingleMapFasterRCNN, SPPNet, TorchvisionBackbone
from striate.models.detection.two_stage.proposal_detector import ProposalDetector
from striate.models.proposals.sliding_windows import sliding_windows

_TRUNK = ("--model.model.backbone.widths=[32,64]", "--model.model.backbone.depth=3", "--model.model.hidden=256")
BATCH = 8
"""Scenes per step of all recipes."""

CLOCK = "training_clock.json"
"""File of `TrainingClock` in the folder of the run."""


class Method(NamedTuple):
    """A detector of the comparison.

    Attributes:
        label: Its name in table and picture.
        recipe: Name of the packaged experiment.
        proposals: Whether it needs stored proposals.
        overrides: Arguments of the command line that give it the common trunk.
    """

    label: str
    recipe: str
    proposals: bool
    overrides: tuple[str, ...] = ()


METHODS = {
    "sliding_window": Method("sliding window", "sliding_window_digits", False),
    "rcnn": Method("R-CNN", "rcnn_digits", True, _TRUNK),
    "spp": Method("SPP-net", "spp_digits", True, _TRUNK),
    "fast_rcnn": Method("Fast R-CNN", "fast_rcnn_digits", True),
    "faster_rcnn": Method("Faster R-CNN", "faster_rcnn_single_map_digits", False),
}


class TrainingClock(pl.Callback):
    """Measures the CPU time of the steps of a training, without validation and the stages after it."""

    def __init__(self) -> None:
        self.seconds = self.last = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.last = time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the time of a step and of its batch."""
        now = time.process_time()
        self.seconds, self.last = self.seconds + now - self.last, now

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the time into the folder of the run."""
        assert trainer.log_dir is not None
        Path(trainer.log_dir, CLOCK).write_text(json.dumps({"network": self.seconds}))


def launch(folder: Path, *words: str) -> float:
    """Run ``striate`` in a folder, with one thread, and return its CPU time in seconds.

    Raises:
        RuntimeError: It fails; the message has its output.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "striate", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def data_words(scenes: int) -> list[str]:
    """Arguments that set the sizes of the data set: `scenes` for training, a fifth for evaluation."""
    return [f"--data.train_size={scenes}", *(f"--data.{split}_size={max(scenes // 5, 1)}" for split in ("val", "test"))]


def store_proposals(folder: Path, scenes: int) -> dict[str, float]:
    """Store the proposals of all scenes; return the CPU time for the training scenes and the file's size in bytes."""
    words = ["data", "proposals", "--config", "detection/fast_rcnn_digits", "--proposals", "null", "--jobs", "1"]
    out = folder / "digits.npz"
    seconds = launch(folder, *words, *data_words(scenes), "--min_side", "6", "--splits", "train,val", "--out", str(out))
    return {"seconds": seconds * scenes / (scenes + max(scenes // 5, 1)), "bytes": out.stat().st_size}


def train(folder: Path, name: str, scenes: int, steps: int) -> dict[str, Any]:
    """Train a detector from its recipe; return seconds of its stages, stored bytes, and AP50 of the last validation."""
    method = METHODS[name]
    epochs = max(round(steps * BATCH / scenes), 1)
    words = [f"--run.name={name}", "--wandb.mode=off", "--trainer.accelerator=cpu", f"--data.batch_size={BATCH}"]
    words += [f"--trainer.max_epochs={epochs}", f"--trainer.check_val_every_n_epoch={epochs}", "--data.num_workers=0"]
    words += [
        "--trainer.callbacks+=striate.benchmarks.region_lineage.TrainingClock",
        *data_words(scenes),
        *method.overrides,
    ]
    if method.proposals:
        words.append(f"--data.proposals={folder / 'digits.npz'}")
    launch(folder, "fit", f"--config=detection/{method.recipe}", *words)
    run = max((folder / "runs" / name).glob("fit-*"), key=lambda path: path.stat().st_mtime)
    stages: dict[str, float] = json.loads((run / CLOCK).read_text())
    stored = 0.0
    if (run / REPORT).is_file():
        report = json.loads((run / REPORT).read_text())
        stages |= {
            "features": report["features_seconds"],
            "SVMs, boxes": report["svms_seconds"] + report["boxes_seconds"],
        }
        stored = report["disk_bytes"]
    with (run / "metrics.csv").open(newline="") as file:
        values = [row["val/map50"] for row in csv.DictReader(file) if row.get("val/map50")]
    return {
        "stages": stages,
        "bytes": stored,
        "ap50": float(values[-1]),
        "checkpoint": str(run / "checkpoints" / "last.ckpt"),
    }


def median_seconds(calls: Iterable[Callable[[], object]], warm_up: int) -> float:
    """Median CPU time of calls, after the first ones; the machine is set to one thread."""
    torch.set_num_threads(1)
    seconds = []
    for call in calls:
        begin = time.process_time()
        call()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds[warm_up:])


def time_digits(checkpoint: str, scenes: int, images: int) -> dict[str, float]:
    """Median CPU time of a scene, of its network and of its proposals, and the mean number of proposals."""
    import striate
    from striate.datamodules import DigitScenes

    data = DigitScenes(
        task="detection", image_size=64, train_size=scenes, val_size=images, eval_batch_size=images, num_workers=0
    )
    data.setup("validate")
    pixels = next(iter(data.val_dataloader()))["image"]
    model: Any = striate.load(checkpoint).model
    warm_up = max(images // 5, 1)
    if not isinstance(model, ProposalDetector):
        return {"network": median_seconds([partial(model, [image]) for image in pixels], warm_up)}
    found = [model.proposer(image) for image in pixels]
    proposing = median_seconds([partial(model.proposer, image) for image in pixels], warm_up)
    pairs = zip(pixels, found, strict=True)
    network = median_seconds([partial(model, [image], [boxes]) for image, boxes in pairs], warm_up)
    return {"network": network, "proposals": proposing, "boxes": statistics.mean(map(len, found))}


def make_large(name: str) -> Any:
    """Build a detector on VGG-16, with random weights, for the 20 classes of Pascal VOC."""
    torch.manual_seed(0)
    if name == "rcnn":
        return RCNN(20, "vgg16").eval()
    if name == "spp":
        backbone = TorchvisionBackbone("vgg16", None, out_indices=(4,))
        return SPPNet(20, backbone, scales=(600,)).eval()
    return (FastRCNN if name == "fast_rcnn" else SingleMapFasterRCNN)(20, "vgg16").eval()


def time_large(name: str, proposals: int, regions: int) -> dict[str, float]:
    """CPU time of a photograph of 500 x 375 pixels with VGG-16; R-CNN's is that of `regions`, times their share."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photograph = np.asarray(Image.fromarray(load_sample_images().images[0]).resize((500, 375)))
    image = torch.from_numpy(photograph.copy()).permute(2, 0, 1)
    if name == "proposals":
        return {"proposals": median_seconds([lambda: Proposer()(image)] * 3, 1)}
    model = make_large(name)
    if name == "faster_rcnn":
        return {"network": median_seconds([lambda: model([image])] * 2, 1)}
    boxes = sliding_windows(375, 500, 20, proposals)
    if name != "rcnn":
        return {"network": median_seconds([lambda: model([image], [boxes])] * 2, 1), "boxes": len(boxes)}
    few = [lambda: model([image], [boxes[:regions]])] * 2
    return {"network": median_seconds(few, 1) * len(boxes) / regions, "boxes": len(boxes), "measured": regions}


def measure(folder: Path, name: str, call: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What a call measures, or what is stored of it in the folder."""
    path = folder / f"{name}.json"
    if not path.is_file():
        sys.stderr.write(f"{name} …\n")
        path.write_text(json.dumps(call(), indent=2))
    stored: dict[str, Any] = json.loads(path.read_text())
    return stored


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks region_lineage", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/lineage"), help="what is measured is kept here")
    parser.add_argument("--scenes", type=int, default=1000, help="scenes for training; a fifth for evaluation")
    parser.add_argument("--steps", type=int, default=500, help="training steps of each detector, of 8 scenes")
    parser.add_argument("--images", type=int, default=30, help="scenes whose test time is measured")
    parser.add_argument("--proposals", type=int, default=2000, help="proposals of the photograph; 0: without it")
    parser.add_argument("--regions", type=int, default=16, help="of which R-CNN's time is measured")
    parser.add_argument("--only", nargs="*", help="measure these parts only, such as train-rcnn, and print no table")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the bar charts into FILE, a PNG")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    folder = options.folder.resolve()
    for key, lowest in {"scenes": 1, "steps": 1, "images": 2, "proposals": 0, "regions": 1}.items():
        if getattr(options, key) < lowest:
            parser.error(f"--{key}: must be at least {lowest}, got {getattr(options, key)}")
    parts = _parts(folder, options)
    if unknown := set(options.only or ()) - set(parts):
        parser.error(f"--only: no part {sorted(unknown)[0]!r}; choose from {', '.join(parts)}")
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {key: getattr(options, key) for key in ("scenes", "steps", "images", "proposals", "regions")}
    if (stored := measure(folder, "settings", lambda: sizes)) != sizes:
        parser.error(
            f"--folder: {folder} has measurements of other sizes, {stored}; choose another folder or remove it"
        )
    found = {
        name: measure(folder, name, call) for name, call in parts.items() if not options.only or name in options.only
    }
    if options.only:
        return
    labels = {name: method.label for name, method in METHODS.items()}
    needs = [name for name, method in METHODS.items() if method.proposals]
    print(table(found, labels, needs))
    if options.picture:
        draw(found, labels, needs, options.picture)


def _parts(folder: Path, options: argparse.Namespace) -> dict[str, Callable[[], Mapping[str, Any]]]:
    """What is measured, in order."""

    def test(name: str) -> dict[str, float]:
        trained = json.loads((folder / f"train-{name}.json").read_text())
        return time_digits(trained["checkpoint"], options.scenes, options.images)

    parts: dict[str, Callable[[], Mapping[str, Any]]] = {"proposals": partial(store_proposals, folder, options.scenes)}
    for name in METHODS:
        parts[f"train-{name}"] = partial(train, folder, name, options.scenes, options.steps)
    for name in METHODS:
        parts[f"test-{name}"] = partial(test, name)
    if options.proposals:
        for name in ("proposals", *list(METHODS)[1:]):
            parts[f"large-{name}"] = partial(time_large, name, options.proposals, options.regions)
    return parts


if __name__ == "__main__":
    main()
