"""`striate.load`: the task of a checkpoint, with classes and transform; and class names where checkpoints meet data."""

import json
import warnings
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image

import striate
from striate.datamodules import ImageFolder
from striate.datamodules.augmentations import ShortSideResize
from striate.datamodules.augmentations.plain import transform_from_plain, transform_to_plain
from striate.datamodules.images.bit_depth import ReadOptions
from striate.models import Classifier, PlainCNN
from striate.tasks import Classification
from striate.tasks.class_paths import update_class_paths
from striate.tests.helpers.fixtures import TinyNet, batch, make_folder, noisy_image, write_image
from striate.tests.helpers.launcher import CLASSIFICATION, launch, read_csv
from striate.tests.helpers.training import Batches, make_trainer

RESIZE = [{"class_path": "albumentations.Resize", "init_args": {"height": 24, "width": 24}}]


class MyTask(Classification):
    """A task of a user, whose module is known only once it is imported."""


def keep(image, **_):
    """A transform that is a function, which a checkpoint cannot hold."""
    return image


def by_hand(path: Path, cls=Classification, names=("bright", "dark"), **changes) -> Path:
    """Save the checkpoint of a task that is built in Python."""
    task = cls(TinyNet())
    task.class_names, task.val_transform = list(names), changes.pop("val_transform", None)
    trainer = make_trainer()
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in (content | changes).items() if value is not ...}, path)
    return path


def test_a_launched_run_predicts_in_python_what_the_command_predicts(workdir):
    make_folder(workdir / "data", per_class=8)
    config = json.loads(json.dumps(CLASSIFICATION))
    config["data"]["init_args"]["val_transform"] = RESIZE
    (workdir / "small.yaml").write_text(yaml.safe_dump(config))
    launch("fit", "--config", "small.yaml", "--data.train_transform", json.dumps(RESIZE))
    for number, size in enumerate((24, 40, 71)):
        write_image(workdir / "new" / f"{number}.png", noisy_image(number % 2, number, size))
    launch("predict", "--config", "small.yaml", "--ckpt_path", "best", "--data.images", "new")
    rows = read_csv(workdir / "runs" / "small" / "predict-1" / "predictions.csv")
    task = striate.load("runs/small/fit-1/checkpoints/best.ckpt")
    assert type(task) is Classification and not any(module.training for module in task.modules())
    assert task.class_names == ["bright", "dark"]
    for row, result in zip(rows, task.predict("new"), strict=True):
        assert result["path"] == row["path"] and result["name"] == row["label"]
        assert result["score"] == pytest.approx(float(row["score"]), abs=2e-6)
    assert [row["label"] for row in rows] == ["bright", "dark", "bright"]
    assert striate.load("runs/small/fit-1/checkpoints/best.ckpt", top_k=1).top_k == 1


def test_a_task_built_by_hand_needs_its_model(tmp_path):
    path = by_hand(tmp_path / "hand.ckpt", val_transform=[A.Resize(8, 8)])
    with pytest.raises(TypeError, match=r"model: must be given .*built by hand.*striate.load\(path, model=…\)"):
        striate.load(path)
    task = striate.load(str(path), model=TinyNet())
    assert type(task) is Classification and not task.training and task.class_names == ["bright", "dark"]
    assert [type(step) for step in task.val_transform.transforms] == [A.Resize]
    assert type(striate.load(by_hand(tmp_path / "mine.ckpt", MyTask), model=TinyNet())) is MyTask


def test_files_that_are_no_checkpoint_of_a_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "nameless": {"task": ...},
        "elsewhere": {"task": "not_imported.tasks.Thing"},
        "gone": {"task": "striate.tasks.Gone"},
        "module": {"task": "striate.models.UNet"},
    }.items():
        by_hand(Path(f"{name}.ckpt"), **content)
    torch.save({"a": torch.zeros(2)}, "weights.ckpt")
    Path("text.ckpt").write_text("no checkpoint")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "best.ckpt").touch()
    for name, error, message in (
        (
            "nameless.ckpt",
            ValueError,
            "path: must be a checkpoint that names the class of its task, got 'nameless.ckpt'",
        ),
        ("elsewhere.ckpt", ValueError, r"got not_imported.tasks.Thing; import not_imported.tasks first"),
        ("gone.ckpt", ValueError, "class striate.tasks.Gone no longer exists"),
        ("module.ckpt", ValueError, "path: must be the checkpoint of a striate.tasks.Task, got 'module.ckpt'"),
        ("weights.ckpt", ValueError, "path 'weights.ckpt': weights only"),
        ("text.ckpt", ValueError, "path 'text.ckpt': not a checkpoint: it is damaged"),
        ("weight.ckpt", FileNotFoundError, "path 'weight.ckpt': no such file; did you mean 'weights.ckpt'"),
        ("run", FileNotFoundError, "path 'run': a folder, not a file; .*'run/checkpoints/best.ckpt'"),
        ("wandb:me/digits/best", ValueError, "path: must be wandb:ENTITY/PROJECT/NAME:ALIAS, got"),
    ):
        with pytest.raises(error, match=message) as caught:
            striate.load(name)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_without_its_transform_is_warned_of(tmp_path):
    path = by_hand(tmp_path / "old.ckpt", val_transform=[A.Resize(8, 8)])
    content = torch.load(path, weights_only=True)
    del content["val_transform"]
    torch.save(content, path)
    with pytest.warns(UserWarning, match="images are predicted in their own size: .*old.ckpt.*set task.val_transform"):
        striate.load(path, model=TinyNet())
    content["val_transform"] = {"transform": {"__class_fullname__": "Gone", "p": 1.0}}
    torch.save(content, path)
    with pytest.warns(UserWarning, match="images are predicted without the transform .*Gone"):
        striate.load(path, model=TinyNet())
    with pytest.warns(UserWarning, match="the checkpoint does not hold the transform.*plain values"):
        by_hand(tmp_path / "function.ckpt", val_transform=[A.Lambda(image=keep)])


def test_files_are_read_as_the_training_data_was(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (16, 16), dtype=np.uint16)
    for name in ("bright/0", "bright/1", "dark/0", "dark/1"):
        file = tmp_path / "deep" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file)
    data = ImageFolder(str(tmp_path / "deep"), val_fraction=0.5, scale_16bit=[0, 4095], page=0, num_workers=0)
    trainer, path = make_trainer(max_epochs=1), tmp_path / "deep.ckpt"
    trainer.fit(Classification(TinyNet()), data)
    trainer.save_checkpoint(path)
    task = striate.load(path, model=TinyNet())
    assert task.read_options == ReadOptions((0.0, 4095.0), 0)
    by_file = task.predict(file)[0]
    by_pixels = task.predict(np.rint(values / 4095 * 255).astype(np.uint8))[0]
    assert by_file["score"] == pytest.approx(by_pixels["score"], abs=1e-6)
    content = torch.load(path, weights_only=True)
    del content["read_options"]  # as in older checkpoints
    torch.save(content, path)
    older = striate.load(path, model=TinyNet())
    message = (
        r"1.png: scale_16bit must be set .* to 4\d+; set task.read_options = (striate.*\(scale_16bit=\(0, 4095\)\)), or"
    )
    with pytest.raises(ValueError, match=message) as raised:
        older.predict(file)
    assert "[low, high]" not in str(raised.value)
    older.read_options = ReadOptions(scale_16bit=(0, 4095))  # as it says
    assert older.predict(file)[0]["score"] == pytest.approx(by_file["score"], abs=1e-6)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(
        several := tmp_path / "several.tif", save_all=True, append_images=[Image.new("L", (16, 16))]
    )
    older.read_options = ReadOptions()
    with pytest.raises(ValueError, match=r"single image, got 2 pages; set task.read_options = .*ReadOptions\(page=0\)"):
        older.predict(several)


def test_transforms_as_plain_values():
    steps = [ShortSideResize(20), A.CenterCrop(16, 18), A.HorizontalFlip(p=0.25)]
    for transform in (steps, A.Compose(steps)):
        plain = transform_to_plain(transform)
        assert json.loads(json.dumps(plain)) == plain
        rebuilt = transform_from_plain(plain)
        assert [type(step) for step in rebuilt.transforms] == [type(step) for step in steps]
        image = noisy_image(0, 1, 37)
        expected = A.Compose(steps[:2])(image=image)["image"]
        assert (A.Compose(rebuilt.transforms[:2])(image=image)["image"] == expected).all()
        assert rebuilt.transforms[2].p == 0.25
    assert transform_to_plain(None) is None and transform_to_plain([]) is None and transform_from_plain(None) is None


def test_arguments_with_a_new_name_are_translated():
    old = {"model": {"class_path": "mine.Net", "init_args": {"roi": {"append_truth": False, "samples": 64}}}}
    roi = {"append_ground_truth": False, "samples": 64}
    assert update_class_paths(old) == {"model": {"class_path": "mine.Net", "init_args": {"roi": roi}}}


# -- class names -----------------------------------------------------------------------------------

DATA = Batches([batch([0, 1, 0, 1])], ("cat", "dog"))
SWAPPED = Batches([batch([0, 1, 0, 1])], ("animal", "cat"))
DIFFER = r"class_names: must be those of the checkpoint in its order, cat, dog, got animal, cat from Batches .*class 0"


def fitted(path: Path) -> Path:
    trainer = make_trainer(max_epochs=1)
    trainer.fit(Classification(TinyNet()), DATA)
    trainer.save_checkpoint(path)
    return path


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_a_checkpoint_and_data_with_other_classes(tmp_path, command):
    path = fitted(tmp_path / "a.ckpt")
    trainer, task = make_trainer(max_epochs=2), Classification(TinyNet())
    with pytest.raises(ValueError, match=DIFFER):
        getattr(trainer, command)(task, SWAPPED, ckpt_path=path)
    renamed = Batches(DATA.batches, ("cat", "wolf"))
    with pytest.raises(ValueError, match="cat, dog, got cat, wolf .*class 1"):
        getattr(make_trainer(max_epochs=2), command)(Classification(TinyNet()), renamed, ckpt_path=path)
    getattr(make_trainer(max_epochs=2), command)(Classification(TinyNet()), DATA, ckpt_path=path)
    nameless = Batches(DATA.batches)
    del nameless.class_names
    getattr(make_trainer(max_epochs=2), command)(Classification(TinyNet()), nameless, ckpt_path=path)


def test_a_loaded_task_and_data_with_other_classes(tmp_path):
    path = fitted(tmp_path / "a.ckpt")
    task = Classification.load_from_checkpoint(path, model=TinyNet())
    for command in ("validate", "test"):
        with pytest.raises(ValueError, match=DIFFER):
            getattr(make_trainer(), command)(task, SWAPPED)
        getattr(make_trainer(), command)(task, DATA)
    with pytest.warns(
        UserWarning, match=r"training assigns other classes to the outputs.*animal, cat \(Batches\) instead"
    ):
        make_trainer(max_epochs=1).fit(task, SWAPPED)
    assert task.class_names == ["animal", "cat"] and task.training
    # the checkpoint counts, and not what the task was trained with before
    with pytest.raises(ValueError, match=DIFFER):
        make_trainer().validate(task, SWAPPED, ckpt_path=path)
    make_trainer().validate(task, DATA, ckpt_path=path)
    assert task.class_names == ["cat", "dog"]


def test_names_that_differ_in_their_unicode_form_only_are_equal(tmp_path):
    composed, decomposed = ("caf\u00e9", "dog"), ("cafe\u0301", "dog")
    task = Classification(TinyNet())
    task.class_names = list(composed)
    make_trainer().validate(task, Batches(DATA.batches, decomposed))


def test_prediction_uses_the_names_of_the_checkpoint(tmp_path):
    path = fitted(tmp_path / "a.ckpt")
    folder = make_folder(tmp_path / "photos", 2)
    data = ImageFolder(str(folder), val_fraction=0.5, images=str(folder), num_workers=0)
    task = Classification(TinyNet())
    pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).predict(task, data, ckpt_path=path)
    assert task.class_names == ["cat", "dog"]


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_only_a_new_training_warns_of_frozen_random_weights(tmp_path):
    def task():
        return Classification(Classifier(PlainCNN((4, 4), frozen_stages=1), 2))

    trainer = make_trainer(max_epochs=1)
    with pytest.warns(UserWarning, match="training keeps random weights in backbone"):
        trainer.fit(task(), DATA)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="training keeps random weights")
        make_trainer(max_epochs=2).fit(task(), DATA, ckpt_path=tmp_path / "a.ckpt")
