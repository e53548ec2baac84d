"""The localization task: its losses and metrics by hand, predictions in pixels, and runs on DigitScenes."""

import socket
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from striate.callbacks import RandomState
from striate.datamodules import DigitScenes
from striate.models import BoxLoss, Localizer, PlainCNN
from striate.tasks import Cosine, Localization
from striate.tasks.localization import boxes_in_file, check_boxes
from striate.tasks.metrics import LocalizationMetrics
from striate.tests.helpers.fixtures import TinyNet
from striate.tests.helpers.training import SaveAndStop, make_trainer


class Fixed(torch.nn.Module):
    """Gives the logits and boxes it was made with."""

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


def test_the_losses_are_weighted_and_the_box_is_squared_distance():
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


def test_of_boxes_for_each_class_that_of_the_true_class_is_trained():
    boxes = [[[0, 0, 0.4, 0.5], [9, 9, 9, 9]], [[8, 8, 8, 8], [0.25, 0.05, 0.75, 0.75]]]
    task = Localization(Fixed([[0.0, 2.0], [1.0, 0.0]], boxes))  # which takes either for the other
    losses, _ = task.losses({**DATA, "label": torch.tensor([0, 1])})
    assert losses["loss_box"].item() == pytest.approx((0.1**2 + 0.2**2) / 2)
    losses["loss_box"].backward()
    assert task.model.boxes.grad.abs().sum(-1).gt(0).tolist() == [[True, False], [False, True]]


def test_a_batch_without_images_costs_exactly_nothing_and_leaves_the_graph_alive():
    task = Localization(Fixed(LOGITS, [[0.0] * 4] * 2))
    losses, _ = task.losses(batch([], []))
    total = sum(losses.values())
    total.backward()
    assert total.item() == 0 and task.model.logits.grad.abs().sum() == task.model.boxes.grad.abs().sum() == 0


# A table of six classes: the logits' order, the IoU of each named class's box with the truth, which is 0 0 1 1
#   image 0: right at once, IoU 0.80          image 1: right at once, IoU 0.40
#   image 2: wrong at once, second, IoU 0.60  image 3: not among five, IoU 0.75
ORDERS = [[0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5], [2, 5, 0, 1, 3, 4], [0, 1, 2, 4, 5, 3]]
LABELS, WIDTHS = [0, 1, 5, 3], [0.80, 0.40, 0.60, 0.75]


def table_of():
    logits = torch.zeros(4, 6)
    for image, order in enumerate(ORDERS):
        logits[image, order] = torch.arange(6, 0, -1).float()
    boxes = torch.tensor([[0.0, 0.0, width, 1.0] for width in WIDTHS])
    return logits, boxes, torch.tensor(LABELS), torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 4)


def test_metrics_of_one_box_by_hand():
    metrics = LocalizationMetrics(6)
    logits, boxes, labels, truth = table_of()
    metrics.update(logits[:1], boxes[:1], labels[:1], truth[:1])
    metrics.update(logits[1:], boxes[1:], labels[1:], truth[1:])
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx({
        "acc": 2 / 4, "cls_err": 2 / 4, "loc_acc": 1 / 4, "loc_err": 3 / 4, "cls_err5": 1 / 4, "loc_err5": 2 / 4,
        "box_iou": (0.8 + 0.4 + 0.6 + 0.75) / 4, "box_acc50": 3 / 4, "box_acc75": 2 / 4,
    })  # fmt: skip


def test_metrics_of_a_box_for_each_class_by_hand():
    logits, boxes, labels, truth = table_of()
    each = torch.tensor([0.0, 0.0, 0.1, 1.0]).repeat(4, 6, 1)  # the others' boxes are bad
    each[torch.arange(4), labels] = boxes
    each[2, 2] = torch.tensor([0.0, 0.0, 0.9, 1.0])  # but not that of the label predicted for image 2
    metrics = LocalizationMetrics(6)
    metrics.update(logits, each, labels, truth)
    got = metrics.compute()
    assert got["loc_err"].item() == 3 / 4 and got["loc_err5"].item() == 2 / 4
    assert got["box_iou"].item() == pytest.approx((0.8 + 0.4 + 0.9 + 0.1) / 4)


def test_of_five_guesses_one_has_to_be_right_in_label_and_box():
    logits, _, labels, truth = table_of()
    each = truth[:, None].expand(-1, 6, -1).clone()  # every box is the true one
    each[torch.arange(4), labels] = torch.tensor([0.0, 0.0, 0.4, 1.0])  # but that of the true class
    metrics = LocalizationMetrics(6)
    metrics.update(logits, each, labels, truth)
    got = metrics.compute()
    assert got["loc_err5"].item() == 1 and got["cls_err5"].item() == 1 / 4
    each[2, labels[2]] = truth[2]
    metrics.reset()
    metrics.update(logits, each, labels, truth)
    assert metrics.compute()["loc_err5"].item() == 3 / 4


def test_a_box_that_sticks_out_is_clipped_and_half_is_enough():
    metrics = LocalizationMetrics(2)
    boxes = torch.tensor([[-1.0, -1.0, 2.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    truth = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    metrics.update(torch.tensor([[1.0, 0.0]] * 2), boxes, torch.tensor([0, 0]), truth)
    got = metrics.compute()
    assert got["box_iou"].item() == 0.25 and got["loc_acc"].item() == 0.5 and "loc_err5" not in got
    metrics.reset()
    metrics.update(torch.zeros(0, 2), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    assert all(value.item() == 0 for value in metrics.compute().values())


def test_the_task_counts_boxes_in_pixels_and_the_confusion():
    task = Localization(Fixed(LOGITS, [[0, 0, 0.4, 0.5], [0.25, 0.25, 0.75, 0.75]])).eval()
    metrics = task.metrics("val")
    task.update_metrics(metrics, task.losses(DATA)[1], DATA)
    got = task.compute_metrics(metrics)
    assert got["box_iou"].item() == pytest.approx((0.8 + 1) / 2) and got["loc_acc"].item() == 0.5
    assert task.confusion_matrix("val").tolist() == [[1, 1], [0, 0]]


def test_predictions_are_in_pixels_of_the_image_given():
    boxes = [[[0.5, 0.5, 1.5, 1.0], [-0.25, 0.0, 0.5, 0.25]]]
    task = Localization(Fixed([[0.0, 2.0]], boxes)).eval()
    (one,) = task.predict(torch.zeros(1, 3, 20, 40))
    assert one["label"] == 1 and one["score"] == pytest.approx(torch.tensor([0.0, 2.0]).softmax(0)[1].item())
    assert one["box"].tolist() == [0, 0, 20, 5]
    assert one["top_labels"] == [1, 0] and one["top_boxes"].tolist() == [[0, 0, 20, 5], [20, 10, 40, 20]]
    (agnostic,) = Localization(Fixed([[0.0, 2.0]], [[0, 0, 0.5, 0.5]])).predict(torch.zeros(1, 3, 20, 40))
    assert agnostic["box"].tolist() == [0, 0, 20, 10] and "top_boxes" not in agnostic


def test_boxes_find_their_way_back_to_the_file():
    # 100 x 60 resized to 200 x 120 and cropped by 30 and 10 on the left and on top
    corners = torch.tensor([[-30.0, -10.0], [170.0, -10.0], [-30.0, 110.0]])
    boxes = boxes_in_file(torch.tensor([[0.0, 0.0, 20.0, 30.0], [0.0, 0.0, 400.0, 30.0]]), corners, 100, 60)
    assert boxes.tolist() == [[15, 5, 25, 20], [15, 5, 100, 20]]
    for wrong in (corners.flip(0), torch.full((3, 2), torch.nan), corners + torch.tensor([[0.0], [5.0], [0.0]])):
        with pytest.raises(ValueError, match="val_transform leaves no way back to the image's own pixels"):
            boxes_in_file(boxes, wrong, 100, 60)


def test_boxes_outside_their_image_are_refused():
    check_boxes(torch.tensor([[0.0, 0.0, 40.0, 20.0]]), 20, 40)
    for box in ([0, 0, 41, 20], [0, 0, 40, 21], [-1, 0, 40, 20], [5, 5, 5, 9], [0, 9, 4, 3], [0, 0, float("nan"), 3]):
        with pytest.raises(ValueError, match=r"box 1 of the batch is \[.*in images of 40 x 20"):
            check_boxes(torch.tensor([[0, 0, 1, 1], box], dtype=torch.float32), 20, 40)
    task = Localization(Fixed(LOGITS, [[0.0] * 4] * 2))
    with pytest.raises(ValueError, match=r"box 1 of the batch is \[0.0, 0.0, 90.0, 20.0\]"):
        task.losses(batch([0, 1], [[0, 0, 1, 1], [0, 0, 90, 20]]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": torch.nn.Identity()}, "num_classes: Identity does not say how many classes"),
        ({"num_classes": 3}, "num_classes: 3, but the model Fixed tells 2 classes apart"),
        ({"label_smoothing": 1.0}, r"label_smoothing: 1.0 is not in \[0, 1\)"),
        ({"box_weight": -1.0}, "box_weight: -1.0; give numbers of at least 0"),
        ({"top_k": 0}, "top_k: 0; give 1 or more"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Localization(**({"model": Fixed(LOGITS, [[0.0] * 4] * 2)} | arguments))


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="TinyNet gave Tensor, but localization takes a pair of logits and boxes"):
        Localization(TinyNet()).losses(batch([0], [[0, 0, 1, 1]]))
    with pytest.raises(ValueError, match=r"boxes \[2, 3\] for 2 images of 2 classes, not \[2, 2\] and \[2, 4\]"):
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


def test_the_number_of_classes_is_compared_with_the_datas():
    task = Localization(Localizer("plain", 4))
    with pytest.raises(ValueError, match="Localizer tells 4 classes apart, but the data module DigitScenes has 10"):
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
    got = task.compute_metrics(metrics)
    assert got["acc"] == 1 and got["box_iou"] > 0.85, got


def test_a_few_epochs_bring_both_losses_down():
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
tables, port, out = sys.argv[1:]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=1, world_size=2)
metrics = LocalizationMetrics(6)
metrics.update(*torch.load(tables, weights_only=True))
torch.save(metrics.compute(), out)
torch.distributed.destroy_process_group()
"""


def test_two_processes_count_as_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.save([column[3:] for column in table_of()], tmp_path / "share.pt")  # not even: a mean of means would differ
    files = [str(tmp_path / "share.pt"), str(port), str(tmp_path / "out.pt")]
    other = subprocess.Popen([sys.executable, "-W", "ignore", "-c", OTHER_PROCESS, *files])
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=2)
    try:
        metrics = LocalizationMetrics(6)
        metrics.update(*[column[:3] for column in table_of()])
        here = metrics.compute()
    finally:
        torch.distributed.destroy_process_group()
    assert other.wait(timeout=60) == 0
    whole = LocalizationMetrics(6)
    whole.update(*table_of())
    torch.testing.assert_close(here, whole.compute())
    torch.testing.assert_close(torch.load(tmp_path / "out.pt", weights_only=True), whole.compute())
