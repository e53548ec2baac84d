"""What the readers' constructors share: the same last arguments, and that a YAML file can build them."""

import inspect

import pytest
from jsonargparse import ArgumentParser

from striate.datamodules import (
    ADE20K,
    CIFAR10,
    CIFAR100,
    CUB200,
    MNIST,
    Caltech101,
    Caltech256,
    Cityscapes,
    CocoDetection,
    CocoLocalization,
    DetectionManifest,
    FashionMNIST,
    ImageFolder,
    ImageNet,
    ImageNetLocalization,
    InstanceMasks,
    LocalizationManifest,
    Manifest,
    MaskFolder,
    OxfordPets,
    VisionDataModule,
    VOCDetection,
    VOCInstances,
    VOCLocalization,
    VOCSegmentation,
    YoloDetection,
)

READERS = [
    CIFAR10,
    CIFAR100,
    MNIST,
    Caltech101,
    Caltech256,
    FashionMNIST,
    ImageFolder,
    ImageNet,
    Manifest,
    CocoDetection,
    VOCDetection,
    MaskFolder,
    VOCSegmentation,
    VOCInstances,
    Cityscapes,
    ADE20K,
    DetectionManifest,
    InstanceMasks,
    YoloDetection,
    VOCLocalization,
    CocoLocalization,
    CUB200,
    OxfordPets,
    ImageNetLocalization,
    LocalizationManifest,
]
SHARED = list(inspect.signature(VisionDataModule).parameters.values())


@pytest.mark.parametrize("reader", READERS)
def test_the_shared_arguments_come_last_with_the_same_defaults_and_reach_the_base(reader):
    tail = list(inspect.signature(reader).parameters.values())[-len(SHARED) :]
    assert [p.name for p in tail] == [p.name for p in SHARED]
    assert [p.default for p in tail if p.name != "batch_size"] == [p.default for p in SHARED if p.name != "batch_size"]
    given = {
        "batch_size": 3,
        "eval_batch_size": 5,
        "num_workers": 2,
        "train_transform": [1],
        "val_transform": [2],
        "seed": 7,
        "images": "x.png",
        "strict": True,
        "sampling": "class_balanced",
    }
    names = {"class_names": ["a"]} if reader is MaskFolder else {}
    data = reader("somewhere", **names, **given)
    assert {name: getattr(data, name) for name in given} == given


@pytest.mark.parametrize("reader", READERS)
def test_yaml_can_build_it(reader):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VisionDataModule, "data")
    first = "train" if reader in (Manifest, DetectionManifest, LocalizationManifest) else "root"
    options = {first: "somewhere", "sampling": "class_balanced", "eval_batch_size": None}
    options |= {"class_names": ["a"], "classes": {0: 0}} if reader is MaskFolder else {}
    config = parser.parse_object(
        {"data": {"class_path": f"striate.datamodules.{reader.__name__}", "init_args": options}}
    )
    data = parser.instantiate(config).data
    assert type(data) is reader and data.sampling == "class_balanced"
