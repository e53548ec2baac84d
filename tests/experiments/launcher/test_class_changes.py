"""A class that replaces another one has its own defaults, whatever names it: a key, JSON, or a second file."""

import copy
from pathlib import Path

import pytest
import yaml

from striate.experiments.launcher.class_paths import find_class
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import CLASSIFICATION, launch, launch_error

ADAMW = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.05}}


@pytest.fixture
def workdir(workdir):
    """A working folder with ``small.yaml``, whose optimizer is AdamW with its default weight decay of 0.01."""
    make_folder(workdir / "data", per_class=4)
    write("small", optimizer=ADAMW)
    return workdir


def write(name, optimizer=None, model=None, data=None, **trainer):
    config = copy.deepcopy(CLASSIFICATION)
    config["trainer"] |= trainer
    if optimizer:
        config["model"]["init_args"]["optimizer"] = optimizer
    config["model"]["init_args"] |= model or {}
    config["data"] = data or config["data"]
    Path(f"{name}.yaml").write_text(yaml.safe_dump(config))


def write_change(**sections):
    Path("change.yaml").write_text(yaml.safe_dump(sections))
    return ["--config", "change.yaml"]


def resolved(capsys, *arguments, config="small.yaml"):
    """The resolved configuration, and what was said on the way."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        launch("fit", "--config", config, *arguments, "--print_config")
    out, err = capsys.readouterr()
    assert exit_.value.code == 0, err
    return yaml.safe_load(out), err


def changed_optimizer(capsys, *arguments, config="small.yaml"):
    content, said = resolved(capsys, *arguments, config=config)
    optimizer = content["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    return optimizer["init_args"], said


@pytest.mark.parametrize(
    "change",
    [
        ["--model.optimizer", "SGD"],
        ["--model.optimizer=torch.optim.SGD"],
        ["--model.init_args.optimizer.class_path", "torch.optim.SGD"],  # as W&B's sweeps write it
        ["--model.optimizer", "{class_path: torch.optim.SGD}"],
        ["--model.optimizer", "Adamax", "--model.optimizer", "SGD"],
        None,
    ],
)
def test_an_optimizer_has_its_own_defaults(workdir, capsys, change):
    if change is None:
        change = write_change(model={"init_args": {"optimizer": {"class_path": "torch.optim.SGD"}}})
    arguments, said = changed_optimizer(capsys, *change)
    assert arguments["weight_decay"] == 0 and arguments["lr"] == 0.05 and "betas" not in arguments
    assert "model.optimizer: SGD replaces " in said and "keeps lr" in said and "drops" not in said


def test_arguments_of_the_file_are_carried_over_or_dropped_by_name(workdir, capsys):
    explicit = {"lr": 0.05, "weight_decay": 0.01, "betas": [0.8, 0.9]}  # this decay is AdamW's default, but written
    write("explicit", optimizer={"class_path": "torch.optim.AdamW", "init_args": explicit})
    arguments, said = changed_optimizer(capsys, "--model.optimizer", "SGD", config="explicit.yaml")
    assert (arguments["lr"], arguments["weight_decay"]) == (0.05, 0.01)
    assert "striate: model.optimizer: SGD replaces AdamW: it keeps" in said and "drops betas;" in said
    arguments, _ = changed_optimizer(
        capsys, "--model.optimizer", "SGD", "--model.optimizer.weight_decay", 0.3, config="explicit.yaml"
    )
    assert arguments["weight_decay"] == 0.3


def test_the_defaults_in_a_resolved_configuration_stay_behind(workdir, capsys):
    content, _ = resolved(capsys)
    assert content["model"]["init_args"]["optimizer"]["init_args"]["weight_decay"] == 0.01
    content["model"]["init_args"]["optimizer"]["init_args"]["eps"] = 0.5  # not the default
    Path("whole.yaml").write_text(yaml.safe_dump(content))
    arguments, said = changed_optimizer(capsys, "--model.optimizer", "SGD", config="whole.yaml")
    assert arguments["weight_decay"] == 0 and arguments["lr"] == 0.05
    assert "drops eps;" in said


def test_null_in_a_class_as_the_agents_of_wandb_write_it(workdir, capsys):
    value = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "foreach": None, "nesterov": False}}
    arguments, _ = changed_optimizer(capsys, f"--model.optimizer={value}")
    assert (arguments["lr"], arguments["foreach"], arguments["nesterov"]) == (0.1, None, False)


def test_the_same_class_changes_nothing(workdir, capsys):
    before, _ = resolved(capsys)
    after, said = resolved(capsys, "--model.optimizer", "AdamW")
    assert after == before and "replaces" not in said


def test_a_scheduler_a_model_and_a_data_module_have_their_own_defaults(workdir, capsys):
    steps = {"class_path": "striate.tasks.Steps", "init_args": {"milestones": [2], "warmup": 7}}
    write("steps", model={"scheduler": steps})
    content, said = resolved(capsys, "--model.scheduler", "striate.tasks.Cosine", config="steps.yaml")
    assert content["model"]["init_args"]["scheduler"]["init_args"]["warmup"] == 7
    assert "milestones" not in str(content["model"]["init_args"]["scheduler"]) and "drops milestones;" in said

    lenet = {"class_path": "striate.models.PlainCNN", "init_args": {"widths": [4, 8], "num_classes": 2}}
    write("plain", model={"model": lenet})
    change = write_change(
        model={"init_args": {"model": {"class_path": "striate.tests.helpers.fixtures.TinyNet"}}},
        data={"class_path": "striate.datamodules.DigitScenes"},
    )
    content, said = resolved(capsys, *change, config="plain.yaml")
    assert content["model"]["init_args"]["model"]["init_args"] == {"num_classes": 2, "width": 4, "dropout": 0.0}
    assert "drops widths;" in said
    data = content["data"]["init_args"]
    assert data["batch_size"] == 4 and "root" not in data and "drops root, val_fraction;" in said


def test_the_items_of_a_new_list_keep_nothing_of_the_old_ones(workdir, capsys):
    old = {
        "class_path": "pytorch_lightning.callbacks.EarlyStopping",
        "init_args": {"monitor": "val/acc", "mode": "max"},
    }
    write("early", callbacks=[old])
    timer = {"class_path": "pytorch_lightning.callbacks.EarlyStopping", "init_args": {"monitor": "val/loss"}}
    for change in (write_change(trainer={"callbacks": [timer]}), ["--trainer.callbacks", str([timer])]):
        content, _ = resolved(capsys, *change, config="early.yaml")
        (callback,) = content["trainer"]["callbacks"]
        assert (callback["init_args"]["monitor"], callback["init_args"]["mode"]) == ("val/loss", "min")
    content, _ = resolved(
        capsys, "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=x", config="early.yaml"
    )
    assert [callback["init_args"]["monitor"] for callback in content["trainer"]["callbacks"]] == ["val/acc", "x"]


def test_a_logger_has_its_own_defaults(workdir, capsys):
    logger = {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": "logs", "prefix": "p"}}
    write("csv", logger=logger)
    content, said = resolved(capsys, "--trainer.logger", "TensorBoardLogger", config="csv.yaml")
    arguments = content["trainer"]["logger"]["init_args"]
    assert arguments["save_dir"] == "logs" and arguments["prefix"] == "p"
    assert "flush_logs_every_n_steps" not in arguments and "trainer.logger: TensorBoardLogger replaces" in said


def test_an_argument_that_the_new_class_rejects_has_its_line(workdir, capsys):
    write("wrong", optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.05, "weight_decay": "heavy"}})
    message = launch_error(capsys, 2, "fit", "--config", "wrong.yaml", "--model.optimizer", "SGD")
    assert "weight_decay (wrong.yaml, line" in message and "must be a number, got 'heavy'" in message


@pytest.mark.parametrize("name", ["SGD", "torch.optim.SGD"])
def test_classes_are_found_by_both_names(name):
    assert find_class(name).__name__ == "SGD"
    assert find_class("DEFAULT") is None and find_class("resnet50") is None and find_class("no.such.Thing") is None
