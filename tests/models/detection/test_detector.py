"""Base class of the detectors: resizing there and back, and errors for bad images and targets."""

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from striate.models.detection import Detector, ResizeAndPad, check_targets, scale_boxes


class Corner(Detector):
    """Detects one object in each image: its lower right quarter."""

    def detect(self, batch):
        return [
            {
                "boxes": torch.tensor([[w / 2, h / 2, w, h]]),
                "scores": torch.ones(1),
                "labels": torch.zeros(1, dtype=torch.int64),
            }
            for h, w in batch.sizes
        ]

    def compute_losses(self, batch, targets):
        return {"loss_box": torch.cat([target["boxes"] for target in targets]).sum()}


def images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def target(boxes, labels=None):
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels or [0] * len(boxes)).long()}


def test_images_of_the_right_size_are_only_stacked():
    given = images((8, 12), (8, 12))
    batch = ResizeAndPad(size_divisible=4)(given)
    assert batch.pixels.dtype == torch.uint8
    assert torch.equal(batch.pixels, torch.stack(given))
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)


def test_images_of_two_dtypes_become_float():
    whole = images((8, 12))[0]
    for given in ([whole, whole / 255], [whole / 255, whole]):
        batch = ResizeAndPad()(given)
        assert torch.allclose(batch.pixels, torch.stack([whole / 255] * 2))


def test_padding_on_the_right_and_below_has_the_fill_color():
    given = images((5, 7), (6, 4))
    batch = ResizeAndPad(size_divisible=8, fill=(0.1, 0.2, 0.3))(given)
    assert batch.pixels.shape == (2, 3, 8, 8)
    assert torch.allclose(batch.pixels[0, :, :5, :7], given[0] / 255)
    color = torch.tensor([0.1, 0.2, 0.3])[:, None]
    assert torch.equal(batch.pixels[0, :, 5:].flatten(1), color.expand(3, 24))
    assert torch.equal(batch.pixels[0, :, :5, 7], color.expand(3, 5))
    assert torch.equal(batch.pixels[1, :, :6, 4:].flatten(1), color.expand(3, 24))


@pytest.mark.parametrize(("short", "long"), [(30, 50), (64, 1000), (30, 31)])
def test_resizing_equals_torchvisions(short, long):
    given = images((40, 61), (61, 40), (33, 33))
    theirs, _ = GeneralizedRCNNTransform(short, long, [0.0] * 3, [1.0] * 3, 32)([image / 255 for image in given])
    batch = ResizeAndPad(short, long, size_divisible=32, fill=(0.0, 0.0, 0.0))(given)
    assert batch.sizes == theirs.image_sizes
    assert torch.allclose(batch.pixels, theirs.tensors, atol=1e-6)


def test_fixed_size_ignores_the_aspect_ratio():
    batch = ResizeAndPad(fixed_size=(20, 30))(images((5, 50), (40, 10)))
    assert batch.sizes == [(20, 30)] * 2
    assert batch.pixels.shape == (2, 3, 20, 30)


def test_max_size_alone_only_shrinks():
    resize = ResizeAndPad(max_size=20)
    assert resize.target_size(10, 40) == (5, 20)
    assert resize.target_size(10, 15) == (10, 15)


def test_training_draws_among_the_sizes_and_evaluation_uses_the_last():
    resize = ResizeAndPad([10, 20, 30])
    torch.manual_seed(0)
    assert {resize.target_size(5, 5) for _ in range(50)} == {(10, 10), (20, 20), (30, 30)}
    resize.eval()
    assert {resize.target_size(5, 5) for _ in range(20)} == {(30, 30)}


def test_boxes_are_mapped_there_and_back():
    detector = Corner(1, ResizeAndPad(32, size_divisible=32)).train()
    detected = detector(images((16, 8), (50, 100)))
    assert torch.allclose(detected[0]["boxes"], torch.tensor([[4.0, 8.0, 8.0, 16.0]]))
    assert torch.allclose(detected[1]["boxes"], torch.tensor([[50.0, 25.0, 100.0, 50.0]]))
    # 16 x 8 becomes 64 x 32: boxes are four times as large
    losses = detector.losses(images((16, 8)), [target([[1.0, 2.0, 3.0, 4.0]])])
    assert losses["loss_box"] == 40


def test_boxes_are_scaled_by_each_side():
    boxes = scale_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (10, 20), (20, 10))
    assert boxes.tolist() == [[0.5, 4.0, 1.5, 8.0]]


@pytest.mark.parametrize(
    ("boxes", "labels", "message"),
    [
        ([[0.0, 0.0, float("nan"), 4.0]], None, "box 0 has a NaN or infinite"),
        ([[0.0, 0.0, 4.0, 4.0], [2.0, 3.0, 2.0, 5.0]], None, "box 1 has no area"),
        ([[3.0, 3.0, 2.0, 5.0]], None, "has no area"),
        ([[0.0, 0.0, 9.0, 4.0]], None, r"box 0 leaves the image .*x2 <= 8, 0 <= y1 < y2 <= 6"),
        ([[0.0, -1.0, 4.0, 4.0]], None, "leaves the image"),
        ([[0.0, 0.0, 4.0, 4.0]], [3], "label 0 must be in 0 … 2, got 3"),
        ([[0.0, 0.0, 4.0, 4.0]], [-1], "label 0 .*got -1"),
    ],
)
def test_invalid_targets_are_named(boxes, labels, message):
    fine = target([[0.0, 0.0, 5.0, 5.0]])
    wrong = {**target(boxes, labels), "image_id": torch.tensor(77)}
    with pytest.raises(ValueError, match=rf"targets\[1\] \(image_id 77\): .*{message}"):
        check_targets(images((10, 10), (6, 8)), [fine, wrong], 3)


def test_targets_of_wrong_types_and_shapes():
    one = images((6, 8))
    with pytest.raises(ValueError, match="targets.*got 2 for 1 images"):
        check_targets(one, [target([]), target([])], 3)
    with pytest.raises(TypeError, match="labels an int64.*got torch.float32 and torch.int32"):
        check_targets(one, [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int32)}], 3)
    with pytest.raises(ValueError, match=r"targets\[0\].*labels is missing, got boxes"):
        check_targets(one, [{"boxes": torch.zeros(0, 4)}], 3)
    with pytest.raises(TypeError, match=r"targets\[0\].*got list and torch.int64"):
        check_targets(one, [{"boxes": [[0.0, 0.0, 1.0, 1.0]], "labels": torch.zeros(1).long()}], 3)
    for image_id, text in (("a.jpg", "a.jpg"), (torch.tensor([3]), "3"), (5, "5")):
        with pytest.raises(ValueError, match=rf"targets\[0\] \(image_id {text}\): label 0.*got 3"):
            check_targets(one, [{**target([[0.0, 0.0, 1.0, 1.0]], [3]), "image_id": image_id}], 3)
    with pytest.raises(ValueError, match=r"targets\[0\].*got \[1, 4\] and \[2\]"):
        check_targets(one, [target([[0.0, 0.0, 1.0, 1.0]], [0, 0])], 3)


def test_boxes_at_the_edge_and_no_boxes_are_valid():
    check_targets(images((6, 8), (6, 8)), [target([[0.0, 0.0, 8.004, 6.0]]), target([])], 1)


def test_values_of_checked_targets_are_not_read():
    """On the meta device reading a value is an error; on a GPU it would be a wait."""
    (image,) = images((6, 8))
    on_meta = {name: value.to("meta") for name, value in target([[0.0, 0.0, 4.0, 4.0]]).items()}
    check_targets([image], [on_meta], None)
    with pytest.raises(RuntimeError, match="meta"):
        check_targets([image], [on_meta], 1)
    with pytest.raises(ValueError, match=r"got \[1, 3\] and \[1\]"):  # shapes are checked in any case
        check_targets([image], [{**on_meta, "boxes": on_meta["boxes"][:, :3]}], None)
    wrong = target([[0.0, 0.0, 4.0, 40.0]])
    assert Corner(1, ResizeAndPad()).losses([image], [wrong], targets_checked=True)["loss_box"] == 44
    with pytest.raises(ValueError, match="leaves the image"):
        Corner(1, ResizeAndPad()).losses([image], [wrong])


def test_a_missing_method_is_named():
    class Half(Detector):
        pass

    half, image = Half(2, ResizeAndPad()), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(NotImplementedError, match=r"^Half does not define detect\(batch\)"):
        half(image)
    with pytest.raises(NotImplementedError, match=r"^Half does not define compute_losses\(batch, targets\)"):
        half.losses(image, [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}])


def test_bad_images_and_sizes():
    detector = Corner(1, ResizeAndPad())
    with pytest.raises(TypeError, match=r"images\[0\].*got torch.int64"):
        detector([torch.zeros(3, 4, 4, dtype=torch.int64)])
    with pytest.raises(ValueError, match=r"images\[1\].*got \[4, 4, 3\]"):
        detector([torch.zeros(3, 4, 4), torch.zeros(4, 4, 3)])
    with pytest.raises(ValueError, match=r"images\[0\].*values from 200 to 200"):
        detector([torch.full((3, 4, 4), 200.0)])
    with pytest.raises(ValueError, match=r"images\[0\].*from nan to nan"):
        detector([torch.full((3, 4, 4), float("nan"))])
    with pytest.raises(ValueError, match=r"from -2 to 1; .*normalization"):
        detector([torch.linspace(-2, 1, 48).reshape(3, 4, 4)])
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        detector([torch.linspace(-0.1, 1.1, 48).reshape(3, 4, 4).to(dtype)])
    with pytest.raises(ValueError, match="min_size.*fixed_size.*got 10"):
        ResizeAndPad(10, fixed_size=(5, 5))
    with pytest.raises(ValueError, match="max_size.*got 0"):
        ResizeAndPad(10, 0)
    with pytest.raises(ValueError, match="max_size.*min_size, got 15 < 20"):
        ResizeAndPad([20, 30], 15)
    with pytest.raises(ValueError, match="num_classes.*got 0"):
        Corner(0, ResizeAndPad())
