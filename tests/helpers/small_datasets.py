"""Small valid data sets in each format, which the doctor's tests damage."""

import csv
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

import striate.datamodules
from striate.datamodules import VisionDataModule
from striate.datamodules.annotations.annotation_table import AnnotationTable, ImageEntry
from striate.datamodules.doctor import Fix, Report, check, write_fix
from striate.datamodules.doctor.repair import RepairLog, repair
from striate.datamodules.yolo.annotation_table import label_line, read_line
from striate.datamodules.yolo.labels import SLIVER
from striate.tests.helpers.coco_voc import voc_xml
from striate.tests.helpers.fixtures import noise, write_image

WIDTH, HEIGHT = 60, 40
BOXES = [(5, 6, 25, 30), (30, 10, 55, 38)]  # x1, y1, x2, y2 of the two objects of each image


def unique_image(seed: int) -> np.ndarray:
    """An image ``[40, 60, 3]`` that differs from that of any other seed."""
    return noise(WIDTH, HEIGHT, seed)


def coco_item(number: int, image: int, box: tuple[float, ...], category: int = 1) -> dict[str, Any]:
    """An annotation whose polygon is its box."""
    x1, y1, x2, y2 = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
    }


def write_coco(root: Path) -> Path:
    """Four images to train, two to validate, two objects each; returns the annotation file to train."""
    (root / "annotations").mkdir(parents=True)
    for split, count, first in (("train", 4, 0), ("val", 2, 100)):
        images, items = [], []
        for number in range(count):
            name = f"{split}{number}.png"
            write_image(root / f"{split}2017" / name, unique_image(first + number))
            images.append({"id": number + 1, "file_name": name, "width": WIDTH, "height": HEIGHT})
            items += [coco_item(2 * number + k + 1, number + 1, box, k + 1) for k, box in enumerate(BOXES)]
        content = {"images": images, "annotations": items, "info": {"year": 2017}}
        content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return root / "annotations" / "instances_train2017.json"


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the content of a JSON file."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def write_voc(root: Path, label: str = "cat") -> Path:
    """VOC2007 with three images to train, two to validate and one to test; returns its folder."""
    year = root / "VOCdevkit" / "VOC2007"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (year / part).mkdir(parents=True)
    for split, names in (
        ("train", ("000001", "000002", "000003")),
        ("val", ("000004", "000005")),
        ("test", ("000006",)),
    ):
        for name in names:
            write_image(year / "JPEGImages" / f"{name}.jpg", unique_image(int(name)))
            write_xml(year, name, [(label, (x1 + 1, y1 + 1, x2, y2), 0) for x1, y1, x2, y2 in BOXES])
        (year / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return year


def write_xml(year: Path, name: str, objects: list[Any], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """The annotation of an image."""
    file = year / "Annotations" / f"{name}.xml"
    file.write_text(voc_xml(name, size, objects))
    return file


def write_masks(root: Path) -> Path:
    """Three images with masks to train, two to validate; classes 0, 1, 2."""
    for split, count, first in (("train", 3, 0), ("val", 2, 100)):
        for number in range(count):
            write_image(root / split / "images" / f"{number}.png", unique_image(first + number))
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[6:30, 5:25], mask[10:38, 30:55], mask[:3] = 1, 2, 255
            write_image(root / split / "masks" / f"{number}.png", mask)
    return root


def write_folder(root: Path) -> Path:
    """Two classes, three images of each to train, two to validate."""
    for split, count, first in (("train", 3, 0), ("val", 2, 100)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                write_image(root / split / name / f"{number}.png", unique_image(first + 10 * label + number))
    return root


def write_yolo(root: Path) -> Path:
    """Three images to train, two to validate, two objects each."""
    for split, count, first in (("train", 3, 0), ("val", 2, 50)):
        for number in range(count):
            write_image(root / "images" / split / f"{number}.png", unique_image(first + number))
            label = root / "labels" / split / f"{number}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 0.25 0.5 0.25 0.5\n1 0.75 0.5 0.25 0.5\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")
    return root


def write_manifest(root: Path) -> Path:
    """Tables of four images to train and two to validate beside a folder of images; returns the table to train."""
    for split, count, first in (("train", 4, 0), ("val", 2, 100)):
        lines = ["path,label"]
        for number in range(count):
            write_image(root / "images" / f"{split}{number}.png", unique_image(first + number))
            lines.append(f"images/{split}{number}.png,{('cat', 'dog')[number % 2]}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return root / "train.csv"


def write_object_table(root: Path, rows: Sequence[str]) -> dict[str, Any]:
    """Tables of objects: `rows` to train, three images to validate; returns the arguments of their data module."""
    for number in range(3):
        write_image(root / f"{number}.png", unique_image(number))
        write_image(root / f"v{number}.png", unique_image(100 + number))
    (root / "val.csv").write_text("path,label,x1,y1,x2,y2\nv0.png,cat,5,6,25,30\nv1.png,dog,5,6,25,30\nv2.png,,,,,\n")
    (root / "train.csv").write_text("\n".join(["path,label,x1,y1,x2,y2", *rows]) + "\n")
    return {"train": str(root / "train.csv"), "val": str(root / "val.csv"), "root": str(root), "num_workers": 0}


def write_instance_masks(root: Path) -> Path:
    """Three images with an instance mask each to train and to validate; returns an image to train."""
    for number in range(6):
        split, plane = ("train", "val")[number % 2], np.zeros((HEIGHT, WIDTH), np.uint8)
        plane[5:20, 5:30] = 1
        write_image(root / split / "images" / "deep" / f"{number}.png", unique_image(number))
        write_image(root / split / "masks" / "deep" / f"{number}.png", plane)
    return root / "train/images/deep/2.png"


def write_cityscapes(root: Path) -> Path:
    """Cityscapes with three images to train and to validate; returns an image to train."""
    for number in range(6):
        split = ("train", "val")[number % 2]
        scene = f"aachen_{number:06d}_000019"
        write_image(root / "leftImg8bit" / split / "aachen" / f"{scene}_leftImg8bit.png", unique_image(number))
        mask = root / "gtFine" / split / "aachen" / f"{scene}_gtFine_labelIds.png"
        write_image(mask, np.full((HEIGHT, WIDTH), 8, np.uint8))
    return root / "leftImg8bit/train/aachen/aachen_000002_000019_leftImg8bit.png"


def write_ade20k(root: Path) -> Path:
    """ADE20K with three images to train and to validate; returns an image to train."""
    for number in range(6):
        split = ("training", "validation")[number % 2]
        write_image(root / "images" / split / f"ADE_{number}.jpg", unique_image(number))
        write_image(root / "annotations" / split / f"ADE_{number}.png", np.full((HEIGHT, WIDTH), 3, np.uint8))
    lines = ["Idx\tName", *(f"{number}\tthing {number}" for number in range(1, 151))]
    (root / "objectInfo150.txt").write_text("\n".join(lines))
    return root / "images/training/ADE_2.jpg"


def make_images_unique(root: Path) -> None:
    """Replace the JPEG images below a folder by different ones of the same size."""
    for path in sorted(root.rglob("*.jpg")):
        with Image.open(path) as image:
            width, height = image.size
        write_image(path, noise(width, height, int(path.stem.replace("_", ""))))


def truncate(file: Path) -> None:
    """Keep the first half of a file."""
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def repaired(make: type[VisionDataModule], tmp_path: Path, **init_args: Any) -> tuple[Report, list[Any], Any, Fix]:
    """Repair the data set in ``tmp_path/data``, and check the corrected copy.

    Asserts that the originals are unchanged, and that the repair names each fault as the check does.

    Returns:
        The report on the copy, the changes, the copy's data module, and the fix.
    """
    root, target = tmp_path / "data", tmp_path / "fixed"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    report = check(make(**init_args), processes=0)
    assert not report.clean
    fix = write_fix(report, target)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    section = yaml.safe_load((target / "fixed.yaml").read_text())["data"]
    reader = getattr(striate.datamodules, section["class_path"].rpartition(".")[2])
    copy = reader(**(init_args | section["init_args"]))
    with (target / "fixes.csv").open() as file:
        changes = list(csv.DictReader(file))
    assert [tuple(change.values()) for change in changes] == [tuple(change) for change in fix.log.changes]
    assert {change["kind"] for change in changes} <= set(report.findings.counts)
    # these few masks do not have all classes of their published sets
    return check(copy, processes=0, ignored=["absent-class", "unused-class"]), changes, copy, fix


def actions(changes: list[dict[str, str]]) -> dict[str, str]:
    """The kinds of faults of the changes, sorted, by action."""
    groups: dict[str, list[str]] = {}
    for change in changes:
        groups.setdefault(change["action"], []).append(change["kind"])
    return {action: " ".join(sorted(kinds)) for action, kinds in groups.items()}


class SampleList:
    """A source of samples from a list; an exception is raised, and None kills the process."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        if sample is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(sample, Exception):
            raise sample
        return {"image": noise(40, 40, index), **sample}


class InMemory(VisionDataModule):
    """A data module of samples in memory."""

    def __init__(self, train: list[Any], names: Sequence[str] = ("cat", "dog"), **splits: list[Any]) -> None:
        super().__init__(num_workers=0)
        self.samples, self.names = {"train": train, **splits}, list(names)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes."""
        return self.names

    @property
    def variable_size_images(self) -> bool:
        """Whether the samples are of detection."""
        return any("boxes" in (sample or ()) for sample in self.samples["train"])

    def make_source(self, split: str) -> SampleList | None:
        """The samples of a split."""
        return SampleList(self.samples[split]) if split in self.samples else None


def boxed(*boxes: tuple[float, ...], labels: list[int] | None = None, **more: Any) -> dict[str, Any]:
    """A sample of detection."""
    return {"boxes": np.array(boxes, np.float32), "labels": np.array(labels or [0] * len(boxes)), **more}


def repaired_line(line: str, num_classes: int, with_masks: bool = False) -> tuple[str, str | None]:
    """Repair a line of a YOLO label: its fault, or an empty text, and the line that is left; None: it is dropped."""
    image = ImageEntry("a.txt", "the image", "a.jpg", (1, 1), (0.01, 0.01))
    entry, log = read_line(image, 1, line.split(), num_classes, with_masks), RepairLog()
    kept = repair(AnnotationTable([image], [entry], min_side=SLIVER), {}, log).objects
    return next((change.kind for change in log.changes), ""), label_line(kept[0]) if kept else None
