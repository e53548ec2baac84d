"""Faults are raised, counted in one warning, or recorded, by the sink that is set."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from striate.datamodules.annotations.annotation_errors import (
    AbsentSplitError,
    AnnotationErrors,
    DataError,
    Fault,
    record_error,
    record_faults,
)


def test_recorded_faults_do_not_warn(tmp_path):
    errors = AnnotationErrors(tmp_path / "a.json", True, lambda position: f"image{position}")
    with record_faults() as outer:
        with record_faults() as faults:
            errors.add("box-outside", np.array([5, 7]), positions=[1, 2], boxes=np.eye(2, 4))
            errors.warn()
        assert not outer
    (fault,) = faults
    assert (fault.code, fault.names, fault.images) == ("box-outside", [5, 7], ["image1", "image2"])
    assert fault.boxes[0].tolist() == [1, 0, 0, 0]
    with pytest.raises(DataError, match=r"a.json, annotation 5 \(and 1 more\): .*strict") as error:
        errors.add("box-outside", [5, 7])
    assert error.value.fault.code == "box-outside"


def test_dropped_annotations_are_counted_in_one_warning(tmp_path):
    errors = AnnotationErrors(tmp_path / "a.json", False)
    errors.add("box-outside", [3])
    errors.add("bad-mask", [4, 6], found="no polygon")
    errors.add("box-outside", [8, 9])
    with pytest.warns(UserWarning, match=r"^5 annotations .*3 x .*annotation 3\); 2 x .*data check"):
        errors.warn()


@pytest.mark.parametrize("code, missing", [("missing-image", True), ("missing-annotation", True), ("bad-mask", False)])
def test_a_fault_is_raised_unless_it_is_recorded(code, missing):
    fault = Fault(code, Path("a.csv"), [3, 4], "line", "no mask", "add one")
    with record_faults() as faults:
        record_error(fault)
    assert faults == [fault]
    with pytest.raises(DataError, match=r"^a.csv, line 3 \(and 1 more\): .*; add one$") as error:
        record_error(fault)
    assert error.value.fault is fault and isinstance(error.value, FileNotFoundError) == missing
    with pytest.raises(DataError, match="^other words$"):
        record_error(fault, "other words")


def test_errors_survive_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(AbsentSplitError.of(Fault("bad-mask", Path("a"), [3]))))
    assert isinstance(error, FileNotFoundError | ValueError) and error.fault.code == "bad-mask"
    assert str(AbsentSplitError("no folder")) == "no folder"


@pytest.mark.parametrize(
    "unit, name, location",
    [
        ("line", 3, "f, line 3"),
        ("entry", "images[2]", "f, images[2]"),
        ("file", "a.txt", "f/a.txt"),
        ("path", "g", "g"),
    ],
)
def test_locations(unit, name, location):
    assert Fault("bad-mask", Path("f"), [name], unit).location(0) == location
