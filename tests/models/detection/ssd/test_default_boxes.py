"""SSD's default boxes against tables computed by hand from the authors' scripts, and against torchvision's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from striate.models import SSD300, SSD512, SSDVGG16, default_boxes, ssd_aspects, ssd_scales
from striate.models.detection.ssd.default_boxes import box_shapes, whole_pixels

# side of the map, boxes per cell, then the first box of the first cell (the small square) and the last of the last (the
# upright one of the largest ratio): center (cells - 0.5) * step, width side / sqrt(ratio), height side * sqrt(ratio)
TABLE_300 = [
    (38, 4, [-11, -11, 19, 19], [289.3934, 278.7868, 310.6066, 321.2132]),  # step 8, side 30, ratio 2
    (19, 6, [-22, -22, 38, 38], [278.6795, 244.0385, 313.3205, 347.9615]),  # 16, 60, 3
    (10, 6, [-39.5, -39.5, 71.5, 71.5], [271.9571, 207.8712, 336.0429, 400.1288]),  # 32, 111, 3
    (5, 6, [-49, -49, 113, 113], [241.2346, 147.7039, 334.7654, 428.2961]),  # 64, 162, 3
    (3, 4, [-56.5, -56.5, 156.5, 156.5], [174.6931, 99.3863, 325.3069, 400.6137]),  # 100, 213, 2
    (1, 4, [18, 18, 282, 282], [56.6619, -36.6762, 243.3381, 336.6762]),  # 300, 264, 2
]
TABLE_512 = [
    (64, 4, [-13.5, -13.5, 21.5, 21.5], [495.6256, 483.2513, 520.3744, 532.7487]),  # step 8, side 35, ratio 2
    (32, 6, [-30, -30, 46, 46], [482.0607, 438.1821, 525.9393, 569.8179]),  # 16, 76, 3
    (16, 6, [-60.5, -60.5, 92.5, 92.5], [451.8327, 363.4981, 540.1673, 628.5019]),  # 32, 153, 3
    (8, 6, [-83, -83, 147, 147], [413.6047, 280.8142, 546.3953, 679.1858]),  # 64, 230, 3
    (4, 6, [-89.5, -89.5, 217.5, 217.5], [359.3767, 182.1302, 536.6233, 713.8698]),  # 128, 307, 3
    (2, 4, [-64, -64, 320, 320], [248.2355, 112.4710, 519.7645, 655.5290]),  # 256, 384, 2
    (1, 4, [26, 26, 486, 486], [93.3654, -69.2691, 418.6346, 581.2691]),  # 512, 460, 2
]


@pytest.mark.parametrize(("build", "table", "total"), [(SSD300, TABLE_300, 8732), (SSD512, TABLE_512, 24564)])
def test_the_papers_boxes(build, table, total):
    model = build(backbone=SSDVGG16(width=0.125, hidden=16))
    assert len(model.anchors) == sum(cells * cells * n for cells, n, *_ in table) == total
    assert model.grids == [(cells, cells) for cells, *_ in table]
    start = 0
    for cells, n, first, last in table:
        level = model.anchors[start : start + cells * cells * n]
        assert torch.allclose(level[0], torch.tensor(first, dtype=torch.float32), atol=1e-4)
        assert torch.allclose(level[-1], torch.tensor(last), atol=1e-4)
        start += len(level)


def test_a_cells_boxes_and_the_order_of_cells():
    boxes = default_boxes([(2, 3)], 60, [30, 60], [[2.0]], [20])
    assert boxes.shape == (24, 4)
    sizes = (boxes[:4, 2:] - boxes[:4, :2]).tolist()
    expected = [[30, 30], [42.4264, 42.4264], [42.4264, 21.2132], [21.2132, 42.4264]]  # sqrt(30 * 60), 30 * sqrt(2)
    assert torch.allclose(torch.tensor(sizes), torch.tensor(expected), atol=1e-3)
    centers = ((boxes[:, :2] + boxes[:, 2:]) / 2)[::4]
    assert centers.tolist() == [[10, 10], [30, 10], [50, 10], [10, 30], [30, 30], [50, 30]]  # x first, then y


def test_scales_are_those_of_the_authors_scripts():
    assert ssd_scales(6, 10, 20) == [10, 20, 37, 54, 71, 88, 105]
    assert ssd_scales(6, 7, 15) == [7, 15, 33, 51, 69, 87, 105]
    assert ssd_scales(7, 7, 15) == [7, 15, 30, 45, 60, 75, 90, 105]
    assert ssd_scales(7, 4, 10) == [4, 10, 26, 42, 58, 74, 90, 106]
    assert whole_pixels(ssd_scales(6), 300) == [30, 60, 111, 162, 213, 264, 315]
    assert whole_pixels(ssd_scales(6, 7, 15), 300) == [21, 45, 99, 153, 207, 261, 315]
    assert whole_pixels(ssd_scales(7, 7, 15), 512) == [35, 76, 153, 230, 307, 384, 460, 537]
    assert whole_pixels(ssd_scales(7, 4, 10), 512) == [20, 51, 133, 215, 296, 378, 460, 542]


@pytest.mark.parametrize("maps", range(1, 9))
def test_any_number_of_maps_has_rising_scales(maps):
    scales = ssd_scales(maps)
    assert len(scales) == maps + 1
    assert sorted(set(scales)) == scales
    assert len(ssd_aspects(maps)) == maps


@pytest.mark.parametrize("steps", [None, [8, 16, 32, 64, 100, 300]])
def test_clipped_sides_are_torchvisions(steps):
    grids = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
    scales = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    aspects = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
    theirs = DefaultBoxGenerator(aspects, scales=scales, steps=steps)(
        ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)]), [torch.zeros(1, 1, *grid) for grid in grids]
    )[0]
    sides = whole_pixels(ssd_scales(6, 7, 15), 300)
    ours = default_boxes(grids, 300, sides, ssd_aspects(6), steps, clip="sides")
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, default_boxes(grids, 300, sides, ssd_aspects(6), steps), atol=1)


def test_clipped_corners_stay_in_the_image():
    free = default_boxes([(4, 4)], 32, [20, 30], [[2.0]])
    kept = default_boxes([(4, 4)], 32, [20, 30], [[2.0]], clip="corners")
    assert free.min() < 0
    assert torch.equal(kept, free.clamp(0, 32))


@settings(max_examples=30, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    side=st.floats(1, 50),
    aspects=st.lists(st.floats(1.1, 5), max_size=3),
)
def test_boxes_are_those_of_the_mirrored_image(grid, side, aspects):
    boxes = default_boxes([grid], 64, [side, side * 1.5], [aspects])
    mirrored = torch.stack([64 - boxes[:, 2], boxes[:, 1], 64 - boxes[:, 0], boxes[:, 3]], 1)
    cells = mirrored.reshape(*grid, -1, 4).flip(1).flatten(0, 2)
    assert torch.allclose(cells, boxes, atol=1e-3)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).reshape(-1, 2 + 2 * len(aspects))
    assert torch.allclose(areas[:, 2:], areas[:, :1].expand(-1, 2 * len(aspects)), rtol=1e-3)  # a ratio keeps the area


def test_what_makes_no_boxes_is_rejected():
    with pytest.raises(ValueError, match="^aspects.*2 for 2 feature maps.*got 1"):
        default_boxes([(2, 2), (1, 1)], 20, [5, 10, 15], [[2.0]])
    with pytest.raises(ValueError, match="^steps.*1 for 1 feature maps, got 2"):
        default_boxes([(2, 2)], 20, [5, 10], [[2.0]], [1, 2])
    with pytest.raises(ValueError, match="clip.*got 'both'"):
        default_boxes([(2, 2)], 20, [5, 10], [[2.0]], clip="both")
    with pytest.raises(ValueError, match="first.*got 20, 10"):
        ssd_scales(6, 20, 10)
    with pytest.raises(ValueError, match="last.*9 increasing whole percents.*got 25"):
        ssd_scales(10, 10, 20, 25)
    with pytest.raises(ValueError, match=r"scales.*8 pixels, which are \[0, 1\] pixels"):
        whole_pixels([10, 20], 8)
    assert box_shapes(10.0, 40.0, []) == [(10.0, 10.0), (20.0, 20.0)]
