"""FCOS' locations, matching and head by hand: what the paper's options change, and what torchvision does already."""

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from striate.models import FCOS, PlainCNN
from striate.models.detection.one_stage.locations import CellCenters, match_locations

from ...helpers.detector_inputs import random_images, random_targets, shake, target


def slim(**options: object) -> FCOS:
    """A small FCOS with strides 8, 16, 32 and 64."""
    torch.manual_seed(0)
    settings = {"min_size": None, "max_size": None, "fpn_channels": 64, "head_depth": 1, **options}
    return FCOS(2, PlainCNN((8, 8, 8, 8)), **settings)


def located(detector: FCOS, height: int, width: int) -> Tensor:
    """The x and y of all locations ``[A, 2]`` of an image."""
    maps = [
        torch.zeros(1, 1, -(-height // stride), -(-width // stride)) for stride in detector.network.backbone.strides
    ]
    images = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
    (squares,) = detector.network.anchor_generator(images, maps)
    return (squares[:, :2] + squares[:, 2:]) / 2


def test_locations_are_corners_of_cells_or_their_centers() -> None:
    corners, centers = located(slim(), 64, 96), located(slim(center_locations=True), 64, 96)
    assert corners[:3].tolist() == [[0, 0], [8, 0], [16, 0]]
    assert centers[:3].tolist() == [[4, 4], [12, 4], [20, 4]]
    assert centers[12].tolist() == [4, 12]  # the second of 8 rows of 12 cells
    assert centers[96].tolist() == [8, 8] and centers[-1].tolist() == [96, 32]  # stride 16; stride 64, 2 cells of 1 row


def test_centers_of_a_level_whose_size_is_rounded_up_keep_the_stride() -> None:
    (squares,) = CellCenters((64,))(ImageList(torch.zeros(1, 3, 96, 96), [(96, 96)]), [torch.zeros(1, 1, 2, 2)])
    assert squares.tolist() == [[0, 0, 64, 64], [64, 0, 128, 64], [0, 64, 64, 128], [64, 64, 128, 128]]


def test_matching_by_hand() -> None:
    (locations,) = CellCenters((8, 16))(
        ImageList(torch.zeros(1, 3, 32, 32), [(32, 32)]), [torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)]
    )
    match = match_locations(torch.tensor([[2.0, 2.0, 30.0, 30.0]]), locations, (16, 4), radius=1.5)
    # the center is 16; cells at 12 and 20 are 4 from it; those at 4 and 28 are 12 = 1.5 strides from it, too far
    assert match[:16].view(4, 4).tolist() == [[-1, -1, -1, -1], [-1, 0, 0, -1], [-1, 0, 0, -1], [-1, -1, -1, -1]]
    # on stride 16 the largest distance, from 8 to 30, is below 4 * 16
    assert match[16:].tolist() == [-1] * 4
    # a box of 10 pixels has the location at 12 inside; a level that is alone takes objects of all sizes
    small, huge = torch.tensor([[9.0, 9.0, 19.0, 19.0]]), torch.tensor([[-300.0, -300.0, 332.0, 332.0]])
    assert (match_locations(small, locations[:16], (16,), 1.5) == 0).nonzero().tolist() == [[5]]
    assert (match_locations(huge, locations[:16], (16,), 1.5) == 0).sum() == 4


def test_the_smallest_of_several_objects_is_matched() -> None:
    locations = torch.tensor([[12.0, 12.0, 20.0, 20.0]])
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0], [8.0, 8.0, 24.0, 24.0], [0.0, 8.0, 32.0, 24.0]])
    assert match_locations(boxes, locations, (1,), 1.5).tolist() == [1]


@pytest.mark.parametrize(("each", "side"), [(0, 200), (1, 200), (40, 500), (700, 300)])
def test_matching_equals_torchvisions(each: int, side: int) -> None:
    detector = slim()
    images = random_images((side, side))
    (boxes,) = random_targets([(side, side)], 2, each=max(each, 1))
    boxes = {name: value[:each] for name, value in boxes.items()}
    output = detector._run_head(detector.resize(images))
    seen: list[Tensor] = []
    detector.network.head.compute_loss = lambda targets, outputs, anchors, matches: seen.extend(matches) or {}
    detector.network.compute_loss([boxes], *output)
    (match,) = detector.match([boxes], output)
    assert torch.equal(match, seen[0]) and ((match >= 0).any() or not each)


def test_matching_is_equivariant_to_flips() -> None:
    maps = [torch.zeros(1, 1, side, side) for side in (16, 8, 4)]
    (locations,) = CellCenters((8, 16, 32))(ImageList(torch.zeros(1, 3, 128, 128), [(128, 128)]), maps)
    (boxes,) = (one["boxes"] for one in random_targets([(128, 128)], 1, each=6))
    flipped = torch.stack([128 - boxes[:, 2], boxes[:, 1], 128 - boxes[:, 0], boxes[:, 3]], 1)
    counts = [256, 64, 16]
    match, mirrored = (match_locations(b, locations, counts, 1.5).split(counts) for b in (boxes, flipped))
    assert (match[0] >= 0).any()
    for level, (one, other) in enumerate(zip(match, mirrored, strict=True)):
        side = 16 >> level
        assert torch.equal(one.view(side, side).flip(1), other.view(side, side))


def test_level_scales_multiply_the_distances_of_their_level() -> None:
    detector = slim(level_scales=True)
    shake(detector.network)
    detector.network.head.regression_head.bbox_reg.bias.data.fill_(5)
    batch = detector.resize(random_images((64, 64)))
    before = detector._run_head(batch)
    with torch.no_grad():
        detector.network.head.level_scales.copy_(torch.tensor([1.0, 2.0, 1.0, -1.0]))
    after = detector._run_head(batch)
    plain, scaled = (out.values["bbox_regression"].split(out.counts, dim=1) for out in (before, after))
    assert (plain[1] > 0).any()
    torch.testing.assert_close(scaled[1], 2 * plain[1])
    assert torch.equal(scaled[0], plain[0]) and torch.equal(scaled[2], plain[2])
    assert (scaled[3] == 0).all() and (plain[3] > 0).all()  # distances are what a ReLU leaves of the scaled output
    for name in ("cls_logits", "bbox_ctrness"):
        assert torch.equal(before.values[name], after.values[name])


def test_centerness_comes_from_the_tower_of_boxes() -> None:
    for options in ({}, {"level_scales": True, "center_locations": True}):
        detector = slim(**options)
        batch = detector.resize(random_images((64, 64)))
        before = detector._run_head(batch).values
        with torch.no_grad():
            detector.network.head.classification_head.conv[0].weight.mul_(-1)
        after = detector._run_head(batch).values
        assert torch.equal(before["bbox_ctrness"], after["bbox_ctrness"])
        assert not torch.equal(before["cls_logits"], after["cls_logits"])
        assert before["bbox_ctrness"].std() > 0


def test_boxes_lie_around_their_locations() -> None:
    detector = slim(center_locations=True, level_scales=True)
    detector.score_threshold = 0.0
    with torch.no_grad():
        head = detector.network.head.regression_head
        head.bbox_reg.weight.zero_()
        head.bbox_reg.bias.copy_(torch.tensor([0.25, 0.5, 0.125, 0.25]))  # left, top, right, bottom, in strides
        head.bbox_ctrness.weight.zero_()
        detector.network.head.classification_head.cls_logits.weight.zero_()
    output = detector._run_head(detector.resize(random_images((64, 64))))
    detections, location = detector.select(output, 0, (64, 64))
    first = detections["boxes"][location == 0]
    assert len(first) and (first == torch.tensor([2.0, 0.0, 5.0, 6.0])).all()


def test_weights_of_torchvision_leave_the_scales_at_one(tmp_path) -> None:
    torch.save(slim().state_dict(), tmp_path / "detector.pth")
    detector = slim(level_scales=True, detector_weights=str(tmp_path / "detector.pth"))
    assert detector.load_report is not None
    assert list(detector.load_report.missing) == ["network.head.level_scales"]
    torch.save(slim(level_scales=True).state_dict(), tmp_path / "scaled.pth")
    with pytest.raises(ValueError, match=r"(?s)detector_weights.*does not match.*level_scales"):
        slim(detector_weights=str(tmp_path / "scaled.pth"))


def test_papers_network_learns_one_object() -> None:
    detector = slim(center_locations=True, level_scales=True, head_depth=2).train()
    images, targets = random_images((64, 64)), [target([[10.0, 12.0, 41.0, 50.0]], [1])]
    optimizer = torch.optim.Adam(detector.parameters(), 0.003)
    for _ in range(40):
        optimizer.zero_grad()
        sum(detector.losses(images, targets).values()).backward()
        optimizer.step()
    assert all(scale != 1 for scale in detector.network.head.level_scales[:1].tolist())
    detected = detector(images)[0]
    torch.testing.assert_close(detected["boxes"][0], targets[0]["boxes"][0], atol=4, rtol=0)
    assert detected["labels"][0] == 1
