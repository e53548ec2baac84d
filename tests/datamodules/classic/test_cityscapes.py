"""Cityscapes: classes by hand and against torchvision's table and reader, and errors for bad files."""

import albumentations as A
import numpy as np
import pytest
import torchvision

from striate.datamodules import Cityscapes
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.fixtures import noise, write_gray, write_image

SCENES = {
    "train": ["aachen_000000_000019", "aachen_000001_000019", "zurich_000000_000019"],
    "val": ["frankfurt_000000_000294", "munster_000000_000019"],
    "train_extra": ["augsburg_000000_000000"],
}


def ids_of(scene, height=5, width=7):
    return np.random.default_rng(list(scene.encode())).integers(0, 34, (height, width)).astype(np.uint8)


def tree(root, mask_folders=("gtFine", "gtCoarse"), train_ids=False):
    for split, scenes in SCENES.items():
        for scene in scenes:
            city = scene.split("_")[0]
            write_image(root / "leftImg8bit" / split / city / f"{scene}_leftImg8bit.png", noise(7, 5, len(scene)))
            for mask_folder in mask_folders:
                if split == "train_extra" and mask_folder == "gtFine":
                    continue
                folder = root / mask_folder / split / city
                # the coarse polygons differ from the fine ones
                values = ids_of(scene) if mask_folder == "gtFine" else ids_of(scene)[::-1]
                write_gray(folder / f"{scene}_{mask_folder}_labelIds.png", values)
                write_gray(folder / f"{scene}_{mask_folder}_color.png", values)
                if train_ids:
                    write_gray(folder / f"{scene}_{mask_folder}_labelTrainIds.png", np.full((5, 7), 18, np.uint8))
    return root


def module(root, **options):
    return Cityscapes(str(root), **{"num_workers": 0, "batch_size": 2} | options)


def test_ids_become_classes_by_hand(tmp_path):
    tree(tmp_path)
    values = np.array([[0, 7, 8, 11, 33, 1, 255], [24, 25, 26, 31, 32, 29, 30]] + [[3] * 7] * 3, np.uint8)
    write_gray(tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png", values)
    data = module(tmp_path)
    data.setup("fit")
    sample = data.datasets["train"][0]
    assert sample["mask"].tolist()[:3] == [[255, 0, 1, 2, 18, 255, 255], [11, 12, 13, 16, 17, 255, 255], [255] * 7]
    assert [data.class_names[k] for k in (0, 1, 2, 11, 13, 18)] == [
        "road",
        "sidewalk",
        "building",
        "person",
        "car",
        "bicycle",
    ]
    batch = next(iter(data.val_dataloader()))
    assert batch["mask"].shape == (2, 5, 7)


def test_classes_against_torchvision():
    data = module("x")
    known = {entry.id: entry for entry in torchvision.datasets.Cityscapes.classes if entry.id >= 0}
    assert sorted(known) == list(range(34))
    assert [data.lookup[number] for number in known] == [entry.train_id for entry in known.values()]
    classes = sorted((entry.train_id, entry.name, entry.id) for entry in known.values() if entry.train_id < 255)
    assert classes == list(zip(range(19), data.class_names, data.label_ids, strict=True))


@pytest.mark.parametrize(
    "split, mode", [("train", "fine"), ("val", "fine"), ("train", "coarse"), ("train_extra", "coarse")]
)
def test_files_against_torchvision(tmp_path, split, mode):
    theirs = torchvision.datasets.Cityscapes(str(tree(tmp_path)), split, mode, target_type="semantic")
    data = module(tmp_path, annotations=mode, train=[split])
    ours = data.make_source("train")
    assert len(theirs) == len(ours) == len(SCENES[split])
    # torchvision lists the cities in the order of the file system
    by_path = {path: number for number, path in enumerate(theirs.images)}
    for sample in ours:
        image, truth = theirs[by_path[sample["path"]]]
        np.testing.assert_array_equal(sample["image"], np.asarray(image))
        np.testing.assert_array_equal(sample["mask"], data.lookup[np.asarray(truth)])


def test_coarse_annotations_are_for_training_only(tmp_path):
    data = module(tree(tmp_path), annotations="coarse")
    train, val = data.make_source("train"), data.make_source("val")
    assert len(train) == 4 and len(val) == 2 and "augsburg" in train[3]["path"]
    np.testing.assert_array_equal(train[0]["mask"], data.lookup[ids_of("aachen_000000_000019")[::-1]])
    np.testing.assert_array_equal(val[0]["mask"], data.lookup[ids_of("frankfurt_000000_000294")])
    assert len(module(tmp_path, train=["train", "val"]).make_source("train")) == 5
    assert [s["path"] for s in data.make_source("test")] == [s["path"] for s in val]


def test_train_ids(tmp_path):
    tree(tmp_path, train_ids=True)
    source = module(tmp_path, train_ids=True).make_source("train")
    assert (source[0]["mask"] == 18).all()
    assert len(np.unique(module(tmp_path).make_source("train")[0]["mask"])) > 2
    write_gray(
        tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png",
        np.array([[0, 255]] * 2, np.uint8),
    )
    with pytest.raises(ImageError, match="the image is 7x5, but its mask '.*labelTrainIds.png' is 2x2"):
        source[0]
    (tmp_path / "gtFine/val/munster/munster_000000_000019_gtFine_labelTrainIds.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"val: 1 of 2 masks \(train ids.*\n.*gtF"):
        module(tmp_path, train_ids=True).make_source("val")


def test_unknown_label_ids(tmp_path):
    tree(tmp_path)
    for value, train_ids, name in ((34, False, "labelIds"), (19, True, "labelTrainIds")):
        path = tmp_path / f"gtFine/train/aachen/aachen_000000_000019_gtFine_{name}.png"
        for scene in SCENES["train"]:
            write_gray(path.parents[1] / scene.split("_")[0] / f"{scene}_gtFine_{name}.png", np.zeros((5, 7), np.uint8))
        write_gray(path, np.full((5, 7), value, np.uint8))
        with stops_at("label-outside", rf"{name}.png: .*{value} \(\d+ pixels?\)"):
            module(tmp_path, train_ids=train_ids).make_source("train")[0]


def test_missing_files_show_the_expected_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)leftImg8bit/train'.*Cityscapes.*_000019_gtFine"):
        module(tmp_path).make_source("train")
    tree(tmp_path, mask_folders=("gtFine",))
    with pytest.raises(FileNotFoundError, match=r"(?s)gtCoarse/train.* contains: gtFine/, leftImg8bit/"):
        module(tmp_path, annotations="coarse").make_source("train")
    (tmp_path / "gtFine/val/munster/munster_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"val: 1 of 2 masks.*\n    gtFine/val/munster/mun"):
        module(tmp_path).make_source("val")
    write_image(tmp_path / "leftImg8bit/train/aachen/aachen_1.png", noise(7, 5))
    with pytest.raises(ValueError, match="aachen_1.png: .*_leftImg8bit.png"):
        module(tmp_path).make_source("train")


def test_an_empty_split(tmp_path):
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / folder / "train" / "aachen").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no images in '.*leftImg8bit/train'"):
        module(tmp_path).make_source("train")


@pytest.mark.parametrize("size", [(1, 1), (20_000, 20)])
def test_augmentation_of_extreme_sizes(tmp_path, size):
    tree(tmp_path)
    for scene in SCENES["train"]:
        city = scene.split("_")[0]
        write_image(tmp_path / f"leftImg8bit/train/{city}/{scene}_leftImg8bit.png", noise(*size))
        values = np.full(size[::-1], 8, np.uint8)  # class 1
        write_gray(tmp_path / f"gtFine/train/{city}/{scene}_gtFine_labelIds.png", values)
    data = module(tmp_path, train_transform=[A.PadIfNeeded(24, 24), A.RandomCrop(24, 24)])
    data.setup("fit")
    mask = next(iter(data.train_dataloader()))["mask"]
    assert mask.shape == (2, 24, 24) and (mask == 1).sum() == 2 * min(size[0], 24) * min(size[1], 24)
    assert (mask == 255).sum() == mask.numel() - (mask == 1).sum()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"annotations": "course"}, "annotations.*got 'course'; did you mean 'coarse'"),
        ({"train": ["train_extra"]}, "train: .*fine annotations are train, val, got 'train_extra'"),
        ({"train": ["test"], "annotations": "coarse"}, "train: .*train, train_extra, val, got 'test'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        module("x", **options)
