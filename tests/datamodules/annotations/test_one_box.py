"""One object per image: its selection, and the source that returns it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.datamodules import CUB200, CocoLocalization, ImageNetLocalization, OxfordPets, VOCLocalization
from striate.datamodules.annotations.one_box import BoxSource, select_objects
from striate.datamodules.images.read import ImageError
from striate.datamodules.loading.dataset import TransformedDataset
from striate.tests.helpers.fixtures import noise, write_image


@pytest.mark.parametrize("rule, expected", [("one", [2]), ("first", [0, 2, 3]), ("largest", [1, 2, 5])])
def test_selection_by_hand(rule, expected):
    boxes = np.array([[0, 0, 3, 3], [0, 0, 2, 5], [1, 1, 2, 2], [0, 0, 1, 9], [4, 4, 8, 6], [0, 0, 10, 1]], np.float32)
    assert select_objects(np.array([4, 4, 5, 9, 9, 9]), boxes, rule).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 4)), max_size=20))
def test_selection_against_a_loop(objects):
    of_image = np.array([image for image, _, _ in objects], np.int64)
    boxes = np.array([(0, 0, w, h) for _, w, h in objects], np.float32).reshape(-1, 4)
    groups = {image: [n for n, o in enumerate(objects) if o[0] == image] for image in sorted({o[0] for o in objects})}
    largest = [max(group, key=lambda n: objects[n][1] * objects[n][2]) for group in groups.values()]
    assert select_objects(of_image, boxes, "largest").tolist() == largest
    assert select_objects(of_image, boxes, "first").tolist() == [group[0] for group in groups.values()]
    assert select_objects(of_image, boxes, "one").tolist() == [g[0] for g in groups.values() if len(g) == 1]


def source_of(tmp_path, box, **options):
    write_image(tmp_path / "a.png", noise(60, 40))
    return BoxSource(["a.png"], np.array([3]), np.array([box], np.float32), tmp_path, **options)


def test_a_sample_has_image_label_and_clipped_box(tmp_path):
    sample = source_of(tmp_path, [-2, 5.5, 70, 40])[0]
    np.testing.assert_array_equal(sample["image"], noise(60, 40))
    assert sample["label"] == 3 and sample["box"].tolist() == [0, 5.5, 60, 40] and sample["box"].dtype == np.float32
    assert sample["path"] == str(tmp_path / "a.png")


def test_a_box_drawn_in_another_size_is_scaled_or_rejected(tmp_path):
    sizes = np.array([[120, 160]], np.int32)
    sample = source_of(tmp_path, [12, 16, 120, 160], sizes=sizes, rescale=True)[0]
    assert sample["box"].tolist() == [6, 4, 60, 40]
    with pytest.raises(ImageError, match="a.png: .*60x40, .*annotations.* 120x160"):
        source_of(tmp_path, [12, 16, 120, 160], sizes=sizes)[0]
    assert source_of(tmp_path, [0, 0, 60, 40], sizes=sizes[:, ::-1] // 4 + [[20, 10]])[0]["box"].tolist() == [
        0,
        0,
        60,
        40,
    ]


def test_a_box_outside_its_image_counts_as_unreadable(tmp_path):
    source = source_of(tmp_path, [60, 5, 70, 9])
    with pytest.raises(ImageError, match=r"a.png: box \[60.0, 5.0, 70.0, 9.0\] .*outside.*60x40"):
        source[0]
    assert TransformedDataset(source)[0]["unreadable"][0].startswith(str(tmp_path / "a.png"))


def test_a_part_keeps_all_attributes(tmp_path):
    sizes = np.array([[10, 20], [30, 40]], np.int32)
    whole = BoxSource(["a", "b"], np.array([0, 1]), np.eye(2, 4, dtype=np.float32), tmp_path, sizes, rescale=True)
    part = whole.part(np.array([False, True]))
    assert len(part) == 1 and part.paths.tolist() == [b"b"] and part.labels.tolist() == [1] and part.rescale
    assert part.boxes.tolist() == [[0, 1, 0, 0]] and part.sizes.tolist() == [[30, 40]] and part.root == tmp_path


@pytest.mark.parametrize("reader", [VOCLocalization, CocoLocalization, CUB200, OxfordPets, ImageNetLocalization])
def test_readers_pass_min_visibility_to_the_augmentation_and_batch_equal_sizes(reader):
    data = reader("somewhere", min_visibility=0.25)
    assert data.min_visibility == 0.25 and not data.variable_size_images
