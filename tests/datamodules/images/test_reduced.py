"""Large JPEGs decoded at reduced size: sizes, orientation, targets and quality."""

import albumentations as A
import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from striate.datamodules import (
    CocoDetection,
    CocoLocalization,
    ImageFolder,
    LocalizationManifest,
    ShortSideResize,
    read_image,
)
from striate.datamodules.augmentations.placing import resize_image
from striate.datamodules.augmentations.resizing import sufficient_short_side
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.coco_voc import coco_content, write_coco


@pytest.fixture(scope="module")
def photograph():
    return load_sample_images().images[0]  # [427, 640, 3]


@pytest.mark.parametrize(
    "short_side, expected",
    [(None, (427, 640)), (214, (427, 640)), (213, (214, 320)), (107, (214, 320)), (106, (107, 160)), (53, (54, 80))],
)
def test_the_smallest_sufficient_size_is_decoded(tmp_path, photograph, short_side, expected):
    Image.fromarray(photograph).save(tmp_path / "a.jpg")
    Image.fromarray(photograph).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.jpg", short_side).shape == (*expected, 3)
    assert read_image(tmp_path / "a.png", short_side).shape == photograph.shape  # JPEGs only


def test_the_minimum_is_an_eighth(tmp_path, photograph):
    Image.fromarray(photograph).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", 1).shape == (54, 80, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_and_colors_match_the_full_image(tmp_path, photograph, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(photograph).save(tmp_path / "a.jpg", exif=exif)
    whole, half = read_image(tmp_path / "a.jpg"), read_image(tmp_path / "a.jpg", 200)
    assert half.shape[:2] == tuple(-(-side // 2) for side in whole.shape[:2])
    shrunk = cv2.resize(whole, half.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert (
        np.abs(half.astype(int) - shrunk).mean() < 6
    )  # red and blue swapped: 20; shifted by a pixel: 12; rotated: 113


def test_quality_after_the_final_resizing(tmp_path, photograph):
    def distance(image, other):
        return np.sqrt(np.mean((image.astype(float) - other) ** 2))

    Image.fromarray(photograph).save(tmp_path / "a.jpg", quality=90)
    whole = read_image(tmp_path / "a.jpg")
    for side in (110, 150, 190):
        size = round(640 * side / 427), side
        best = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.LANCZOS))
        reduced = resize_image(read_image(tmp_path / "a.jpg", side), *size)
        # as good as torchvision's detectors, which interpolate between the four nearest pixels
        assert distance(reduced, best) < 1.1 * distance(cv2.resize(whole, size), best)


def test_short_side_that_suffices_for_a_pipeline():
    assert sufficient_short_side(None) is sufficient_short_side([]) is None
    assert sufficient_short_side([A.HorizontalFlip(), ShortSideResize([640, 800]), A.RandomCrop(9, 9)]) == 800
    assert sufficient_short_side([A.SmallestMaxSize(256)]) == 256
    assert sufficient_short_side([A.SmallestMaxSize([256, 480])]) == 480
    assert sufficient_short_side([A.SmallestMaxSize(256, p=0.5)]) is None
    assert sufficient_short_side([A.RandomCrop(9, 9), ShortSideResize(8)]) is None


def write_large(tmp_path, photograph):
    content = coco_content()
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 10 and not a["iscrowd"]]
    for annotation in content["annotations"]:
        annotation["bbox"] = [side * 10 for side in annotation["bbox"]]
        annotation["area"] *= 100
        if isinstance(annotation["segmentation"], list):
            annotation["segmentation"] = [[10 * x for x in polygon] for polygon in annotation["segmentation"]]
    content["images"] = [{"id": 10, "file_name": "large.jpg", "width": 641, "height": 427}]
    write_coco(tmp_path, content)
    for split in ("train2017", "val2017"):
        Image.fromarray(np.pad(photograph, ((0, 0), (0, 1), (0, 0)))).save(tmp_path / split / "large.jpg")
    return tmp_path


def test_boxes_and_areas_are_scaled_with_the_image(tmp_path, photograph):
    root = str(write_large(tmp_path, photograph))
    samples = []
    for steps in ([ShortSideResize(200)], [A.RandomCrop(427, 641), ShortSideResize(200)]):
        data = CocoDetection(root, train_transform=steps, num_workers=0)
        data.setup("fit")
        samples.append(data.datasets["train"][0])
        raw = data.datasets["train"].source[0]
        assert raw["image"].shape[:2] == ((214, 321) if len(steps) == 1 else (427, 641))
    reduced, whole = samples
    assert reduced["image"].shape == whole["image"].shape
    np.testing.assert_allclose(reduced["boxes"], whole["boxes"], atol=1e-3)
    np.testing.assert_allclose(reduced["area"], whole["area"], rtol=1e-5)
    assert len(whole["boxes"]) == 2


def test_images_with_masks_are_read_at_full_size(tmp_path, photograph):
    root = str(write_large(tmp_path, photograph))
    data = CocoDetection(root, task="semantic_segmentation", train_transform=[A.SmallestMaxSize(100)], num_workers=0)
    assert not hasattr(data.make_source("train"), "short_side")
    data = CocoDetection(root, task="instance_segmentation", val_transform=[A.SmallestMaxSize(100)], num_workers=0)
    data.setup("validate")
    assert data.datasets["val"].source[0]["image"].shape == (427, 641, 3)


def test_a_file_of_half_the_annotated_size_is_rejected(tmp_path, photograph):
    root = write_large(tmp_path, photograph)
    Image.fromarray(photograph[:214, :321]).save(root / "train2017" / "large.jpg")
    data = CocoDetection(str(root), num_workers=0)
    with pytest.raises(ImageError, match="the image is 321x214, but its annotations are for 641x427"):
        data.make_source("train")[0]


def test_classification_at_reduced_size(tmp_path, photograph):
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(photograph).save(tmp_path / name / "x.jpg")
    steps = [A.SmallestMaxSize(100), A.RandomCrop(96, 96)]
    data = ImageFolder(str(tmp_path), train_transform=steps, num_workers=0)
    assert data.dataset(data.make_source("train"), training=True).source[0]["image"].shape == (107, 160, 3)


@pytest.mark.parametrize("kind", ["coco", "table"])
def test_localization_at_reduced_size(tmp_path, photograph, kind):
    """Sizes from the annotations, and sizes from the files."""
    root = write_large(tmp_path, photograph)
    (root / "a.csv").write_text("path,label,x1,y1,x2,y2\ntrain2017/large.jpg,a,20,20,595,390\n")
    samples = []
    for steps in ([A.SmallestMaxSize(100)], [A.RandomCrop(427, 641), A.SmallestMaxSize(100)]):
        options = {"train_transform": steps, "num_workers": 0}
        data = (
            CocoLocalization(str(root), "largest", **options)
            if kind == "coco"
            else LocalizationManifest(str(root / "a.csv"), str(root / "a.csv"), **options)
        )
        data.setup("fit")
        raw = data.datasets["train"].source[0]
        assert raw["image"].shape[:2] == ((107, 161) if len(steps) == 1 else (427, 641))
        scale = np.array([161 / 641, 107 / 427] if len(steps) == 1 else [1, 1])
        np.testing.assert_allclose(raw["box"], np.array([20, 20, 595, 390]) * np.tile(scale, 2), rtol=1e-5)
        samples.append(data.datasets["train"][0])
    assert samples[0]["image"].shape == samples[1]["image"].shape == (100, 150, 3)
    np.testing.assert_allclose(samples[0]["box"], samples[1]["box"], atol=1e-3)
