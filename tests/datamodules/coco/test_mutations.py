"""Any value of a valid file may be replaced by another: the file is read, or one line names it and the place."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from striate.datamodules import CocoDetection
from striate.datamodules.annotations.annotation_errors import DataError, record_faults
from striate.datamodules.coco.annotation_file import read_coco
from striate.tests.helpers.small_datasets import HEIGHT, WIDTH, write_coco

ODD = [
    None, True, False, 0, 1, -1, 2, 0.5, 1e30, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400,
    float("nan"), float("inf"), float("-inf"), "", "1", "8", "nan", "\0", "a.png", "../x", "\ud800", "é",
    [], [1], [[1]], [[]], [None], {}, {"a": 1}, [1, 2, 3, 4], [1, 2, 3, "4"], [[1, 2, 3, 4, 5, "6"]],
    [[1, 2, 3, 4, 5, 10**400]], [[1e300, 2, 3, 4, 5, 6]], {"size": [40, 60], "counts": [2400]},
    {"size": [40, 60], "counts": [10**30]}, {"size": [40.0, 60.0], "counts": [2400]},
    {"size": [40, 60], "counts": "é~"}, {"size": [40, 60], "counts": [True, 2399]}, {"size": None, "counts": "01"},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each value within a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, inner in entries for place in places(inner, (*path, key))]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"))


def mutated(file: Path, place: tuple[Any, ...], value: Any) -> Path:
    """Write a copy of the file with another value at a place."""
    content = json.loads(file.read_text())
    if place:
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = copy.deepcopy(value)
    else:
        content = value
    target = file.with_name("mutated.json")
    target.write_text(json.dumps(content))
    return target


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_read_right_or_one_line(file: Path, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(places(json.loads(file.read_text()))))
    value = data.draw(st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=5))
    with_boxes, with_masks = data.draw(st.booleans()), data.draw(st.booleans())
    target, folder = mutated(file, place, value), file.parent.parent / "train2017"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # dropped objects are counted
        try:
            content = read_coco(target, folder, with_boxes, with_masks)
            content.images.check(target)
        except DataError as error:
            message = str(error)
            assert str(target) in message and len(message) < 2000
            named = [str(key) for key in place if key in ("images", "annotations", "categories")]
            assert not named or "annotation" in message or any(word[:5] in message for word in named)
        else:
            objects = content.objects
            assert len(objects.labels) in (7, 8) or place[:1] == ("annotations",)
            assert (objects.boxes[:, 2:] > objects.boxes[:, :2]).all() or not with_boxes
            assert not (objects.area <= 0).any() or not with_boxes
        with record_faults():  # as the doctor reads
            try:
                read_coco(target, folder, with_masks=with_masks)
            except DataError as error:
                assert str(target) in str(error)


@pytest.mark.parametrize(
    "place",
    ["id", "bbox", "bbox 2", "segmentation", "area", "iscrowd", "image_id", "images id", "images width"],
)
def test_every_odd_value_where_it_matters(file: Path, place: str) -> None:
    first, *rest = place.split()
    path = ("images", 0, *rest) if first == "images" else ("annotations", 0, first, *map(int, rest))
    for value in ODD:
        target = mutated(file, path, value)
        options: dict[str, Any] = {"train_annotations": str(target), "num_workers": 0}
        data = CocoDetection(str(file.parent.parent), "instance_segmentation", **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                source = data.make_source("train")
            except DataError as error:
                assert str(target) in str(error) and path[0][:5] in str(error)
            else:
                assert len(source) == 4 and len(source.objects.labels) in (6, 7, 8)
                assert source[1]["masks"].shape[1:] == (HEIGHT, WIDTH)  # the first image may have another size


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000 + "]" * 100_000, '{"a": 1', '"\\ud800"', "\x00", ""])
@pytest.mark.parametrize("key", ["id", "segmentation", None])
def test_text_that_is_hardly_json(file: Path, key: str | None, text: str) -> None:
    target = file.with_name("mutated.json")
    content = file.read_text()
    whole = text if key is None else content.replace(f'"{key}": ', f'"{key}": {text}, "was": ', 1)
    target.write_text(whole)
    for with_masks in (False, True):
        with pytest.raises(DataError) as error:
            read_coco(target, file.parent.parent / "train2017", with_masks=with_masks, strict=True)
            if key == "segmentation":  # not read for boxes
                raise DataError(str(target))
        assert str(target) in str(error.value)
