"""The classification task without a trainer: losses, metrics, parameter groups, checkpoints."""

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from striate.models import AlexNet, BatchMixer, LeNet5, MAPLoss
from striate.tasks import Classification
from striate.tasks.metrics import class_accuracies
from striate.tests.helpers.fixtures import TinyNet, batch


class Fixed(torch.nn.Module):
    """Returns fixed logits for any images."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.as_tensor(logits, dtype=torch.float32))
        self.num_classes = self.logits.shape[1]

    def forward(self, images):
        return self.logits[: len(images)]


def test_hand_computed_cross_entropy():
    task = Classification(Fixed([[2.0, 0.0], [0.0, 1.0]]), label_smoothing=0.2, class_weights=[1.0, 3.0])
    data = batch([0, 1])
    logp = F.log_softmax(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), dim=1)
    # smoothed targets are 0.9 and 0.1; each class's share is weighted, and the mean is over the labels' weights
    by_hand = -(0.9 * logp[0, 0] * 1 + 0.1 * logp[0, 1] * 3 + 0.1 * logp[1, 0] * 1 + 0.9 * logp[1, 1] * 3) / 4
    task.train()
    torch.testing.assert_close(task.losses(data)[0]["loss_class"], by_hand)
    task.eval()  # plain cross-entropy in evaluation
    torch.testing.assert_close(task.losses(data)[0]["loss_class"], -(logp[0, 0] + logp[1, 1]) / 2)


class WithAuxiliary(TinyNet):
    def forward_with_auxiliary(self, images):
        logits = self(images)
        return logits, [2 * logits, 0 * logits]


def test_auxiliary_losses_are_weighted_and_only_in_training():
    task = Classification(WithAuxiliary(), auxiliary_weight=0.3)
    data = batch([0, 1])
    losses, logits = task.train().losses(data)
    assert set(losses) == {"loss_class", "loss_aux1", "loss_aux2"}
    torch.testing.assert_close(losses["loss_aux1"], 0.3 * F.cross_entropy(2 * logits, data["label"]))
    assert losses["loss_aux2"].item() == pytest.approx(0.3 * torch.tensor(2.0).log().item())
    assert set(task.eval().losses(data)[0]) == {"loss_class"}


def test_a_mixer_applies_in_training_only():
    task = Classification(TinyNet(), mixer=BatchMixer(mixup_alpha=1.0, cutmix_alpha=0.0, num_classes=2))
    data = batch([0, 1, 0, 1])
    inputs = []
    task.model.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    task.train().losses(data)
    task.eval().losses(data)
    assert inputs[0].is_floating_point() and torch.equal(inputs[1], data["image"])
    with pytest.raises(ValueError, match="mixer.num_classes.*2, got 1000"):
        Classification(TinyNet(), mixer=BatchMixer())


def test_a_custom_loss_is_used_in_training():
    task = Classification(Fixed([[2.0, 0.0]]), loss=torch.nn.MultiMarginLoss())
    data = batch([1])
    assert task.train().losses(data)[0]["loss_class"].item() == pytest.approx((1 - 0 + 2) / 2)
    expected = F.cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([1]))
    torch.testing.assert_close(task.eval().losses(data)[0]["loss_class"], expected)
    with pytest.raises(ValueError, match="loss.*label_smoothing.*got MultiMarginLoss"):
        Classification(TinyNet(), loss=torch.nn.MultiMarginLoss(), label_smoothing=0.1)


def test_ten_crops_are_averaged_in_evaluation():
    task = Classification(TinyNet(), ten_crop=24).eval()
    images = batch([0, 1])["image"]
    crops = [images[..., y : y + 24, x : x + 24] for y, x in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4))]
    views = crops + [crop.flip(-1) for crop in crops]
    expected = torch.stack([task.model(view).softmax(1) for view in views]).mean(0)
    for one, row in zip(task.predict(images), expected, strict=True):
        assert one["score"] == pytest.approx(row.max().item(), rel=1e-5)
    torch.testing.assert_close(task.losses(batch([0, 1]))[1].softmax(1), expected, rtol=1e-4, atol=1e-6)
    assert not any("crop" in key for key in task.state_dict())


def test_metrics_equal_those_of_scikit_learn_over_several_batches():
    generator = torch.Generator().manual_seed(0)
    task = Classification(TinyNet(7), num_classes=7).eval()
    metrics = task.metrics("val")
    target, predicted, top5 = [], [], []
    for size in (5, 8, 3):
        logits = torch.randn(size, 7, generator=generator)
        labels = torch.randint(0, 6, (size,), generator=generator)  # class 6 never occurs
        task.update_metrics(metrics, logits, {"label": labels})
        target += labels.tolist()
        predicted += logits.argmax(1).tolist()
        top5 += (logits.topk(5).indices == labels[:, None]).any(1).tolist()
    result = task.compute_metrics(metrics)
    right = sum(a == b for a, b in zip(target, predicted, strict=True))
    assert result["acc"].item() == pytest.approx(right / 16)
    assert result["acc5"].item() == pytest.approx(sum(top5) / 16)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert result["acc_class"].item() == pytest.approx(balanced_accuracy_score(target, predicted))
    assert task.confusion_matrix("val").tolist() == confusion_matrix(target, predicted, labels=range(7)).tolist()


def test_class_accuracy_of_an_absent_class_is_nan():
    values = class_accuracies(torch.tensor([[3, 1, 0], [0, 0, 0], [2, 0, 2]]))
    assert values[0] == 0.75 and values[1].isnan() and values[2] == 0.5


def test_two_classes_have_no_top_five_accuracy():
    task = Classification(TinyNet(2)).eval()
    task.update_metrics(task.metrics("val"), torch.randn(3, 2), {"label": torch.tensor([0, 1, 1])})
    assert set(task.compute_metrics(task.metrics("val"))) == {"acc", "acc_class"}


def test_predictions_are_sorted_probabilities():
    task = Classification(Fixed([[1.0, 3.0, 2.0]]), top_k=2).eval()
    (one,) = task.predict(torch.zeros(1, 3, 8, 8))
    expected = torch.tensor([1.0, 3.0, 2.0]).softmax(0)
    assert one["label"] == 1 and one["top_labels"] == [1, 2]
    assert one["score"] == pytest.approx(expected[1].item())
    assert one["top_scores"] == pytest.approx([expected[1].item(), expected[2].item()])


def test_parameter_groups_by_learning_rate_and_decay():
    task = Classification(TinyNet(), optimizer=lambda groups: torch.optim.SGD(groups, lr=1.0, weight_decay=0.5),
                          backbone_lr_factor=0.1)  # fmt: skip
    optimizer = task.configure_optimizers()
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "backbone": (0.1, 0.5), "backbone (no decay)": (0.1, 0.0), "head": (1.0, 0.5), "head (no decay)": (1.0, 0.0),
    }  # fmt: skip
    assert sum(len(group["params"]) for group in groups.values()) == len(list(task.model.parameters()))
    assert all(parameter.ndim > 1 for parameter in groups["backbone"]["params"])
    everything = Classification(TinyNet(), decay_norm_and_bias=True).parameter_groups()
    assert [group["name"] for group in everything] == ["head", "backbone"]


def test_an_entirely_frozen_model_is_rejected():
    model = TinyNet()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen_stages.*frozen entirely"):
        Classification(model).configure_optimizers()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": torch.nn.Identity()}, "num_classes.*Identity.*got None"),
        ({"model": TinyNet(), "label_smoothing": 1.0}, r"label_smoothing.*\[0, 1\), got 1.0"),
        ({"model": TinyNet(), "class_weights": [1.0]}, "class_weights.*2, got 1"),
        ({"model": TinyNet(), "class_weights": [1.0, -2.0]}, "class_weights.*got -2.0 for class 1"),
        ({"model": TinyNet(), "class_weights": [float("nan"), 1.0]}, "class_weights.*got nan for class 0"),
        ({"model": TinyNet(), "class_weights": [0.0, 0.0]}, "class_weights.*got 0 for every class"),
        ({"model": WithAuxiliary(), "auxiliary_weight": -0.3}, "auxiliary_weight.*got -0.3"),
        ({"model": TinyNet(), "ten_crop": 0}, "ten_crop: size.*got 0"),
        ({"model": TinyNet(), "top_k": 0}, "top_k.*got 0"),
        ({"model": LeNet5(output="softmax"), "loss": MAPLoss()}, "loss: MAPLoss .*got output 'softmax'"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Classification(**arguments)


def test_an_auxiliary_weight_without_auxiliary_classifiers_warns():
    with pytest.warns(UserWarning, match="auxiliary_weight: 0.4 has no effect.*TinyNet"):
        Classification(TinyNet(), auxiliary_weight=0.4)
    assert Classification(WithAuxiliary()).auxiliary_weight == 0.3
    assert Classification(WithAuxiliary(), auxiliary_weight=0.0).auxiliary_weight == 0.0


def test_the_loss_of_the_paper_accepts_the_output_of_the_paper():
    assert isinstance(Classification(LeNet5(), loss=MAPLoss()).loss, MAPLoss)


def test_ten_crops_of_the_wrong_size_are_rejected_at_once():
    small = {"num_classes": 2, "width": 0.1, "hidden": 8}
    with pytest.raises(ValueError, match=r"ten_crop: .*6 x 6, got 224 x 224.*5 x 5; resize to 227 x 227"):
        Classification(AlexNet(image_size=227, **small), ten_crop=224)
    for image_size, ten_crop in ((224, 224), (224, 227), (227, 227)):
        task = Classification(AlexNet(image_size=image_size, **small), ten_crop=ten_crop).eval()
    assert len(task.predict(torch.zeros(1, 3, 230, 230, dtype=torch.uint8))) == 1


def test_a_checkpoint_of_a_task_built_by_hand_has_only_weights_and_plain_values(tmp_path):
    task = Classification(TinyNet(width=5), label_smoothing=0.1)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(task)
    path = tmp_path / "hand.ckpt"
    trainer.save_checkpoint(path, weights_only=True)
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"]["label_smoothing"] == 0.1
    assert "model" not in content["hyper_parameters"] and "optimizer" not in content["hyper_parameters"]
    with pytest.raises(TypeError, match=r"model.*built by hand.*load_from_checkpoint\(path, model=…\)"):
        Classification.load_from_checkpoint(path)
    loaded = Classification.load_from_checkpoint(path, model=TinyNet(width=5)).eval()
    images = batch([0, 1])["image"]
    torch.testing.assert_close(loaded(images), task.eval()(images))
    assert loaded.label_smoothing == 0.1
    with pytest.raises(ValueError, match=r"not match .*TinyNet, got \d of another shape .*model"):
        Classification.load_from_checkpoint(path, model=TinyNet(width=6))


def test_num_classes_must_be_that_of_the_model():
    with pytest.raises(ValueError, match="num_classes: the model TinyNet has 5 classes, got 7"):
        Classification(TinyNet(5), num_classes=7)
    assert Classification(TinyNet(5), num_classes=5).num_classes == 5
