"""Offsets of boxes: by hand, against torchvision's coder, and their symmetries."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder

from striate.models.detection import decode_boxes, encode_boxes

HEAD = (10.0, 10.0, 5.0, 5.0)
WIDTH = 640.0
coordinates = st.floats(0, 600, width=32)
sides = st.floats(0.5, 500, width=32)
boxes_of_some_area = st.tuples(coordinates, coordinates, sides, sides).map(
    lambda box: torch.tensor([box[0], box[1], box[0] + box[2], box[1] + box[3]], dtype=torch.float64)
)


def some_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 500
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * 200], dim=1)


def flipped(boxes):
    return torch.stack([WIDTH - boxes[..., 2], boxes[..., 1], WIDTH - boxes[..., 0], boxes[..., 3]], dim=-1)


ANCHOR = torch.tensor([10.0, 20.0, 30.0, 60.0])  # center 20, 40; 20 wide, 40 high
BOX = torch.tensor([20.0, 10.0, 60.0, 30.0])  # center 40, 20; 40 wide, 20 high


def test_by_hand():
    by_hand = torch.tensor([20 / 20, -20 / 40, math.log(40 / 20), math.log(20 / 40)])
    torch.testing.assert_close(encode_boxes(BOX, ANCHOR), by_hand)
    # divided by standard deviations 0.1, 0.1, 0.2, 0.2
    torch.testing.assert_close(encode_boxes(BOX, ANCHOR, HEAD), by_hand / torch.tensor([0.1, 0.1, 0.2, 0.2]))
    torch.testing.assert_close(decode_boxes(by_hand, ANCHOR), BOX)
    # one tenth to the right, one quarter up, twice as wide, half as high: of SSD's predictions with its variances
    seen = torch.tensor([1.0, -2.5, 5 * math.log(2), -5 * math.log(2)])
    torch.testing.assert_close(decode_boxes(seen, ANCHOR, HEAD), torch.tensor([2.0, 20.0, 42.0, 40.0]))


def test_no_offset_is_the_anchor_itself():
    assert decode_boxes(torch.zeros(4), ANCHOR, HEAD).tolist() == ANCHOR.tolist()
    assert encode_boxes(ANCHOR, ANCHOR, HEAD).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), HEAD, (1.0, 2.0, 3.0, 4.0)])
def test_torchvisions_coder(weights):
    boxes, anchors, coder = some_boxes(50, 0), some_boxes(50, 1), BoxCoder(weights)
    torch.testing.assert_close(encode_boxes(boxes, anchors, weights), coder.encode_single(boxes, anchors))
    deltas = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)) * 20  # beyond the clip too
    assert (deltas[:, 2:] / torch.tensor(weights[2:]) > math.log(1000 / 16)).any()
    torch.testing.assert_close(decode_boxes(deltas, anchors, weights), coder.decode_single(deltas, anchors)[:, :4])


@settings(deadline=None)
@given(boxes_of_some_area, boxes_of_some_area)
def test_there_and_back(box, anchor):
    deltas = encode_boxes(box, anchor, HEAD)
    torch.testing.assert_close(decode_boxes(deltas, anchor, HEAD, clip=10), box, rtol=1e-9, atol=1e-8)


@settings(deadline=None)
@given(boxes_of_some_area, boxes_of_some_area)
def test_a_mirrored_image_mirrors_dx_alone(box, anchor):
    deltas, mirrored = encode_boxes(box, anchor, HEAD), encode_boxes(flipped(box), flipped(anchor), HEAD)
    torch.testing.assert_close(mirrored, deltas * torch.tensor([-1, 1, 1, 1]), rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(
        decode_boxes(mirrored, flipped(anchor), HEAD, clip=10), flipped(box), rtol=1e-9, atol=1e-8
    )


@settings(deadline=None)
@given(boxes_of_some_area, boxes_of_some_area, st.floats(-300, 300), st.floats(0.1, 10))
def test_neither_place_nor_scale_of_the_image_counts(box, anchor, moved, scale):
    elsewhere = encode_boxes((box + moved) * scale, (anchor + moved) * scale)
    torch.testing.assert_close(elsewhere, encode_boxes(box, anchor), rtol=1e-7, atol=1e-7)


def test_a_wild_prediction_is_clipped_where_sixteen_pixels_become_a_thousand():
    anchor = torch.tensor([92.0, 92.0, 108.0, 108.0])
    wild = torch.tensor([0.0, 0.0, 1e6, 50.0], requires_grad=True)
    box = decode_boxes(wild, anchor)
    torch.testing.assert_close(box, torch.tensor([-400.0, -400.0, 600.0, 600.0]))
    box.sum().backward()
    assert wild.grad.isfinite().all()
    # the clip is of the logarithm, after its weight: 5 log 2 is not clipped at log 4
    grown = decode_boxes(torch.tensor([0.0, 0.0, 5 * math.log(2), 0.0]), anchor, HEAD, clip=math.log(4))
    torch.testing.assert_close(grown, torch.tensor([84.0, 92.0, 116.0, 108.0]))


def test_offsets_of_each_class():
    anchors, deltas = some_boxes(7, 3), torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(4))
    boxes = decode_boxes(deltas, anchors[:, None])
    assert boxes.shape == (7, 5, 4)
    torch.testing.assert_close(boxes[:, 2], decode_boxes(deltas[:, 2], anchors))
    torch.testing.assert_close(encode_boxes(boxes, anchors[:, None]), deltas, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted(dtype):
    anchor, deltas = torch.tensor([800.0, 800.0, 813.0, 813.0]), torch.tensor([0.25, 0.0, 0.0, 0.0], dtype=dtype)
    box = decode_boxes(deltas, anchor)  # in bfloat16, 803.25 would be 804
    assert box.dtype == torch.float32 and box.tolist() == [803.25, 800, 816.25, 813]
    assert encode_boxes(anchor.to(dtype), anchor).dtype == torch.float32
    assert encode_boxes(anchor.double(), anchor).dtype == torch.float64


def test_nothing():
    assert encode_boxes(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert decode_boxes(torch.zeros(0, 3, 4), torch.zeros(0, 1, 4)).shape == (0, 3, 4)


def test_bad_input():
    with pytest.raises(ValueError, match=r"boxes.*got \[2, 5\]"):
        encode_boxes(torch.zeros(2, 5), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"anchors.*got \[3\]"):
        decode_boxes(torch.zeros(2, 4), torch.zeros(3))
    with pytest.raises(ValueError, match=r"weights.*four.*got \[10.0, 10.0, 5.0\]"):
        encode_boxes(BOX, ANCHOR, HEAD[:3])
    with pytest.raises(ValueError, match=r"weights.*above 0.*got .*0.0\]"):
        decode_boxes(BOX, ANCHOR, (1.0, 1.0, 1.0, 0.0))
