"""The segmentation task without a trainer: losses, metrics, images of several sizes, prediction, invalid masks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import jaccard_score
from torch import nn

from striate.models import DiceLoss, PixelCrossEntropy, WeightedLosses, pixel_cross_entropy, soft_dice_loss
from striate.tasks import SemanticSegmentation
from striate.tasks.metrics import BoundaryIoU
from striate.tasks.semantic_segmentation import check_masks, uniform_parts
from striate.tests.helpers.tiny_segmenter import Thresholds, TinySegmenter, WithAuxiliary


def batch(sizes, classes=11, seed=0, listed=False):
    """A batch of images and masks of the given sizes (height, width)."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
    masks = [torch.randint(0, classes, size, generator=generator, dtype=torch.uint8) for size in sizes]
    for mask in masks:
        mask[0, : mask.shape[1] // 2] = 255
    whole = len(set(sizes)) == 1 and not listed
    return {
        "image": torch.stack(images) if whole else images,
        "mask": torch.stack(masks) if whole else masks,
        "index": torch.arange(len(sizes)),
        "unreadable": [],
    }


def evaluate(task, *batches):
    metrics = task.metrics("val")
    for data in batches:
        _, outputs = task.losses(data)
        task.update_metrics(metrics, outputs, data)
    return task.compute_metrics(metrics)


def test_training_loss_is_cross_entropy_over_all_counted_pixels():
    task = SemanticSegmentation(TinySegmenter(), class_weights=[0.5] + [1.0] * 10, label_smoothing=0.1)
    data = batch([(8, 12)] * 2)
    losses, _ = task.train().losses(data)
    weights = torch.tensor([0.5] + [1.0] * 10)
    expected = F.cross_entropy(
        task.model(data["image"]), data["mask"].long(), weights, ignore_index=255, label_smoothing=0.1
    )
    torch.testing.assert_close(losses["loss_pixel"], expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_torchs_cross_entropy_trains_as_ours_does(weighted):
    plain = nn.CrossEntropyLoss(ignore_index=255)
    loss = WeightedLosses({"ce": plain}) if weighted else plain
    task = SemanticSegmentation(TinySegmenter(), loss=loss).train()
    data = batch([(8, 12)] * 2)
    losses, _ = task.losses(data)
    reference = SemanticSegmentation(task.model).train().losses(data)[0]["loss_pixel"]
    torch.testing.assert_close(losses["loss_ce" if weighted else "loss_pixel"], reference)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.NLLLoss(), WeightedLosses({"ce": nn.CrossEntropyLoss()})])
def test_torchs_losses_must_ignore_what_masks_ignore(loss):
    with pytest.raises(ValueError, match="^loss: ignore_index of .*Loss must be 255.*got -100; pass ignore_index=255"):
        SemanticSegmentation(TinySegmenter(), loss=loss)


def test_weighted_terms_have_names_and_auxiliary_heads_are_weighted():
    loss = WeightedLosses({"ce": PixelCrossEntropy(), "dice": DiceLoss()}, {"dice": 0.5})
    task = SemanticSegmentation(WithAuxiliary(), loss=loss, auxiliary_weight=0.3)
    data = batch([(8, 12)] * 2)
    losses, _ = task.train().losses(data)
    logits, mask = task.model(data["image"]), data["mask"]
    assert set(losses) == {"loss_ce", "loss_dice", "loss_aux1", "loss_aux2"}
    torch.testing.assert_close(losses["loss_dice"], 0.5 * soft_dice_loss(logits, mask))
    expected = 0.3 * (pixel_cross_entropy(2 * logits, mask) + 0.5 * soft_dice_loss(2 * logits, mask))
    torch.testing.assert_close(losses["loss_aux1"], expected)
    assert set(task.eval().losses(data)[0]) == {"loss_pixel"}


def test_evaluation_loss_is_the_mean_over_images_for_any_batch_size():
    task = SemanticSegmentation(TinySegmenter(), loss=DiceLoss()).eval()
    data = batch([(8, 12), (8, 12), (8, 12)])
    data["mask"][1] = 255
    each = [pixel_cross_entropy(task.model(data["image"][i : i + 1]), data["mask"][i : i + 1]) for i in range(3)]
    assert each[1] == 0
    torch.testing.assert_close(task.losses(data)[0]["loss_pixel"], torch.stack(each).mean())
    listed = {"image": list(data["image"]), "mask": list(data["mask"])}
    torch.testing.assert_close(task.losses(listed)[0]["loss_pixel"], torch.stack(each).mean())


def test_metrics_of_images_of_several_sizes_equal_scikit_learn():
    task = SemanticSegmentation(TinySegmenter(5), num_classes=5).eval()
    batches = [batch([(8, 12), (9, 5), (20, 3)], 5, 1), batch([(6, 6)] * 2, 5, 2)]
    metrics = evaluate(task, *batches)
    targets, predicted = [], []
    for data in batches:
        for image, mask in zip(data["image"], data["mask"], strict=True):
            counted = mask != 255
            targets.append(mask[counted].numpy())
            predicted.append(task.model(image[None]).argmax(1)[0][counted].numpy())
    targets, predicted = np.concatenate(targets), np.concatenate(predicted)
    assert metrics["miou"].item() == pytest.approx(jaccard_score(targets, predicted, average="macro"))
    assert metrics["fwiou"].item() == pytest.approx(jaccard_score(targets, predicted, average="weighted"))
    assert metrics["acc"].item() == pytest.approx((targets == predicted).mean())
    assert set(metrics) == {"miou", "fwiou", "acc", "acc_class", "boundary_miou"}
    assert set(evaluate(SemanticSegmentation(TinySegmenter(5), boundary=None).eval(), batches[0])) == {
        "miou", "fwiou", "acc", "acc_class"
    }  # fmt: skip
    table = task.class_table("val")
    assert list(table) == ["pixels", "accuracy", "iou", "boundary_iou"]
    assert table["pixels"].tolist() == np.bincount(targets, minlength=5).tolist()
    assert table["iou"].nanmean() == metrics["miou"]
    assert task.confusion_matrix("val").sum() == len(targets)


def test_a_perfect_model_scores_one_and_ignored_images_do_not_count():
    task = SemanticSegmentation(Thresholds()).eval()
    data = batch([(16, 16), (10, 20)], 2)
    data["mask"] = [(image[0] >= 100).to(torch.uint8) for image in data["image"]]
    data["mask"][0][:, :4] = 255
    for value in evaluate(task, data).values():
        assert value == 1
    ignored = {"image": data["image"][:1], "mask": [torch.full((16, 16), 255, dtype=torch.uint8)]}
    assert task.losses(ignored)[0]["loss_pixel"] == 0
    assert all(value == 1 for value in evaluate(task, ignored).values())
    alone = SemanticSegmentation(Thresholds()).eval()
    assert all(math.isnan(value) for value in evaluate(alone, ignored).values())


def test_hand_computed_metrics():
    task = SemanticSegmentation(Thresholds(3), boundary=0.02).eval()
    image = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    image[:, 0, 4:8, 4:8] = 200  # all 16 pixels of class 1 are predicted, and 127 of the 128 of class 0
    mask = (image[:, 0] >= 100).to(torch.uint8)
    image[:, 0, 0, 0] = 200
    metrics = evaluate(task, {"image": image, "mask": mask})
    assert metrics["acc"].item() == pytest.approx(143 / 144)
    assert metrics["acc_class"].item() == pytest.approx((127 / 128 + 16 / 16) / 2)
    assert metrics["miou"].item() == pytest.approx((127 / 128 + 16 / 17) / 2)
    assert metrics["fwiou"].item() == pytest.approx((128 * 127 / 128 + 16 * 16 / 17) / 144)
    boundary = BoundaryIoU(3, 0.02)
    boundary.update((image[:, 0] >= 100).to(torch.uint8), mask)
    # class 1: the 12 outer pixels of its square, and the corner. Class 0: in the ground truth the frame of 44 and the
    # 20 around the square; in the prediction 43 of the frame, and one more at (1, 1), beside the corner
    assert boundary.compute()[:2].tolist() == pytest.approx([63 / 65, 12 / 13])
    assert metrics["boundary_miou"].item() == pytest.approx((63 / 65 + 12 / 13) / 2)


def test_models_that_return_no_tensor_are_rejected():
    class Other(torch.nn.Module):
        num_classes = 11

        def forward(self, images):
            return {"out": images.float(), "aux": images.float()}

    for training in (True, False):
        with pytest.raises(TypeError, match=r"model: .*logits.*got dict from Other.*Torchvision"):
            SemanticSegmentation(Other()).train(training).losses(batch([(4, 5)] * 2))


def test_windows_scales_and_flip_apply_in_evaluation_and_prediction_only():
    plain = SemanticSegmentation(TinySegmenter())
    task = SemanticSegmentation(plain.model, window=(8, 10), overlap=0.5, scales=(1.0, 1.5), flip=True)
    shapes = []
    task.model.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    data = batch([(16, 16)] * 2)
    task.train().losses(data)
    assert shapes == [(2, 3, 16, 16)]
    shapes.clear()
    losses, (predicted,) = task.eval().losses(data)
    # strides 4 and 5: 3 rows, 3 columns; at 24 x 24: 5 rows, 4 columns; each mirrored too
    assert shapes == [(2, 3, 8, 10)] * 2 * (3 * 3 + 5 * 4)
    logits = task._evaluated(data["image"])
    assert torch.equal(predicted, logits.argmax(1).to(torch.uint8))
    torch.testing.assert_close(logits.logsumexp(1), torch.zeros(2, 16, 16), atol=1e-5, rtol=0)
    assert losses["loss_pixel"] != plain.eval().losses(data)[0]["loss_pixel"]
    assert torch.equal(task.predict(data["image"])[1]["mask"], predicted[1])


def test_predictions_have_the_requested_size():
    task = SemanticSegmentation(Thresholds()).eval()
    image = torch.zeros(3, 4, 8, dtype=torch.uint8)
    image[0, :, 4:] = 200
    tall = image.transpose(1, 2).contiguous()
    first, second = task.predict_batch([image, tall], torch.tensor([[8, 16], [8, 4]]))
    assert first["mask"].dtype == torch.uint8 and first["mask"].shape == (8, 16) and second["mask"].shape == (8, 4)
    assert torch.equal(first["mask"], (torch.arange(16) >= 8).to(torch.uint8).expand(8, 16))
    assert torch.equal(second["mask"], (torch.arange(8) >= 4).to(torch.uint8)[:, None].expand(8, 4))
    (own,) = task.predict(image[None])
    assert torch.equal(own["mask"], (image[0] >= 100).to(torch.uint8))


def test_prediction_of_a_cropped_image_is_rejected():
    task = SemanticSegmentation(Thresholds()).eval()
    data = {"image": torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "path": ["a.jpg"], "unreadable": []}
    with pytest.raises(ValueError, match=r"val_transform: must only resize.*val_transform null"):
        task.predict_step(data, 0)
    data |= {"file_size": torch.tensor([[6, 6]]), "corners": torch.tensor([[[0.0, 0], [4, 0], [0, 4]]])}
    assert task.predict_step(data, 0)[0]["mask"].shape == (6, 6)
    with pytest.raises(ValueError, match="val_transform: must only resize"):
        task.predict_step(data | {"corners": data["corners"] - 1}, 0)
    assert task.predict_step({"image": [], "unreadable": []}, 0) == []


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_invalid_masks_are_rejected(listed, training):
    task = SemanticSegmentation(TinySegmenter()).train(training)
    data = batch([(4, 5)] * 2, listed=listed)
    data["mask"][1][2, 2:4], data["mask"][0][3, 3] = 11, 254
    with pytest.raises(ValueError, match=r"mask: .* 0 … 10 or 255 = ignore, got") as rejected:
        task.losses(data)
    # in a list, only the first image with invalid values
    assert ("got 254 (1 pixel)" if listed else "got 11 (2 pixels), 254 (1 pixel)") in str(rejected.value)
    data = batch([(4, 5)] * 2, listed=listed)
    data["mask"] = [mask[:, :-1] for mask in data["mask"]] if listed else data["mask"][..., :-1]
    with pytest.raises(ValueError, match=r"mask: .*\[4, 5\] \(height, width\), got \[4, 4\]"):
        task.losses(data)


def test_masks_that_the_data_module_checks_are_not_checked_again():
    task = SemanticSegmentation(TinySegmenter())
    data = batch([(4, 5)] * 2)
    data["mask"][0, 0, 0] = 60
    with pytest.raises(ValueError, match=r"mask.*got 60 \(1 pixel\)"):
        check_masks(data, 11)
    check_masks(data, None)
    task.trainer = SimpleNamespace(datamodule=SimpleNamespace(checks_targets=True))
    with pytest.raises(IndexError, match="Target 60 is out of bounds"):  # torch's own
        task.losses(data)
    task.trainer = SimpleNamespace(datamodule=object())
    with pytest.raises(ValueError, match="mask.*got 60"):
        task.losses(data)


def test_masks_of_another_dtype_and_logits_of_another_shape_are_rejected():
    data = batch([(4, 5)] * 2)
    with pytest.raises(TypeError, match="mask: must be uint8.*got torch.int64"):
        check_masks(data | {"mask": data["mask"].long()}, 11)
    model = TinySegmenter(7)
    model.num_classes = 11  # which its logits contradict
    task = SemanticSegmentation(model)
    for training in (True, False):
        with pytest.raises(ValueError, match=r"model: .*logits \[2, 11, 4, 5\] .*got \[2, 7, 4, 5\]"):
            task.train(training).losses(data)
    with pytest.raises(ValueError, match="train_transform: .*one size"):
        task.train().losses(batch([(4, 5), (5, 4)]))


def test_uniform_parts_of_a_batch():
    data = batch([(4, 5), (6, 3)])
    assert [(tuple(i.shape), tuple(m.shape)) for i, m in uniform_parts(data)] == [
        ((1, 3, 4, 5), (1, 4, 5)), ((1, 3, 6, 3), (1, 6, 3))
    ]  # fmt: skip
    assert len(list(uniform_parts(batch([(4, 5)] * 3)))) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": torch.nn.Identity()}, "num_classes.*Identity.*got None"),
        ({"num_classes": 7}, "num_classes: the model TinySegmenter has 11 classes, got 7"),
        ({"model": TinySegmenter(256)}, r"num_classes.*\[2, 255\], got 256"),
        ({"class_weights": [1.0]}, "class_weights.*11, got 1"),
        ({"loss": DiceLoss(), "label_smoothing": 0.1}, "loss: .*label_smoothing.*got DiceLoss"),
        ({"label_smoothing": 1.5}, r"label_smoothing.*\[0, 1\), got 1.5"),
        ({"window": (0, 5)}, r"window.*got \(0, 5\)"),
        ({"overlap": 1.0}, "overlap.*got 1.0"),
        ({"boundary": 0}, "^boundary.*got 0; null"),
        ({"scales": []}, r"scales.*got \[\]"),
        ({"scales": [1.0, -1.0]}, r"scales.*got \[1.0, -1.0\]"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SemanticSegmentation(**({"model": TinySegmenter()} | arguments))


@pytest.mark.parametrize("loss", [None, DiceLoss(), WeightedLosses({"ce": PixelCrossEntropy(), "dice": DiceLoss()})])
def test_one_batch_is_overfitted(loss):
    from striate.datamodules import DigitScenes

    data = DigitScenes("semantic_segmentation", image_size=32, train_size=4, val_size=1, max_digits=1, scale=(0.6, 0.8),
                       batch_size=4, num_workers=0)  # fmt: skip
    data.setup("fit")
    (one,) = data.train_dataloader()
    torch.manual_seed(0)
    task = SemanticSegmentation(
        TinySegmenter(width=32), loss=loss, optimizer=lambda groups: torch.optim.Adam(groups, lr=0.02)
    )
    optimizer = task.configure_optimizers()
    task.train()
    for _ in range(120):
        total = sum(task.losses(one)[0].values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    metrics = evaluate(task.eval(), one)
    assert metrics["fwiou"] > 0.85 and metrics["acc_class"] > 0.8, metrics
