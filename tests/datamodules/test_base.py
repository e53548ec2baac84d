"""The loaders of a data module: sampling by class, groups of similar aspect ratio, and resuming."""

import itertools
import json
import warnings
from collections import Counter
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from striate.datamodules import CocoDetection, ImageFolder, Manifest, RepeatFactor, VisionDataModule
from striate.tasks import Classification
from striate.tests.helpers.fixtures import TinyNet, noisy_image, write_image
from striate.tests.helpers.training import make_trainer


@pytest.fixture
def coco(tmp_path):
    """24 images, half of them tall; two with the class 'rare', and one without objects."""
    images, annotations = [], []
    for number in range(24):
        width, height = (20, 40) if number % 2 else (40, 20)
        write_image(tmp_path / "train2017" / f"{number}.png", np.full((height, width, 3), number, np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        for category in () if number == 5 else (1, 2) if number in (3, 8) else (1,):
            box = {"bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category, **box})
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "common"}, {"id": 2, "name": "rare"}]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return str(tmp_path)


def module(root, **options):
    files = {"val_annotations": "annotations/instances_train2017.json", "val_images": "train2017"}
    data = CocoDetection(root, batch_size=4, num_workers=0, **files, **options)
    data.setup("fit")
    return data


class Counting(VisionDataModule):
    """Four samples per split; counts how often a split is opened and files are prepared."""

    class_names = ["dark", "light"]  # noqa: RUF012

    def __init__(self, splits=("train", "val", "test")):
        super().__init__(batch_size=2, num_workers=0)
        self.splits, self.calls = splits, []

    def prepare_data(self):
        self.calls.append("prepare")

    def make_source(self, split):
        self.calls.append(split)
        if split not in self.splits:
            return None
        return [{"image": np.full((8, 8, 3), 50 * i, np.uint8), "label": i % 2} for i in range(4)]


@pytest.mark.parametrize(
    ("loader", "opened"),
    [("train_dataloader", ["train", "val"]), ("val_dataloader", ["val"]), ("test_dataloader", ["test"])],
)
def test_loaders_open_their_split_without_a_trainer(loader, opened):
    data = Counting()
    assert data.num_classes == 2
    batches = list(getattr(data, loader)())
    assert sorted(index for batch in batches for index in batch["index"].tolist()) == [0, 1, 2, 3]
    assert data.calls == ["prepare", *opened]
    list(getattr(data, loader)())
    assert data.calls == ["prepare", *opened]  # once


def test_a_split_that_does_not_exist_is_sought_once():
    data = Counting(splits=("train",))
    data.setup("fit")
    assert data.val_dataloader() == [] and data.val_dataloader() == []
    with pytest.raises(ValueError, match="Counting has no test split; add its data"):
        data.test_dataloader()
    assert data.calls == ["train", "val", "prepare", "test"]


def test_a_trainer_opens_each_split_once():
    data = Counting()
    task = Classification(TinyNet(2, width=4))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, data)
    assert data.calls == ["prepare", "train", "val"]


def test_detection_batches_are_grouped_by_aspect(coco):
    loader = module(coco, group_by_aspect=True).train_dataloader()
    batches = list(loader)
    assert len(batches) == 6 and all(len({tuple(image.shape) for image in batch["image"]}) == 1 for batch in batches)
    assert sorted(index for batch in batches for index in batch["index"].tolist()) == list(range(24))
    assert {tuple(batch["image"][0].shape) for batch in batches} == {(3, 20, 40), (3, 40, 20)}
    plain = list(module(coco).train_dataloader())
    assert any(len({tuple(image.shape) for image in batch["image"]}) > 1 for batch in plain)
    assert [
        i for batch in module(coco, group_by_aspect=True).val_dataloader() for i in batch["index"].tolist()
    ] == list(range(24))


def test_detection_images_are_drawn_by_class(coco):
    batches = list(module(coco, sampling="class_balanced").train_dataloader())
    indices = Counter(index for batch in batches for index in batch["index"].tolist())
    assert sum(indices.values()) == 24 and indices[5] == 0 and indices[3] + indices[8] >= 12
    # rare: 2 of 24 images, sqrt(0.75 * 12) = 3; common: 23 of 24
    loader = module(coco, sampling=RepeatFactor(0.75), group_by_aspect=True).train_dataloader()
    assert len(loader.sampler) == 24 + 2 * 2 and len(loader) == 7
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        indices = Counter(index for batch in loader for index in batch["index"].tolist())
        assert indices[3] == indices[8] == 3 and all(indices[n] == 1 for n in range(24) if n not in (3, 8))
    assert len(module(coco, sampling="repeat_factor").train_dataloader().sampler) == 24  # 0.001: no class is that rare


def test_skipping_empty_images_renumbers_classes_and_sizes(coco):
    source = module(coco, skip_empty=True, group_by_aspect=True).datasets["train"].source
    assert len(source) == 23 and source.sizes.shape == (23, 2)
    presence = source.presence()
    assert presence.size == 23 and presence.samples[presence.classes == 1].tolist() == [3, 7]
    assert source.path(5).endswith("/6.png") and source.sizes[5].tolist() == [40, 20]


def test_classes_of_semantic_masks_are_preceded_by_the_background(coco):
    file = Path(coco, "annotations", "instances_train2017.json")
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[1, 1, 9, 1, 9, 9, 1, 9]]
    file.write_text(json.dumps(content))
    data = module(coco, task="semantic_segmentation", sampling=RepeatFactor(0.75), train_transform=[])
    presence = data.datasets["train"].source.presence()
    assert set(presence.classes.tolist()) == {1, 2} and presence.samples[presence.classes == 2].tolist() == [3, 8]
    assert len(data.train_dataloader().sampler) == 28
    data.group_by_aspect = True
    with pytest.raises(ValueError, match="group_by_aspect: .*one size"):
        data.train_dataloader()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_grouped_and_repeated_epoch_resumes(coco, workers):
    def take(loader, count=None):
        return [batch["index"].tolist() for batch in itertools.islice(loader, count)]

    options = {"sampling": RepeatFactor(0.75), "group_by_aspect": True}
    whole = module(coco, **options).train_dataloader()
    whole.sampler.set_epoch(3)
    data = module(coco, **options)
    data.num_workers = workers
    first = data.train_dataloader()
    first.sampler.set_epoch(3)
    begun = take(first, 3)
    resumed = module(coco, **options)
    resumed.load_state_dict(data.state_dict())
    assert begun + take(resumed.train_dataloader()) == take(whole)


def test_yaml_accepts_names_and_thresholds():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VisionDataModule, "data")
    factor = {"class_path": "striate.datamodules.RepeatFactor", "init_args": {"threshold": 0.1}}
    for sampling in ("uniform", "class_balanced", "repeat_factor", factor):
        options = {"root": "x", "sampling": sampling, "group_by_aspect": True}
        config = parser.parse_object({"data": {"class_path": "striate.datamodules.VOCDetection", "init_args": options}})
        data = parser.instantiate(config).data
        assert data.group_by_aspect and (data.sampling == sampling or data.sampling.threshold == 0.1)


@pytest.fixture
def folder(tmp_path):
    for name, size in (("common", 18), ("rare", 2)):
        for number in range(size):
            for split in ("train", "val"):
                write_image(tmp_path / split / name / f"{number:02d}.png", noisy_image(name == "rare", number, 16))
    return str(tmp_path)


def loaded(folder, workers=0, epoch=0, **options):
    transform = [A.RandomCrop(8, 8), A.HorizontalFlip(), A.RandomBrightnessContrast(p=1)]
    data = ImageFolder(
        folder, batch_size=4, num_workers=workers, train_transform=transform, sampling="class_balanced", **options
    )
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return data, loader


def test_balanced_training_and_evaluation_in_order(folder):
    data, loader = loaded(folder)
    labels = torch.cat([batch["label"] for batch in loader])
    assert torch.bincount(labels).tolist() == [10, 10]
    assert [i for batch in data.val_dataloader() for i in batch["index"].tolist()] == list(range(20))
    plain = ImageFolder(folder, batch_size=4, num_workers=0)
    plain.setup("fit")
    assert torch.bincount(torch.cat([batch["label"] for batch in plain.train_dataloader()])).tolist() == [18, 2]


def test_repeated_samples_are_augmented_anew(folder):
    _, loader = loaded(folder)
    augmented = [
        image.numpy().tobytes()
        for batch in loader
        for image, index in zip(batch["image"], batch["index"], strict=True)
        if index == 18
    ]
    assert len(augmented) == 5 and len(set(augmented)) == 5


def test_batches_do_not_depend_on_workers_or_resuming(folder):
    def take(loader, count=None):
        return [(batch["index"].tolist(), batch["image"].clone()) for batch in itertools.islice(loader, count)]

    whole = take(loaded(folder, epoch=2)[1])
    first = loaded(folder, workers=1, epoch=2)[1]
    begun = take(first, 2)
    second = loaded(folder, workers=1)[1]
    second.load_state_dict(first.state_dict())
    joined = begun + take(second)
    assert len(joined) == len(whole) == 5
    assert all(i == j and torch.equal(a, b) for (i, a), (j, b) in zip(joined, whole, strict=True))


def test_an_unknown_sampling_is_rejected():
    with pytest.raises(
        ValueError,
        match=r"sampling: .*got 'balanced'.*'class_balanced'",
    ):
        ImageFolder("x", sampling="balanced")


def test_predict_without_images_names_the_argument(tmp_path):
    with pytest.raises(ValueError, match=r"images: .*got null"):
        ImageFolder(str(tmp_path)).predict_dataloader()


def test_classes_without_a_training_sample_are_warned_of_once(coco, tmp_path):
    file = tmp_path / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"] = [item for item in content["annotations"] if item["category_id"] == 1]
    file.write_text(json.dumps(content))
    message = (
        r"^1 of 2 classes will not be learned \(no training object in CocoDetection\): 'rare'; run striate data check"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        module(coco).setup("validate")
        module(coco).setup("fit")
    assert sum("will not be learned" in str(one.message) for one in caught) == len(caught)
    (tmp_path / "a.csv").write_text("path,label\ntrain2017/1.png,dog\n")
    tables = [str(tmp_path / "a.csv")] * 2
    with pytest.warns(UserWarning, match=r"^2 of 3 .* \(no training image in Manifest\): 'cat', 'emu'; run"):
        Manifest(*tables, class_names=["cat", "dog", "emu"], num_workers=0).setup("fit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Manifest(*tables, class_names=["dog"], num_workers=0).setup("fit")
