"""Small datasets of VOC's and SBD's masks in the publishers' layouts; SBD's as MATLAB saves them."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse
from PIL import Image

from striate.tests.helpers.fixtures import noise, write_image

# as in the real datasets, images of SBD's train are in VOC's val, and the reverse
VOC_SETS = {
    ("2012", "Segmentation", "train"): ["2007_000032", "2008_000015"],
    ("2012", "Segmentation", "val"): ["2008_000073", "2009_000013", "2010_000003"],
    ("2012", "Segmentation", "trainval"): ["2007_000032", "2008_000015", "2008_000073", "2009_000013", "2010_000003"],
    ("2012", "Main", "train"): ["2007_000032", "2008_000015", "2008_000002", "2008_000019"],
    ("2012", "Main", "val"): ["2008_000073", "2009_000013", "2010_000003", "2009_000001"],
    ("2011", "Segmentation", "val"): ["2008_000073", "2009_000013"],
}
SBD_SETS = {"train": ["2008_000015", "2008_000073", "2008_000002"], "val": ["2009_000001", "2010_000003"]}
WIDTH, HEIGHT = 9, 6


def write_palette(path: Path, values: np.ndarray) -> Path:
    """Write a mask as in VOC: a palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette([(37 * k) % 256 for k in range(768)])  # makes it mode P
    image.save(path)
    return path


def classes_of(stem: str, of_sbd: bool = False) -> np.ndarray:
    """Return the classes of an image's pixels ``[H, W]``: other ones in VOC than in SBD; VOC's have a border, 255."""
    values = np.random.default_rng((int(stem.replace("_", "")), of_sbd)).integers(0, 21, (HEIGHT, WIDTH))
    if not of_sbd:
        values[0] = 255
    return values.astype(np.uint8)


def write_set(devkit: Path, year: str, kind: str, name: str, stems: list[str]) -> Path:
    """Write an image set."""
    file = devkit / f"VOC{year}" / "ImageSets" / kind / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{stem}\n" for stem in stems))
    return file


def write_voc_masks(root: Path) -> Path:
    """Write ``VOCdevkit`` with `VOC_SETS`, and image and class mask of each image in a set for segmentation."""
    devkit = root / "VOCdevkit"
    for (year, kind, name), stems in VOC_SETS.items():
        write_set(devkit, year, kind, name, stems)
        for stem in stems if kind == "Segmentation" else ():
            folder = devkit / f"VOC{year}"
            write_image(folder / "JPEGImages" / f"{stem}.jpg", noise(WIDTH, HEIGHT))
            write_palette(folder / "SegmentationClass" / f"{stem}.png", classes_of(stem))
    return devkit


def boundaries(count: int) -> np.ndarray:
    """Return a column of sparse matrices, as in SBD's files."""
    cells = np.empty((count, 1), object)
    for number in range(count):
        cells[number, 0] = scipy.sparse.csc_matrix((HEIGHT, WIDTH))
    return cells


def write_mat(path: Path, name: str, **fields: Any) -> Path:
    """Write a MATLAB file with one structure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {name: fields}, do_compression=True)
    return path


def write_sbd(dataset: Path, images: bool = True) -> Path:
    """Write SBD's ``dataset`` with `SBD_SETS`, a file of classes per image, and optionally the images."""
    dataset.mkdir(parents=True, exist_ok=True)
    for name, stems in SBD_SETS.items():
        (dataset / f"{name}.txt").write_text("\n".join(stems))
        for stem in stems:
            plane = classes_of(stem, of_sbd=True)
            present = np.unique(plane[plane > 0])[:, None]
            write_mat(
                dataset / "cls" / f"{stem}.mat",
                "GTcls",
                Boundaries=boundaries(20),
                Segmentation=plane,
                CategoriesPresent=present,
            )
            if images:
                write_image(dataset / "img" / f"{stem}.jpg", noise(WIDTH, HEIGHT))
    return dataset
