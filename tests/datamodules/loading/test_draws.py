"""Draws by class for images of several classes, repeat factors, and batches of like shape; over ranks, and resumed."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from PIL import Image

from striate.datamodules import CocoDetection, DigitScenes, RepeatFactor, VisionDataModule
from striate.datamodules.images.read import ImageError, read_image
from striate.datamodules.images.sizes import image_size
from striate.datamodules.loading.collate import collate_objects
from striate.datamodules.loading.dataset import TransformedDataset
from striate.datamodules.loading.loader import make_loader
from striate.datamodules.loading.samplers import EpochSampler
from striate.datamodules.loading.sampling import (
    ClassBalancedSampling,
    ClassPresence,
    RepeatFactorSampling,
    aspect_groups,
    grouped_batches,
    previous_occurrences,
    repeat_factors,
)
from striate.datamodules.loading.sources import source_sizes
from striate.tests.helpers.fixtures import write_image

# image 0: classes 0 and 1; 1: class 0 twice; 2: none; 3: class 0; 4: class 2 and, as a crowd, 1
PRESENCE = ClassPresence.of_objects(
    np.array([0, 2, 4, 4, 5, 7]), np.array([0, 1, 0, 0, 0, 2, 1]), np.array([1, 1, 1, 1, 1, 1, 0], bool)
)
presences = st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=1, max_size=30)


def presence_of(classes):
    pairs = [(sample, label) for sample, own in enumerate(classes) for label in sorted(own)]
    samples, labels = np.array(pairs, np.int64).reshape(-1, 2).T
    return ClassPresence(samples, labels, len(classes))


def generator(seed=0):
    return np.random.default_rng(seed)


def test_which_classes_images_have():
    assert PRESENCE.samples.tolist() == [0, 0, 1, 3, 4] and PRESENCE.classes.tolist() == [0, 1, 0, 0, 2]
    assert PRESENCE.size == 5
    some = PRESENCE.select(np.array([4, 2, 0]))
    assert sorted(zip(some.samples.tolist(), some.classes.tolist(), strict=True)) == [(0, 2), (2, 0), (2, 1)]
    assert some.size == 3


@given(st.lists(st.integers(0, 6), max_size=40))
def test_times_before(numbers):
    expected = [numbers[:place].count(number) for place, number in enumerate(numbers)]
    assert previous_occurrences(np.array(numbers, np.int64)).tolist() == expected


# -- class-balanced


def test_images_of_several_classes_are_drawn_for_each_of_them():
    draw = ClassBalancedSampling(presence_of([{0}] * 8 + [{0, 1}, set()]))  # ten images: five draws a class
    samples, before = draw(generator())
    assert len(samples) == 10 and 9 not in samples
    counts = Counter(samples.tolist())
    assert counts[8] in (5, 6) and sum(counts[n] for n in range(8)) == 10 - counts[8]
    assert sorted(before[samples == 8].tolist()) == list(range(counts[8]))


@given(presences, st.integers(0, 2**32))
def test_balance_over_any_images(classes, seed):
    presence = presence_of(classes)
    if not len(presence.classes):
        with pytest.raises(ValueError, match="sampling: class_balanced needs objects"):
            ClassBalancedSampling(presence)
        return
    samples, before = ClassBalancedSampling(presence)(generator(seed))
    assert len(samples) == len(classes) and all(classes[n] for n in samples)
    keys = set(zip(samples.tolist(), before.tolist(), strict=True))
    assert len(keys) == len(classes)  # no draw is like another
    # each class is served its share, whatever it shares with others
    share = len(classes) // len(set().union(*classes))
    for label in set().union(*classes):
        assert sum(label in classes[n] for n in samples) >= share


# -- repeat factors


def test_repeat_factors_by_hand():
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
def test_each_sample_comes_as_often_as_its_factor_rounded(classes, threshold, seed):
    draw = RepeatFactorSampling(presence_of(classes), threshold)
    samples, before = draw(generator(seed))
    assert len(samples) == draw.length == int(draw.factors.sum() + 1e-6)
    counts = np.bincount(samples, minlength=len(classes))
    assert (counts >= np.floor(draw.factors)).all() and (counts <= np.ceil(draw.factors)).all()
    assert (before == previous_occurrences(samples)).all()


def test_the_roundings_are_right_on_average_and_spread():
    draw = RepeatFactorSampling(presence_of([{0}] * 20 + [{1}] * 5 + [{2}]), 0.9)
    drawn = np.array([np.bincount(draw(generator(seed))[0], minlength=26) for seed in range(3000)])
    np.testing.assert_allclose(drawn.mean(axis=0), draw.factors, atol=0.06)
    pairs = np.corrcoef(drawn[:, :20].T)[np.triu_indices(20, 1)]
    assert np.abs(pairs).max() < 0.2  # neighbours are not rounded together
    first, again, other = (draw(generator(seed))[0].tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("threshold", [0, 1.5, -0.1])
def test_thresholds_out_of_range(threshold):
    with pytest.raises(ValueError, match=f"threshold: .*got {threshold}"):
        RepeatFactor(threshold)


# -- groups of like shape


def test_groups_by_hand_and_beside_torchvision_s_edges():
    sizes = [(100, 300), (100, 200), (100, 150), (100, 125), (100, 100), (126, 100), (150, 100), (640, 480), (200, 100)]
    # edges 0.5 0.63 0.79 1 1.26 1.59 2; an edge belongs to the group above it
    assert aspect_groups(np.array(sizes)).tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 7]
    edges = (2 ** np.linspace(-1, 1, 7)).tolist()
    for width in range(40, 250, 7):
        assert aspect_groups(np.array([[width, 100]]))[0] == sum(edge <= width / 100 for edge in edges)


@settings(max_examples=80)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5), st.integers(1, 3), st.integers(0, 999))
def test_groups_lose_and_repeat_nothing(groups, size, ranks, seed):
    groups = np.array(groups[: len(groups) // ranks * ranks], np.int64)
    dealt = grouped_batches(groups, size, ranks, generator(seed))
    each = len(groups) // ranks
    assert [len(own) for own in dealt] == [each] * ranks
    assert sorted(np.concatenate(dealt).tolist()) == list(range(len(groups)))
    full = each // size
    batches = [own[: full * size].reshape(full, size) for own in dealt]
    mixed = sum(len(set(groups[batch].tolist())) > 1 for own in batches for batch in own)
    left = sum(count % size for count in Counter(groups.tolist()).values())
    assert mixed <= left // size  # no more than what does not make whole batches


def keys(groups, epoch=1, ranks=1, rank=0, batch=4, skip=0, sampling=None):
    sampler = EpochSampler(
        len(groups), True, True, 7, num_replicas=ranks, rank=rank, sampling=sampling, groups=groups, batch_size=batch
    )
    sampler.set_epoch(epoch)
    sampler.skip = skip
    assert len(list(sampler)) == max(len(sampler) - skip, 0)
    return list(sampler)


GROUPS = np.array([0] * 37 + [1] * 21 + [2] * 5)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("drawn", [False, True])
def test_ranks_share_grouped_batches(ranks, drawn):
    draw = RepeatFactorSampling(presence_of([{int(group)} for group in GROUPS]), 0.5) if drawn else None
    shares = [keys(GROUPS, ranks=ranks, rank=rank, sampling=draw) for rank in range(ranks)]
    total = draw.length if draw else 63
    assert {len(share) for share in shares} == {-(-total // ranks)}  # the same number of steps
    together = Counter(key for share in shares for key in share)
    assert len(together) == total  # each draw is there; padding alone repeats some
    assert sum(together.values()) - total == -total % ranks
    assert {key.index for key in together} == set(range(63))
    batches = [share[start : start + 4] for share in shares for start in range(0, len(share) // 4 * 4, 4)]
    alike = sum(len({int(GROUPS[key.index]) for key in batch}) == 1 for batch in batches)
    assert alike >= len(batches) - 2  # three groups leave at most nine samples over


def test_groups_are_shuffled_anew_and_resumable():
    first, again, other = keys(GROUPS), keys(GROUPS), keys(GROUPS, epoch=2)
    assert first == again and [key.index for key in first] != [key.index for key in other]
    assert keys(GROUPS, skip=24) == first[24:]
    order = [int(GROUPS[key.index]) for key in first[::4]]
    assert order != sorted(order)  # batches of a group are not in a row
    assert {tuple(sorted(key.index for key in keys(GROUPS, epoch=epoch)[60:])) for epoch in range(9)} != {(60, 61, 62)}


def test_groups_are_for_training():
    with pytest.raises(ValueError, match="groups: need pad"):
        EpochSampler(3, False, False, groups=np.zeros(3))


# -- sizes without decoding


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_sizes_are_read_from_headers(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.zeros((20, 33, 3), np.uint8)).save(path)
    assert image_size(path) == (33, 20)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_on_its_side_has_the_size_that_it_is_read_with(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("jpg", "png"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(np.zeros((20, 33, 3), np.uint8)).save(path, exif=exif)
        height, width = read_image(path).shape[:2]
        assert image_size(path) == (width, height)


def test_sizes_of_files_that_are_none(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match="not a readable image"):
        image_size(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="No such file"):
        image_size(tmp_path / "b.jpg")

    class Files(list):
        def path(self, index):
            return tmp_path / self[index]

    write_image(tmp_path / "c.png", np.zeros((4, 9, 3), np.uint8))
    assert source_sizes(Files(["a.jpg", "c.png", "b.jpg"])).tolist() == [[1, 1], [9, 4], [1, 1]]
    partly = Files(["a.jpg", "c.png"])
    partly.sizes = np.array([[7, 8], [0, 0]])
    assert source_sizes(partly).tolist() == [[7, 8], [9, 4]]
    unknown = type("Sizes", (list,), {"sizes": np.array([[7, 8], [0, 0]])})([0, 1])
    with pytest.raises(ValueError, match=r"group_by_aspect: .*got Sizes with 1 unknown"):
        source_sizes(unknown)
    with pytest.raises(ValueError, match="group_by_aspect: .*got list"):
        source_sizes([])


# -- through a data module


@pytest.fixture
def coco(tmp_path):
    """24 images, half of them tall; a class 'rare' on two, one image without objects."""
    images, annotations = [], []
    for number in range(24):
        width, height = (20, 40) if number % 2 else (40, 20)
        write_image(tmp_path / "train2017" / f"{number}.png", np.full((height, width, 3), number, np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        for category in () if number == 5 else (1, 2) if number in (3, 8) else (1,):
            box = {"bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category, **box})
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "common"}, {"id": 2, "name": "rare"}]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return str(tmp_path)


def module(root, **options):
    files = {"val_annotations": "annotations/instances_train2017.json", "val_images": "train2017"}
    data = CocoDetection(root, batch_size=4, num_workers=0, **files, **options)
    data.setup("fit")
    return data


def test_a_detection_set_trains_in_groups(coco):
    loader = module(coco, group_by_aspect=True).train_dataloader()
    batches = list(loader)
    assert len(batches) == 6 and all(len({tuple(image.shape) for image in batch["image"]}) == 1 for batch in batches)
    assert sorted(index for batch in batches for index in batch["index"].tolist()) == list(range(24))
    assert {tuple(batch["image"][0].shape) for batch in batches} == {(3, 20, 40), (3, 40, 20)}
    plain = list(module(coco).train_dataloader())
    assert any(len({tuple(image.shape) for image in batch["image"]}) > 1 for batch in plain)
    assert [
        i for batch in module(coco, group_by_aspect=True).val_dataloader() for i in batch["index"].tolist()
    ] == list(range(24))


def test_a_detection_set_is_drawn_by_class(coco):
    batches = list(module(coco, sampling="class_balanced").train_dataloader())
    indices = Counter(index for batch in batches for index in batch["index"].tolist())
    assert sum(indices.values()) == 24 and indices[5] == 0 and indices[3] + indices[8] >= 12
    # rare: 2 of 24 images, sqrt(0.75 * 12) = 3; common: 23 of 24
    loader = module(coco, sampling=RepeatFactor(0.75), group_by_aspect=True).train_dataloader()
    assert len(loader.sampler) == 24 + 2 * 2 and len(loader) == 7
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        indices = Counter(index for batch in loader for index in batch["index"].tolist())
        assert indices[3] == indices[8] == 3 and all(indices[n] == 1 for n in range(24) if n not in (3, 8))
    assert len(module(coco, sampling="repeat_factor").train_dataloader().sampler) == 24  # 0.001: no class is that rare


def test_skipping_empty_images_numbers_classes_and_sizes_anew(coco):
    source = module(coco, skip_empty=True, group_by_aspect=True).datasets["train"].source
    assert len(source) == 23 and source.sizes.shape == (23, 2)
    presence = source.presence()
    assert presence.size == 23 and presence.samples[presence.classes == 1].tolist() == [3, 7]
    assert source.path(5).endswith("/6.png") and source.sizes[5].tolist() == [40, 20]


def test_classes_of_painted_masks_have_the_background_before_them(coco):
    file = Path(coco, "annotations", "instances_train2017.json")
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[1, 1, 9, 1, 9, 9, 1, 9]]
    file.write_text(json.dumps(content))
    data = module(coco, task="semantic_segmentation", sampling=RepeatFactor(0.75), train_transform=[])
    presence = data.datasets["train"].source.presence()
    assert set(presence.classes.tolist()) == {1, 2} and presence.samples[presence.classes == 2].tolist() == [3, 8]
    assert len(data.train_dataloader().sampler) == 28
    data.group_by_aspect = True
    with pytest.raises(ValueError, match="group_by_aspect: .*one size"):
        data.train_dataloader()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_grouped_and_repeated_epoch_continues_where_it_stopped(coco, workers):
    def taken(loader, count=None):
        found = []
        for batch in loader:
            found.append(batch["index"].tolist())
            if len(found) == count:
                break
        return found

    options = {"sampling": RepeatFactor(0.75), "group_by_aspect": True}
    whole = module(coco, **options).train_dataloader()
    whole.sampler.set_epoch(3)
    data = module(coco, **options)
    data.num_workers = workers
    first = data.train_dataloader()
    first.sampler.set_epoch(3)
    begun = taken(first, 3)
    resumed = module(coco, **options)
    resumed.load_state_dict(data.state_dict())
    assert begun + taken(resumed.train_dataloader()) == taken(whole)


def test_a_source_that_knows_neither_is_explained():
    data = DigitScenes("detection", num_workers=0, train_size=4, val_size=2)
    data.setup("fit")
    data.sampling = RepeatFactor(0.5)
    with pytest.raises(ValueError, match="sampling: repeat_factor needs the classes .*got SceneSource"):
        data.train_dataloader()
    data.sampling, data.group_by_aspect = "uniform", True
    with pytest.raises(ValueError, match="group_by_aspect: .*got SceneSource"):
        data.train_dataloader()


def test_yaml_takes_names_and_thresholds():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VisionDataModule, "data")
    factor = {"class_path": "striate.datamodules.RepeatFactor", "init_args": {"threshold": 0.1}}
    for sampling in ("uniform", "class_balanced", "repeat_factor", factor):
        options = {"root": "x", "sampling": sampling, "group_by_aspect": True}
        config = parser.parse_object({"data": {"class_path": "striate.datamodules.VOCDetection", "init_args": options}})
        data = parser.instantiate(config).data
        assert data.group_by_aspect and (data.sampling == sampling or data.sampling.threshold == 0.1)


def test_make_loader_takes_both():
    source = [{"image": np.zeros((4, 4, 3), np.uint8), "boxes": [], "labels": []}] * 63
    draw = RepeatFactorSampling(presence_of([{int(group)} for group in GROUPS]), 0.5)
    loader = make_loader(
        TransformedDataset(source),
        4,
        0,
        training=True,
        seed=7,
        collate_fn=collate_objects,
        sampling=draw,
        groups=GROUPS,
    )
    given = [index for batch in loader for index in batch["index"].tolist()]
    assert given == [key.index for key in keys(GROUPS, epoch=0, sampling=draw)][: draw.length // 4 * 4]
