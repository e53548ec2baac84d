"""Tests of the stages of R-CNN and SPP-net: what they train, interruptions, a full disk, and what is refused."""

import errno
import json
import signal

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging
from torch.utils.data import DataLoader

from striate.callbacks import RegionStages
from striate.models.detection.two_stage.region_boxes import select_pairs, train_box_regression
from striate.models.detection.two_stage.region_svms import ImageRegions, train_svms
from striate.tasks import Detection, region_stages, region_store

from ..helpers.colored_squares import IMAGES, ColoredSquares, Run, small_rcnn, small_spp
from ..helpers.tiny_detector import TinyDetector
from ..helpers.training import make_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


class Killed(BaseException):
    """Ends a run as a killed process does: nothing is saved after it."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Several parts of 6 images, which batches of 4 do not divide."""
    monkeypatch.setattr(region_store, "IMAGES_PER_PART", 6)
    monkeypatch.setattr(region_stages, "IMAGES_PER_PART", 6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is not interrupted."""
    return Run(tmp_path_factory.mktemp("whole")).fit()


def count_calls(monkeypatch, owner, name):
    calls, original = [], getattr(owner, name)

    def counted(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


def kill(monkeypatch, owner, name, time=1):
    """Kill the run when a function is called for the n-th time."""
    original, left = getattr(owner, name), [time]

    def killed(*args, **kwargs):
        left[0] -= 1
        if not left[0]:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, killed)


def assert_same(run, whole):
    for name in ("last", "best"):
        torch.testing.assert_close(run.state(name), whole.state(name), rtol=0, atol=0)


@pytest.mark.parametrize("make", [small_rcnn, small_spp])
def test_one_fit_trains_all_stages_and_its_checkpoints_detect(tmp_path, make):
    run = Run(tmp_path, make).fit()
    assert run.task.model.stages_finished
    assert not (tmp_path / "region_stages").exists()
    report = json.loads((tmp_path / "region_stages.json").read_text())
    assert report["regions"] == IMAGES * 14 and report["disk_bytes"] > 0  # 13 proposals and an object
    assert {"features_seconds", "svms_seconds", "boxes_seconds"} <= report.keys()
    # the last validation is that of the complete detector
    logged = run.trainer.callback_metrics["val/map50"]
    assert logged > 0.8
    for name in ("last", "best"):
        loaded = Detection.load_from_checkpoint(run.checkpoints / f"{name}.ckpt", model=make(), weights_only=True)
        assert loaded.model.stages_finished
        (result,) = make_trainer().validate(loaded, ColoredSquares(), verbose=False)
        assert result["val/map50"] == pytest.approx(float(logged))


def test_results_equal_functions_on_features_of_each_training_image(tmp_path):
    run = Run(tmp_path).fit()
    model, data = run.task.model, run.trainer.datamodule
    dataset = data.dataset(data.datasets["train"].source, training=False)
    dataset.proposals = data.datasets["train"].proposals
    images, pooled, pairs, norms = [], [], [], []
    for index in range(IMAGES):
        sample = dataset[index]
        objects, labels = torch.as_tensor(sample["boxes"]), torch.as_tensor(sample["labels"])
        proposals = torch.as_tensor(sample["proposals"])
        image = torch.from_numpy(sample["image"]).permute(2, 0, 1)
        found = model.extract(image, torch.cat([objects, proposals]))
        images.append(ImageRegions(found.features.numpy(), objects, labels, proposals))
        pairs.append(select_pairs(objects, labels, proposals, model.boxes))
        pooled.append(found.pooled[1:][pairs[-1].rows].numpy())
        norms.append(found.pooled.norm(dim=1))
    svms = train_svms(images, 2, model.svms)
    torch.testing.assert_close(model.svm_weight, svms.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.svm_scale.item(), svms.scale)
    norm = torch.cat(norms).mean().item()
    boxes = train_box_regression(pooled, pairs, 2, model.box_weight.shape[1], norm, model.boxes)
    torch.testing.assert_close(model.box_weight, boxes.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.box_bias, boxes.bias, rtol=1e-3, atol=1e-4)
    assert boxes.pairs.sum() > 20


class TestInterruptions:
    """A run that is killed in a stage and resumed ends like one that was not, without repeating finished stages."""

    def resume_after(self, monkeypatch, tmp_path, owner, name, time=1):
        run = Run(tmp_path / "run")
        with monkeypatch.context() as patch:
            kill(patch, owner, name, time)
            with pytest.raises(Killed):
                run.fit()
        assert not run.state("last")["svms_trained"]
        self.extracted = count_calls(monkeypatch, small_rcnn().__class__, "extract")
        self.svms = count_calls(monkeypatch, region_stages, "train_svms")
        self.boxes = count_calls(monkeypatch, region_stages, "train_box_regression")
        return run.fit(resume=True)

    def test_while_features_are_stored(self, monkeypatch, tmp_path, whole):
        run = self.resume_after(monkeypatch, tmp_path, region_store.RegionStore, "add", 3)
        assert len(self.extracted) == IMAGES - 12  # two parts of 6 images were stored
        assert_same(run, whole)

    def test_within_a_part(self, monkeypatch, tmp_path, whole):
        run = self.resume_after(monkeypatch, tmp_path, np, "savez", 2)  # features of part 2 are there, its boxes not
        assert len(self.extracted) == IMAGES - 6
        assert_same(run, whole)

    def test_while_svms_are_trained(self, monkeypatch, tmp_path, whole):
        run = self.resume_after(monkeypatch, tmp_path, region_stages, "train_svms")
        assert (len(self.extracted), len(self.svms), len(self.boxes)) == (0, 1, 1)
        assert_same(run, whole)

    def test_while_boxes_are_trained(self, monkeypatch, tmp_path, whole):
        run = self.resume_after(monkeypatch, tmp_path, region_stages, "train_box_regression")
        assert (len(self.extracted), len(self.svms), len(self.boxes)) == (0, 0, 1)
        assert_same(run, whole)

    def test_in_the_validation_after_them(self, monkeypatch, tmp_path, whole):
        """The files are removed then; the stages run again, since the checkpoint is that from before them."""
        run = Run(tmp_path)
        with monkeypatch.context() as patch:
            kill(patch, Detection, "update_metrics", 7)  # 5 batches per validation
            with pytest.raises(Killed):
                run.fit()
        run.fit(resume=True)
        assert_same(run, whole)

    def test_ctrl_c_stops_between_images_and_says_how_to_resume(self, monkeypatch, tmp_path, whole, caplog):
        run, seen = Run(tmp_path), []
        original = region_stages.RegionStageTrainer._record

        def interrupted(self, *args):
            seen.append(1)
            if len(seen) == 8:
                signal.raise_signal(signal.SIGINT)
            return original(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(region_stages.RegionStageTrainer, "_record", interrupted)
            with caplog.at_level("INFO"), pytest.raises((KeyboardInterrupt, SystemExit)):
                run.fit()
        assert len(seen) == 8
        assert "in a validation, which will be repeated" in caplog.text and "--ckpt_path last" in caplog.text
        extracted = count_calls(monkeypatch, small_rcnn().__class__, "extract")
        run.fit(resume=True)
        assert len(extracted) == IMAGES - 6
        assert_same(run, whole)


class TestFullDisk:
    def fill(self, patch, time):
        original, left = np.save, [time]

        def save(file, array):
            left[0] -= 1
            if not left[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            original(file, array)

        patch.setattr(np, "save", save)

    def test_it_is_one_clear_error_and_the_run_can_be_resumed(self, monkeypatch, tmp_path, whole):
        run = Run(tmp_path / "run")
        with monkeypatch.context() as patch:
            self.fill(patch, 3)  # the features of the second part
            message = "No space left on device after .* GB of features of regions, of about .*features-00001"
            with pytest.raises(OSError, match=message) as raised:
                run.fit()
        assert raised.value.errno == errno.ENOSPC
        assert not list((tmp_path / "run" / "region_stages").glob(".*"))  # no half file
        run.fit(resume=True)
        assert_same(run, whole)

    def test_too_little_space_is_noticed_after_the_first_part(self, monkeypatch, tmp_path):
        usage = type("Usage", (), {"free": 10})
        monkeypatch.setattr(region_store.shutil, "disk_usage", lambda path: usage)
        added = count_calls(monkeypatch, region_store.RegionStore, "add")
        with pytest.raises(
            OSError, match="No space left for the features of regions: they need about .*half_precision"
        ):
            Run(tmp_path).fit()
        assert len(added) == 1


def test_another_network_discards_the_files(monkeypatch, tmp_path, caplog):
    run = Run(tmp_path, stages=RegionStages(keep_features=True)).fit()
    files = sorted(path.name for path in (tmp_path / "region_stages").iterdir())
    assert {"features-00003.npy", "pooled-00000.npy", "regions-00003.npz", "svms.pt", "boxes.pt"} < set(files)
    extracted = count_calls(monkeypatch, small_rcnn().__class__, "extract")
    with caplog.at_level("INFO"):
        run.fit(resume=True, max_epochs=3)  # further training changes the network
    assert "of another network, other data or settings: removed" in caplog.text
    assert len(extracted) == IMAGES
    assert run.task.model.stages_finished


def test_more_epochs_are_validated_by_the_softmax_until_the_stages_run_again(monkeypatch, tmp_path):
    run = Run(tmp_path).fit()
    finished = []

    class Watch(pl.Callback):
        def on_validation_epoch_end(self, trainer, task):
            finished.append(task.model.stages_finished)

    run.fit(Watch(), resume=True, max_epochs=4)
    assert finished == [False, True]


def test_settings_of_svms_do_not_discard_features(tmp_path):
    run = Run(tmp_path, stages=RegionStages(keep_features=True)).fit()
    model, data = run.task.model, run.trainer.datamodule
    lines = []

    def trainer():
        return region_stages.RegionStageTrainer(run.task, data, tmp_path / "region_stages", report=lines.append)

    trainer().run()
    assert "svms: trained already" in lines and any("stored already" in line for line in lines)
    lines.clear()
    before = model.svm_weight.clone()
    model.svms = type(model.svms)(c=1e-5)
    trainer().run()
    assert any("stored already" in line for line in lines) and "svms: trained already" not in lines
    assert not torch.equal(model.svm_weight, before)


def test_half_precision_takes_half_the_space(tmp_path):
    sizes, weights = [], []
    for half in (False, True):
        run = Run(tmp_path / str(half), stages=RegionStages(half_precision=half, keep_features=True)).fit()
        sizes.append((run.folder / "region_stages" / "features-00000.npy").stat().st_size - 128)
        weights.append(run.task.model.svm_weight)
    assert sizes[1] * 2 == sizes[0] == 6 * 14 * 16 * 4
    torch.testing.assert_close(*weights, rtol=0.02, atol=0.02)


def test_early_stopping_runs_the_stages_without_validation(tmp_path):
    stop = EarlyStopping("val/map", patience=0, mode="max", stopping_threshold=-1.0)
    with pytest.warns(UserWarning, match="SVMs was not validated.*--ckpt_path last"):
        run = Run(tmp_path, max_epochs=9).fit(stop)
    assert run.trainer.current_epoch == 1
    assert run.task.model.stages_finished and run.state("last")["svms_trained"]


def test_the_best_checkpoint_is_complete_even_if_the_softmax_was_better(tmp_path, monkeypatch):
    run = Run(tmp_path)
    original = Detection.compute_metrics

    def compute(self, metrics):
        value = torch.tensor(0.1 if self.model.stages_finished else 0.9)
        return original(self, metrics) | {"map": value}

    monkeypatch.setattr(Detection, "compute_metrics", compute)
    run.fit()
    assert run.state("best")["svms_trained"]
    assert run.trainer.checkpoint_callbacks[0].best_model_score == pytest.approx(0.1)


class TestZeroProposals:
    def test_in_training_the_objects_alone_are_trained_on(self, tmp_path):
        run = Run(tmp_path).fit(data=ColoredSquares(absent="train"))
        assert run.task.model.stages_finished
        assert not run.task.model.box_weight.any()  # no pair: boxes stay as proposed
        assert 0 <= run.trainer.callback_metrics["val/map50"] <= 1

    def test_in_testing_nothing_is_detected(self, tmp_path):
        run = Run(tmp_path).fit(data=ColoredSquares(absent="val"))
        assert run.trainer.callback_metrics["val/map50"] == 0

    def test_missing_ones_are_an_error(self, tmp_path):
        with pytest.raises(ValueError, match="must have proposals.*striate data proposals"):
            Run(tmp_path, limit_val_batches=0).fit(data=ColoredSquares(proposals=False))


class TestUnfinished:
    def test_without_the_callback_training_warns(self):
        task = Detection(small_rcnn(), optimizer=lambda groups: torch.optim.Adam(groups))
        with pytest.warns(UserWarning, match="RCNN detects by its softmax.*RegionStages"):
            make_trainer(max_epochs=1, limit_val_batches=0).fit(task, ColoredSquares())

    @pytest.mark.parametrize("command", ["validate", "predict"])
    def test_other_commands_warn(self, command):
        trainer = make_trainer(callbacks=[RegionStages()])
        batch = {"image": [torch.zeros(3, 24, 24, dtype=torch.uint8)], "proposals": [torch.zeros(0, 4)]}
        batches = DataLoader([batch], batch_size=None)
        loaders = {"datamodule": ColoredSquares()} if command == "validate" else {"dataloaders": batches}
        with pytest.warns(UserWarning, match="SVMs and boxes of RCNN are not trained: its results are those of"):
            getattr(trainer, command)(Detection(small_rcnn()), **loaders)


class TestRefused:
    def test_several_devices(self, monkeypatch):
        trainer = make_trainer()
        monkeypatch.setattr(type(trainer), "world_size", 2)
        with pytest.raises(ValueError, match="trainer.devices: must be 1 for RCNN.*got 2"):
            RegionStages().setup(trainer, Detection(small_rcnn()), "fit")

    def test_weight_averaging(self, tmp_path):
        with pytest.raises(ValueError, match="must have no weight averaging for RCNN"):
            Run(tmp_path).fit(EMAWeightAveraging())

    def test_loaders_without_a_data_module(self):
        task, data = Detection(small_rcnn()), ColoredSquares()
        trainer = make_trainer(callbacks=[RegionStages()], max_epochs=1)
        with pytest.raises(ValueError, match="datamodule: must be one of striate.datamodules for RCNN"):
            trainer.fit(task, data.train_dataloader(), data.val_dataloader())


def test_other_models_are_left_alone():
    make_trainer(callbacks=[RegionStages()], max_epochs=1).fit(Detection(TinyDetector(2)), ColoredSquares())
