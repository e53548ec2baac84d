"""Selective search as a whole: modes, ranking, filters, and images of all kinds."""

import sys
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from striate.models import SearchStrategy, search_strategies, selective_search
from striate.models.proposals.color_spaces import convert_color
from striate.models.proposals.regions import color_indices, segment, texture_indices
from striate.models.proposals.selective_search import rank_boxes
from striate.tests.helpers.regions import plain_hierarchy

needs_scikit_image = pytest.mark.usefixtures("_scikit_image")


@pytest.fixture
def _scikit_image():
    pytest.importorskip("skimage")


def photo(height=90, width=120, top=150, left=200):
    """A part of a photograph, uint8 ``[3, H, W]``."""
    image = load_sample_images().images[0][top : top + height, left : left + width]
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def test_strategies_of_the_modes():
    everything, no_color = ("color", "texture", "size", "fill"), ("texture", "size", "fill")
    assert search_strategies("single") == [SearchStrategy("hsv", everything, 100)]
    fast = search_strategies("fast")
    assert len(fast) == 8 and len(search_strategies("quality")) == 80
    assert set(fast) == {SearchStrategy(*s) for s in product(("hsv", "lab"), (everything, no_color), (50, 100))}
    colors, measures = ("hsv", "lab", "rgi", "h", "intensity"), (everything, no_color, ("fill",), ("size",))
    quality = {SearchStrategy(*strategy) for strategy in product(colors, measures, (50, 100, 150, 300))}
    assert set(search_strategies("quality")) == quality


def test_ranking_by_hand():
    """Four regions of one hierarchy, from the top; two are the same box, and one is 19 pixels wide."""
    boxes = np.array([[0, 0, 50, 40], [0, 0, 30, 40], [5, 5, 24, 40], [0, 0, 30, 40], [10, 10, 30, 30]])
    positions = np.array([1, 2, 3, 4, 5])
    random = torch.rand(5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).tolist()
    values = [number * position for number, position in zip(random, positions, strict=True)]
    expected = sorted([(values[0], 0), (min(values[1], values[3]), 1), (values[4], 4)])
    ranked, scores = rank_boxes(boxes, positions, min_side=20, seed=3)
    assert ranked.tolist() == [boxes[index].tolist() for _, index in expected]
    np.testing.assert_allclose(scores, [1 / (1 + value) for value, _ in expected])
    assert len(rank_boxes(boxes, positions, 19, 3)[0]) == 4 and len(rank_boxes(boxes, positions, 21, 3)[0]) == 2


def test_the_top_of_a_hierarchy_ranks_high():
    corners = np.arange(400)
    boxes = np.stack([corners, corners, corners + 30, corners + 30], axis=1)
    ranked, scores = rank_boxes(boxes, corners + 1, min_side=20, seed=0)
    assert ranked[:100, 0].mean() < 100 < 250 < ranked[-100:, 0].mean()
    assert (np.diff(scores) <= 0).all() and 0 < scores[-1] < scores[0] <= 1


@needs_scikit_image
@pytest.mark.parametrize("strategy", [SearchStrategy("hsv", k=100), SearchStrategy("intensity", ("fill", "size"), 80)])
def test_all_boxes_of_a_strategy_against_a_plain_version(strategy):
    image = photo(60, 80)
    channels = convert_color(image.permute(1, 2, 0).numpy(), strategy.color)
    labels = segment(channels, strategy.k)
    joined = plain_hierarchy(labels, color_indices(channels), texture_indices(channels), strategy.measures)
    initial = [
        (c.min(), r.min(), c.max() + 1, r.max() + 1) for r, c in (np.nonzero(labels == n) for n in np.unique(labels))
    ]
    boxes, scores = selective_search(image, [strategy], min_side=0)
    assert set(map(tuple, boxes.int().tolist())) == set(initial) | set(joined)
    assert len(initial) > 5 and len(boxes) == len(set(map(tuple, boxes.tolist()))) == len(scores)


@needs_scikit_image
def test_boxes_lie_in_the_image_best_first_and_without_duplicates():
    boxes, scores = selective_search(photo())
    assert boxes.dtype == scores.dtype == torch.float32 and boxes.shape == (len(scores), 4) and len(boxes) > 50
    assert (boxes >= 0).all() and (boxes <= torch.tensor([120, 90, 120, 90])).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 20).all()
    assert (scores.diff() <= 0).all() and len(boxes.unique(dim=0)) == len(boxes)
    assert [0, 0, 120, 90] in boxes[:20].int().tolist()  # at the top of all eight hierarchies
    counts = [len(selective_search(photo(), "single", min_side=side)[0]) for side in (0, 20, 40)]
    assert counts[0] > counts[1] > counts[2] > 0


@needs_scikit_image
def test_modes_propose_more_and_more():
    counts = [len(selective_search(photo(), mode, min_side=5)[0]) for mode in ("single", "fast")]
    assert 4 * counts[0] < 2 * counts[1] < 8 * 2 * counts[0]


@needs_scikit_image
def test_seeds():
    first, again, other = (selective_search(photo(), "single", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(first[0].unique(dim=0), other[0].unique(dim=0))
    few, scores = selective_search(photo(), "single", max_boxes=7)
    assert torch.equal(few, first[0][:7]) and torch.equal(scores, first[1][:7])
    state = torch.get_rng_state()
    selective_search(photo(40, 40), "single")
    assert torch.equal(torch.get_rng_state(), state)


@needs_scikit_image
def test_float_images_are_those_of_8_bits():
    expected = selective_search(photo(), "single")[0]
    assert torch.equal(selective_search(photo() / 255, "single")[0], expected)
    assert torch.equal(selective_search(photo().double() / 255, "single")[0], expected)


@needs_scikit_image
def test_gray_and_constant_images():
    gray = photo().float().mean(0).to(torch.uint8).expand(3, -1, -1)
    assert len(selective_search(gray)[0]) > 30
    # no hue: one segment
    assert selective_search(gray, [SearchStrategy("h")])[0].tolist() == [[0, 0, 120, 90]]
    for value in (0, 90, 255):
        boxes, scores = selective_search(torch.full((3, 40, 60), value, dtype=torch.uint8), "quality")
        assert boxes.tolist() == [[0, 0, 60, 40]] and 0 < scores.item() <= 1


@needs_scikit_image
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (3, 1), (2, 2)])
def test_tiny_images(height, width):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    assert selective_search(image)[0].shape == (0, 4) and selective_search(image)[1].shape == (0,)
    assert selective_search(image, min_side=0)[0].tolist() == [[0, 0, width, height]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: selective_search(photo(), "slow"), ValueError, "mode: must be one of 'single', 'fast', 'quality'"),
        (lambda: selective_search(photo(), []), ValueError, "mode: must have at least one strategy"),
        (lambda: selective_search(photo().permute(1, 2, 0)), ValueError, r"image: .*image.*permute\(2, 0, 1\)"),
        (lambda: selective_search(photo()[:1]), ValueError, r"image: .*\[1, 90, 120\]; .*expand\(3, -1, -1\)"),
        (lambda: selective_search(photo()[:, :0]), ValueError, r"image: must be .* at least one pixel"),
        (lambda: selective_search(photo().float()), ValueError, r"image: .*must be in \[0, 1\], got values from"),
        (lambda: selective_search(photo().int()), TypeError, "image: .*got torch.int32"),
        (lambda: selective_search(photo(), min_side=-1), ValueError, "min_side: must be >= 0, got -1"),
        (lambda: selective_search(photo(), max_boxes=0), ValueError, "max_boxes: must be >= 1, got 0"),
        (lambda: SearchStrategy("hls"), ValueError, "color: must be one of .*, got 'hls'"),
        (lambda: SearchStrategy(measures=("colour",)), ValueError, "measures: .*did you mean 'color'"),
        (lambda: SearchStrategy(measures=()), ValueError, "measures: must have at least one of color, texture"),
        (lambda: SearchStrategy(k=0), ValueError, "k: must be > 0, got 0"),
    ],
)
def test_invalid_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("color", ["hsv", "intensity"])
def test_a_missing_package_is_one_clear_line(monkeypatch, color):
    for module in ("skimage", "skimage.color", "skimage.segmentation"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"needs .* scikit-image; run pip install 'striate\[proposals\]'"):
        selective_search(photo(), [SearchStrategy(color)])
