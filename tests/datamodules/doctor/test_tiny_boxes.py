"""Boxes that are too small to be meant: found, and left out of the suggestions."""

import numpy as np
import pytest

from striate.datamodules.doctor import check
from striate.datamodules.doctor.tiny_boxes import size_limit, tiny_boxes
from striate.tests.helpers.fixtures import noise
from striate.tests.helpers.small_datasets import InMemory, boxed


def test_the_limit_follows_the_sizes_of_the_others():
    generator = np.random.default_rng(0)
    sides = np.exp(generator.normal(np.log(400), 0.3, 500))
    assert size_limit(sides, sides) == pytest.approx(20, rel=0.1)  # a twentieth of the median
    assert size_limit(sides[:19], sides[:19]) == 0  # too few for a typical size
    varied = np.exp(generator.normal(np.log(60), 1.2, 500))
    assert size_limit(varied, varied) < 1.5  # small objects are usual here
    boxes = np.array([[0, 0, 15, 15], [0, 0, 25, 25], [0, 0, 1.9, 300], [5, 5, 300, 6]])
    sizes = np.full((4, 2), 300)
    assert tiny_boxes(boxes, sizes, 20).tolist() == [True, False, True, True]
    assert tiny_boxes(boxes, sizes, 0).tolist() == [False, False, True, True]
    assert not tiny_boxes(np.array([[0.1, 0, 2.0999, 2]]), sizes[:1], 0).any()
    assert not tiny_boxes(np.array([[0.0, 0, 300, 1]]), np.array([[300, 1]]), 0).any()  # the whole image


def test_tiny_boxes_are_findings_and_not_in_suggestions():
    samples = [{**boxed((1, 1, 31, 31)), "image": noise(100, 120, n)} for n in range(30)]
    whole = check(InMemory(samples), processes=0)
    assert not whole.findings.of("box-tiny")
    points = [
        {**boxed((9, 1, 10, 31)), "image": noise(100, 120, 50)},
        {**boxed((5, 5, 6, 6)), "image": noise(100, 120, 51)},
    ]
    report = check(InMemory(samples + points), processes=0)
    first, second = report.findings.of("box-tiny")
    assert first.index == 30 and "[9, 1, 10, 31], 1 x 30 pixels" in first.detail and first.boxes == ((9, 1, 10, 31),)
    assert second.index == 31 and not report.clean
    assert report.statistics.splits[0].objects == 32
    anchors = [[one.yaml for one in each.statistics.suggestions if "nchors" in one.title] for each in (whole, report)]
    assert anchors[0] == anchors[1] != []
