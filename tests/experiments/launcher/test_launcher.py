"""The launcher in this process: fit, resume, validate, test, predict, and one-line errors."""

import re
import signal
import sys
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image

from striate import __version__
from striate.experiments.launcher.catalogue import EXPERIMENTS, experiment_names, find_config, sweep_names
from striate.experiments.launcher.class_paths import prefer_own_classes
from striate.experiments.launcher.cli import default_run_name, silence_known_warnings
from striate.experiments.launcher.main import RUNS
from striate.experiments.runs.run_state import RunState
from striate.tests.helpers.fixtures import TinyNet, make_folder, noisy_image, write_image
from striate.tests.helpers.launcher import CLASSIFICATION, launch, launch_error, read_csv


@pytest.fixture
def workdir(workdir):
    """A working folder with data and ``small.yaml``."""
    make_folder(workdir / "data", per_class=8)
    (workdir / "small.yaml").write_text(yaml.safe_dump(CLASSIFICATION))
    return workdir


class OwnNet(TinyNet):
    """A network that loads its weights itself, in its own way."""

    def __init__(self, checkpoint: str | None = None) -> None:
        super().__init__()


EMA = {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}


def write_config(name, **trainer):
    config = CLASSIFICATION | {"trainer": CLASSIFICATION["trainer"] | trainer}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(config))


def test_fit_and_predict(workdir, capsys):
    launch("fit", "--config", "small.yaml")
    run = workdir / "runs" / "small" / "fit-1"
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["data"]["init_args"]["batch_size"] == 4 and saved["run"]["name"] == "small"
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    rows = read_csv(run / "metrics.csv")
    accuracies = [float(row["val/acc"]) for row in rows if row["val/acc"]]
    assert len(accuracies) == 3 and accuracies[-1] == 1.0
    assert {"train/loss", "val/loss", "val/acc_class"} <= rows[0].keys()
    for name in ("val_epoch_000", "val_epoch_002", "val_confusion"):
        with Image.open(run / "pictures" / f"{name}.png") as drawn:
            assert min(drawn.size) > 100
    assert (run / "val_confusion.csv").read_text().splitlines() == [
        "true \\ predicted,bright,dark", "bright,2,0", "dark,0,2"
    ]  # fmt: skip
    assert (run / "val_classes.csv").read_text().splitlines()[1] == "bright,2,1.0"

    # a second run takes the next number and keeps the first
    launch("fit", "--config", "small.yaml", "--trainer.max_epochs", 1)
    assert (workdir / "runs" / "small" / "fit-2" / "checkpoints" / "last.ckpt").is_file()

    # predict takes the class names from the checkpoint, and does not need the training data
    (workdir / "data").rename(workdir / "elsewhere")
    write_image(workdir / "new" / "light.png", noisy_image(0, 77, 48))
    write_image(workdir / "new" / "deep" / "night.png", noisy_image(1, 78, 48))
    (workdir / "new" / "broken.jpg").write_bytes(b"no image")
    launch("predict", "--config", "small.yaml", "--ckpt_path", run / "checkpoints" / "best.ckpt",
           "--data.images", "new")  # fmt: skip
    out = workdir / "runs" / "small" / "predict-1"
    rows = read_csv(out / "predictions.csv")
    assert [(Path(row["path"]).name, row["label"]) for row in rows] == [("night.png", "dark"), ("light.png", "bright")]
    assert float(rows[0]["score"]) >= float(rows[0]["score_2"]) and rows[0]["label_2"] == "bright"
    assert len(list((out / "pictures").glob("*.png"))) == 2


def test_resume_continues_the_same_run(workdir):
    launch("fit", "--config", "small.yaml", "--trainer.max_epochs", 1)
    launch("fit", "--config", "small.yaml", "--ckpt_path", "last")
    run = workdir / "runs" / "small"
    assert [p.name for p in run.iterdir()] == ["fit-1"]
    rows = read_csv(run / "fit-1" / "metrics.csv")
    assert [row["epoch"] for row in rows if row["val/acc"]] == ["0", "1", "2"]
    assert torch.load(run / "fit-1" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key.*")  # of best.ckpt, without a validation
@pytest.mark.parametrize(
    ("options", "limit", "first", "last"),
    [
        (("--trainer.check_val_every_n_epoch", 10), "max_steps", 4, 7),  # within epochs of 3 steps, never validated
        (("--trainer.check_val_every_n_epoch", 2), "max_steps", 8, 11),  # two steps after a validation
        (("--trainer.limit_val_batches", 0), "max_epochs", 1, 2),
        (("--trainer.check_val_every_n_epoch", 2), "max_epochs", 3, 5),
    ],
)
def test_the_end_of_training_is_saved_without_a_validation(workdir, options, limit, first, last):
    def fit(length, *more):
        whole = ("--trainer.max_epochs", 9) if limit == "max_steps" else ()
        launch("fit", "--config", "small.yaml", *whole, f"--trainer.{limit}", length, *options, *more)

    def checkpoint(run):
        return torch.load(workdir / "runs" / run / "fit-1" / "checkpoints" / "last.ckpt", weights_only=True)

    steps = 3 if limit == "max_epochs" else 1
    fit(first)
    assert checkpoint("small")["global_step"] == first * steps
    fit(last, "--ckpt_path", "last")
    fit(last, "--run.name", "whole")
    resumed, whole = checkpoint("small"), checkpoint("whole")
    assert resumed["global_step"] == whole["global_step"] == last * steps
    assert all(torch.equal(value, whole["state_dict"][key]) for key, value in resumed["state_dict"].items())


def test_validate_and_test_find_the_best_checkpoint(workdir, capsys):
    (workdir / "data").rename(workdir / "all")
    for split in ("train", "val", "test"):
        make_folder(workdir / "data" / split, 4)
    launch("fit", "--config", "small.yaml")
    for command, stage in (("validate", "val"), ("test", "test")):
        launch(command, "--config", "small.yaml", "--ckpt_path", "best")
        assert f"{stage}/acc" in capsys.readouterr().out
        assert (workdir / "runs" / "small" / f"{command}-1" / "pictures" / f"{stage}_confusion.png").is_file()


def test_a_checkpoint_loads_outside_the_launcher(workdir):
    from striate.tasks import Classification

    launch("fit", "--config", "small.yaml")
    path = workdir / "runs" / "small" / "fit-1" / "checkpoints" / "last.ckpt"
    task = Classification.load_from_checkpoint(path).eval()
    assert task.class_names == ["bright", "dark"]
    weights = torch.load(path, weights_only=True)["state_dict"]
    for key, value in task.state_dict().items():
        assert torch.equal(value, weights[key]), key
    image = torch.from_numpy(noisy_image(1, 5)).permute(2, 0, 1)[None]
    assert task.predict(image)[0]["label"] == 1


def test_averaged_weights_are_validated_and_saved(workdir):
    write_config("ema", callbacks=[EMA])
    launch("fit", "--config", "ema.yaml")
    content = torch.load(workdir / "runs/ema/fit-1/checkpoints/last.ckpt", weights_only=True)
    averaged, raw = content["state_dict"], content["current_model_state"]
    assert not torch.equal(averaged["model.head.weight"], raw["model.head.weight"])
    launch("fit", "--config", "ema.yaml", "--ckpt_path", "last", "--trainer.max_epochs", 4)


def test_without_a_logger_a_run_still_trains(workdir):
    launch("fit", "--config", "small.yaml", "--trainer.logger", "false", "--trainer.max_epochs", 1)
    assert list(workdir.rglob("best.ckpt"))


def test_a_renamed_run_folder_does_not_count_as_a_run(workdir):
    launch("fit", "--config", "small.yaml", "--trainer.max_epochs", 1)
    (workdir / "runs" / "small" / "fit-1").rename(workdir / "runs" / "small" / "fit-1-old")
    launch("fit", "--config", "small.yaml", "--trainer.max_epochs", 1)
    launch("fit", "--config", "small.yaml", "--ckpt_path", "last")
    assert {p.name for p in (workdir / "runs" / "small").iterdir()} == {"fit-1", "fit-1-old"}
    config = workdir / "runs" / "small" / "fit-1" / "config.yaml"
    assert "ckpt_path" not in yaml.safe_load(config.read_text())  # launching it again starts a new run


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluating_random_weights_is_rejected(workdir, capsys, command):
    (workdir / "data").rename(workdir / "all")
    for split in ("train", "val", "test"):
        make_folder(workdir / "data" / split, 2)
    call = (command, "--config", "small.yaml", "--data.images", "all")
    message = launch_error(capsys, 1, *call)
    expected = f"^--ckpt_path: {command} needs trained weights, got none for backbone, head; pass --ckpt_path best .*"
    assert re.search(f"{expected}--allow_random_weights", message)
    assert not (workdir / "runs").exists()
    launch(*call, "--allow_random_weights")
    assert "random weights in backbone, head (--allow_random_weights): " in capsys.readouterr().err
    config = yaml.safe_load((workdir / "runs" / "small" / f"{command}-1" / "config.yaml").read_text())
    assert "allow_random_weights" not in config


def test_evaluating_a_model_that_names_weights(workdir, capsys):
    """A classifier of striate names those of its backbone, which include the head only for the same classes."""
    backbone = {"class_path": "striate.models.PlainCNN", "init_args": {"widths": [4]}}
    model = {"class_path": "striate.models.Classifier", "init_args": {"backbone": backbone, "num_classes": 2}}
    config = yaml.safe_load(yaml.safe_dump(CLASSIFICATION))
    config["model"]["init_args"]["model"] = model
    Path("plain.yaml").write_text(yaml.safe_dump(config))
    launch("fit", "--config", "plain.yaml", "--trainer.max_epochs", 1)
    weights = "runs/plain/fit-1/checkpoints/last.ckpt"
    named = ("validate", "--config", "plain.yaml", "--model.model.backbone.weights", weights)
    assert "got none for head; " in launch_error(capsys, 1, *named)
    own = {"class_path": f"{__name__}.OwnNet", "init_args": {"checkpoint": "a.pt"}}
    config["model"]["init_args"]["model"] = own
    Path("own.yaml").write_text(yaml.safe_dump(config))
    launch("validate", "--config", "own.yaml")
    message = launch_error(capsys, 1, "validate", "--config", "own.yaml", "--model.model.checkpoint", "null")
    assert "--ckpt_path: validate needs trained weights" in message


def test_ctrl_c_in_validation_keeps_raw_and_averaged_weights_separate(workdir):
    stop = {"class_path": f"{__name__}.PressCtrlC"}
    contents = []
    for name, callbacks in (("whole", [EMA]), ("stopped", [EMA, stop])):
        write_config(name, callbacks=callbacks, max_epochs=1)
        if name == "stopped":
            with pytest.raises(SystemExit):
                launch("fit", "--config", f"{name}.yaml")
        else:
            launch("fit", "--config", f"{name}.yaml")
        path = workdir / "runs" / name / "fit-1" / "checkpoints" / "last.ckpt"
        contents.append(torch.load(path, weights_only=True))
    for part in ("state_dict", "current_model_state"):
        torch.testing.assert_close(contents[0][part], contents[1][part], rtol=0, atol=0)

    assert [RunState.load(workdir / "runs" / name / "fit-1").state for name in ("whole", "stopped")] == [
        "finished",
        "interrupted",
    ]

    # the resumed run repeats the validation, although no step is left
    (workdir / "stopped.yaml").write_text((workdir / "whole.yaml").read_text())
    launch("fit", "--config", "stopped.yaml", "--ckpt_path", "last", "--trainer.enable_progress_bar", True)
    whole, stopped = (workdir / "runs" / name / "fit-1" for name in ("whole", "stopped"))
    assert [row["val/acc"] for row in read_csv(stopped / "metrics.csv") if row["val/acc"]] == [
        row["val/acc"] for row in read_csv(whole / "metrics.csv") if row["val/acc"]
    ]  # fmt: skip
    assert (stopped / "pictures" / "val_epoch_000.png").is_file() and RunState.load(stopped).state == "finished"
    best = [torch.load(run / "checkpoints" / "best.ckpt", weights_only=True) for run in (whole, stopped)]
    torch.testing.assert_close(best[0]["state_dict"], best[1]["state_dict"], rtol=0, atol=0)


class PressCtrlC(pl.Callback):
    """Presses Ctrl-C in the first validation."""

    def on_validation_batch_start(self, trainer, *_):
        if not trainer.sanity_checking:
            signal.raise_signal(signal.SIGINT)


def test_default_callbacks_stay_when_the_yaml_lists_others(workdir, monkeypatch):
    from striate.experiments.launcher import cli

    trainers = []
    monkeypatch.setattr(cli.StriateCLI, "_run_subcommand", lambda self, name: trainers.append(self.trainer))
    callbacks = [{"class_path": "pytorch_lightning.callbacks.EarlyStopping", "init_args": {"monitor": "val/acc"}},
                 {"class_path": "striate.callbacks.Pictures", "init_args": {"count": 3}}]  # fmt: skip
    write_config("own", callbacks=callbacks)
    launch("fit", "--config", "own.yaml")
    names = [type(callback).__name__ for callback in trainers[0].callbacks]
    assert {"RunRecord", "Pictures", "ClassReport", "GracefulInterrupt", "RandomState", "LearningRateMonitor",
            "ModelCheckpoint", "RunReport", "NetworkSummary", "EarlyStopping"} <= set(names)  # fmt: skip
    assert names.count("Pictures") == 1
    assert names.index("GracefulInterrupt") > names.index("EarlyStopping")  # it saves last
    best, last = trainers[0].checkpoint_callbacks
    assert (best.filename, best.monitor, best.mode, last.filename, last.monitor) == (
        "best", "val/acc", "max", "last", None
    )  # fmt: skip


OWN_MODULE = """
import pytorch_lightning as pl
import torch
from striate.tests.helpers.fixtures import TinyNet


class Own(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = TinyNet(2, width=4)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.model(batch["image"]), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx), batch_size=len(batch["label"]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Monitored(Own):
    monitor = "val/loss"


class Typo(Monitored):
    mode = "minimum"
"""


@pytest.mark.parametrize("name", ["Own", "Monitored"])
def test_a_module_of_ones_own_is_told_how_to_get_its_best_checkpoint(workdir, capsys, name):
    (workdir / "own_module.py").write_text(OWN_MODULE)
    config = CLASSIFICATION | {"model": {"class_path": f"own_module.{name}"}}
    (workdir / "own.yaml").write_text(yaml.safe_dump(config))
    launch("fit", "--config", "own.yaml", "--trainer.max_epochs", 1)
    saved = {path.name for path in (workdir / "runs" / "own" / "fit-1" / "checkpoints").iterdir()}
    notices = re.findall("striate: only last.ckpt is saved.*: Own does .*monitor = .*mode = ", capsys.readouterr().err)
    assert (saved, len(notices)) == (({"last.ckpt"}, 1) if name == "Own" else ({"last.ckpt", "best.ckpt"}, 0))


def test_an_unknown_direction_of_the_monitored_metric_is_rejected(workdir, capsys):
    (workdir / "own_module.py").write_text(OWN_MODULE)
    config = CLASSIFICATION | {"model": {"class_path": "own_module.Typo"}}
    (workdir / "own.yaml").write_text(yaml.safe_dump(config))
    message = launch_error(capsys, 1, "fit", "--config", "own.yaml")
    assert re.search("mode: must be 'min' or 'max' on Typo, .*val/loss, got 'minimum'", message)


def test_last_is_the_last_epoch_even_if_an_earlier_one_was_better(workdir):
    launch("fit", "--config", "small.yaml", "--trainer.max_epochs", 4)
    folder = workdir / "runs" / "small" / "fit-1"
    accuracies = [float(row["val/acc"]) for row in read_csv(folder / "metrics.csv") if row["val/acc"]]
    epochs = {name: torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"]
              for name in ("best", "last")}  # fmt: skip
    assert epochs == {"best": accuracies.index(max(accuracies)), "last": 3}
    assert epochs["best"] < 3


@pytest.mark.parametrize(
    "arguments, code, pattern",
    [
        (["--trainer.max_epoch", 3], 2, "^--trainer.max_epoch: no such key; .*mean 'max_epochs'"),
        (["--trainer.max_epochs", "many"], 2, "^--trainer.max_epochs: .*integer or null, got 'many'$"),
        (["--data.batch_sise", 3], 2, "^--data.batch_sise: no such key; .*mean 'batch_size'"),
        (["--data.batch_size", "big"], 2, "^--data.batch_size: must be an integer, got 'big'$"),
        (["--model.model.widht", 3], 2, "^--model.model.widht: no such key; .*mean 'width'"),
        (["--model", "striate.tasks.Clasification"], 2, "^--model: .*mean 'striate.tasks.Classification'"),
        (["--model.model", "TinyNt"], 2, "^--model.model: 'TinyNt' .*mean 'striate.*TinyNet'"),
        (["--model.optimizer", "ADAM2"], 2, "^--model.optimizer: 'ADAM2' .*such as 'torch.optim.ASGD'"),
        (["--model.optimizer", "Adamw"], 2, "^--model.optimizer: 'Adamw' .*mean 'torch.optim.AdamW'"),
        (["--model.optimizer", "RAdam", "--model.optimizer.weight_deca", 1], 2,
         "^--model.optimizer.weight_deca: .*mean 'weight_decay'"),
        (["--model.optimizer.lr", "fast"], 2, "^--model.optimizer.lr: must be a number, got 'fast'$"),
        (["--wandb.mode", "onlin"], 2, "^--wandb.mode: .*'off', got 'onlin'; .*mean 'online'"),
        (["--model.scheduler", "striate.tasks.Cosin"], 2, "^--model.scheduler: .*mean 'striate.tasks.Cosine'"),
        (["--trainer.logger", "false", "--trainer.accelerator", "cpuu"], 1, "^trainer: .*cpuu"),
        (["--modle.x", 3], 2, "^--modle.x: no such key; .*mean 'model'"),
        (["--data.batch_size", 0], 1, "^--data.batch_size 0: "),
        (["--ckpt_path", "none.ckpt"], 1, "^--ckpt_path none.ckpt: no such file"),
        (["--ckpt_path", "small.yaml"], 1, "^--ckpt_path small.yaml: not a checkpoint: it is damaged"),
        (["--ckpt_path", "last"], 1, "^--ckpt_path last: no training run in 'runs/small'.*--run.name"),
        (["--model.model.num_classes", 3], 1, "^--model.model.num_classes 3: .*has 2 .*got 3 from .*TinyNet"),
        (["--model.optimizer.lr", -1], 1, "optimizer.*: Invalid learning rate: -1.0"),
        (["--model.scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau", "--model.scheduler.factor", 2], 1,
         "scheduler.*: Factor should be < 1.0."),
    ],
)  # fmt: skip
def test_a_wrong_call_produces_a_one_line_error(workdir, capsys, arguments, code, pattern):
    message = launch_error(capsys, code, "fit", "--config", "small.yaml", *arguments)
    assert re.search(pattern, message), message
    assert not (workdir / "runs").exists()  # a call that failed leaves no folder


@pytest.mark.parametrize(
    "text, key, line, pattern",
    [
        ("trainer:\n  max_epoch: 3\n", "trainer.max_epoch", 2, "no such key; .*mean 'max_epochs'"),
        ("data:\n  init_args:\n    batch_size: eight\n", "data.init_args.batch_size", 3, "integer, got 'eight'$"),
        ("data:\n  class_path: striate.datamodules.ImageFoldr\n", "data.class_path", 2,
         "no 'ImageFoldr'; .*mean 'striate.*ImageFolder'"),
        ("data:\n  class_path: ImagesFolder\n", "data.class_path", 2, "mean 'striate.datamodules.ImageFolder'"),
        ("model:\n  class_path: striate.tasks.Classification\n  init_args:\n    model:\n"
         "      class_path: striate.tests.helpers.fixtures.TinyNet\n      init_args:\n        num_clases: 2\n",
         "model.init_args.model.init_args.num_clases", 7, "no such key; .*mean 'num_classes'"),
        ("model:\n  class_path: striate.tasks.Classification\n  lr: 3\n", "model.lr", 3, "under init_args"),
    ],
)  # fmt: skip
def test_an_error_in_a_yaml_has_its_line(workdir, capsys, text, key, line, pattern):
    (workdir / "sub").mkdir()
    for path in ("wrong.yaml", "sub/wrong.yaml"):
        (workdir / path).write_text(text)
        message = launch_error(capsys, 2, "fit", "--config", "small.yaml", "--config", path)
        assert message.startswith(f"{key} ({path}, line {line}): ") and re.search(pattern, message), message


@pytest.mark.parametrize(
    "text, pattern",
    [("trainer: [\n", "^wrong.yaml, line 2: not valid YAML: "), ("- 1\n", "^wrong.yaml: must be a mapping")],
)
def test_a_file_that_is_no_configuration(workdir, capsys, text, pattern):
    (workdir / "wrong.yaml").write_text(text)
    message = launch_error(capsys, 2, "fit", "--config", "small.yaml", "--config", "wrong.yaml")
    assert re.search(pattern, message), message


@pytest.mark.parametrize(
    "arguments, pattern",
    [
        (["--model.loss", "Dice"], "^--model.loss: 'Dice' .*mean 'striate.models.DiceLoss'"),
        (["--model.loss", "OhemCrossEntropy", "--model.loss.thresh", 0.5], "^--model.loss.thresh: .*mean 'threshold'"),
        (["--model.optimizer", "Adamm"], "^--model.optimizer: 'Adamm' .*mean 'torch.optim.Adam'"),
        (["--model.optimizer", "AdamW", "--trainer.max_epoch", 3], "^--trainer.max_epoch: .*mean 'max_epochs'"),
    ],
)
def test_bare_class_names(workdir, capsys, arguments, pattern):
    config = ("fit", "--config", "semantic_segmentation/fcn32s_voc2011")  # its optimizer is one of striate.models
    message = launch_error(capsys, 2, *config, *arguments)
    assert re.search(pattern, message), message


def test_a_name_that_torchvision_has_too_means_striates(workdir, capsys):
    bare = ["--model.model", "FCN", "--model.model=LRASPP", "--run.name", "FCN", "--model.loss", "DiceLoss", "FCN"]
    assert prefer_own_classes(bare) == [
        "--model.model", "striate.models.FCN", "--model.model=striate.models.LRASPP", "--run.name", "FCN",
        "--model.loss", "DiceLoss", "FCN",
    ]  # fmt: skip
    (workdir / "bare.yaml").write_text("model:\n  init_args:\n    model:\n      class_path: FCN\n")
    message = launch_error(capsys, 2, "fit", "--config", "semantic_segmentation/fcn8s_digits", "--config", "bare.yaml")
    key, hint = message.split(": ", 1)
    assert key == "model.init_args.model.class_path (bare.yaml, line 4)"
    assert "'striate.models.FCN'" in hint and "torchvision.models.segmentation.FCN" in hint


def test_a_checkpoint_with_more_epochs_than_are_asked_for(workdir, capsys):
    launch("fit", "--config", "small.yaml", "--trainer.max_epochs", 3)
    message = launch_error(capsys, 1, "fit", "--config", "small.yaml", "--ckpt_path", "last", "--trainer.max_epochs", 1)
    assert re.search("^--trainer.max_epochs 1: must be > 2, .*got 1;", message)


def test_a_checkpoint_of_another_model_is_rejected(workdir, capsys):
    launch("fit", "--config", "small.yaml", "--trainer.max_epochs", 1)
    message = launch_error(
        capsys, 1, "validate", "--config", "small.yaml", "--ckpt_path", "best", "--model.model.width", 4
    )
    assert re.search(r"TinyNet, got 7 .*model.backbone.0.weight.*\(8, 3, 3, 3\).*\(4, 3, 3, 3\)", message), message


def test_weights_only_are_not_a_checkpoint(workdir, capsys):
    torch.save({"weight": torch.zeros(1)}, workdir / "weights.pt")
    message = launch_error(capsys, 1, "fit", "--config", "small.yaml", "--ckpt_path", "weights.pt")
    assert message.startswith("--ckpt_path weights.pt: weights only")


def test_a_checkpoint_that_would_run_code_is_rejected(workdir, capsys):
    torch.save({"state_dict": {}, "x": Path("boom")}, workdir / "evil.ckpt")
    message = launch_error(capsys, 1, "fit", "--config", "small.yaml", "--ckpt_path", "evil.ckpt")
    assert "pickled objects" in message


def test_unknown_commands_and_experiments(capsys):
    assert launch_error(capsys, 2, "fitt").endswith("did you mean 'fit'?")
    message = launch_error(capsys, 2, "fit", "--config", "quikstart")
    assert re.search("^--config quikstart: .*mean 'quickstart'", message)


@pytest.mark.parametrize("names", [["broken.png"], ["broken.png", "notes.txt"]])
def test_predict_that_can_read_nothing_fails(workdir, capsys, names):
    for name in names:
        (workdir / "new").mkdir(exist_ok=True)
        (workdir / "new" / name).write_bytes(b"no image")
    call = ("predict", "--allow_random_weights", "--config", "small.yaml", "--data.images", "new/*")
    message = launch_error(capsys, 1, *call)
    assert f"got {len(names)} unreadable file(s), the first: new/broken.png: " in message and "--data.images" in message


def test_the_command_to_resume_repeats_the_words_that_were_typed(workdir, monkeypatch):
    from striate.callbacks.resume import resume_command
    from striate.experiments.launcher import cli

    trainers = []
    monkeypatch.setattr(cli.StriateCLI, "_run_subcommand", lambda self, name: trainers.append(self.trainer))
    (workdir / "more.yaml").write_text("trainer: {max_epochs: 2}\nwandb: {mode: 'off'}\n")
    words = ["fit", "--config", "classification/plain_digits", "--config=more.yaml", "--data.num_workers", "0"]
    launch(*words)
    monkeypatch.setattr(sys, "argv", ["striate"])
    (callback,) = (one for one in trainers[0].callbacks if type(one).__name__ == "GracefulInterrupt")
    assert resume_command(callback.command) == f"striate {' '.join(words)} --ckpt_path last"
    assert resume_command(["fit", "--ckpt_path", "best", "-c", "a"]) == "striate fit -c a --ckpt_path last"


class Frozen(TinyNet):
    """The normalization stays in evaluation mode, as with ``freeze_norm``."""

    def train(self, mode=True):
        super().train(mode)
        self.backbone[1].eval()
        return self


def test_frozen_normalization_does_not_warn(workdir, recwarn):
    launch("fit", "--config", "small.yaml", "--trainer.max_epochs", 1,
           "--model.model", f"{__name__}.Frozen")  # fmt: skip
    assert not [one for one in recwarn if "eval mode" in str(one.message)]


@pytest.mark.parametrize("own", [None, "RichModelSummary", "ModelSummary"])
def test_the_summary_is_printed_once_and_without_flops(workdir, capsys, own):
    callbacks = [{"class_path": f"pytorch_lightning.callbacks.{own}"}] if own else []
    write_config("own", callbacks=callbacks)
    launch("fit", "--config", "own.yaml", "--trainer.max_epochs", 1)
    printed = capsys.readouterr().out
    assert ("model.backbone" in printed) == (own is None)  # the two others show one level
    if own is None:
        assert "FLOPs" not in printed and "Parameters: 258" in printed and "8 in training mode" in printed
    assert printed.count("Type") == (own != "ModelSummary")


def test_version_list_and_usage(capsys):
    launch("--version")
    assert capsys.readouterr().out == f"striate {__version__}\n"
    launch("experiments")
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [*experiment_names(), *sweep_names()]
    assert all(len(line.split(maxsplit=1)) == 2 for line in listed)
    launch()
    assert "usage: striate" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["fit", "--config", "quickstart"], ["data", "check", "x"], ["runs"]])
def test_ctrl_c_while_a_command_starts_is_one_line(words, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("striate.experiments.launcher.cli.launch", stop)
    monkeypatch.setattr("striate.experiments.runs.commands.run", stop)
    monkeypatch.setattr("importlib.import_module", stop)
    assert launch_error(capsys, 130, *words) == "interrupted"


def test_an_experiment_is_printed_and_copied(workdir, capsys):
    text = find_config("quickstart").read_text()
    launch("experiments", "quickstart")
    assert capsys.readouterr().out == text
    launch("experiments", "classification/resnet18_digits", "--copy", "mine.yaml")
    assert Path("mine.yaml").read_text() == find_config("classification/resnet18_digits").read_text()
    assert "striate fit --config mine.yaml" in capsys.readouterr().out
    launch("experiments", "classification/resnet18_digits", "--copy", ".")
    assert Path("resnet18_digits.yaml").is_file()
    message = launch_error(capsys, 1, "experiments", "quickstart", "--copy", "mine.yaml")
    assert re.search("^--copy: file exists, got mine.yaml;", message)
    assert "lists them" in launch_error(capsys, 2, "experiments", "--copy", "mine.yaml")
    assert "mean 'quickstart'" in launch_error(capsys, 2, "experiments", "quikstart")


@pytest.mark.parametrize("command", RUNS)
def test_help_shows_the_keys_of_striate_first_and_is_short(command, capsys):
    launch(command, "--help")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60 and all(len(line) <= 120 for line in lines)
    keys = [match[1] for line in lines if (match := re.match(r" +--(\S+)", line))]
    places = [keys.index(next(key for key in keys if key.startswith(part))) for part in ("config", "run.", "trainer.")]
    assert places == sorted(places)


def test_help_names_keys_that_exist(workdir, capsys):
    with pytest.raises(SystemExit):
        launch("fit", "--help", "all")
    everything = capsys.readouterr().out
    launch("fit", "--help")
    # class paths are limited before the parser exists
    for key in re.findall(r"^ +--(?:(?!data|model|trusted_modules)([\w.]+))", capsys.readouterr().out, re.MULTILINE):
        assert not key or f"--{key}" in everything, key


def test_help_of_a_data_module_is_about_it(capsys):
    named = ["--data.help", "VOCDetection"]
    for arguments in (named, ["--config", "quickstart", *named], ["--data", "VOCDetection", "--data.help"]):
        with pytest.raises(SystemExit) as exit_:
            launch("fit", *arguments)
        assert exit_.value.code == 0
        out = capsys.readouterr().out
        assert "striate.datamodules.VOCDetection" in out and "VOCdevkit" in out and "--data.year" in out


def test_packaged_experiments_are_found_by_name():
    assert find_config("classification/resnet18_digits") == EXPERIMENTS / "classification" / "resnet18_digits.yaml"
    assert find_config("quickstart.yaml") == EXPERIMENTS / "quickstart.yaml"


def test_print_config_shows_the_resolved_configuration(workdir, capsys):
    with pytest.raises(SystemExit) as exit_:
        launch("fit", "--config", "small.yaml", "--data.batch_size", 7, "--print_config")
    assert exit_.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["batch_size"] == 7


def test_a_run_is_named_after_the_experiment_and_not_after_additions(workdir, monkeypatch):
    (workdir / "data_alone.yaml").write_text(yaml.safe_dump({"data": CLASSIFICATION["data"]}))
    (workdir / "slower.yaml").write_text(
        yaml.safe_dump({"model": {"init_args": {"optimizer": {"init_args": {"lr": 0.01}}}}})
    )
    for configs, name in (
        (["small.yaml", "data_alone.yaml"], "small"),
        (["data_alone.yaml", "small.yaml", "slower.yaml"], "small"),
        (["data_alone.yaml", "slower.yaml"], "slower"),  # none names a model
    ):
        monkeypatch.setattr(sys, "argv", ["striate", "fit", *(word for path in configs for word in ("--config", path))])
        assert default_run_name() == name
    launch("fit", "--config=small.yaml", "--config", "data_alone.yaml", "--trainer.max_epochs", 1)
    assert [path.name for path in (workdir / "runs").iterdir()] == ["small"]


def test_warnings_show_the_message_without_source_code(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with warnings.catch_warnings():
        silence_known_warnings()
    assert warnings.formatwarning("3 boxes", UserWarning, "a.py", 7, "warn(") == "UserWarning: 3 boxes\n"
