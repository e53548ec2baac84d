"""The segmentation task by itself: losses, figures, images that differ in size, prediction, bad masks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import jaccard_score

from striate.models import DiceLoss, PixelCrossEntropy, WeightedLosses, pixel_cross_entropy, soft_dice_loss
from striate.tasks import SemanticSegmentation
from striate.tasks.metrics import BoundaryIoU
from striate.tasks.semantic_segmentation import check_masks, parts
from striate.tests.helpers.tiny_segmenter import Thresholds, TinySegmenter, WithAuxiliary


def batch(sizes, classes=11, seed=0, listed=False):
    """Images and masks of these sizes (height, width)."""
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


def figures(task, *batches):
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


def test_terms_of_a_sum_are_logged_by_name_and_auxiliary_heads_are_weighted():
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


def test_evaluation_loss_is_the_mean_over_images_whatever_the_batches():
    task = SemanticSegmentation(TinySegmenter(), loss=DiceLoss()).eval()
    data = batch([(8, 12), (8, 12), (8, 12)])
    data["mask"][1] = 255
    each = [pixel_cross_entropy(task.model(data["image"][i : i + 1]), data["mask"][i : i + 1]) for i in range(3)]
    assert each[1] == 0
    torch.testing.assert_close(task.losses(data)[0]["loss_pixel"], torch.stack(each).mean())
    listed = {"image": list(data["image"]), "mask": list(data["mask"])}
    torch.testing.assert_close(task.losses(listed)[0]["loss_pixel"], torch.stack(each).mean())


def test_figures_of_images_that_differ_in_size_are_scikit_learns():
    task = SemanticSegmentation(TinySegmenter(5), num_classes=5).eval()
    batches = [batch([(8, 12), (9, 5), (20, 3)], 5, 1), batch([(6, 6)] * 2, 5, 2)]
    got = figures(task, *batches)
    truth, said = [], []
    for data in batches:
        for image, mask in zip(data["image"], data["mask"], strict=True):
            counted = mask != 255
            truth.append(mask[counted].numpy())
            said.append(task.model(image[None]).argmax(1)[0][counted].numpy())
    truth, said = np.concatenate(truth), np.concatenate(said)
    assert got["miou"].item() == pytest.approx(jaccard_score(truth, said, average="macro"))
    assert got["fwiou"].item() == pytest.approx(jaccard_score(truth, said, average="weighted"))
    assert got["acc"].item() == pytest.approx((truth == said).mean())
    assert set(got) == {"miou", "fwiou", "acc", "acc_class", "boundary_miou"}
    assert set(figures(SemanticSegmentation(TinySegmenter(5), boundary=None).eval(), batches[0])) == {
        "miou", "fwiou", "acc", "acc_class"
    }  # fmt: skip
    table = task.class_table("val")
    assert list(table) == ["pixels", "accuracy", "iou", "boundary_iou"]
    assert table["pixels"].tolist() == np.bincount(truth, minlength=5).tolist()
    assert table["iou"].nanmean() == got["miou"]
    assert task.confusion_matrix("val").sum() == len(truth)


def test_a_perfect_model_scores_one_and_ignored_images_change_nothing():
    task = SemanticSegmentation(Thresholds()).eval()
    data = batch([(16, 16), (10, 20)], 2)
    data["mask"] = [(image[0] >= 100).to(torch.uint8) for image in data["image"]]
    data["mask"][0][:, :4] = 255
    for value in figures(task, data).values():
        assert value == 1
    ignored = {"image": data["image"][:1], "mask": [torch.full((16, 16), 255, dtype=torch.uint8)]}
    assert task.losses(ignored)[0]["loss_pixel"] == 0
    assert all(value == 1 for value in figures(task, ignored).values())
    alone = SemanticSegmentation(Thresholds()).eval()
    assert all(math.isnan(value) for value in figures(alone, ignored).values())


def test_each_figure_has_its_own_name():
    task = SemanticSegmentation(Thresholds(3), boundary=0.02).eval()
    image = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    image[:, 0, 4:8, 4:8] = 200  # 16 pixels are said to be of class 1, and are; one more is, of the 128 of class 0
    mask = (image[:, 0] >= 100).to(torch.uint8)
    image[:, 0, 0, 0] = 200
    got = figures(task, {"image": image, "mask": mask})
    assert got["acc"].item() == pytest.approx(143 / 144)
    assert got["acc_class"].item() == pytest.approx((127 / 128 + 16 / 16) / 2)
    assert got["miou"].item() == pytest.approx((127 / 128 + 16 / 17) / 2)
    assert got["fwiou"].item() == pytest.approx((128 * 127 / 128 + 16 * 16 / 17) / 144)
    boundary = BoundaryIoU(3, 0.02)
    boundary.update((image[:, 0] >= 100).to(torch.uint8), mask)
    # of class 1 the 12 outer pixels of its square and the corner; of class 0 the frame of 44 and the 20 around the
    # square in the truth, and of the frame 43 in the prediction, which has one more, at (1, 1), the corner's neighbour
    assert boundary.compute()[:2].tolist() == pytest.approx([63 / 65, 12 / 13])
    assert got["boundary_miou"].item() == pytest.approx((63 / 65 + 12 / 13) / 2)


def test_models_that_give_no_tensor_are_refused():
    class Other(torch.nn.Module):
        num_classes = 11

        def forward(self, images):
            return {"out": images.float(), "aux": images.float()}

    for training in (True, False):
        with pytest.raises(TypeError, match=r"Other gave dict, but .* striate.models.TorchvisionSegmentation"):
            SemanticSegmentation(Other()).train(training).losses(batch([(4, 5)] * 2))


def test_windows_scales_and_flip_act_in_evaluation_and_prediction_only():
    plain = SemanticSegmentation(TinySegmenter())
    task = SemanticSegmentation(plain.model, window=(8, 10), overlap=0.5, scales=(1.0, 1.5), flip=True)
    seen = []
    task.model.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    data = batch([(16, 16)] * 2)
    task.train().losses(data)
    assert seen == [(2, 3, 16, 16)]
    seen.clear()
    losses, (said,) = task.eval().losses(data)
    # by 4: 3 rows and, 5 wide, 3 columns; at 24 x 24: 5 and 4; each twice
    assert seen == [(2, 3, 8, 10)] * 2 * (3 * 3 + 5 * 4)
    logits = task._evaluated(data["image"])
    assert torch.equal(said, logits.argmax(1).to(torch.uint8))
    torch.testing.assert_close(logits.logsumexp(1), torch.zeros(2, 16, 16), atol=1e-5, rtol=0)
    assert losses["loss_pixel"] != plain.eval().losses(data)[0]["loss_pixel"]
    assert torch.equal(task.predict(data["image"])[1]["mask"], said[1])


def test_predictions_have_the_size_that_is_asked_for():
    task = SemanticSegmentation(Thresholds()).eval()
    image = torch.zeros(3, 4, 8, dtype=torch.uint8)
    image[0, :, 4:] = 200
    tall = image.transpose(1, 2).contiguous()
    first, second = task.predict([image, tall], torch.tensor([[8, 16], [8, 4]]))
    assert first["mask"].dtype == torch.uint8 and first["mask"].shape == (8, 16) and second["mask"].shape == (8, 4)
    assert torch.equal(first["mask"], (torch.arange(16) >= 8).to(torch.uint8).expand(8, 16))
    assert torch.equal(second["mask"], (torch.arange(8) >= 4).to(torch.uint8)[:, None].expand(8, 4))
    (own,) = task.predict(image[None])
    assert torch.equal(own["mask"], (image[0] >= 100).to(torch.uint8))


def test_prediction_of_a_cut_image_is_refused():
    task = SemanticSegmentation(Thresholds()).eval()
    data = {"image": torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "path": ["a.jpg"], "unreadable": []}
    with pytest.raises(ValueError, match=r"val_transform has a step that may cut, pad or move.*val_transform null"):
        task.predict_step(data, 0)
    data |= {"file_size": torch.tensor([[6, 6]]), "corners": torch.tensor([[[0.0, 0], [4, 0], [0, 4]]])}
    assert task.predict_step(data, 0)[0]["mask"].shape == (6, 6)
    with pytest.raises(ValueError, match="cut, pad or move"):
        task.predict_step(data | {"corners": data["corners"] - 1}, 0)
    assert task.predict_step({"image": [], "unreadable": []}, 0) == []


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_masks_that_do_not_fit_are_refused(listed, training):
    task = SemanticSegmentation(TinySegmenter()).train(training)
    data = batch([(4, 5)] * 2, listed=listed)
    data["mask"][1][2, 2:4], data["mask"][0][3, 3] = 11, 254
    with pytest.raises(ValueError, match=r"no class: .*; there are 11 classes, 0 to 10, and 255 = ignore") as refused:
        task.losses(data)
    # of a list the first image that has any
    assert ("no class: 254 (1 pixel);" if listed else "no class: 11 (2 pixels), 254 (1 pixel);") in str(refused.value)
    data = batch([(4, 5)] * 2, listed=listed)
    data["mask"] = [mask[:, :-1] for mask in data["mask"]] if listed else data["mask"][..., :-1]
    with pytest.raises(ValueError, match=r"masks of \[4, 4\] for images of \[4, 5\] \(height, width\)"):
        task.losses(data)


def test_masks_that_the_data_module_has_checked_are_not_looked_over_again():
    task = SemanticSegmentation(TinySegmenter())
    data = batch([(4, 5)] * 2)
    data["mask"][0, 0, 0] = 60
    with pytest.raises(ValueError, match=r"no class: 60 \(1 pixel\)"):
        check_masks(data, 11)
    check_masks(data, None)
    task._trainer = SimpleNamespace(datamodule=SimpleNamespace(checks_targets=True))
    with pytest.raises(IndexError, match="Target 60 is out of bounds"):  # torch's own
        task.losses(data)
    task._trainer = SimpleNamespace(datamodule=object())
    with pytest.raises(ValueError, match="no class: 60"):
        task.losses(data)


def test_masks_of_another_type_and_models_of_another_kind_are_refused():
    data = batch([(4, 5)] * 2)
    with pytest.raises(TypeError, match=r"masks are uint8, one class a pixel and 255 = ignore, and not torch.int64"):
        check_masks(data | {"mask": data["mask"].long()}, 11)
    task = SemanticSegmentation(TinySegmenter(7), num_classes=11)
    for training in (True, False):
        with pytest.raises(ValueError, match=r"gave logits \[2, 7, 4, 5\] for images \[2, 3, 4, 5\]; a segmentation "
                                             r"model of 11 classes gives \[2, 11, 4, 5\]"):  # fmt: skip
            task.train(training).losses(data)
    with pytest.raises(ValueError, match="training batch differ in size: end data.init_args.train_transform"):
        task.train().losses(batch([(4, 5), (5, 4)]))


def test_parts_of_a_batch():
    data = batch([(4, 5), (6, 3)])
    assert [(tuple(i.shape), tuple(m.shape)) for i, m in parts(data)] == [
        ((1, 3, 4, 5), (1, 4, 5)), ((1, 3, 6, 3), (1, 6, 3))
    ]  # fmt: skip
    assert len(list(parts(batch([(4, 5)] * 3)))) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": torch.nn.Identity()}, "num_classes: Identity does not say how many classes"),
        ({"num_classes": 256}, "num_classes: 256; masks of 8 bits tell 2 to 255"),
        ({"class_weights": [1.0]}, "class_weights: 1 numbers for 11 classes"),
        ({"loss": DiceLoss(), "label_smoothing": 0.1}, "label_smoothing and class_weights belong to the cross-entropy"),
        ({"label_smoothing": 1.5}, r"label_smoothing.*got 1\.5"),
        ({"window": (0, 5)}, r"window: \(0, 5\); give its height and width"),
        ({"overlap": 1.0}, "overlap: 1.0 is not a part of a window"),
        ({"boundary": 0}, "^boundary: 0 is not a part of the diagonal above 0, such as 0.02; null leaves it out"),
        ({"scales": []}, r"scales: \[\]; give factors above 0"),
        ({"scales": [1.0, -1.0]}, r"scales: \[1.0, -1.0\]; give factors above 0"),
    ],
)
def test_bad_arguments(arguments, message):
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
    got = figures(task.eval(), one)
    assert got["fwiou"] > 0.85 and got["acc_class"] > 0.8, got
