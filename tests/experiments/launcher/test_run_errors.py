"""Errors name the key of the configuration, and where it was given."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

from striate.tests.helpers.fixtures import TinyNet, make_folder
from striate.tests.helpers.launcher import CLASSIFICATION, launch, launch_error

HERE = "striate.tests.experiments.launcher.test_run_errors"


class Net(TinyNet):
    """Raises on a bad `width` when built, on a bad `dropout` in a training step."""

    def __init__(self, num_classes: int = 2, width: int = 4, dropout: float = 0.0, part: torch.nn.Module | None = None):
        if width < 0:
            raise ValueError(f"width: must be >= 0, got {width}")
        super().__init__(num_classes, width)
        self.rate, self.part = dropout, part

    def forward(self, images):
        if self.rate > 1:
            raise ValueError(f"dropout: must be in [0, 1], got {self.rate}; lower it")
        return super().forward(images)


class Part(torch.nn.Module):
    def __init__(self, width: int = 4):
        check_positive("width", width)
        super().__init__()


def check_positive(name, value):
    if value <= 0:
        raise ValueError(f"{name}: must be positive, got {value}")


class Count(pl.Callback):
    """Raises on a negative `count` when it is built, and on 0, 7 or 8 when training starts."""

    def __init__(self, count: int = 1):
        if count < 0:
            raise ValueError(f"count: must be >= 0, got {count}")
        self.count = count

    def on_train_start(self, trainer, pl_module):
        if self.count == 0:
            raise ValueError(f"count: nothing to do, got {self.count}")
        if self.count == 7:
            Helper(batch_size=-2).run()
        if self.count == 8:
            raise_name("resnet")


def raise_name(name):
    raise ValueError(f"name: unknown, got {name!r}")


class Helper:
    """Has an argument of the same name as the data module, and does not come from the configuration."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size

    def run(self):
        raise ValueError(f"batch_size: must be >= 0, got {self.batch_size}")


def bad_sample(image, **_):
    raise ValueError("train_transform: must return images, got None")


@pytest.fixture
def configure(workdir):
    """Return a function that writes ``my.yaml`` with arguments of the model and of callbacks."""
    make_folder(workdir / "data", per_class=8)

    def write(model=(), callbacks=()):
        config = yaml.safe_load(yaml.safe_dump(CLASSIFICATION))
        config["model"]["init_args"]["model"] = {"class_path": f"{HERE}.Net", "init_args": dict(model)}
        config["trainer"]["callbacks"] = [{"class_path": f"{HERE}.Count", "init_args": one} for one in callbacks]
        (workdir / "my.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    return write


def line_of(text):
    return next(n for n, line in enumerate(Path("my.yaml").read_text().splitlines(), 1) if text in line)


@pytest.fixture
def error(capsys):
    return lambda *arguments: launch_error(capsys, 1, "fit", "--config", "my.yaml", *arguments)


def test_an_argument_of_a_yaml_comes_with_its_line(configure, error):
    configure(model={"width": -3})
    line = line_of("width: -3")
    key = "model.init_args.model.init_args.width"
    assert error() == f"{key} (my.yaml, line {line}): must be >= 0, got -3"


def test_an_argument_of_the_command_line_comes_as_it_was_given(configure, error):
    configure(model={"width": 3})
    assert error("--model.model.width", -4) == "--model.model.width -4: must be >= 0, got -4"
    assert error("--model.init_args.model.init_args.width=-4").startswith(
        "--model.init_args.model.init_args.width -4: "
    )


def test_the_frame_decides_between_arguments_of_one_name(configure, error):
    part = {"class_path": f"{HERE}.Part", "init_args": {"width": -1}}
    configure(model={"width": 3, "part": part})
    key = "model.init_args.model.init_args.part.init_args.width"
    assert error().startswith(f"{key} (my.yaml, line {line_of('width: -1')}): must be positive")


def test_the_value_decides_between_objects_of_one_class(configure, error):
    configure(callbacks=[{"count": 3}, {"count": -2}])
    assert error().startswith(f"trainer.callbacks[1].init_args.count (my.yaml, line {line_of('count: -2')}): ")


@pytest.mark.parametrize("model, callbacks, key", [
    ({"dropout": 2.5}, [], "model.init_args.model.init_args.dropout"),
    ({}, [{"count": 0}], "trainer.callbacks[0].init_args.count"),
])  # fmt: skip
def test_errors_of_a_running_experiment(configure, error, model, callbacks, key):
    configure(model=model, callbacks=callbacks)
    name = key.rsplit(".", 1)[1]
    assert error().startswith(f"{key} (my.yaml, line {line_of(f'{name}: ')}): ")


def test_an_object_from_elsewhere_is_not_blamed_on_the_configuration(configure, error):
    configure(callbacks=[{"count": 7}])
    assert error() == "batch_size: must be >= 0, got -2"


def test_the_traceback_is_kept_on_demand(configure, monkeypatch):
    configure(model={"width": -3})
    monkeypatch.setenv("STRIATE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="width: must be >= 0, got -3"):
        launch("fit", "--config", "my.yaml")


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_data_in_a_worker(configure, error, workers):
    configure()
    argument = f'[{{"class_path": "albumentations.Lambda", "init_args": {{"image": "{HERE}.bad_sample", "p": 1}}}}]'
    message = error("--data.train_transform", argument, "--data.num_workers", workers)
    assert message.startswith("--data.train_transform") and "got None" in message, message


@pytest.mark.parametrize("arguments, start", [
    (["--data.train_transform", '[{"class_path": "albumentations.HorizontalFlip", "init_args": {"p": 3}}]'],
     "--data.train_transform: must be less"),
    (["--data.sampling", "striate.datamodules.RepeatFactor", "--data.sampling.threshold", -1],
     "--data.sampling.threshold -1: must be"),
])  # fmt: skip
def test_an_object_inside_the_data_section(configure, error, arguments, start):
    """jsonargparse reports the alternatives of a union; only one of them is the object that raised."""
    configure()
    assert error(*arguments).startswith(start)


@pytest.mark.parametrize("name, message", [
    ("mine", "name: unknown, got 'resnet'"),
    ("resnet", "--run.name resnet: unknown, got 'resnet'"),
])  # fmt: skip
def test_a_key_without_a_class_needs_the_value(configure, error, name, message):
    configure(callbacks=[{"count": 8}])
    assert error("--run.name", name) == message
