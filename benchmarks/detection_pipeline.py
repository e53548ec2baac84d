"""Detection samples per second, from JPEG files and annotations to images with short side 800, in one process.

striate's side is what an experiment's YAML builds: `CocoDetection` with HorizontalFlip and `ShortSideResize`, and its
loader. Batches are uint8; the model normalizes them. The peer reproduces torchvision's detection reference: Pillow
images, conversion of COCO's annotations to boxes, labels and areas, `RandomHorizontalFlip`, `PILToTensor`, conversion
to floats, and the resizing and normalization inside its detectors (`GeneralizedRCNNTransform`). Both flip half of the
samples, and resize to short side 800 with a long side of at most 1,333. The peer converts annotations without masks.

There are two cases: images of COCO's size, and photographs of 12 megapixels, which striate decodes at half their size.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2 as T
from torchvision.tv_tensors import BoundingBoxes

from striate.benchmarks.harness import Clock, Goal, Row, interleave, median_clock, median_ratio, time_call
from striate.benchmarks.input_pipeline import exhaust, one_thread
from striate.datamodules import CocoDetection, ShortSideResize

SHORT, LONG, BATCH, OBJECTS = 800, 1333, 4, 7
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# name, width, height, files, repetitions, goal
CASES = (
    ("640x480", 640, 480, 16, 9, Goal(1.5, at_least=True)),
    ("4000x3000", 4000, 3000, 8, 5, Goal(3.0, at_least=True)),
)


def write_set(root: Path, width: int, height: int, files: int) -> None:
    """Write photographs of a given size, with added noise, and annotations in COCO's format."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    (root / "annotations").mkdir()
    (root / "train2017").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(files):
        image = cv2.resize(photographs[number % len(photographs)], (width, height), interpolation=cv2.INTER_CUBIC)
        image = (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(root / "train2017" / f"{number}.jpg", quality=90)
        images.append({"id": number + 1, "file_name": f"{number}.jpg", "width": width, "height": height})
        for _ in range(OBJECTS):
            w, h = (rng.uniform(0.05, 0.4, 2) * (width, height)).round(2).tolist()
            box = [round(float(rng.uniform(0, width - w)), 2), round(float(rng.uniform(0, height - h)), 2), w, h]
            entry = {"id": len(annotations) + 1, "image_id": number + 1, "bbox": box, "area": w * h, "iscrowd": 0}
            annotations.append({**entry, "category_id": int(rng.integers(1, 81)), "segmentation": []})
    categories = [{"id": number, "name": f"c{number}"} for number in range(1, 81)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


class ReferenceSet:
    """The peer's data set, with its transforms."""

    def __init__(self, root: Path) -> None:
        content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
        self.folder, self.images = root / "train2017", content["images"]
        self.of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in self.images}
        for item in content["annotations"]:
            self.of_image[item["image_id"]].append(item)
        steps = [T.RandomHorizontalFlip(0.5), T.PILToTensor(), T.ToDtype(torch.float, scale=True), T.ToPureTensor()]
        self.transform = T.Compose(steps)
        self.resize = GeneralizedRCNNTransform(SHORT, LONG, MEAN, STD)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        entry = self.images[index]
        with (self.folder / entry["file_name"]).open("rb") as file:
            photograph = Image.open(file).convert("RGB")
        annotations = [item for item in self.of_image[entry["id"]] if not item["iscrowd"]]
        boxes = torch.as_tensor([item["bbox"] for item in annotations], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2].clamp_(min=0, max=entry["width"])
        boxes[:, 1::2].clamp_(min=0, max=entry["height"])
        target = {
            "boxes": BoundingBoxes(boxes, format="XYXY", canvas_size=(entry["height"], entry["width"])),
            "labels": torch.tensor([item["category_id"] for item in annotations]),
            "area": torch.tensor([item["area"] for item in annotations]),
            "iscrowd": torch.tensor([item["iscrowd"] for item in annotations]),
            "image_id": entry["id"],
        }
        image, target = self.transform(photograph, target)
        image, target["boxes"] = self._resized(image, target["boxes"])
        return image, target

    def _resized(self, image: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Resize image ``[3, H, W]`` and boxes ``[N, 4]`` as the peer's detector does before it makes a batch."""
        resized, target = self.resize.resize(self.resize.normalize(image), {"boxes": boxes})
        return resized, target["boxes"]


def make_sides(root: Path) -> dict[str, Callable[[], Clock]]:
    """Make the sides: each one iterates over all files once."""
    steps = [A.HorizontalFlip(p=0.5), ShortSideResize(SHORT, max_size=LONG)]
    data = CocoDetection(str(root), train_transform=steps, batch_size=BATCH, num_workers=0)
    data.datasets["train"] = data.dataset(data.make_source("train"), training=True)
    ours = data.train_dataloader()
    reference: Any = ReferenceSet(root)
    peer = DataLoader(reference, BATCH, shuffle=True, drop_last=True, collate_fn=list)
    calls: dict[str, Callable[[], object]] = {"ours": partial(exhaust, ours), "peer": partial(exhaust, peer)}
    return {name: partial(time_call, call) for name, call in calls.items()}


def run() -> Iterator[Row]:
    """Measure all cases, and yield each row as soon as it is measured."""
    for name, width, height, files, repetitions, goal in CASES:
        with tempfile.TemporaryDirectory() as folder, one_thread():
            write_set(Path(folder), width, height, files)
            measured = interleave(make_sides(Path(folder)), repetitions, warm_up=1)
        ours, peer = (files / median_clock(measured[side]).wall for side in ("ours", "peer"))
        ratio = median_ratio([t.wall for t in measured["peer"]], [t.wall for t in measured["ours"]])
        what = f"detection samples/s, {name} to short side {SHORT}; peer: torchvision's reference"
        yield Row(what, f"{ours:.1f}", f"{peer:.1f}", ratio, goal)
