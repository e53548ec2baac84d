"""Class-balanced and repeat-factor sampling, and batches of similar aspect ratio."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.datamodules import DetectionManifest, InstanceMasks, RepeatFactor, VOCInstances, YoloDetection
from striate.datamodules.loading.epoch_sampling import (
    ClassBalancedSampling,
    ClassPresence,
    RepeatFactorSampling,
    aspect_groups,
    grouped_batches,
    previous_occurrences,
    repeat_factors,
)
from striate.tests.helpers.fixtures import noise, write_image
from striate.tests.helpers.samples import presence_of

# image 0: classes 0 and 1; 1: class 0 twice; 2: none; 3: class 0; 4: class 2 and, as a crowd, 1
PRESENCE = ClassPresence.of_objects(
    np.array([0, 2, 4, 4, 5, 7]), np.array([0, 1, 0, 0, 0, 2, 1]), np.array([1, 1, 1, 1, 1, 1, 0], bool)
)


presences = st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=1, max_size=30)


def generator(seed=0):
    return np.random.default_rng(seed)


LABELS = np.array([0] * 90 + [1] * 10)


def balanced_draw(labels, generator):
    return ClassBalancedSampling(ClassPresence.of_labels(labels))(generator)


def test_class_presence_of_objects_and_of_a_selection():
    assert PRESENCE.samples.tolist() == [0, 0, 1, 3, 4] and PRESENCE.classes.tolist() == [0, 1, 0, 0, 2]
    assert PRESENCE.size == 5
    some = PRESENCE.select(np.array([4, 2, 0]))
    assert sorted(zip(some.samples.tolist(), some.classes.tolist(), strict=True)) == [(0, 2), (2, 0), (2, 1)]
    assert some.size == 3


@given(st.lists(st.integers(0, 6), max_size=40))
def test_previous_occurrences(numbers):
    expected = [numbers[:position].count(number) for position, number in enumerate(numbers)]
    assert previous_occurrences(np.array(numbers, np.int64)).tolist() == expected


# -- class-balanced


def test_hand_computed_class_balance():
    drawn, before = balanced_draw(LABELS, generator())
    assert len(drawn) == 100 and np.bincount(LABELS[drawn]).tolist() == [50, 50]
    counts = Counter(drawn.tolist())
    assert all(counts[rare] == 5 for rare in range(90, 100))  # 50 draws of 10 samples: five rounds
    assert sum(counts[common] for common in range(90)) == 50 and max(counts[common] for common in range(90)) == 1
    for rare in range(90, 100):
        assert sorted(before[drawn == rare]) == [0, 1, 2, 3, 4]
    assert before[drawn < 90].max() == 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 2**32))
def test_balance_for_any_labels(labels, seed):
    labels = np.array(labels)
    drawn, before = balanced_draw(labels, generator(seed))
    counts = [int((labels[drawn] == label).sum()) for label in np.unique(labels)]
    assert len(drawn) == len(labels) and max(counts) - min(counts) <= 1
    for label in np.unique(labels):  # a class cycles through its samples
        counts = [int((drawn == member).sum()) for member in np.flatnonzero(labels == label)]
        assert max(counts) - min(counts) <= 1
    assert len({(int(index), int(repeat)) for index, repeat in zip(drawn, before, strict=True)}) == len(labels)


def test_draws_are_shuffled_and_reach_every_sample():
    drawn, _ = balanced_draw(LABELS, generator())
    halves = [int((LABELS[half] == 1).sum()) for half in np.split(drawn, 2)]
    assert min(halves) > 15
    reached = {int(index) for seed in range(20) for index in balanced_draw(LABELS, generator(seed))[0]}
    assert reached == set(range(100))


def test_images_with_several_classes_are_drawn_for_each():
    draw = ClassBalancedSampling(presence_of([{0}] * 8 + [{0, 1}, set()]))  # ten images: five draws per class
    samples, before = draw(generator())
    assert len(samples) == 10 and 9 not in samples
    counts = Counter(samples.tolist())
    assert counts[8] in (5, 6) and sum(counts[n] for n in range(8)) == 10 - counts[8]
    assert sorted(before[samples == 8].tolist()) == list(range(counts[8]))


@given(presences, st.integers(0, 2**32))
def test_balance_for_any_images(classes, seed):
    presence = presence_of(classes)
    if not len(presence.classes):
        with pytest.raises(ValueError, match="sampling: class_balanced needs objects"):
            ClassBalancedSampling(presence)
        return
    samples, before = ClassBalancedSampling(presence)(generator(seed))
    assert len(samples) == len(classes) and all(classes[n] for n in samples)
    keys = set(zip(samples.tolist(), before.tolist(), strict=True))
    assert len(keys) == len(classes)  # each draw has its own augmentation
    # each class gets its share, even if images have several classes
    share = len(classes) // len(set().union(*classes))
    for label in set().union(*classes):
        assert sum(label in classes[n] for n in samples) >= share


# -- repeat factors


def test_hand_computed_repeat_factors():
    # class 0 in 3 of 5 images, 1 and 2 in 1 of 5: r = max(1, sqrt(0.8 / f)), f = 0.6, 0.2, 0.2
    factors = repeat_factors(PRESENCE, 0.8)
    common, rare = (0.8 / 0.6) ** 0.5, 2.0
    np.testing.assert_allclose(factors, [rare, common, 1, common, rare])
    np.testing.assert_allclose(repeat_factors(PRESENCE, 0.2), np.ones(5))
    np.testing.assert_allclose(repeat_factors(PRESENCE, 0.45), [1.5, 1, 1, 1, 1.5])
    assert repeat_factors(ClassPresence.of_labels(np.array([0, 0, 0, 1])), 1.0).tolist() == pytest.approx(
        [3**-0.5 * 2] * 3 + [2]
    )


@settings(max_examples=60)
@given(presences, st.floats(0.01, 1), st.integers(0, 2**32))
def test_each_sample_occurs_as_often_as_its_rounded_factor(classes, threshold, seed):
    draw = RepeatFactorSampling(presence_of(classes), threshold)
    samples, before = draw(generator(seed))
    assert len(samples) == draw.length == int(draw.factors.sum() + 1e-6)
    counts = np.bincount(samples, minlength=len(classes))
    assert (counts >= np.floor(draw.factors)).all() and (counts <= np.ceil(draw.factors)).all()
    assert (before == previous_occurrences(samples)).all()


def test_rounding_is_unbiased_and_uncorrelated():
    draw = RepeatFactorSampling(presence_of([{0}] * 20 + [{1}] * 5 + [{2}]), 0.9)
    drawn = np.array([np.bincount(draw(generator(seed))[0], minlength=26) for seed in range(3000)])
    np.testing.assert_allclose(drawn.mean(axis=0), draw.factors, atol=0.06)
    pairs = np.corrcoef(drawn[:, :20].T)[np.triu_indices(20, 1)]
    assert np.abs(pairs).max() < 0.2  # neighbors are not rounded together
    first, again, other = (draw(generator(seed))[0].tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("threshold", [0, 1.5, -0.1])
def test_thresholds_out_of_range(threshold):
    with pytest.raises(ValueError, match=f"threshold: .*got {threshold}"):
        RepeatFactor(threshold)


# -- aspect groups


def test_groups_against_torchvisions_edges():
    sizes = [(100, 300), (100, 200), (100, 150), (100, 125), (100, 100), (126, 100), (150, 100), (640, 480), (200, 100)]
    # edges 0.5 0.63 0.79 1 1.26 1.59 2; an edge belongs to the group above
    assert aspect_groups(np.array(sizes)).tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 7]
    edges = (2 ** np.linspace(-1, 1, 7)).tolist()
    for width in range(40, 250, 7):
        assert aspect_groups(np.array([[width, 100]]))[0] == sum(edge <= width / 100 for edge in edges)


@settings(max_examples=80)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5), st.integers(1, 3), st.integers(0, 999))
def test_grouped_batches_contain_each_sample_once(groups, size, ranks, seed):
    groups = np.array(groups[: len(groups) // ranks * ranks], np.int64)
    dealt = grouped_batches(groups, size, ranks, generator(seed))
    each = len(groups) // ranks
    assert [len(share) for share in dealt] == [each] * ranks
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(groups)))
    full = each // size
    batches = [share[: full * size].reshape(full, size) for share in dealt]
    mixed = sum(len(set(groups[batch].tolist())) > 1 for share in batches for batch in share)
    remainder = sum(count % size for count in Counter(groups.tolist()).values())
    assert mixed <= remainder // size  # only the remainders of the groups


SHAPES = [(40, 20), (20, 40)] * 4  # wide and tall in turn


def shaped_yolo(root):
    for number, size in enumerate(SHAPES):
        write_image(root / f"images/{number}.png", noise(*size, number))
    (root / "labels").mkdir()
    (root / "labels/0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("names: [a]\ntrain: images\nval: images\n")
    return {"root": str(root)}


def shaped_table(root):
    rows = []
    for number, size in enumerate(SHAPES):
        write_image(root / f"{number}.png", noise(*size, number))
        rows.append(f"{number}.png,a,1,1,10,10\n")
    (root / "a.csv").write_text("path,label,x1,y1,x2,y2\n" + "".join(rows))
    return {"train": str(root / "a.csv"), "val": str(root / "a.csv")}


def shaped_ids(root):
    for number, (width, height) in enumerate(SHAPES):
        for split in ("train", "val"):
            write_image(root / f"{split}/images/{number}.png", noise(width, height, number))
            write_image(root / f"{split}/masks/{number}.png", np.tri(height, width, dtype=np.uint16))
    return {"root": str(root)}


def shaped_voc(root):
    folder = root / "VOCdevkit/VOC2012"
    for number, (width, height) in enumerate([*SHAPES, (40, 20)]):
        write_image(folder / f"JPEGImages/{number}.jpg", noise(width, height, number))
        for part in ("SegmentationClass", "SegmentationObject"):
            write_image(folder / f"{part}/{number}.png", np.ones((height, width), np.uint8))
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    (folder / "ImageSets/Segmentation/train.txt").write_text("".join(f"{number}\n" for number in range(len(SHAPES))))
    (folder / "ImageSets/Segmentation/val.txt").write_text(f"{len(SHAPES)}\n")
    return {"root": str(root)}


@pytest.mark.parametrize(
    "reader, write",
    [
        (YoloDetection, shaped_yolo),
        (DetectionManifest, shaped_table),
        (InstanceMasks, shaped_ids),
        (VOCInstances, shaped_voc),
    ],
)
def test_each_reader_of_objects_groups_by_aspect(tmp_path, reader, write):
    options = write(tmp_path) | {"batch_size": 4, "num_workers": 0}
    shapes = {}
    for grouped in (False, True):
        data = reader(**options, group_by_aspect=grouped)
        data.setup("fit")
        batches = list(data.train_dataloader())
        assert sorted(index for batch in batches for index in batch["index"].tolist()) == list(range(8))
        shapes[grouped] = [{tuple(image.shape[1:]) for image in batch["image"]} for batch in batches]
    assert sorted(map(sorted, shapes[True])) == [[(20, 40)], [(40, 20)]]
    assert any(len(batch_shapes) == 2 for batch_shapes in shapes[False])
