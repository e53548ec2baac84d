"""Opening an annotation file of COCO's size, and the memory that its annotations take in loader workers.

The file is generated: as many images and objects as COCO's ``instances_train2017.json``, polygons of 8 to 47 points,
about half a gigabyte. striate's side is `read_coco`, for boxes only and for boxes and masks; the peer is
``pycocotools.coco.COCO``. Each is opened in a new process. The benchmark reports how much the process grew: after
opening (the index), and at its peak.

Worker memory is the memory of the workers and their parent together. Shared pages are counted once, and mapped files
are not counted (on Linux: the sum of ``Pss_Anon`` and ``Pss_Shmem``). It is read after the first batches and after two
epochs over every image. All images are the same gray square. The peer's source looks up annotations in pycocotools'
dictionaries, as torchvision's ``CocoDetection`` does.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from striate.benchmarks.harness import Goal, Row, interleave, peak_mb, resident_mb, run_fresh, time_call

IMAGES, OBJECTS, CATEGORIES = 118_000, 860_000, 80
POINTS = (8, 48)
SHAPES = 500  # polygons from which all others are made by shifting and scaling
WORKERS, BATCH, EPOCHS, WARM = 4, 16, 2, 200  # WARM: batches before the first memory reading
FASTER, LIGHTER, FLAT = Goal(1 / 3, at_least=False), Goal(1 / 3, at_least=False), Goal(1.02, at_least=False)


def write_annotations(path: Path, images: int = IMAGES, objects: int = OBJECTS) -> None:
    """Write an annotation file in COCO's format, with two decimals per coordinate, as in COCO."""
    rng = np.random.default_rng(0)
    widths, heights = rng.integers(400, 641, images).tolist(), rng.integers(300, 641, images).tolist()
    shapes = [draw_star(rng, int(count)) for count in rng.integers(*POINTS, SHAPES)]
    of_image = rng.integers(0, images, objects).tolist()
    centers, scales = rng.uniform(0.1, 0.9, (objects, 2)).tolist(), rng.uniform(4, 19, objects).tolist()
    classes = rng.integers(1, CATEGORIES + 1, objects).tolist()
    head = {"info": {}, "licenses": [], "categories": [{"id": i, "name": f"c{i}"} for i in range(1, CATEGORIES + 1)]}
    listed = [
        {"license": 1, "file_name": f"{i:012d}.jpg", "width": widths[i], "height": heights[i], "id": i + 1}
        | {"coco_url": f"http://images.cocodataset.org/train2017/{i:012d}.jpg", "date_captured": "2013-11-14 17:02:52"}
        for i in range(images)
    ]
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({**head, "images": listed})[:-1] + ', "annotations": [')
        for number, image in enumerate(of_image):
            (x, y), scale = centers[number], scales[number]
            x, y = x * widths[image], y * heights[image]
            shape = shapes[number % SHAPES]
            flat = [round(side, 2) for dx, dy in shape for side in (x + scale * dx, y + scale * dy)]
            left, top = min(flat[::2]), min(flat[1::2])
            box = [left, top, round(max(flat[::2]) - left, 2), round(max(flat[1::2]) - top, 2)]
            entry = {"segmentation": [flat], "area": round(2 * scale * scale, 4), "iscrowd": 0, "image_id": image + 1}
            entry |= {"bbox": box, "category_id": classes[number], "id": number + 1}
            file.write((", " if number else "") + json.dumps(entry))
        file.write("]}")


def draw_star(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Draw a star-shaped polygon of `count` points within the unit circle."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = rng.uniform(0.6, 1, count)
    return list(zip((radii * np.cos(angles)).tolist(), (radii * np.sin(angles)).tolist(), strict=True))


def open_ours(path: Path, with_masks: bool) -> Any:
    """Open the file with striate's index."""
    from striate.datamodules.coco.annotation_file import read_coco

    return read_coco(path, path.parent, with_masks=with_masks)


def open_peer(path: Path) -> Any:
    """Open the file with pycocotools' index."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(None):
        return COCO(str(path))


class OurSource:
    """The annotations that striate's detection source reads for a sample, with a gray image."""

    def __init__(self, path: Path) -> None:
        self.content = open_ours(path, with_masks=False)

    def __len__(self) -> int:
        return len(self.content.images.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": _gray(), "path": str(self.content.images.path(index)), **self.content.objects.of(index)}


class PeerSource:
    """The annotations that torchvision's CocoDetection reads for a sample, with a gray image."""

    def __init__(self, path: Path) -> None:
        self.coco = open_peer(path)
        self.ids = sorted(self.coco.imgs)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotations = self.coco.loadAnns(self.coco.getAnnIds(self.ids[index]))
        boxes = np.array([item["bbox"] for item in annotations], np.float32).reshape(-1, 4)
        labels = np.array([item["category_id"] for item in annotations], np.int64)
        return {"image": _gray(), "boxes": boxes, "labels": labels}


def _gray() -> np.ndarray:
    """Return a small gray image ``[16, 16, 3]``."""
    return np.full((16, 16, 3), 127, np.uint8)


def joint_memory(processes: list[int]) -> float:
    """Return the memory of several processes in MB (2**20 bytes): shared pages count once, mapped files not at all."""
    total = 0
    for process in processes:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total / 2**10


def make_loader(source: Any, prepare_worker: Callable[[int], None] | None = None) -> Any:
    """Make a loader of samples without collation; full-size images would hide the cost of the annotations."""
    from torch.utils.data import DataLoader

    return DataLoader(
        source,
        BATCH,
        shuffle=True,
        num_workers=WORKERS,
        collate_fn=list,
        persistent_workers=True,
        worker_init_fn=prepare_worker,
    )


def our_loader(path: Path) -> Any:
    """Make a loader with striate's annotations and striate's worker setup."""
    from striate.datamodules.loading.loader import prepare_worker

    return make_loader(OurSource(path), prepare_worker)


def watch_workers(loader: Any) -> dict[str, float]:
    """Iterate over a loader, and read the memory of all its processes early and at the end."""
    early = late = 0.0
    for epoch in range(EPOCHS):
        iterator = iter(loader)
        for number, _ in enumerate(iterator):
            if number == 0:
                processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
            if epoch == 0 and number == WARM:
                early = joint_memory(processes)
        late = joint_memory(processes)
    return {"early": early, "late": late}


def child() -> None:
    """Entry point of the new process: open the file or iterate over it, and print the measurements as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("boxes", "masks", "peer", "our_workers", "peer_workers"))
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    if options.case.endswith("workers"):
        ours = options.case == "our_workers"
        loader = our_loader(options.file) if ours else make_loader(PeerSource(options.file))
        print(json.dumps(watch_workers(loader)))
        return
    kept: list[Any] = []
    call = (
        partial(open_peer, options.file)
        if options.case == "peer"
        else partial(open_ours, options.file, options.case == "masks")
    )
    import pycocotools.coco  # noqa: F401 - imports are not measured, on either side

    import striate.datamodules.coco.annotation_file  # noqa: F401

    before = resident_mb()
    clock = time_call(lambda: kept.append(call()))
    print(json.dumps({"seconds": clock.wall, "held": resident_mb() - before, "peak": peak_mb() - before}))


def run(repetitions: int = 3) -> Iterator[Row]:
    """Measure the sides alternately, each in a new process; yield each row as soon as it is measured.

    Raises:
        RuntimeError: If there is no /proc, from which worker memory is read.
    """
    if not Path("/proc/self/smaps_rollup").is_file():
        raise RuntimeError("coco_index: needs /proc to read memory; run it on Linux")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "instances_train2017.json"
        write_annotations(file)
        yield from rows_for(file, repetitions)


def rows_for(file: Path, repetitions: int) -> Iterator[Row]:
    """Measure all cases on a file, and yield their rows."""
    module = "striate.benchmarks.coco_index"
    sides = {what: partial(run_fresh, module, what, str(file)) for what in ("boxes", "masks", "peer")}
    measured = interleave(sides, repetitions, warm_up=0)
    for field, unit, goal in (("seconds", "s", FASTER), ("held", "MB", LIGHTER), ("peak", "MB", LIGHTER)):
        peer = statistics.median(result[field] for result in measured["peer"])
        for what in ("boxes", "masks"):
            ours = statistics.median(result[field] for result in measured[what])
            label = {"seconds": "time", "held": "memory after opening", "peak": "peak memory"}[field]
            row = f"opening 860,000 objects in COCO's format, {what}: {label}; peer: pycocotools"
            yield Row(row, f"{ours:.3g} {unit}", f"{peer:.3g} {unit}", ours / peer, goal)
    for side, name in (("our", "striate"), ("peer", "pycocotools' dictionaries")):
        workers = run_fresh(module, f"{side}_workers", str(file))
        late, early = workers["late"], workers["early"]
        yield Row(
            f"memory of {WORKERS} workers after two epochs over it, against their start: {name}",
            f"{late:.0f} MB",
            f"{early:.0f} MB",
            late / early,
            FLAT if side == "our" else None,
        )


if __name__ == "__main__":
    child()
