"""YOLO's grid and loss: by hand, against loops over cells as in the authors' code, and by their properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.models.detection.yolo.loss import (
    GridOutput,
    GridTarget,
    decode_grid,
    encode_grid,
    responsible_predictors,
    split_grid,
    yolo_terms,
)

IOU_A = 0.0625 / 0.1296  # a square of side 0.25 within one of side 0.36


def hand_worked() -> tuple[list[torch.Tensor], list[torch.Tensor], GridOutput]:
    """One image, 2 x 2 cells, 2 predictors, 3 classes.

    Row 0, column 0: object A, whose better predictor is the second. Column 1: object B, which no predictor overlaps.
    Row 1, column 0: objects C and D, of which C comes first. Column 1: no object.
    """
    boxes = torch.tensor(
        [
            [0.12, 0.12, 0.48, 0.48],  # A: center 0.3, 0.3; square roots 0.6, 0.6
            [0.74875, 0.24875, 0.75125, 0.25125],  # B: center 0.75, 0.25; square roots 0.05, 0.05
            [0.125, 0.67, 0.375, 0.83],  # C: center 0.25, 0.75; square roots 0.5, 0.4
            [0.0, 0.6, 0.2, 0.7],  # D: center 0.1, 0.65
        ]
    )
    predicted = torch.tensor(
        [
            [
                [[0.6, 0.6, 0.6, 0.3], [0.6, 0.6, 0.5, -0.5]],  # IoU with A: 0.25; IOU_A
                # squared distances in the image: 0.2^2 = 0.04; 0.15^2 + 2 * (0.0625 - 0.0025)^2 = 0.0297.
                # Of the raw numbers the first would be nearer: 0.16 and 0.09 + 2 * 0.04
                [[0.9, 0.5, 0.05, 0.05], [0.8, 0.5, 0.25, 0.25]],
            ],
            [
                [[0.5, 0.5, 0.5, 0.4], [0.2, 0.3, math.sqrt(0.2), math.sqrt(0.1)]],  # C; D
                [[9.0, 9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, -9.0]],
            ],
        ]
    )
    confidence = torch.tensor([[[0.3, 0.9], [-0.2, 0.4]], [[0.7, 0.1], [0.2, -0.4]]])
    classes = torch.tensor([[[0.2, 0.5, 0.1], [0.5, 0.5, 0.0]], [[0.1, 0.0, 0.8], [7.0, 7.0, 7.0]]])
    return [boxes], [torch.tensor([1, 0, 2, 0])], GridOutput(predicted[None], confidence[None], classes[None])


def test_the_grid_of_the_hand_worked_image():
    boxes, labels, _ = hand_worked()
    target = encode_grid(boxes, labels, 2)
    assert target.present.tolist() == [[[True, True], [True, False]]]
    assert target.labels.tolist() == [[[1, 0], [2, 0]]]
    expected = torch.tensor([[0.6, 0.6, 0.6, 0.6], [0.5, 0.5, 0.05, 0.05], [0.5, 0.5, 0.5, 0.4]])
    assert torch.allclose(target.boxes.flatten(0, 2)[:3], expected, atol=1e-5)


def test_the_loss_of_the_hand_worked_image_term_by_term():
    boxes, labels, output = hand_worked()
    terms = yolo_terms(output, encode_grid(boxes, labels, 2))
    assert terms.center.item() == pytest.approx(5 * 0.3**2, abs=1e-5)  # B's second predictor
    # A's second predictor gives the square root of its height as -0.5: its box is right, its number is not
    assert terms.size.item() == pytest.approx(5 * (0.1**2 + 1.1**2 + 2 * 0.2**2), abs=1e-5)
    assert terms.objects.item() == pytest.approx((0.9 - IOU_A) ** 2 + 0.4**2 + (1 - 0.7) ** 2, abs=1e-5)
    others = 0.3**2 + 0.2**2 + 0.1**2 + (0.2**2 + 0.4**2)
    assert terms.no_objects.item() == pytest.approx(0.5 * others, abs=1e-5)
    a, b, c = 0.2**2 + 0.5**2 + 0.1**2, 0.5**2 + 0.5**2, 0.1**2 + 0.2**2
    assert terms.classes.item() == pytest.approx(a + b + c, abs=1e-5)


def test_responsible_predictors():
    boxes, labels, output = hand_worked()
    responsible, iou = responsible_predictors(output.boxes, encode_grid(boxes, labels, 2).boxes)
    assert responsible[0, :, :, 1].tolist()[0] == [True, True]  # by IoU; by the error, since none overlaps B
    assert responsible[0, 1, 0].tolist() == [True, False]
    assert responsible.sum(-1).tolist() == [[[1, 1], [1, 1]]]
    assert iou[0, 0, 0].tolist() == pytest.approx([0.25, IOU_A], abs=1e-5)
    assert iou[0, 0, 1].tolist() == [0, 0]
    assert iou[0, 1, 0, 0].item() == pytest.approx(1, abs=1e-5)


def test_weights_and_the_mean_over_images():
    boxes, labels, output = hand_worked()
    once = yolo_terms(output, encode_grid(boxes, labels, 2))
    empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    both = GridOutput(*(torch.cat([part, torch.full_like(part, 0.2)]) for part in output))
    target = encode_grid([*boxes, empty[0]], [*labels, empty[1]], 2)
    terms = yolo_terms(both, target, coord_weight=10.0, no_object_weight=2.0)
    assert torch.allclose(terms.center, once.center)  # twice the weight, half the mean
    assert torch.allclose(terms.size, once.size)
    assert torch.allclose(terms.objects, once.objects / 2)
    assert torch.allclose(terms.classes, once.classes / 2)
    assert terms.no_objects.item() == pytest.approx(2 * once.no_objects.item() + 2 * 8 * 0.2**2 / 2, abs=1e-5)


def test_gradients_of_the_hand_worked_image():
    boxes, labels, output = hand_worked()
    output = GridOutput(*(part.requires_grad_() for part in output))
    terms = yolo_terms(output, encode_grid(boxes, labels, 2))
    assert torch.autograd.grad(terms.objects, output.boxes, retain_graph=True, allow_unused=True) == (None,)
    torch.stack(list(terms)).sum().backward()
    grad = output.boxes.grad
    assert grad is not None
    assert grad[0, 0, 0, 0].tolist() == [0] * 4  # A's other predictor
    assert grad[0, 0, 0, 1].tolist() == pytest.approx([0, 0, 10 * -0.1, 10 * -1.1], abs=1e-4)
    assert grad[0, 0, 1, 1].tolist() == pytest.approx([10 * 0.3, 0, 10 * 0.2, 10 * 0.2], abs=1e-4)
    assert grad[0, 1, 0, 1].tolist() == [0] * 4  # it is at D, which is not learned
    assert not grad[0, 1, 1].any()
    assert output.classes.grad is not None and output.confidence.grad is not None
    assert output.classes.grad[0, 1, 1].tolist() == [0] * 3
    expected = [[[0.3, 2 * (0.9 - IOU_A)], [-0.2, 0.8]], [[2 * -0.3, 0.1], [0.2, -0.4]]]
    assert torch.allclose(output.confidence.grad[0], torch.tensor(expected), atol=1e-5)


def test_an_image_without_objects_does_not_train_boxes_and_classes():
    raw = torch.randn(1, 3, 3, 14).requires_grad_()
    target = encode_grid([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)], 3)
    terms = yolo_terms(split_grid(raw, 2), target)
    for term in (terms.center, terms.size, terms.objects, terms.classes):
        assert term.item() == 0
        assert term.requires_grad
    torch.stack(list(terms)).sum().backward()
    assert raw.grad is not None
    assert torch.allclose(raw.grad[..., 8:10], raw.detach()[..., 8:10])  # 0.5 * 2 * c
    assert not raw.grad[..., :8].any() and not raw.grad[..., 10:].any()


def test_one_of_several_objects_in_a_cell_is_drawn():
    boxes, labels, _ = hand_worked()
    torch.manual_seed(0)
    drawn = {int(encode_grid(boxes, labels, 2, shuffle=True).labels[0, 1, 0]) for _ in range(40)}
    assert drawn == {0, 2}
    assert {int(encode_grid(boxes, labels, 2).labels[0, 1, 0]) for _ in range(5)} == {2}
    flipped = encode_grid([boxes[0].flip(0)], [labels[0].flip(0)], 2)
    assert int(flipped.labels[0, 1, 0]) == 0
    # box and class of a cell belong to the same object
    for _ in range(10):
        target = encode_grid(boxes, labels, 2, shuffle=True)
        assert (target.boxes[0, 1, 0, 0].item() > 0.4) == (int(target.labels[0, 1, 0]) == 2)


def test_an_object_at_the_edge_of_the_image_has_a_cell():
    target = encode_grid([torch.tensor([[0.9999, 0.9999, 1.0003, 1.0003]])], [torch.tensor([0])], 7)
    assert target.present.nonzero().tolist() == [[0, 6, 6]]


def test_a_center_on_a_border_belongs_to_the_cell_on_its_right():
    target = encode_grid([torch.tensor([[0.375, 0.125, 0.625, 0.375]])], [torch.tensor([0])], 4)
    assert target.present.nonzero().tolist() == [[0, 1, 2]]
    assert target.boxes[0, 1, 2].tolist() == [0, 0, 0.5, 0.5]


def test_without_overlap_distances_are_measured_in_the_image_not_in_the_cell():
    # the first: off by 0.3 of a cell, 0.15 of the image; the second: off by 0.1 of a cell, 0.05 of the image, and too
    # high by 0.1732. Squared 0.0225 against 0.0025 + 0.03; in cells it would be 0.09 against 0.01 + 0.03
    target = torch.tensor([0.5, 0.5, 0.05, 0.05]).expand(1, 2, 2, 4)
    high = math.sqrt(0.0025 + math.sqrt(0.03))
    predicted = torch.tensor([[0.8, 0.5, 0.05, 0.05], [0.6, 0.5, 0.02, high]]).expand(1, 2, 2, 2, 4)
    responsible, iou = responsible_predictors(predicted, target)
    assert not iou.any() and responsible[..., 0].all() and not responsible[..., 1].any()


def test_objects_of_many_images_stay_in_their_image():
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(5, 4, 2, generator=generator).sort(1).values
    boxes = [torch.cat([corners[i, :1], corners[i, 3:]], -1).reshape(1, 4).repeat(i % 3, 1) for i in range(5)]
    labels = [torch.full((i % 3,), i) for i in range(5)]
    target = encode_grid(boxes, labels, 4)
    for i in range(5):
        alone = encode_grid(boxes[i : i + 1], labels[i : i + 1], 4)
        for whole, part in zip(target, alone, strict=True):
            assert torch.equal(whole[i], part[0])


def test_split_takes_boxes_confidence_classes_in_this_order():
    raw = torch.arange(13.0).view(1, 1, 1, 13).bfloat16()
    output = split_grid(raw, 2)
    assert output.boxes.flatten().tolist() == list(range(8))
    assert output.confidence.flatten().tolist() == [8, 9]
    assert output.classes.flatten().tolist() == [10, 11, 12]
    assert output.boxes.dtype == torch.float32


# -- against loops over cells and predictors, as in the authors' forward_detection_layer ------------------------------


def overlap(a: list[float], b: list[float]) -> float:
    """IoU of x, y, w, h."""
    sides = [
        max(0.0, min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2))
        for i in (0, 1)
    ]
    intersection = sides[0] * sides[1]
    union = a[2] * a[3] + b[2] * b[3] - intersection
    return intersection / union if union > 0 else 0.0


def looped(output: GridOutput, boxes: list[list[float]], labels: list[int], size: int) -> list[float]:
    """The five terms of one image; `boxes` as x, y, w, h in the image."""
    center = width = objects = nothing = classes = 0.0
    owner: dict[tuple[int, int], int] = {}
    for number, (x, y, _, _) in enumerate(boxes):
        owner.setdefault((int(y * size), int(x * size)), number)
    for row in range(size):
        for column in range(size):
            confidence = output.confidence[0, row, column].tolist()
            if (row, column) not in owner:
                nothing += sum(0.5 * c**2 for c in confidence)
                continue
            number = owner[row, column]
            target = boxes[number]
            best, best_iou, best_error = -1, 0.0, math.inf
            for j, (x, y, w, h) in enumerate(output.boxes[0, row, column].tolist()):
                box = [(x + column) / size, (y + row) / size, w * w, h * h]
                iou, error = overlap(box, target), math.dist(box, target)
                if best_iou > 0 or iou > 0:
                    if iou > best_iou:
                        best, best_iou = j, iou
                elif error < best_error:
                    best, best_error = j, error
            x, y, w, h = output.boxes[0, row, column, best].tolist()
            center += 5 * ((x - target[0] * size + column) ** 2 + (y - target[1] * size + row) ** 2)
            width += 5 * ((w - math.sqrt(target[2])) ** 2 + (h - math.sqrt(target[3])) ** 2)
            objects += (confidence[best] - best_iou) ** 2
            nothing += sum(0.5 * c**2 for j, c in enumerate(confidence) if j != best)
            for k, probability in enumerate(output.classes[0, row, column].tolist()):
                classes += (probability - (k == labels[number])) ** 2
    return [center, width, objects, nothing, classes]


sides = st.floats(0.02, 0.6)
places = st.floats(0.0, 1.0)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Objects within an image whose centers are not on a border between cells."""
    size = draw(st.integers(1, 5))
    corners = []
    for _ in range(draw(st.integers(0, 6))):
        w, h = draw(sides), draw(sides)
        x, y = w / 2 + draw(places) * (1 - w), h / 2 + draw(places) * (1 - h)
        if min(abs(v * size - round(v * size)) for v in (x, y)) > 1e-3:
            corners.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    boxes = torch.tensor(corners, dtype=torch.float64).reshape(-1, 4)
    labels = torch.tensor([draw(st.integers(0, 2)) for _ in corners], dtype=torch.int64)
    return boxes, labels, size


@settings(max_examples=60, deadline=None)
@given(scenes(), st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([0.2, 1.0]))
def test_terms_equal_loops(scene, seed, predictors, spread):
    boxes, labels, size = scene
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(1, size, size, 5 * predictors + 3, generator=generator, dtype=torch.float64) * spread + 0.4
    output = split_grid(raw, predictors)
    xywh = [[(a + c) / 2, (b + d) / 2, c - a, d - b] for a, b, c, d in boxes.tolist()]
    expected = looped(output, xywh, labels.tolist(), size)
    terms = yolo_terms(output, encode_grid([boxes], [labels], size))
    assert [term.item() for term in terms] == pytest.approx(expected, abs=1e-9, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(scenes())
def test_decoding_inverts_encoding(scene):
    boxes, labels, size = scene
    target = encode_grid([boxes], [labels], size)
    decoded = decode_grid(target.boxes[..., None, :])[..., 0, :][target.present]
    for box in decoded:
        assert ((boxes - box).abs().amax(1) < 1e-9).any()
    cells = {(int((b + d) / 2 * size), int((a + c) / 2 * size)) for a, b, c, d in boxes.tolist()}
    assert {(row, column) for _, row, column in target.present.nonzero().tolist()} == cells


def mirrored(target: GridTarget) -> GridTarget:
    boxes = target.boxes.flip(2)
    boxes = torch.cat([1 - boxes[..., :1], boxes[..., 1:]], -1)
    return GridTarget(target.present.flip(2), boxes, target.labels.flip(2))


@settings(max_examples=50, deadline=None)
@given(scenes(), st.integers(0, 10**6))
def test_a_mirrored_image_has_the_mirrored_grid_and_the_same_loss(scene, seed):
    boxes, labels, size = scene
    mirrored_boxes = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
    target, other = encode_grid([boxes], [labels], size), encode_grid([mirrored_boxes], [labels], size)
    expected = mirrored(target)
    assert torch.equal(other.present, expected.present) and torch.equal(other.labels, expected.labels)
    assert torch.allclose(other.boxes, expected.boxes, atol=1e-9)
    raw = torch.randn(1, size, size, 13, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    output = split_grid(raw, 2)
    flipped = output.boxes.flip(2).clone()
    flipped[..., 0] = 1 - flipped[..., 0]
    mirrored_output = GridOutput(flipped, output.confidence.flip(2), output.classes.flip(2))
    for one, two in zip(yolo_terms(output, target), yolo_terms(mirrored_output, other), strict=True):
        assert one.item() == pytest.approx(two.item(), abs=1e-9, rel=1e-7)
    corners = decode_grid(flipped).flip(2)
    assert torch.allclose(corners[..., [2, 0]], 1 - decode_grid(output.boxes)[..., [0, 2]], atol=1e-9)
