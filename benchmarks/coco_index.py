"""Opening an annotation file of COCO's size, and what its annotations cost the loader's workers.

The file is made here: as many images and objects as COCO's ``instances_train2017.json`` has, polygons of 8 to 47
points, about half a gigabyte. Ours is `read_coco`, for boxes alone and for boxes and masks; the peer is
``pycocotools.coco.COCO``. Each is opened in a fresh process, and what the process grew by is counted: what the index
holds, and the most on the way.

The workers' memory is what they and their parent hold together, pages that they share counted once and mapped files not
(Linux: the sum of ``Pss_Anon`` and ``Pss_Shmem``), after the first batches and after two epochs over every image; the
images themselves are one gray square. The peer's source looks its annotations up in pycocotools' dictionaries, as
torchvision's ``CocoDetection`` does.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from striate.benchmarks.harness import Goal, Row, interleave, peak_mb, resident_mb, run_fresh, time_call

IMAGES, OBJECTS, CATEGORIES = 118_000, 860_000, 80
POINTS = (8, 48)
SHAPES = 500  # polygons that all others are moved and scaled from
WORKERS, BATCH, EPOCHS, WARM = 4, 16, 2, 200  # WARM: batches before the first reading
FASTER, LIGHTER, FLAT = Goal(1 / 3, at_least=False), Goal(1 / 3, at_least=False), Goal(1.02, at_least=False)


def write_annotations(path: Path, images: int = IMAGES, objects: int = OBJECTS) -> None:
    """An annotation file in COCO's format, with two decimals a coordinate, as COCO's has."""
    rng = np.random.default_rng(0)
    widths, heights = rng.integers(400, 641, images).tolist(), rng.integers(300, 641, images).tolist()
    shapes = [_star(rng, int(count)) for count in rng.integers(*POINTS, SHAPES)]
    of_image = rng.integers(0, images, objects).tolist()
    where, scales = rng.uniform(0.1, 0.9, (objects, 2)).tolist(), rng.uniform(4, 19, objects).tolist()
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
            (x, y), scale = where[number], scales[number]
            x, y = x * widths[image], y * heights[image]
            shape = shapes[number % SHAPES]
            flat = [round(side, 2) for dx, dy in shape for side in (x + scale * dx, y + scale * dy)]
            left, top = min(flat[::2]), min(flat[1::2])
            box = [left, top, round(max(flat[::2]) - left, 2), round(max(flat[1::2]) - top, 2)]
            entry = {"segmentation": [flat], "area": round(2 * scale * scale, 4), "iscrowd": 0, "image_id": image + 1}
            entry |= {"bbox": box, "category_id": classes[number], "id": number + 1}
            file.write((", " if number else "") + json.dumps(entry))
        file.write("]}")


def _star(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = rng.uniform(0.6, 1, count)
    return list(zip((radii * np.cos(angles)).tolist(), (radii * np.sin(angles)).tolist(), strict=True))


def open_ours(path: Path, with_masks: bool) -> Any:
    """Our index."""
    from striate.datamodules.coco.json import read_coco

    return read_coco(path, path.parent, with_masks=with_masks)


def open_peer(path: Path) -> Any:
    """pycocotools' index."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(None):
        return COCO(str(path))


class OurSource:
    """What our detection source looks up of a sample, without its image."""

    def __init__(self, path: Path) -> None:
        self.content = open_ours(path, with_masks=False)

    def __len__(self) -> int:
        return len(self.content.images.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": _gray(), "path": str(self.content.images.path(index)), **self.content.objects.of(index)}


class PeerSource:
    """What torchvision's CocoDetection looks up of a sample, without its image."""

    def __init__(self, path: Path) -> None:
        self.coco = open_peer(path)
        self.ids = sorted(self.coco.imgs)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = self.coco.loadAnns(self.coco.getAnnIds(self.ids[index]))
        boxes = np.array([item["bbox"] for item in found], np.float32).reshape(-1, 4)
        labels = np.array([item["category_id"] for item in found], np.int64)
        return {"image": _gray(), "boxes": boxes, "labels": labels}


def _gray() -> np.ndarray:
    return np.full((16, 16, 3), 127, np.uint8)


def held_together(processes: list[int]) -> float:
    """Memory of several processes, MB (2**20 bytes), shared pages counted once, mapped files (libraries) not at all."""
    total = 0
    for process in processes:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total / 2**10


def make_loader(source: Any, prepare_worker: Callable[[int], None] | None = None) -> Any:
    """A loader of samples as they are: images as large as annotations say would hide the annotations' own cost."""
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
    """Our annotations, and our workers."""
    from striate.datamodules.loading.loader import prepare_worker

    return make_loader(OurSource(path), prepare_worker)


def watch_workers(loader: Any) -> dict[str, float]:
    """Go over a loader, and read what all its processes hold, early and at the end."""
    early = late = 0.0
    for epoch in range(EPOCHS):
        iterator = iter(loader)
        for number, _ in enumerate(iterator):
            if number == 0:
                everyone = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
            if epoch == 0 and number == WARM:
                early = held_together(everyone)
        late = held_together(everyone)
    return {"early": early, "late": late}


def child() -> None:
    """What a fresh process does: open, or watch, and print figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("boxes", "masks", "peer", "our_workers", "peer_workers"))
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    if given.what.endswith("workers"):
        ours = given.what == "our_workers"
        loader = our_loader(given.file) if ours else make_loader(PeerSource(given.file))
        print(json.dumps(watch_workers(loader)))
        return
    kept: list[Any] = []
    call = (
        partial(open_peer, given.file)
        if given.what == "peer"
        else partial(open_ours, given.file, given.what == "masks")
    )
    import pycocotools.coco  # noqa: F401 - the imports are no part of it, on either side

    import striate.datamodules.coco_json  # noqa: F401

    before = resident_mb()
    clock = time_call(lambda: kept.append(call()))
    print(json.dumps({"seconds": clock.wall, "held": resident_mb() - before, "peak": peak_mb() - before}))


def run(repetitions: int = 3) -> list[Row]:
    """Measure: in turn, each in a fresh process.

    Raises:
        RuntimeError: where there is no /proc, from which the workers' memory is read.
    """
    if not Path("/proc/self/smaps_rollup").is_file():
        raise RuntimeError("coco_index reads memory from /proc, which this system does not have: run it on Linux")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "instances_train2017.json"
        write_annotations(file)
        return rows_for(file, repetitions)


def rows_for(file: Path, repetitions: int) -> list[Row]:
    """The table's lines."""
    module = "striate.benchmarks.coco_index"
    sides = {what: partial(run_fresh, module, what, str(file)) for what in ("boxes", "masks", "peer")}
    measured = interleave(sides, repetitions, warm_up=0)
    workers = {side: run_fresh(module, f"{side}_workers", str(file)) for side in ("our", "peer")}
    rows = []
    for field, unit, goal in (("seconds", "s", FASTER), ("held", "MB", LIGHTER), ("peak", "MB", LIGHTER)):
        peer = statistics.median(result[field] for result in measured["peer"])
        for what in ("boxes", "masks"):
            ours = statistics.median(result[field] for result in measured[what])
            label = {"seconds": "time", "held": "memory held", "peak": "peak memory"}[field]
            row = f"opening 860,000 objects in COCO's format, {what}: {label}, against pycocotools"
            rows.append(Row(row, f"{ours:.3g} {unit}", f"{peer:.3g} {unit}", ours / peer, goal))
    for side, name in (("our", "ours"), ("peer", "pycocotools' dictionaries")):
        late, early = workers[side]["late"], workers[side]["early"]
        rows.append(
            Row(
                f"{WORKERS} workers after two epochs over it, against their start: {name}",
                f"{late:.0f} MB",
                f"{early:.0f} MB",
                late / early,
                FLAT if side == "our" else None,
            )
        )
    return rows


if __name__ == "__main__":
    child()
