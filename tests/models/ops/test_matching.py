"""Matching and sampling, by hand, against torchvision and plain loops, and their symmetries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher, SSDMatcher
from torchvision.ops import box_iou

from striate.models.detection import bipartite_then_threshold, match_anchors, match_iou, sample_balanced
from striate.models.ops import matching

RPN = {"foreground_iou": 0.7, "background_iou": 0.3, "allow_low_quality": True}
WIDTH = 128


def some_boxes(count, seed, size=40):
    """Random boxes of whole and half pixels, so that IoUs are often equal, and shifting and mirroring are exact."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 2 * (WIDTH - size), (count, 2), generator=generator)
    return torch.cat([corners, corners + torch.randint(1, 2 * size + 1, (count, 2), generator=generator)], dim=1) / 2


def flipped(boxes):
    return torch.stack([WIDTH - boxes[:, 2], boxes[:, 1], WIDTH - boxes[:, 0], boxes[:, 3]], dim=1)


ANCHORS = torch.tensor([
    [0.0, 0.0, 10.0, 10.0],  # IoU with the first object 0.8, with the second 0
    [0.0, 0.0, 10.0, 4.0],  #  0.5 (40 / 80)
    [0.0, 0.0, 5.0, 4.0],  #  0.25 (20 / 80)
    [20.0, 0.0, 24.0, 4.0],  # 0 and 0.25 (4 / 16)
    [22.0, 2.0, 26.0, 6.0],  # 0 and 0.25 (4 / 16): the second object's other best
    [50.0, 50.0, 60.0, 60.0],  # nothing
])  # fmt: skip
OBJECTS = torch.tensor([[0.0, 0.0, 10.0, 8.0], [22.0, 2.0, 24.0, 4.0]])


def test_matching_by_hand():
    assert match_anchors(OBJECTS, ANCHORS, 0.7, 0.3).tolist() == [0, -2, -1, -1, -1, -1]
    assert match_anchors(OBJECTS, ANCHORS, 0.5, 0.5).tolist() == [0, 0, -1, -1, -1, -1]  # 0.5 is enough
    assert match_anchors(OBJECTS, ANCHORS, 0.9, 0.25).tolist() == [-2, -2, -2, -2, -2, -1]  # 0.25 is not background
    # both best anchors of the second object, on a tie
    assert match_anchors(OBJECTS, ANCHORS, **RPN).tolist() == [0, -2, -1, 1, 1, -1]
    # Fast R-CNN: anchors with an IoU below 0.1 are not background either
    assert match_anchors(OBJECTS, ANCHORS, 0.5, 0.5, min_background_iou=0.1).tolist() == [0, 0, -1, -1, -1, -2]
    assert match_anchors(OBJECTS, ANCHORS, 0.5, 0.5, min_background_iou=0.25).tolist() == [0, 0, -1, -1, -1, -2]
    assert match_anchors(OBJECTS, ANCHORS, 0.5, 0.5, min_background_iou=0.26).tolist() == [0, 0, -2, -2, -2, -2]


def test_a_low_quality_match_goes_to_the_object_that_the_anchor_overlaps_most():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])  # the only one, so the best of both
    objects = torch.tensor([[0.0, 0.0, 2.0, 10.0], [4.0, 0.0, 10.0, 10.0]])
    assert match_anchors(objects, anchors, **RPN).tolist() == [1]


def test_an_object_that_no_anchor_overlaps_makes_nothing_foreground():
    away = torch.tensor([[100.0, 100.0, 110.0, 110.0]])
    assert match_anchors(away, ANCHORS, **RPN).tolist() == [-1] * 6
    assert (Matcher(0.7, 0.3, True)(box_iou(away, ANCHORS)) == 0).all()  # torchvision: all of them


@pytest.mark.parametrize("low_quality", [False, True])
# many blocks of anchors, few, one; and the 15 objects in chunks of four
@pytest.mark.parametrize(("pairs", "min_anchors"), [(64, 64), (1000, 64), (2**20, 64), (16, 4)])
def test_torchvisions_matcher(monkeypatch, low_quality, pairs, min_anchors):
    monkeypatch.setitem(matching._PAIRS_PER_BLOCK, "cpu", pairs)
    monkeypatch.setattr(matching, "_MIN_ANCHORS_PER_BLOCK", min_anchors)
    for seed in range(5):
        objects, anchors = some_boxes(15, seed), some_boxes(1500, seed + 100)
        iou = box_iou(objects, anchors)
        for high, low in ((0.7, 0.3), (0.5, 0.5), (0.3, 0.1)):
            theirs = Matcher(high, low, low_quality)(iou)
            assert torch.equal(match_anchors(objects, anchors, high, low, low_quality), theirs)
            assert torch.equal(match_iou(iou, high, low, low_quality), theirs)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 40))
def test_invariant_under_mirroring_shifts_and_reordering(seed, count, anchor_count):
    objects, anchors = some_boxes(count, seed), some_boxes(anchor_count, seed + 1)
    for match in (lambda *boxes: match_anchors(*boxes, **RPN), match_anchors, bipartite_then_threshold):
        matches = match(objects, anchors)
        assert torch.equal(match(flipped(objects), flipped(anchors)), matches)
        assert torch.equal(match(objects + 32, anchors + 32), matches)
        assert torch.equal(match(objects * 4, anchors * 4), matches)
    order = torch.randperm(anchor_count, generator=torch.Generator().manual_seed(seed))
    for function in (lambda a: match_anchors(objects, a, **RPN), lambda a: match_anchors(objects, a)):
        assert torch.equal(function(anchors[order]), function(anchors)[order])


def caffes_matching(iou, threshold):
    """Repeatedly the pair with the highest IoU, then the threshold; plain loops over ``[N, A]``."""
    objects, anchors = iou.shape
    matches, waiting = [-1] * anchors, set(range(objects))
    while waiting:
        pairs = [(-iou[n, a].item(), a, n) for n in waiting for a in range(anchors) if matches[a] < 0]
        if not pairs or -min(pairs)[0] <= 1e-6:
            break
        _, anchor, number = min(pairs)
        matches[anchor] = number
        waiting.discard(number)
    for anchor in range(anchors):
        if matches[anchor] < 0 and objects and iou[:, anchor].max() >= threshold:
            matches[anchor] = int(iou[:, anchor].argmax())
    return matches


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 8), st.integers(1, 12))
def test_bipartite_matching_against_plain_loops(seed, count, anchor_count):
    objects, anchors = some_boxes(count, seed, size=100), some_boxes(anchor_count, seed + 1, size=100)
    expected = caffes_matching(box_iou(objects, anchors), 0.5)
    assert bipartite_then_threshold(objects, anchors).tolist() == expected


def test_bipartite_matching_where_objects_compete_for_long(monkeypatch):
    monkeypatch.setattr(matching, "_CANDIDATES", 2)  # further candidates are looked up several times
    objects = some_boxes(1, 3).repeat(9, 1)
    anchors = torch.cat([some_boxes(1, 3) + shift / 7 for shift in range(12)])
    expected = caffes_matching(box_iou(objects, anchors), 0.5)
    assert bipartite_then_threshold(objects, anchors).tolist() == expected
    assert sorted(expected[:9]) == list(range(9))  # one each, from the nearest anchor outwards
    assert sorted(n for n in bipartite_then_threshold(objects, anchors[:4]).tolist()) == [0, 1, 2, 3]  # none is left


def test_bipartite_matching_by_hand():
    # the second anchor is the best of both objects; the second object overlaps it more, so the first gets the first
    anchors = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [40.0, 0.0, 44.0, 4.0]])
    objects = torch.tensor([[2.0, 0.0, 5.0, 4.0], [2.0, 0.0, 6.0, 4.0]])  # 0.4 and 0.75; 1/3 and 1
    assert bipartite_then_threshold(objects, anchors).tolist() == [0, 1, -1]
    assert bipartite_then_threshold(objects.flip(0), anchors).tolist() == [1, 0, -1]
    # torchvision: the later object takes it at any IoU, and the other gets none
    assert SSDMatcher(0.5)(box_iou(objects, anchors)).tolist() == [-1, 1, -1]
    assert SSDMatcher(0.5)(box_iou(objects.flip(0), anchors)).tolist() == [-1, 1, -1]
    # an anchor assigned to an object keeps it, although another object overlaps it more
    small = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0]])
    assert bipartite_then_threshold(small, anchors[:2]).tolist() == [0, 1]
    # the threshold itself is enough: 8 / 16
    half = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]])
    assert bipartite_then_threshold(half[:1], half).tolist() == [0, 0]
    assert bipartite_then_threshold(half[:1], half, threshold=0.51).tolist() == [0, -1]


def test_torchvisions_ssd_matcher_where_no_two_objects_compete():
    anchors = some_boxes(2000, 1)
    objects = anchors[torch.arange(0, 2000, 100)] + torch.tensor([0.0, 0.0, 0.5, 0.25])
    iou = box_iou(objects, anchors)
    assert len(iou.argmax(1).unique()) == len(objects)
    assert torch.equal(bipartite_then_threshold(objects, anchors), SSDMatcher(0.5)(iou))


def test_no_objects_or_no_anchors():
    none = torch.zeros(0, 4)
    for match in (match_anchors, bipartite_then_threshold, lambda *boxes: match_anchors(*boxes, **RPN)):
        assert match(none, ANCHORS).tolist() == [-1] * 6
        assert match(OBJECTS, none).shape == (0,)
        assert match(none, none).dtype == torch.int64
    assert match_anchors(none, ANCHORS, min_background_iou=0.1).tolist() == [-2] * 6
    assert match_iou(torch.zeros(0, 3)).tolist() == [-1, -1, -1]


def test_five_thousand_objects():
    objects, anchors = some_boxes(5000, 5), some_boxes(3000, 6)
    matches = bipartite_then_threshold(objects, anchors)
    assert len(matches[matches >= 0].unique()) == (matches >= 0).sum() > 2900  # hardly any anchor is left
    assert torch.equal(match_anchors(objects, anchors, **RPN), Matcher(0.7, 0.3, True)(box_iou(objects, anchors)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    # whole pixels below 256 are exact in bfloat16, areas are not: they are computed wider
    objects, anchors = some_boxes(10, 7).round(), some_boxes(300, 8).round() + torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert torch.equal(match_anchors(objects.to(dtype), anchors.to(dtype)), match_anchors(objects, anchors))
    assert torch.equal(bipartite_then_threshold(objects.to(dtype), anchors), bipartite_then_threshold(objects, anchors))


def test_boxes_without_area_match_nothing_and_give_no_nan():
    points = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert match_anchors(points, torch.cat([ANCHORS, points]), **RPN).tolist() == [-1] * 7
    assert bipartite_then_threshold(points, torch.cat([ANCHORS, points])).tolist() == [-1] * 7


def test_inputs_with_a_gradient():
    objects, anchors = OBJECTS.clone().requires_grad_(), ANCHORS.clone().requires_grad_()
    assert match_iou(box_iou(objects, anchors), **RPN).tolist() == [0, -2, -1, 1, 1, -1]
    assert match_anchors(objects, anchors, **RPN).tolist() == [0, -2, -1, 1, 1, -1]
    assert bipartite_then_threshold(objects, anchors).tolist() == [0, 0, -1, 1, -1, -1]


def test_bad_input():
    with pytest.raises(ValueError, match=r"boxes.*got \[4\]"):
        match_anchors(torch.zeros(4), ANCHORS)
    with pytest.raises(ValueError, match=r"anchors.*got \[6, 5\]"):
        bipartite_then_threshold(OBJECTS, torch.zeros(6, 5))
    with pytest.raises(ValueError, match=r"iou.*got \[3\]"):
        match_iou(torch.zeros(3))
    with pytest.raises(ValueError, match="foreground_iou.*got 0.3, 0.7 and 0.0"):
        match_anchors(OBJECTS, ANCHORS, 0.3, 0.7)
    with pytest.raises(ValueError, match="threshold.*got 0"):
        bipartite_then_threshold(OBJECTS, ANCHORS, threshold=0)


@pytest.mark.parametrize(
    ("positives", "negatives", "drawn"),
    [(100, 1000, (32, 96)), (10, 1000, (10, 118)), (100, 20, (32, 20)), (0, 1000, (0, 128)), (0, 0, (0, 0))],
)
def test_at_most_a_quarter_of_foreground(positives, negatives, drawn):
    matches = torch.cat([torch.arange(positives), torch.full((negatives,), -1), torch.full((50,), -2)])
    matches = matches[torch.randperm(len(matches), generator=torch.Generator().manual_seed(0))]
    foreground, background = sample_balanced(matches, 128, 0.25)
    assert (len(foreground), len(background)) == drawn
    assert (matches[foreground] >= 0).all() and (matches[background] == -1).all()
    assert (foreground.diff() > 0).all() and (background.diff() > 0).all()  # increasing, so none twice


def test_the_same_seed_draws_what_torchvisions_sampler_draws():
    matches = match_anchors(some_boxes(20, 9), some_boxes(2000, 10), **RPN)
    theirs = BalancedPositiveNegativeSampler(64, 0.25)
    torch.manual_seed(3)
    (positive,), (negative,) = theirs([matches.clamp(min=-1).where(matches == -2, (matches + 1).clamp(max=1))])
    torch.manual_seed(3)
    ours = sample_balanced(matches, 64, 0.25)
    assert torch.equal(ours[0], positive.nonzero()[:, 0]) and torch.equal(ours[1], negative.nonzero()[:, 0])
    assert len(ours[0]) == 16 and len(ours[1]) == 48


def test_a_generator_is_reproducible_and_does_not_touch_torchs_default():
    matches = torch.arange(-50, 50).clamp(min=-1)
    before = torch.get_rng_state()
    first, again, other = (
        torch.cat(sample_balanced(matches, 16, 0.5, torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_every_anchor_is_drawn_equally_often():
    matches, generator = torch.full((40,), -1), torch.Generator().manual_seed(0)
    matches[:8] = 0
    counts = torch.zeros(40)
    for _ in range(2000):
        foreground, background = sample_balanced(matches, 8, 0.25, generator)
        counts[foreground] += 1
        counts[background] += 1
    assert counts[:8].sum() == 4000 and counts[8:].sum() == 12000
    assert ((counts[:8] - 500).abs() < 100).all() and ((counts[8:] - 375).abs() < 90).all()  # five standard deviations


def test_fractions_that_floats_miss():
    assert len(sample_balanced(torch.zeros(100), 100, 0.29)[0]) == 29


def test_bad_samples():
    with pytest.raises(ValueError, match="count.*got -1"):
        sample_balanced(torch.zeros(3), -1, 0.5)
    with pytest.raises(ValueError, match="positive_fraction.*got 25"):
        sample_balanced(torch.zeros(3), 4, 25)
    with pytest.raises(ValueError, match=r"matches.*got \[2, 3\]"):
        sample_balanced(torch.zeros(2, 3), 4, 0.5)
