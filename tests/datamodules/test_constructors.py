"""The loader options of every reader: passed on to the base, with its defaults, from Python and from YAML."""

import inspect
import typing

import pytest
from jsonargparse import ArgumentError, ArgumentParser

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
    DigitScenes,
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
from striate.datamodules.base import LoaderOptions
from striate.datamodules.classic.in_memory import InMemoryDataModule

READERS = [
    DigitScenes,
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
LOADER = dict(inspect.signature(VisionDataModule).parameters)
OPTIONS = {
    "batch_size": 3,
    "eval_batch_size": 5,
    "num_workers": 2,
    "train_transform": [1],
    "val_transform": [2],
    "seed": 7,
    "images": "x.png",
    "strict": True,
    "sampling": "class_balanced",
    "scale_16bit": "full",
    "page": 1,
}


def required(reader):
    first = "train" if reader in (Manifest, DetectionManifest, LocalizationManifest) else "root"
    return ({} if reader is DigitScenes else {first: "somewhere"}) | (
        {"class_names": ["a"]} if reader is MaskFolder else {}
    )


def test_loader_options_mirror_the_base_constructor():
    assert OPTIONS.keys() == LOADER.keys()
    assert typing.get_type_hints(LoaderOptions) == {name: p.annotation for name, p in LOADER.items()}


@pytest.mark.parametrize("reader", READERS)
def test_loader_options_reach_the_base(reader):
    data = reader(**required(reader), **OPTIONS)
    assert {name: getattr(data, name) for name in OPTIONS} == OPTIONS


@pytest.mark.parametrize("reader", READERS)
def test_an_unknown_argument_is_named(reader):
    with pytest.raises(TypeError, match="batch_sze"):
        reader(**required(reader), batch_sze=3)


@pytest.mark.parametrize("reader", READERS)
def test_yaml_can_build_it_with_the_base_defaults(reader):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VisionDataModule, "data")
    class_path = f"striate.datamodules.{reader.__name__}"
    options = required(reader) | {"seed": 7}
    config = parser.parse_object({"data": {"class_path": class_path, "init_args": options}})
    resolved = config.data.init_args.as_dict()
    defaults = {name: p.default for name, p in LOADER.items()} | {"seed": 7}
    batch_size = {ImageNet: 64, ImageNetLocalization: 64, DigitScenes: 64}.get(reader, 32)
    if issubclass(reader, InMemoryDataModule):
        batch_size = 128
    assert {name: resolved[name] for name in defaults} == defaults | {"batch_size": batch_size}
    data = parser.instantiate(config).data
    assert type(data) is reader and data.seed == 7 and data.batch_size == batch_size
    with pytest.raises(ArgumentError, match="batch_sze"):
        parser.parse_object({"data": {"class_path": class_path, "init_args": options | {"batch_sze": 3}}})
