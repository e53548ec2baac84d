"""`Task.predict` outside a trainer: evaluation and restored modes, images of any kind and size, names of labels."""

import re

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from striate.datamodules import ImageFolder
from striate.models import Classifier, PlainCNN
from striate.tasks import Classification, Detection, Localization, SemanticSegmentation, Task
from striate.tasks.prediction import CHUNK, read_any
from striate.tests.helpers.detector_inputs import random_images
from striate.tests.helpers.fixtures import TinyNet, batch, make_folder, noisy_image, write_image
from striate.tests.helpers.tiny_detector import Known, TinyDetector
from striate.tests.helpers.tiny_segmenter import Thresholds, TinySegmenter
from striate.tests.helpers.training import make_trainer


class NormalizedSegmenter(TinySegmenter):
    """A segmenter with batch normalization, which training mode would change."""

    def __init__(self) -> None:
        super().__init__(dropout=0.5)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        return super().forward(self.norm(images / 255).clamp(0, 1))


class TinyLocalizer(TinyNet):
    """Logits, and the middle of the image as the box."""

    def forward(self, images):
        return super().forward(images), torch.tensor([[0.25, 0.25, 0.75, 0.75]]).expand(len(images), 4)


TASKS = {
    "classification": lambda: Classification(TinyNet(dropout=0.5)),
    "localization": lambda: Localization(TinyLocalizer(dropout=0.5)),
    "segmentation": lambda: SemanticSegmentation(NormalizedSegmenter()),
    "detection": lambda: Detection(TinyDetector(dropout=0.5)),
}


def make(name: str) -> Task:
    torch.manual_seed(0)
    return TASKS[name]()


def same(first, second) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    return first == second


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("way", ["predict", "batch", "predict_step"])
def test_prediction_evaluates_and_restores_each_mode(name, way):
    task, images = make(name), torch.stack(random_images((32, 32), (32, 32)))
    frozen = next(module for module in task.modules() if isinstance(module, nn.BatchNorm2d))
    dropout = next(module for module in task.modules() if isinstance(module, nn.Dropout))
    run = {
        "predict": lambda: task.predict(list(images)),
        "batch": lambda: task.predict(images),
        "predict_step": lambda: task.predict_step({"image": images, "unreadable": []}, 0),
    }[way]
    expected = [
        {key: value for key, value in one.items() if "name" not in key or way != "predict_step"}
        for one in task.eval().predict(images)
    ]
    task.train()
    frozen.eval()
    modes = [module.training for module in task.modules()]
    state = {key: value.clone() for key, value in task.state_dict().items()}
    for _ in range(2):
        assert all(same(one, other) for one, other in zip(run(), expected, strict=True))
    assert [module.training for module in task.modules()] == modes
    assert task.training and dropout.training and not frozen.training
    assert all(torch.equal(value, state[key]) for key, value in task.state_dict().items())
    assert torch.is_grad_enabled() and all(parameter.requires_grad for parameter in task.parameters())


@pytest.mark.parametrize("name", ["classification", "segmentation"])
def test_a_validation_step_by_hand_evaluates(name):
    task, data = make(name), batch([0, 1])
    data["mask"] = torch.zeros(2, 32, 32, dtype=torch.uint8)
    state = {key: value.clone() for key, value in task.model.state_dict().items()}
    task.train().validation_step(data, 0)
    assert all(torch.equal(value, state[key]) for key, value in task.model.state_dict().items())
    assert task.training and task.metrics("val")["confusion"].compute().sum() > 0


def test_a_detector_evaluates_where_it_detects_and_not_in_its_losses():
    torch.manual_seed(0)
    detector, images = TinyDetector(dropout=0.5), random_images((32, 32), (40, 32))
    state = {key: value.clone() for key, value in detector.state_dict().items()}
    first, second = detector(images), detector(images)
    assert all(same(one, other) for one, other in zip(first, second, strict=True))
    assert all(torch.equal(value, state[key]) for key, value in detector.state_dict().items())
    assert all(module.training for module in detector.modules())
    target = {"boxes": torch.tensor([[2.0, 2.0, 20.0, 20.0]]), "labels": torch.tensor([1])}
    detector.losses(images, [target, target])
    assert not torch.equal(detector.backbone[1].running_mean, state["backbone.1.running_mean"])


def test_prediction_right_after_training_is_that_of_evaluation(tmp_path):
    data = ImageFolder(str(make_folder(tmp_path, 8)), val_fraction=0.25, batch_size=4, num_workers=0)
    torch.manual_seed(0)
    task = Classification(Classifier(PlainCNN((4, 8)), 2), optimizer=lambda groups: torch.optim.Adam(groups, lr=0.02))
    make_trainer(max_epochs=2).fit(task, data)
    assert task.training
    results = task.predict(str(tmp_path))
    assert len(results) == 16 and task.training
    assert results == task.eval().predict(sorted(tmp_path.rglob("*.png")))
    assert [one["name"] for one in results] == [data.class_names[one["label"]] for one in results]


# -- images of any kind ----------------------------------------------------------------------------


def test_one_image_of_every_kind_gives_the_same(tmp_path):
    array = noisy_image(1, 5, 20)
    path = write_image(tmp_path / "a.png", array)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    task = Classification(TinyNet())
    task.class_names = ["bright", "dark"]
    expected = task.predict(tensor[None])[0]
    assert expected["name"] == task.class_names[expected["label"]]
    assert expected["top_names"] == [task.class_names[label] for label in expected["top_labels"]]
    kinds = [array, tensor, tensor / 255, tensor.double() / 255, array / 255, Image.fromarray(array)]
    for image in kinds:
        assert task.predict(image) == [expected]
        assert task.predict([image]) == [expected]
    for image in (path, str(path)):
        assert task.predict(image) == [{"path": str(path)} | expected]
    assert task.predict([path, *kinds]) == [{"path": str(path)} | expected, *[expected] * len(kinds)]
    assert task.predict([]) == [] and task.predict(torch.zeros(0, 3, 8, 8)) == []


def test_gray_images_and_alpha_channels(tmp_path):
    gray = np.arange(60, dtype=np.uint8).reshape(6, 10)
    expected = np.repeat(gray[..., None], 3, 2)
    kinds = [
        gray,
        gray[..., None],
        torch.from_numpy(gray)[None],
        Image.fromarray(gray),
        Image.fromarray(gray).convert("RGBA"),
    ]
    for image in [*kinds, write_image(tmp_path / "gray.png", gray)]:
        assert np.array_equal(read_any(image, "image"), expected)
    turned = Image.fromarray(expected)
    turned.getexif()[0x0112] = 6  # to be turned by 90 degrees
    assert np.array_equal(read_any(turned, "image"), np.rot90(expected, -1))
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    assert np.array_equal(read_any(tmp_path / "turned.png", "image"), np.rot90(expected, -1))


RGB = torch.rand(3, 8, 9)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (RGB * 255, ValueError, r"images\[1\]: floating point .* got values from"),
        (RGB.numpy().transpose(1, 2, 0) * 4 - 2, ValueError, r"images\[1\]: floating point .* got values from"),
        (RGB.long(), TypeError, r"images\[1\]: must be uint8 or floating point .*got torch.int64"),
        (np.zeros((8, 9), np.uint16), TypeError, r"images\[1\]: must be uint8 or floating point .*got uint16"),
        (RGB.permute(1, 2, 0), ValueError, r"images\[1\]: .*\[3, H, W\].*got \[8, 9, 3\]; .*permute\(2, 0, 1\)"),
        (RGB.numpy(), ValueError, r"images\[1\]: .*\[H, W, 3\].*got \[3, 8, 9\]; .*transpose\(1, 2, 0\)"),
        (np.zeros((8, 9, 4), np.uint8), ValueError, r"images\[1\]: .*got \[8, 9, 4\]; remove the alpha channel"),
        (RGB[None], ValueError, r"images\[1\]: .*got \[1, 3, 8, 9\]"),
        (np.zeros((0, 9), np.uint8), ValueError, r"images\[1\]: .*at least one pixel, got \[0, 9\]"),
        (Image.new("I;16", (4, 4)), ValueError, r"images\[1\]: .*8 bits.*mode 'I;16'"),
        (3, TypeError, r"images\[1\]: must be a path, PIL image, array or tensor, got int"),
        ("no.png", ValueError, r"^no\.png: No such file"),
    ],
)
def test_what_is_no_image_is_named(image, error, message):
    with pytest.raises(error, match=message):
        Classification(TinyNet()).predict([RGB, image])


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png: not a readable image"):
        Classification(TinyNet()).predict(tmp_path / "broken.png")
    with pytest.raises(FileNotFoundError, match=r"images: no such file .*'nothing/\*\.png'"):
        Classification(TinyNet()).predict("nothing/*.png")
    with pytest.raises(FileNotFoundError, match="images: no image files in the folder"):
        (tmp_path / "empty").mkdir()
        Classification(TinyNet()).predict(tmp_path / "empty")


def test_sizes_may_differ_and_order_is_kept():
    task = Classification(TinyNet())
    sizes = [(8, 8)] * (CHUNK + 3) + [(20, 9), (8, 8), (9, 20), (9, 20)]
    images = random_images(*sizes)
    for image, result in zip(images, task.predict(images), strict=True):
        (alone,) = task.predict(image[None])
        assert result["score"] == pytest.approx(alone["score"], abs=1e-6) and result["name"] == str(alone["label"])


# -- the transform of the training run -----------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_no_images_give_no_results(name):
    assert make(name).predict([]) == []


def test_results_are_in_pixels_of_the_given_image_after_the_transform():
    objects = [[0.5, 0.5, 1, 1, 0, 0.9], [0, 0, 0.5, 1, 1, 0.4]]
    detection = Detection(Known(objects))
    detection.val_transform = [A.Resize(30, 44)]
    detection.class_names = ["left", "right"]
    (found, other) = detection.predict(random_images((40, 70), (7, 5)))
    torch.testing.assert_close(found["boxes"], torch.tensor([[35.0, 20, 70, 40], [0, 0, 35, 40]]), atol=0.01, rtol=0)
    torch.testing.assert_close(other["boxes"], torch.tensor([[2.5, 3.5, 5, 7], [0, 0, 2.5, 7]]), atol=0.01, rtol=0)
    assert found["names"] == ["left", "right"]

    segmentation = SemanticSegmentation(Thresholds())
    segmentation.val_transform = A.Compose([A.Resize(8, 8)])
    segmentation.class_names = ["dark", "bright"]
    image = np.zeros((24, 16, 3), np.uint8)
    image[:, 8:] = 200
    (result,) = segmentation.predict(image)
    assert torch.equal(result["mask"], torch.from_numpy(image[..., 0] > 0).to(torch.uint8))
    assert result["names"] == {0: "dark", 1: "bright"}
    assert segmentation.predict(image[:, :8])[0]["names"] == {0: "dark"}
    segmentation.val_transform = [A.CenterCrop(8, 8)]
    with pytest.raises(ValueError, match="val_transform: must only resize the images to predict"):
        segmentation.predict(image)

    localization = Localization(TinyLocalizer())
    localization.val_transform = [A.Resize(32, 32)]
    (one,) = localization.predict(image)
    torch.testing.assert_close(one["box"], torch.tensor([4.0, 6, 12, 18]), atol=0.01, rtol=0)


def test_a_subclass_without_predictions_says_what_to_implement():
    with pytest.raises(NotImplementedError, match=re.escape("Task: implement predict_batch(images)")):
        Task(TinyNet()).predict(torch.zeros(1, 3, 8, 8))
