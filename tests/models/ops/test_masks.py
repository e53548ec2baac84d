"""Run lengths and pasting of masks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from striate.models.ops.masks import RunLengths, paste_masks, resize_maps


def random_masks(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Random masks, some empty, some full, some of whole columns: bool ``[count, height, width]``."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, height, width, generator=generator) > torch.rand(count, 1, 1, generator=generator)
    for index, mask in enumerate(masks):
        if index % 5 == 1:
            mask[:] = index % 2
        if index % 5 == 3:
            mask[:, width // 3 : width // 2 + 1] = True
    return masks


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@given(st.integers(0, 7), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_round_trip_area_boxes_and_coco(count: int, height: int, width: int, seed: int) -> None:
    dense = random_masks(count, height, width, seed)
    masks = RunLengths.from_dense(dense)
    assert torch.equal(masks.dense(), dense) and masks.dense().shape == (count, height, width)
    assert masks.area().tolist() == dense.sum((1, 2)).tolist()
    for index, (mask, runs) in enumerate(zip(dense, masks.coco(), strict=True)):
        compressed = coco_mask.frPyObjects(runs, height, width)
        assert torch.equal(torch.from_numpy(coco_mask.decode(compressed)).bool(), mask)
        # canonical: equal to pycocotools' own encoding, so no run is empty
        assert compressed["counts"] == coco_mask.encode(mask.numpy().astype("uint8", order="F"))["counts"]
        x, y, w, h = coco_mask.toBbox(compressed)
        assert masks.boxes()[index].tolist() == ([x, y, x + w, y + h] if mask.any() else [0, 0, 0, 0])


def test_dense_masks_of_any_kind_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = random_masks(13, 9, 8)
    dense[3], dense[4], dense[5] = False, True, False
    dense[5, -1, -1] = True
    expected = RunLengths.from_dense(dense)
    assert torch.equal(expected.dense(), dense)
    for_all = torch.randint(1, 256, dense.shape, generator=torch.Generator().manual_seed(0)) * dense
    monkeypatch.setattr("striate.models.ops.masks._AT_ONCE", 5 * 9 * 8)
    for masks in (dense, for_all.to(torch.uint8), for_all, dense.float() / 3, dense.mT.contiguous().mT):
        encoded = RunLengths.from_dense(masks)
        assert torch.equal(encoded.edges, expected.edges) and torch.equal(encoded.offsets, expected.offsets)
    assert [len(RunLengths.from_dense(torch.zeros(shape))) for shape in ((0, 4, 5), (2, 0, 5), (2, 4, 0))] == [0, 2, 2]


def test_hand_made_run_lengths() -> None:
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]]).bool()  # columns: 01, 01, 11
    masks = RunLengths.from_dense(mask[None])
    assert masks.edges.tolist() == [1, 2, 3, 6]
    assert masks.counts(0) == [1, 1, 1, 3]
    assert masks.boxes().tolist() == [[0, 0, 3, 2]]


def test_select_and_concatenate() -> None:
    dense = random_masks(11, 6, 5)
    masks = RunLengths.from_dense(dense)
    flags = torch.arange(11) % 3 == 0
    none = torch.zeros(0, dtype=torch.int64)
    for index in (torch.tensor([4, 1, 1, 0]), flags, slice(2, 7), none):
        assert torch.equal(masks[index].dense(), dense[index])
    joined = RunLengths.cat([masks[2:3], masks[none], masks[5:]])
    assert torch.equal(joined.dense(), torch.cat([dense[2:3], dense[5:]]))


def test_windows_lie_where_they_are_put() -> None:
    window = torch.tensor([[1, 1, 0], [0, 1, 1]]).bool()  # transposed: two columns of three pixels
    dense = RunLengths.from_windows([(window, 2, 1)], (5, 6)).dense()[0]
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[1:4, 2:4] = window.T
    assert torch.equal(dense, expected)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (3, 2), (5, 4)])
@pytest.mark.parametrize("height", [6, 10])
def test_masks_of_a_part_are_put_into_the_image(height: int, x: int, y: int) -> None:
    y = min(y, 10 - height)
    dense = random_masks(11, height, 7)  # some fill whole columns, so that runs go over several
    placed = RunLengths.from_dense(dense).placed(x, y, (10, 12))
    expected = torch.zeros(11, 10, 12, dtype=torch.bool)
    expected[:, y : y + height, x : x + 7] = dense
    assert torch.equal(placed.dense(), expected)
    assert torch.equal(placed.edges, RunLengths.from_dense(expected).edges)  # canonical


def pasted_by_grid_sample(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Values of whole images ``[M, H, W]`` by torch's own interpolation, masks ``[M, m, m]``, boxes ``[M, 4]``."""
    height, width = size
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1]) * 2 - 1
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2]) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)
    return grid_sample(masks[:, None].double(), grid, align_corners=False)[:, 0]


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_pasting_equals_grid_sample(threshold: float) -> None:
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(60, 4, generator=generator, dtype=torch.float64) * 50 - 8  # some outside the image
    boxes = torch.cat([corners[:, :2], corners[:, :2] + 0.3 + corners[:, 2:].abs()], 1)
    masks = torch.rand(60, 7, 7, generator=generator)
    values = pasted_by_grid_sample(masks, boxes, (37, 31))
    dense = paste_masks(masks, boxes, (37, 31), threshold).dense()
    clear = (values - threshold).abs() > 1e-5  # not decided by rounding
    assert torch.equal(dense[clear], (values > threshold)[clear])
    assert dense.any() and not dense[:, :, -1].all()


def test_pasting_at_half_pixels() -> None:
    full = torch.ones(1, 2, 2)
    # cells of 2 pixels. At a pixel's center exactly on the box's border the value is 0.5, which is not above 0.5
    exact = paste_masks(full, torch.tensor([[1.0, 1.0, 5.0, 5.0]]), (6, 8))
    assert exact.boxes().tolist() == [[1, 1, 5, 5]] and exact.area().tolist() == [16]
    shifted = paste_masks(full, torch.tensor([[1.5, 1.0, 5.5, 5.0]]), (6, 8))
    assert shifted.boxes().tolist() == [[2, 1, 5, 5]]  # the centers of columns 1 and 5 lie on the border
    wider = paste_masks(full, torch.tensor([[1.4, 1.0, 5.6, 5.0]]), (6, 8))
    assert wider.boxes().tolist() == [[1, 1, 6, 5]]


def test_no_masks_and_wrong_shapes() -> None:
    empty = paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (4, 3))
    assert len(empty) == 0 and empty.dense().shape == (0, 4, 3) and empty.boxes().shape == (0, 4)
    with pytest.raises(ValueError, match=r"masks: must be \[M, m, m\].*got \[2, 3, 3\] and boxes \[1, 4\]"):
        paste_masks(torch.zeros(2, 3, 3), torch.zeros(1, 4), (4, 3))
    with pytest.raises(ValueError, match=r"mask_threshold.*got 2"):
        paste_masks(torch.zeros(1, 3, 3), torch.zeros(1, 4), (4, 3), threshold=2)


@pytest.mark.parametrize("threshold", [0.3, 0.5])
@pytest.mark.parametrize("scale", [1, 4])
def test_resizing_equals_interpolation(threshold: float, scale: int) -> None:
    maps = torch.rand(40, 7, 9, generator=torch.Generator().manual_seed(1))
    maps[::4, :3], maps[1::4, 4:], maps[2::4, :, :5] = 0, 0, 0  # some parts without values, up to a border
    maps[3] = 0
    values = interpolate(maps[None], scale_factor=scale, mode="bilinear")[0]
    resized = resize_maps(maps, (scale, scale), (7 * scale, 9 * scale), threshold).dense()
    clear = (values - threshold).abs() > 1e-6
    assert torch.equal(resized[clear], (values > threshold)[clear]) and resized.any() and not resized[3].any()
    # an image that ends within the last cells
    cropped = resize_maps(maps, (scale, scale), (7 * scale - scale // 2, 9 * scale - scale // 2), threshold).dense()
    assert torch.equal(cropped, resized[:, : cropped.shape[1], : cropped.shape[2]])


def test_resizing_at_half_pixels() -> None:
    # cells of 4 x 2 pixels with centers at y 2 and 6, x 1, 3 and 5; at y 2.5 the value is 7/8, at 3.5 5/8, at 4.5 3/8
    maps = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    resized = resize_maps(maps, (4, 2), (8, 6)).dense()[0].int()
    # at x 2.5 and 3.5 it is 3/4 of that: 0.75, 0.66, 0.47; above the first centers it stays the same
    assert resized.tolist() == [[0, 0, 1, 1, 0, 0]] * 3 + [[0] * 6] * 5
    assert resize_maps(maps, (4, 2), (8, 6), 0.46).dense()[0, :, 2].int().tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert len(resize_maps(maps[:0], (4, 2), (8, 6))) == 0
