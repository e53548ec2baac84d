"""The localization task: hand-computed losses and metrics, predictions in pixels, and runs on DigitScenes."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from striate.callbacks import RandomState
from striate.datamodules import DigitScenes
from striate.models import BoxLoss, Localizer, PlainCNN
from striate.tasks import Cosine, Localization
from striate.tasks.file_coordinates import boxes_in_file
from striate.tasks.localization import check_boxes
from striate.tasks.metrics import LocalizationMetrics
from striate.tests.helpers.fixtures import TinyNet
from striate.tests.helpers.processes import HANG
from striate.tests.helpers.training import SaveAndStop, make_trainer


class Fixed(torch.nn.Module):
    """Returns fixed logits and boxes for any images."""

    def __init__(self, logits, boxes):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.as_tensor(logits, dtype=torch.float32))
        self.boxes = torch.nn.Parameter(torch.as_tensor(boxes, dtype=torch.float32))
        self.num_classes = self.logits.shape[1]

    def forward(self, images):
        return self.logits[: len(images)], self.boxes[: len(images)]


def batch(labels, boxes, height=20, width=40):
    return {
        "image": torch.zeros(len(labels), 3, height, width, dtype=torch.uint8),
        "label": torch.tensor(labels, dtype=torch.int64),
        "box": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "index": torch.arange(len(labels)),
    }


LOGITS = [[2.0, 0.0], [0.0, 1.0]]
DATA = batch([0, 0], [[0, 0, 20, 10], [10, 5, 30, 15]])  # of 40 x 20: 0 0 .5 .5, .25 .25 .75 .75


def test_the_losses_are_weighted_and_the_box_loss_is_the_squared_distance():
    task = Localization(Fixed(LOGITS, [[0, 0, 0.4, 0.5], [0.25, 0.05, 0.75, 0.75]]), class_weight=2.0, box_weight=5.0)
    logp = F.log_softmax(torch.tensor(LOGITS), dim=1)
    losses, _ = task.train().losses(DATA)
    assert losses["loss_class"].item() == pytest.approx(-2 * (logp[0, 0] + logp[1, 0]).item() / 2)
    assert losses["loss_box"].item() == pytest.approx(5 * (0.1**2 + 0.2**2) / 2)
    smoothed = Localization(Fixed(LOGITS, [[0.0] * 4] * 2), label_smoothing=0.2, box_loss=BoxLoss("smooth_l1", beta=1))
    by_hand = -(0.9 * logp[0, 0] + 0.1 * logp[0, 1] + 0.9 * logp[1, 0] + 0.1 * logp[1, 1]) / 2
    losses, _ = smoothed.train().losses(DATA)
    torch.testing.assert_close(losses["loss_class"], by_hand)
    assert losses["loss_box"].item() == pytest.approx((2 * 0.5**2 + 2 * 0.25**2 + 2 * 0.75**2) / 2 / 2)
    plain = -(logp[0, 0] + logp[1, 0]) / 2
    torch.testing.assert_close(smoothed.eval().losses(DATA)[0]["loss_class"], plain)


def test_with_one_box_per_class_that_of_the_true_class_is_trained():
    boxes = [[[0, 0, 0.4, 0.5], [9, 9, 9, 9]], [[8, 8, 8, 8], [0.25, 0.05, 0.75, 0.75]]]
    task = Localization(Fixed([[0.0, 2.0], [1.0, 0.0]], boxes))  # which confuses both classes
    losses, _ = task.losses({**DATA, "label": torch.tensor([0, 1])})
    assert losses["loss_box"].item() == pytest.approx((0.1**2 + 0.2**2) / 2)
    losses["loss_box"].backward()
    assert task.model.boxes.grad.abs().sum(-1).gt(0).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("predicted", [[0.0, 0, 0, 0], [0.25, 0.25, 0.75, 0.75]])
def test_an_object_that_the_transform_removed_is_counted_as_wrong(monkeypatch, predicted):
    monkeypatch.setattr(Localization, "targets_checked", True)  # as with striate's data modules
    task = Localization(Fixed(LOGITS, [[0, 0, 0.4, 0.5], predicted])).eval()
    lost = batch([0, 1], [[0, 0, 20, 10], [0, 0, 0, 0]])
    losses, outputs = task.losses(lost)
    assert losses["loss_box"].item() == pytest.approx(0.1**2)  # of the first alone
    metrics = task.make_metrics()
    task.update_metrics(metrics, outputs, lost)
    result = task.compute_metrics(metrics)
    assert result["acc"] == 1 and result["loc_acc"] == result["box_acc50"] == 0.5
    assert result["box_iou"].item() == pytest.approx(0.8 / 2)


def test_an_empty_batch_has_zero_loss_with_a_live_graph():
    task = Localization(Fixed(LOGITS, [[0.0] * 4] * 2))
    losses, _ = task.losses(batch([], []))
    total = sum(losses.values())
    total.backward()
    assert total.item() == 0 and task.model.logits.grad.abs().sum() == task.model.boxes.grad.abs().sum() == 0


# Six classes: the classes by descending logit, and the IoU of the box with the ground truth 0 0 1 1
#   image 0: first class correct, IoU 0.80   image 1: first class correct, IoU 0.40
#   image 2: second class correct, IoU 0.60  image 3: none of five correct, IoU 0.75
ORDERS = [[0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5], [2, 5, 0, 1, 3, 4], [0, 1, 2, 4, 5, 3]]
LABELS, WIDTHS = [0, 1, 5, 3], [0.80, 0.40, 0.60, 0.75]


def table_of():
    logits = torch.zeros(4, 6)
    for image, order in enumerate(ORDERS):
        logits[image, order] = torch.arange(6, 0, -1).float()
    boxes = torch.tensor([[0.0, 0.0, width, 1.0] for width in WIDTHS])
    return logits, boxes, torch.tensor(LABELS), torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 4)


def test_hand_computed_metrics_with_one_box():
    metrics = LocalizationMetrics(6)
    logits, boxes, labels, target = table_of()
    metrics.update(logits[:1], boxes[:1], labels[:1], target[:1])
    metrics.update(logits[1:], boxes[1:], labels[1:], target[1:])
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx({
        "acc": 2 / 4, "cls_err": 2 / 4, "loc_acc": 1 / 4, "loc_err": 3 / 4, "cls_err5": 1 / 4, "loc_err5": 2 / 4,
        "box_iou": (0.8 + 0.4 + 0.6 + 0.75) / 4, "box_acc50": 3 / 4, "box_acc75": 2 / 4,
    })  # fmt: skip


def test_hand_computed_metrics_with_one_box_per_class():
    logits, boxes, labels, target = table_of()
    each = torch.tensor([0.0, 0.0, 0.1, 1.0]).repeat(4, 6, 1)  # the others' boxes are bad
    each[torch.arange(4), labels] = boxes
    each[2, 2] = torch.tensor([0.0, 0.0, 0.9, 1.0])  # but not that of the label predicted for image 2
    metrics = LocalizationMetrics(6)
    metrics.update(logits, each, labels, target)
    result = metrics.compute()
    assert result["loc_err"].item() == 3 / 4 and result["loc_err5"].item() == 2 / 4
    assert result["box_iou"].item() == pytest.approx((0.8 + 0.4 + 0.9 + 0.1) / 4)


def test_top_five_needs_label_and_box_of_the_same_class():
    logits, _, labels, target = table_of()
    each = target[:, None].expand(-1, 6, -1).clone()  # every box is that of the ground truth
    each[torch.arange(4), labels] = torch.tensor([0.0, 0.0, 0.4, 1.0])  # but that of the true class
    metrics = LocalizationMetrics(6)
    metrics.update(logits, each, labels, target)
    result = metrics.compute()
    assert result["loc_err5"].item() == 1 and result["cls_err5"].item() == 1 / 4
    each[2, labels[2]] = target[2]
    metrics.reset()
    metrics.update(logits, each, labels, target)
    assert metrics.compute()["loc_err5"].item() == 3 / 4


def test_boxes_are_clipped_and_iou_of_one_half_is_enough():
    metrics = LocalizationMetrics(2)
    boxes = torch.tensor([[-1.0, -1.0, 2.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    target = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    metrics.update(torch.tensor([[1.0, 0.0]] * 2), boxes, torch.tensor([0, 0]), target)
    result = metrics.compute()
    assert result["box_iou"].item() == 0.25 and result["loc_acc"].item() == 0.5 and "loc_err5" not in result
    metrics.reset()
    metrics.update(torch.zeros(0, 2), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    assert all(value.item() == 0 for value in metrics.compute().values())


def test_the_task_updates_box_metrics_and_the_confusion_matrix():
    task = Localization(Fixed(LOGITS, [[0, 0, 0.4, 0.5], [0.25, 0.25, 0.75, 0.75]])).eval()
    metrics = task.metrics("val")
    task.update_metrics(metrics, task.losses(DATA)[1], DATA)
    result = task.compute_metrics(metrics)
    assert result["box_iou"].item() == pytest.approx((0.8 + 1) / 2) and result["loc_acc"].item() == 0.5
    assert task.confusion_matrix("val").tolist() == [[1, 1], [0, 0]]


def test_predictions_are_in_pixels_of_the_image():
    boxes = [[[0.5, 0.5, 1.5, 1.0], [-0.25, 0.0, 0.5, 0.25]]]
    task = Localization(Fixed([[0.0, 2.0]], boxes)).eval()
    (one,) = task.predict(torch.zeros(1, 3, 20, 40))
    assert one["label"] == 1 and one["score"] == pytest.approx(torch.tensor([0.0, 2.0]).softmax(0)[1].item())
    assert one["box"].tolist() == [0, 0, 20, 5]
    assert one["top_labels"] == [1, 0] and one["top_boxes"].tolist() == [[0, 0, 20, 5], [20, 10, 40, 20]]
    (agnostic,) = Localization(Fixed([[0.0, 2.0]], [[0, 0, 0.5, 0.5]])).predict(torch.zeros(1, 3, 20, 40))
    assert agnostic["box"].tolist() == [0, 0, 20, 10] and "top_boxes" not in agnostic


def test_boxes_map_back_to_the_file():
    # 100 x 60 resized to 200 x 120 and cropped by 30 and 10 on the left and on top
    corners = torch.tensor([[-30.0, -10.0], [170.0, -10.0], [-30.0, 110.0]])
    boxes = boxes_in_file(torch.tensor([[0.0, 0.0, 20.0, 30.0], [0.0, 0.0, 400.0, 30.0]]), corners, 100, 60)
    assert boxes.tolist() == [[15, 5, 25, 20], [15, 5, 100, 20]]
    for wrong in (corners.flip(0), torch.full((3, 2), torch.nan), corners + torch.tensor([[0.0], [5.0], [0.0]])):
        with pytest.raises(ValueError, match="val_transform.*no way back"):
            boxes_in_file(boxes, wrong, 100, 60)


def test_boxes_outside_their_image_are_rejected():
    check_boxes(torch.tensor([[0.0, 0.0, 40.0, 20.0]]), 20, 40)
    for box in ([0, 0, 41, 20], [0, 0, 40, 21], [-1, 0, 40, 20], [5, 5, 5, 9], [0, 9, 4, 3], [0, 0, float("nan"), 3]):
        with pytest.raises(ValueError, match=r"box.*in images of 40 x 20, got .*index 1"):
            check_boxes(torch.tensor([[0, 0, 1, 1], box], dtype=torch.float32), 20, 40)
    task = Localization(Fixed(LOGITS, [[0.0] * 4] * 2))
    with pytest.raises(ValueError, match=r"box.*got \[0.0, 0.0, 90.0, 20.0\] at index 1"):
        task.losses(batch([0, 1], [[0, 0, 1, 1], [0, 0, 90, 20]]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": torch.nn.Identity()}, "num_classes.*Identity.*got None"),
        ({"num_classes": 3}, "num_classes: the model Fixed has 2 classes, got 3"),
        ({"label_smoothing": 1.0}, r"label_smoothing.*\[0, 1\), got 1.0"),
        ({"box_weight": -1.0}, "^box_weight: must be >= 0, got -1.0"),
        ({"class_weight": -1.0}, "^class_weight: must be >= 0, got -1.0"),
        ({"class_weight": 0.0, "box_weight": 0.0}, "^class_weight: must be > 0 if box_weight is 0, got 0.0; set one"),
        ({"backbone_lr_factor": -0.1}, "^backbone_lr_factor: must be >= 0, got -0.1"),
        ({"top_k": 0}, "top_k.*got 0"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Localization(**({"model": Fixed(LOGITS, [[0.0] * 4] * 2)} | arguments))


def test_a_model_of_another_kind_is_rejected():
    with pytest.raises(TypeError, match="model: .*logits and boxes, got Tensor from TinyNet"):
        Localization(TinyNet()).losses(batch([0], [[0, 0, 1, 1]]))
    with pytest.raises(ValueError, match=r"model: .*boxes \[2, 4\].*got \[2, 2\] and \[2, 3\]"):
        Localization(Fixed(LOGITS, [[0.0] * 3] * 2)).losses(DATA)


def digits(**options):
    settings = {"image_size": 32, "scale": (0.6, 0.9), "train_size": 64, "val_size": 20, "batch_size": 16}
    return DigitScenes("localization", **(settings | {"num_workers": 0} | options))


def small_task(loss="l2", features="spatial", box="agnostic", dropout=None, **options):
    torch.manual_seed(1)
    model = Localizer(PlainCNN((8, 16)), 10, box, features, dropout=dropout, box_width=16)
    return Localization(
        model, box_loss=BoxLoss(loss), optimizer=lambda groups: torch.optim.Adam(groups, lr=0.01), **options
    )


def test_the_number_of_classes_is_compared_with_the_data():
    task = Localization(Localizer("plain", 4))
    with pytest.raises(ValueError, match="num_classes: .*DigitScenes has 10.*got 4 from .*Localizer"):
        make_trainer(max_epochs=1).fit(task, digits())


@pytest.mark.parametrize("loss", ["l2", "smooth_l1", "giou", "ciou"])
@pytest.mark.parametrize("box", ["agnostic", "per_class"])
def test_one_batch_is_overfitted(loss, box):
    data = digits(train_size=8, batch_size=8)
    data.setup("fit")
    one = next(iter(data.train_dataloader()))
    task = small_task(loss, box=box, box_weight=5.0)
    optimizer = task.configure_optimizers()
    task.train()
    for _ in range(90):
        optimizer.zero_grad()
        sum(task.losses(one)[0].values()).backward()
        optimizer.step()
    task.eval()
    metrics = task.metrics("val")
    task.update_metrics(metrics, task.losses(one)[1], one)
    result = task.compute_metrics(metrics)
    assert result["acc"] == 1 and result["box_iou"] > 0.85, result


def test_a_few_epochs_reduce_both_losses():
    task, trainer = small_task("giou", box_weight=2.0), make_trainer(max_epochs=6)
    before = trainer.validate(task, digits(), verbose=False)[0]
    trainer.fit(task, digits(train_size=128))
    after = trainer.validate(task, digits(), verbose=False)[0]
    assert after["val/loss"] < before["val/loss"] and after["val/box_iou"] > before["val/box_iou"]
    assert {"val/acc", "val/cls_err", "val/loc_err", "val/loc_err5", "val/loc_acc", "val/box_acc75"} <= after.keys()


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path):
    def run(steps, ckpt_path=None):
        task = small_task("smooth_l1", dropout=0.3, scheduler=Cosine())
        trainer = make_trainer(max_epochs=2, callbacks=[RandomState(), SaveAndStop(steps, tmp_path / "mid.ckpt")])
        trainer.fit(task, digits(), ckpt_path=ckpt_path, weights_only=True)
        return torch.cat([p.detach().flatten() for p in task.model.state_dict().values()])

    whole = run(steps=None)
    run(steps=3)
    torch.manual_seed(99)
    assert torch.equal(whole, run(steps=None, ckpt_path=tmp_path / "mid.ckpt"))


OTHER_PROCESS = """
import sys, torch
from striate.tasks.metrics import LocalizationMetrics
tables, meeting, out = sys.argv[1:]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=1, world_size=2)
metrics = LocalizationMetrics(6)
metrics.update(*torch.load(tables, weights_only=True))
torch.save(metrics.compute(), out)
torch.distributed.destroy_process_group()
"""


def test_two_processes_count_as_one(tmp_path):
    torch.save([column[3:] for column in table_of()], tmp_path / "share.pt")  # unequal shares
    files = [str(tmp_path / name) for name in ("share.pt", "meeting", "out.pt")]
    other = subprocess.Popen([sys.executable, "-W", "ignore", "-c", OTHER_PROCESS, *files])
    torch.distributed.init_process_group("gloo", init_method=f"file://{files[1]}", rank=0, world_size=2)
    try:
        metrics = LocalizationMetrics(6)
        metrics.update(*[column[:3] for column in table_of()])
        here = metrics.compute()
    finally:
        torch.distributed.destroy_process_group()
    assert other.wait(timeout=HANG) == 0
    whole = LocalizationMetrics(6)
    whole.update(*table_of())
    torch.testing.assert_close(here, whole.compute())
    torch.testing.assert_close(torch.load(tmp_path / "out.pt", weights_only=True), whole.compute())
