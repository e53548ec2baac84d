"""Detection in windows: the objects of the whole image, whatever windows they cross."""

import pytest
import torch

from striate.models import RunLengths, sliding_detections
from striate.models.detection.windowed_prediction import join_windows

from ...helpers.components import (
    ComponentBoxes,
    Components,
    NoisyBoxes,
    NoisyComponents,
    painted,
    random_scene,
    separated_scene,
)
from ...helpers.tiny_instances import filled


def assert_same(found, expected):
    """Require the same objects in the same order, up to the order of objects with the same score."""
    assert len(found["scores"]) == len(expected["scores"])
    for field in ("scores", "labels", "boxes"):
        assert torch.equal(found[field], expected[field]), field
    if "masks" in expected:
        assert torch.equal(found["masks"].dense(), expected["masks"].dense())


@pytest.mark.parametrize("model", [Components, ComponentBoxes])
@pytest.mark.parametrize(
    "seed, size, window, overlap",
    [(0, (90, 130), (32, 32), 1 / 3), (1, (90, 130), (40, 24), 0.5), (2, (130, 64), (50, 64), 0.05),
     (3, (64, 200), (90, 20), 0.8), (4, (97, 101), (16, 16), 0.3)],
)  # fmt: skip
def test_windows_give_the_objects_of_the_whole_image(model, seed, size, window, overlap):
    image = random_scene(size, seed, ellipses=model is Components)  # the box of a part shows too little of an ellipse
    network = model()
    (expected,) = network([image])
    network.views.clear()
    (found,) = sliding_detections(network, [image], window, overlap)
    assert_same(found, expected)
    counts = [count for count, *_ in network.views]
    assert len(expected["boxes"]) >= 12 and sum(counts) > 2 and max(counts) <= 4
    assert {view[1:] for view in network.views} == {(min(size[0], window[0]), min(size[1], window[1]))}


def detected(regions, size=(40, 40), window=(24, 24), overlap=0.25, **options):
    image = painted(size, regions)
    (expected,) = Components()([image])
    (found,) = sliding_detections(Components(), image[None], window, overlap, **options)
    return found, expected


def test_an_object_across_two_and_four_windows_is_one_with_its_whole_mask():
    # windows begin at 0 and 16, and end at 24 and 40
    two = (0, 200, slice(2, 8), slice(5, 38))
    four = (0, 100, slice(10, 35), slice(12, 33))
    found, expected = detected([two, four])
    assert_same(found, expected)
    assert found["boxes"].tolist() == [[5, 2, 38, 8], [12, 10, 33, 35]]
    assert found["masks"].area().tolist() == [6 * 33, 25 * 21]


def test_objects_that_touch_stay_two():
    left, right = (0, 90, slice(10, 30), slice(4, 20)), (0, 91, slice(10, 30), slice(20, 39))
    other = (1, 50, slice(10, 30), slice(4, 39))  # of another class, over both of them
    for model in (Components, ComponentBoxes):
        image = painted((40, 40), [left, right, other])
        (found,) = sliding_detections(model(), [image], (24, 24), 0.25)
        assert_same(found, model()([image])[0])
        assert found["labels"].tolist() == [0, 0, 1]


def test_arms_that_meet_in_another_window_are_one_object():
    def letter(value, lower, upper):  # two bars that meet beyond the first window
        return [(0, value, slice(*lower), slice(3, 38)), (0, value, slice(*upper), slice(3, 38)),
                (0, value, slice(lower[0], upper[1]), slice(34, 38))]  # fmt: skip

    # one of them thin, then both the same, then in different windows from top to bottom
    for lower, upper in (((2, 10), (12, 14)), ((2, 8), (14, 20)), ((2, 6), (30, 38))):
        found, expected = detected(letter(80, lower, upper))
        assert len(expected["boxes"]) == 1
        assert_same(found, expected)


@pytest.mark.parametrize("seed", range(2))
def test_separated_objects_stay_separate_with_an_exact_network(seed):
    image = separated_scene((100, 150), seed)
    for model in (Components(), ComponentBoxes()):
        (expected,) = model([image])
        assert len(expected["boxes"]) > 12
        assert_same(sliding_detections(model, [image], (48, 56), 0.5)[0], expected)


@pytest.mark.parametrize("model, spanning_score", [(NoisyComponents, 0.4), (NoisyComponents, 0.89), (NoisyBoxes, 0.4)])
@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_network_never_joins_separated_objects(model, seed, spanning_score):
    # objects of up to 19 pixels, overlaps of at least 24; noise moves an edge by less than 3 pixels
    image = separated_scene((100, 150), seed)
    (truth,) = Components()([image])
    (found,) = sliding_detections(model(seed, spanning_score), [image], (48, 56), 0.5)
    high = found["scores"] >= 0.9  # others are the network's own noise
    boxes, true_boxes = found["boxes"][high], truth["boxes"]
    distances = (boxes[:, None] - true_boxes).abs().amax(2)
    assert len(boxes) == len(true_boxes) and (distances.amin(1) < 3).all()
    assert distances.argmin(1).unique().numel() == len(boxes)
    if "masks" in found:
        touched = (found["masks"].dense()[high].flatten(1).float() @ truth["masks"].dense().flatten(1).float().T) > 0
        assert touched.sum(1).tolist() == [1] * len(boxes)


def parts_of(*objects, masks=None, size=(20, 60)):
    """Detections of a window: box and score of each object, all of class 0."""
    boxes = torch.tensor([one[:4] for one in objects], dtype=torch.float32).reshape(-1, 4)
    dense = filled(boxes.int().tolist(), size) if masks is None else masks
    scores = torch.tensor([one[4] for one in objects]).float()
    labels = torch.zeros(len(objects), dtype=torch.int64)
    return {"boxes": boxes, "scores": scores, "labels": labels, "masks": RunLengths.from_dense(dense)}


WINDOWS = [(0, 0, 40, 20), (20, 0, 60, 20)]


def test_the_window_that_shows_an_object_whole_has_its_mask():
    # whole in the first window; the second one cuts it and draws it larger, with a higher score
    first, second = parts_of((15, 5, 30, 15, 0.6)), parts_of((20, 4, 31, 16, 0.8))
    joined = join_windows([first, second], WINDOWS, (20, 60))
    assert joined["boxes"].tolist() == [[15, 5, 30, 15]] and joined["scores"].tolist() == [pytest.approx(0.8)]
    assert torch.equal(joined["masks"].dense(), first["masks"].dense())
    # whole in both, with different masks: the one of higher score
    joined = join_windows([parts_of((22, 5, 32, 15, 0.6)), parts_of((22, 5, 33, 16, 0.8))], WINDOWS, (20, 60))
    assert joined["boxes"].tolist() == [[22, 5, 33, 16]] and joined["masks"].area().tolist() == [121]


def test_a_strip_at_the_border_belongs_to_the_object_that_another_window_shows():
    # a third of the strip lies in the object
    strip, whole = parts_of((36, 5, 40, 14, 0.9)), parts_of((37, 10, 55, 19, 0.7))
    joined = join_windows([strip, whole], WINDOWS, (20, 60))
    assert joined["boxes"].tolist() == [[37, 10, 55, 19]] and joined["masks"].area().tolist() == [18 * 9]
    # not if it reaches beyond that window, which might hold another object
    strip = parts_of((16, 5, 40, 14, 0.9))
    assert len(join_windows([strip, whole], WINDOWS, (20, 60))["boxes"]) == 2


def test_an_object_whose_box_ends_before_the_border_still_gets_its_other_part():
    # the first window's box ends 3 pixels before its border, the second window begins within the object
    left, right = parts_of((5, 5, 37, 15, 0.9)), parts_of((20, 5, 50, 15, 0.7))
    joined = join_windows([left, right], WINDOWS, (20, 60))
    assert joined["boxes"].tolist() == [[5, 5, 50, 15]] and joined["masks"].area().tolist() == [450]


def test_a_part_of_low_score_extends_nothing_and_shows_nothing_whole():
    strong = parts_of((5, 5, 40, 15, 0.9))
    for weak in ((20, 5, 50, 15, 0.4), (20, 5, 40, 16, 0.4)):
        joined = join_windows([strong, parts_of(weak)], WINDOWS, (20, 60))
        assert joined["boxes"].tolist() == [[5, 5, 40, 15]] and joined["masks"].area().tolist() == [350]
    joined = join_windows([strong, parts_of((20, 5, 50, 15, 0.5))], WINDOWS, (20, 60))
    assert joined["boxes"].tolist() == [[5, 5, 50, 15]]


def test_what_spans_two_objects_of_higher_score_is_dropped():
    one, other, both = (24, 2, 34, 9), (24, 11, 34, 18), (24, 2, 34, 18)
    pair = parts_of((*one, 0.9), (*other, 0.8))
    for spanning in (parts_of((*both, 0.7)), parts_of((*one, 0.9), (*other, 0.8), (*both, 0.7))):
        joined = join_windows([pair, spanning], WINDOWS, (20, 60))
        assert joined["boxes"].tolist() == [list(one), list(other)]
    # but not if it has the highest score, if one of them is another class, or if they are a small part of it
    assert len(join_windows([pair, parts_of((*both, 0.85))], WINDOWS, (20, 60))["boxes"]) == 3
    assert len(join_windows([pair, parts_of((24, 2, 58, 18, 0.7))], WINDOWS, (20, 60))["boxes"]) == 3
    pair["labels"][1] = 1
    assert len(join_windows([pair, parts_of((*both, 0.7))], WINDOWS, (20, 60))["boxes"]) == 3


def test_a_cut_fragment_does_not_raise_the_score_of_the_object_it_lies_in():
    whole, strip = parts_of((37, 5, 55, 15, 0.6)), parts_of((37, 5, 40, 14, 0.9))
    merged = join_windows([strip, whole], WINDOWS, (20, 60))
    assert merged["boxes"].tolist() == [[37, 5, 55, 15]] and merged["scores"].tolist() == [pytest.approx(0.9)]
    strip = parts_of((38, 5, 40, 9, 0.9))  # less equal
    merged = join_windows([strip, whole], WINDOWS, (20, 60))
    assert merged["boxes"].tolist() == [[37, 5, 55, 15]] and merged["scores"].tolist() == [pytest.approx(0.6)]


def test_an_iou_above_the_threshold_joins():
    # cut by both windows, with rows 0 to 10 and 5 to 15 in the overlap: an IoU of one third, half of each in the other
    parts = [parts_of((4, 0, 40, 10, 0.6)), parts_of((20, 5, 55, 15, 0.8))]
    assert len(join_windows(parts, WINDOWS, (20, 60), iou=0.5)["boxes"]) == 2
    joined = join_windows(parts, WINDOWS, (20, 60), iou=0.3)
    assert joined["boxes"].tolist() == [[4, 0, 55, 15]]
    assert joined["masks"].area().tolist() == [36 * 10 + 35 * 10 - 20 * 5]
    # objects of one window are never one, even if they cover each other
    same = parts_of((4, 0, 18, 10, 0.6), (4, 0, 18, 10, 0.5))
    assert len(join_windows([same, parts_of()], WINDOWS, (20, 60), iou=0.3)["boxes"]) == 2


def test_an_object_that_barely_enters_a_window_does_not_join_its_neighbor_there():
    # upper and lower object touch at row 30; each window's masks and boxes are inexact by a pixel
    windows = [(0, 16, 32, 48), (16, 0, 48, 32)]
    lower, upper = parts_of((10, 29, 32, 48, 0.8), size=(96, 96)), parts_of((16, 2, 40, 31, 0.9), size=(96, 96))
    for masks in (True, False):
        parts = [{k: v for k, v in one.items() if masks or k != "masks"} for one in (lower, upper)]
        joined = join_windows(parts, windows, (96, 96))
        assert joined["boxes"].tolist() == [[16, 2, 40, 31], [10, 29, 32, 48]]
    # deep inside, it is the same object
    deep = parts_of((10, 20, 32, 48, 0.8), size=(96, 96))
    assert join_windows([deep, upper], windows, (96, 96))["boxes"].tolist() == [[10, 2, 40, 48]]


def test_an_object_that_covers_whole_windows():
    ring = [
        (0, 90, slice(3, 97), slice(5, 95)),
        (0, 0, slice(30, 60), slice(30, 60)),
        (0, 120, slice(36, 50), slice(34, 58)),
    ]
    for regions in ([(0, 90, slice(0, 100), slice(0, 100))], ring[:1], ring):
        found, expected = detected(regions, size=(100, 100))
        assert_same(found, expected)


def test_neighbors_whose_parts_coincide_in_the_overlap_stay_two():
    # each is whole in its window; in the overlap from 20 to 40 they have the same pixels, but not beyond it
    parts = [parts_of((2, 5, 30, 15, 0.6)), parts_of((24, 5, 58, 15, 0.8))]
    windows = [(0, 0, 31, 20), (20, 0, 60, 20)]
    assert len(join_windows(parts, windows, (20, 60))["boxes"]) == 2


def test_the_best_of_each_class_are_kept():
    regions = [(n % 2, 10 + n, slice(4 * n, 4 * n + 3), slice(0, 38)) for n in range(9)]
    found, expected = detected(regions, max_detections=3)
    labels, scores = expected["labels"], expected["scores"]
    best = torch.cat([scores[labels == label][:3] for label in (0, 1)]).sort(descending=True).values
    assert len(scores) == 9 and torch.equal(found["scores"], best)
    assert found["masks"].area().tolist() == [3 * 38] * 6


def test_small_images_go_to_the_model_as_they_are():
    calls = []

    def model(images):
        calls.append(images)
        return Components()(images)

    images = torch.stack([random_scene((30, 40), 0), random_scene((30, 40), 1)])
    sliding_detections(model, images, (30, 40), 0.5, max_detections=1)
    assert len(calls) == 1 and calls[0] is images
    # beside a large one
    mixed = [images[0], random_scene((40, 50), 2), images[1][:, :20]]
    found = sliding_detections(Components(), mixed, (30, 40), 0.5)
    for one, image in zip(found, mixed, strict=True):
        assert_same(one, Components()([image])[0])


def test_an_image_without_objects_and_wrong_arguments():
    found, _ = detected([])
    assert found["boxes"].shape == (0, 4) and found["masks"].dense().shape == (0, 40, 40)
    assert found["labels"].dtype == torch.int64 and found["scores"].shape == (0,)
    for options, message in (
        ({"overlap": 0}, "overlap: must be > 0 for detection"),
        ({"iou": 1.2}, "iou: .*got 1.2"),
        ({"max_detections": 0}, "max_detections: .*got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            detected([], **options)
