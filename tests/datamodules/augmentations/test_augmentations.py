"""SSD's transforms, resizing and jitter: hand-computed values, torchvision as reference, and random properties."""

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou
from torchvision.transforms.v2 import functional as F

from striate.datamodules import (
    IoUCrop,
    LargeScaleJitter,
    PhotometricDistort,
    ShortSideResize,
    SSDAugmentation,
    VisionDataModule,
    ZoomOut,
)
from striate.datamodules.augmentations.placing import Placement, full_masks, mask_patches, place_mask, resize_image
from striate.datamodules.augmentations.resizing import short_side_size
from striate.datamodules.loading.dataset import SampleKey, TransformedDataset
from striate.tests.helpers.samples import Samples, boxes_strategy, check_objects


def scene(boxes, size=(48, 64)):
    """Object n fills its box with the color n + 1 (in the first channel) on black, in image and masks."""
    boxes = np.array(boxes, np.int64).reshape(-1, 4)
    image, masks = np.zeros((*size, 3), np.uint8), np.zeros((len(boxes), *size), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        masks[number, y1:y2, x1:x2] = 1
        image[y1:y2, x1:x2, 0] = number + 1
    return {"image": image, "boxes": boxes.astype(np.float32), "labels": np.arange(len(boxes)), "masks": masks}


def views(raw):
    """The sample with the targets of each task."""
    boxes = {key: raw[key] for key in ("image", "boxes", "labels")}
    return {"boxes": boxes, "masks": raw, "mask": {"image": raw["image"], "mask": raw["image"][..., 0]}}


def run(raw, *steps, epoch=0, **options):
    return TransformedDataset(Samples([raw]), list(steps), **options)[SampleKey(epoch, 0)]


STEPS = {
    "ssd": lambda: SSDAugmentation(40),
    "zoom": lambda: ZoomOut(p=1),
    "crop": IoUCrop,
    "short": lambda: ShortSideResize([20, 70], 90, "range"),
    "jitter": lambda: LargeScaleJitter(50, 60),
}


@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=25, deadline=None)
@given(boxes_strategy(4), st.integers(0, 10**6))
def test_image_masks_and_boxes_stay_aligned(name, boxes, seed):
    raw = scene(boxes)
    uses_boxes = name in ("ssd", "crop")  # these draw other random numbers for a sample without boxes
    inputs = {kind: view for kind, view in views(raw).items() if kind != "mask" or not uses_boxes}
    out = {kind: run(view, STEPS[name](), epoch=seed) for kind, view in inputs.items()}
    masks, boxed = out["masks"], out["boxes"]
    height, width = masks["image"].shape[:2]
    np.testing.assert_array_equal(masks["image"], boxed["image"])
    check_objects(masks)
    check_objects(boxed)
    for label, box in zip(masks["labels"], masks["boxes"], strict=True):
        if label in boxed["labels"]:  # a pixel is in the mask if its center is in the box
            outer = boxed["boxes"][boxed["labels"].tolist().index(label)]
            # albumentations.Resize, in "ssd", samples masks at the left corners of pixels
            tolerance = 1.01 if name == "ssd" else 0.51
            np.testing.assert_allclose(box, outer, atol=tolerance)
    if "mask" in out:  # the same random numbers: where one object is on top, both kinds of masks agree
        semantic = out["mask"]["mask"]
        assert semantic.shape == (height, width) and set(np.unique(semantic)) <= {*range(len(boxes) + 1), 255}
        top = np.zeros((height, width), np.uint8)
        for label, mask in zip(masks["labels"], masks["masks"], strict=True):
            top[mask > 0] = label + 1
        remaining = np.isin(semantic, [*(masks["labels"] + 1), 0])
        np.testing.assert_array_equal(semantic[remaining], top[remaining])


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("size", [(1, 1), (20, 2000), (2000, 20)])
def test_extreme_sizes_and_no_objects(name, size):
    for boxes in ((), ((0, 0, size[1], size[0]),)):
        raw = scene(boxes, size)
        for epoch in range(6):
            for kind in ("boxes", "masks"):
                out = run(views(raw)[kind], STEPS[name](), epoch=epoch)
                assert min(out["image"].shape) >= 1 and len(out["boxes"]) <= len(boxes)


@pytest.mark.parametrize("name", STEPS)
def test_equal_random_numbers_give_equal_samples(name):
    raw = scene([(4, 4, 30, 40), (20, 10, 60, 44)])
    first, again, other = (run(raw, STEPS[name](), epoch=epoch) for epoch in (3, 3, 4))
    assert np.array_equal(first["image"], again["image"]) and np.array_equal(first["boxes"], again["boxes"])
    assert not (first["image"].shape == other["image"].shape and np.array_equal(first["image"], other["image"]))


# -- photometric distortion


def distorted(image, **params):
    return PhotometricDistort().apply(np.asarray(image, np.uint8), **params)


def test_brightness_and_contrast_by_hand():
    image = np.array([[[0, 100, 250]]])
    assert distorted(image, offset=20.4).tolist() == [[[20, 120, 255]]]
    assert distorted(image, offset=-30).tolist() == [[[0, 70, 220]]]
    assert distorted(image, contrast=1.5).tolist() == [[[0, 150, 255]]]  # not about the mean
    assert distorted(image, contrast=1.5, contrast_first=False).tolist() == [[[0, 150, 255]]]
    # rounded and clipped between the two: (250 + 20 -> 255) * 0.5
    assert distorted(image, offset=20, contrast=0.5).tolist() == [[[10, 60, 128]]]
    assert distorted(image, channels=[2, 0, 1]).tolist() == [[[250, 0, 100]]]


def test_contrast_before_and_after_saturation():
    image = np.array([[[200, 100, 100]]])
    # HSV: value 200, saturation 128 of 255; halved 64: the lower channels rise to 150
    assert distorted(image, saturation=0.5).tolist() == [[[200, 150, 150]]]
    before = distorted(image, saturation=0.5, contrast=1.5)  # 255, 150, 150 -> saturation 105 -> 52
    after = distorted(image, saturation=0.5, contrast=1.5, contrast_first=False)
    assert before.tolist() == [[[255, 203, 203]]] and after.tolist() == [[[255, 225, 225]]]


def test_hues_wrap_around_as_in_torchvision():
    assert distorted([[[200, 0, 0]]], hue_shift=120).tolist() == [[[0, 200, 0]]]
    # past red, where the reference saturates
    assert distorted([[[200, 0, 0]]], hue_shift=-120).tolist() == [[[0, 0, 200]]]
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8), (48, 48))
    for shift in (36, -36, 170):
        theirs = F.adjust_hue(torch.from_numpy(image).permute(2, 0, 1), shift / 360).permute(1, 2, 0).numpy()
        difference = np.abs(distorted(image, hue_shift=shift).astype(int) - theirs)
        assert difference.mean() < 2 and difference.max() < 12  # 8-bit hues are in steps of 2 degrees


def test_distribution_of_distortions():
    step = PhotometricDistort()
    step.set_random_seed(0)
    drawn = [step.get_params() for _ in range(2000)]
    for name, low, high in (
        ("offset", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue_shift", -36, 36),
    ):
        values = np.array([params[name] for params in drawn if params[name] is not None])
        assert 880 < len(values) < 1120
        assert low <= values.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < values.max() <= high
        np.testing.assert_allclose(np.quantile(values, [0.25, 0.75]), np.quantile([low, high], [0.25, 0.75]), rtol=0.1)
    assert 900 < sum(params["contrast_first"] for params in drawn) < 1100
    assert all(params["channels"] is None for params in drawn)
    shuffling = PhotometricDistort(shuffle=1)
    shuffling.set_random_seed(0)
    assert {tuple(shuffling.get_params()["channels"]) for _ in range(200)} == {
        (0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)
    }  # fmt: skip


def test_darknets_factors_are_inverted_in_half_of_the_draws():
    """Factors from 1 to 1.5, uniform, and inverses of such: half below 1, with a median of 1 / 1.25."""
    step = PhotometricDistort(contrast=(1, 1.5), saturation=(1, 1.5), inverse=0.5, change=1)
    step.set_random_seed(0)
    drawn = [step.get_params() for _ in range(2000)]
    for name in ("contrast", "saturation"):
        values = np.array([params[name] for params in drawn])
        darker = values[values < 1]
        assert 900 < len(darker) < 1100
        np.testing.assert_allclose(np.quantile(values[values >= 1], [0.01, 0.5, 0.99]), [1.005, 1.25, 1.495], atol=0.02)
        np.testing.assert_allclose(np.quantile(1 / darker, [0.01, 0.5, 0.99]), [1.005, 1.25, 1.495], atol=0.02)
    both = np.array([[params[name] < 1 for name in ("contrast", "saturation")] for params in drawn])
    assert 400 < both.all(1).sum() < 600  # inverted independently of each other


def test_distortion_without_changes_and_wrong_types():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(A.Compose([PhotometricDistort(change=0)])(image=image)["image"], image)
    with pytest.raises(ValueError, match=r"image: .*got float32 \[8, 8, 3\]"):
        PhotometricDistort().apply(image.astype(np.float32))


# -- zooming out


def test_zooming_out_equals_torchvisions_padding():
    raw = scene([(4, 4, 30, 40), (20, 10, 60, 44)])
    for epoch in range(12):
        step = ZoomOut(p=1)
        out = run(views(raw)["boxes"], step, epoch=epoch)
        left, top = step.params["placement"].offset
        height, width = out["image"].shape[:2]
        padding = [left, top, width - 64 - left, height - 48 - top]
        assert min(padding) >= 0
        theirs = F.pad(torch.from_numpy(raw["image"]).permute(2, 0, 1), padding, fill=[123, 117, 104])
        np.testing.assert_array_equal(out["image"], theirs.permute(1, 2, 0).numpy())
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(raw["boxes"]), format="XYXY", canvas_size=(48, 64))
        np.testing.assert_allclose(out["boxes"], F.pad(boxes, padding).numpy(), atol=1e-4)
        np.testing.assert_allclose(out["area"], [26 * 36, 40 * 34], rtol=1e-5)


def test_distribution_of_zoom_out():
    step = ZoomOut(p=1)
    placements = [step.draw_placement(100, 50) for _ in range(2000)]
    ratios = np.array([placement.canvas[0] / 100 for placement in placements])
    assert 1 <= ratios.min() < 1.02 and 3.98 < ratios.max() < 4
    np.testing.assert_allclose(np.quantile(ratios, [0.25, 0.5, 0.75]), [1.75, 2.5, 3.25], atol=0.15)
    for axis, side in ((0, 100), (1, 50)):
        relative = np.array([(p.offset[axis] + 0.5) / (p.canvas[axis] - side + 1) for p in placements])
        assert relative.min() > 0 and relative.max() < 1 and 0.45 < relative.mean() < 0.55
        assert all(p.canvas[axis] == int(side * p.canvas[0] / 100 + 1e-9) or axis for p in placements)


# -- crops


def crops(boxes, count=300, **options):
    step = IoUCrop(**options)
    for epoch in range(count):
        out = run(views(scene(boxes))["boxes"], step, epoch=epoch)
        yield out, step.params["crop"]


def test_a_crop_keeps_objects_with_their_center_inside_cropped_as_in_torchvision():
    boxes = [(2, 2, 20, 30), (20, 10, 60, 44), (50, 0, 64, 12)]
    counts = set()
    for out, (left, top, right, bottom) in crops(boxes, 150):
        inside = [
            n for n, b in enumerate(boxes) if left <= (b[0] + b[2]) / 2 <= right and top <= (b[1] + b[3]) / 2 <= bottom
        ]
        assert out["labels"].tolist() == inside
        counts.add(len(inside))
        inputs = tv_tensors.BoundingBoxes(torch.tensor(boxes)[inside].float(), format="XYXY", canvas_size=(48, 64))
        theirs = F.crop(inputs, top, left, bottom - top, right - left)
        np.testing.assert_allclose(out["boxes"], theirs.numpy(), atol=1e-4)
        np.testing.assert_array_equal(out["image"], scene(boxes)["image"][top:bottom, left:right])
    assert counts >= {1, 2, 3}


@pytest.mark.parametrize("minimum", [0.1, 0.5, 0.9])
def test_a_crop_has_the_minimum_overlap_with_some_box(minimum):
    boxes = [(10, 10, 30, 40), (0, 0, 64, 48)]
    whole, ious = 0, []
    for out, crop in crops(boxes, 300, min_overlaps=(minimum,)):
        whole += out["image"].shape == (48, 64, 3)
        ious.append(float(box_iou(torch.tensor([crop]), torch.tensor(boxes)).max()))
    # a third is the whole image (or equals it), a third has the minimum overlap, a third has no condition
    assert 80 < whole < 130
    assert sum(iou >= minimum for iou in ious) >= 185
    assert min(ious) < 0.25  # from the crops without a condition


def test_impossible_overlaps_leave_the_other_crops():
    # a box of 2 x 2 pixels: the smallest crop, of 0.09 of the area, overlaps it by 4 / 276
    shapes = {out["image"].shape for out, _ in crops([(30, 20, 32, 22)], 100, min_overlaps=(0.5, 0.7, 0.9))}
    assert (48, 64, 3) in shapes and len(shapes) > 20
    whole = sum(out["image"].shape == (48, 64, 3) for out, _ in crops([(30, 20, 32, 22)], 200, min_overlaps=(0.5, 0.9)))
    assert 70 < whole < 130  # half: the whole image and the unconditional crop remain


def test_distribution_of_crop_sizes():
    step = IoUCrop(min_overlaps=(), p=1)
    step.set_random_seed(0)
    drawn = np.array([step._crops(1000, 500, np.array([[0, 0, 1000, 500.0]]))[0] for _ in range(3000)])
    size = (drawn[:, 2:] - drawn[:, :2]) / (1000, 500)
    scale, aspect = np.sqrt(size.prod(axis=1)), size[:, 0] / size[:, 1]
    assert 0.295 < scale.min() < 0.32 and 0.98 < scale.max() <= 1
    np.testing.assert_allclose(np.median(scale), 0.65, atol=0.02)
    assert 0.49 < aspect.min() < 0.55 and 1.9 < aspect.max() < 2.02
    assert (size <= 1).all() and (drawn[:, :2] >= 0).all() and (drawn[:, 2:] <= (1000, 500)).all()
    small = scale < 0.7  # below 1/sqrt(2) no aspect is limited by the image
    np.testing.assert_allclose(np.median(aspect[small]), 1.25, atol=0.05)


def test_an_image_without_boxes_is_not_cropped():
    assert all(out["image"].shape == (48, 64, 3) for out, _ in crops((), 20))


def test_a_crop_without_boxes_is_rejected():
    with pytest.raises(ValueError, match=r"IoUCrop requires \['bboxes'\] missing"):
        run(views(scene(()))["mask"], IoUCrop())


def test_ssd_augmentation():
    raw = scene([(4, 4, 30, 40), (20, 10, 60, 44)])
    out = [run(raw, SSDAugmentation(40), epoch=epoch) for epoch in range(40)]
    assert {sample["image"].shape for sample in out} == {(40, 40, 3)}
    assert {len(sample["labels"]) for sample in out} >= {1, 2}
    steps = SSDAugmentation().transforms
    assert [type(step).__name__ for step in steps] == [
        "PhotometricDistort",
        "ZoomOut",
        "IoUCrop",
        "HorizontalFlip",
        "OneOf",
    ]
    assert len({step.interpolation for step in steps[-1].transforms}) == 5
    assert SSDAugmentation(max_ratio=1).transforms[1].p == 0
    assert steps[2].scale == (0.3, 1.0) and SSDAugmentation(min_scale=0.1).transforms[2].scale == (0.1, 1.0)


# -- resizing


@pytest.mark.parametrize("size, short, longest, expected", [
    ((500, 375), 600, 1000, (800, 600)),
    ((375, 500), 600, 1000, (600, 800)),
    ((500, 334), 600, 1000, (898, 600)),  # 898.2
    ((640, 427), 800, 1333, (1199, 800)),  # 1199.06
    ((640, 200), 800, 1333, (1333, 417)),  # 416.56: limited by the long side
    ((640, 640), 300, 1000, (300, 300)),
    ((20000, 20), 800, 1333, (1333, 1)),  # 1.33
    ((3, 2), 1, None, (2, 1)),  # 1.5, rounded half up
    ((1, 1), 800, 1333, (800, 800)),
    ((100, 5000), 50, None, (50, 2500)),
])  # fmt: skip
def test_sizes_by_hand(size, short, longest, expected):
    assert short_side_size(*size, short, longest) == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 700), st.integers(40, 700), st.sampled_from([(64, 100), (80, 133), (50, 51)]))
def test_sizes_and_boxes_against_torchvisions_detectors(width, height, limits):
    transform = GeneralizedRCNNTransform(limits[0], limits[1], [0.0] * 3, [1.0] * 3)
    boxes = torch.tensor([[0.0, 0.0, width, height], [1.0, 2.0, width / 2, height / 2]])
    image, target = transform.resize(torch.zeros(3, height, width), {"boxes": boxes})
    ours = np.array(short_side_size(width, height, *limits))
    theirs = np.array([image.shape[2], image.shape[1]])
    assert ((ours - theirs >= 0) & (ours - theirs <= 1)).all()  # they round down
    raw = {"image": np.zeros((height, width, 3), np.uint8), "boxes": boxes.numpy(), "labels": np.zeros(2)}
    out = run(raw, ShortSideResize(*limits))
    assert out["image"].shape[:2] == (ours[1], ours[0])
    assert len(out["boxes"]) == 2
    for label, box in enumerate(out["boxes"]):
        np.testing.assert_allclose(
            box / np.tile(ours, 2), target["boxes"][label].numpy() / np.tile(theirs, 2), atol=1e-5
        )


def test_boxes_and_areas_are_scaled_per_side():
    raw = {"image": np.zeros((334, 500, 3), np.uint8), "boxes": np.array([[10, 20, 110, 220]]), "labels": np.array([0])}
    out = run(raw, ShortSideResize(600, 1000))
    scale = (898 / 500, 600 / 334)
    np.testing.assert_allclose(
        out["boxes"], [[10 * scale[0], 20 * scale[1], 110 * scale[0], 220 * scale[1]]], rtol=1e-5
    )
    np.testing.assert_allclose(out["area"], [100 * 200 * scale[0] * scale[1]], rtol=1e-5)


def test_drawn_short_sides():
    def sides(*arguments):
        return {run(scene(()), ShortSideResize(*arguments), epoch=epoch)["image"].shape[0] for epoch in range(60)}

    assert sides([24, 36, 50], None) == {24, 36, 50}
    assert sides([24, 28], None, "range") == {24, 25, 26, 27, 28}
    assert sides(30) == {30}


@pytest.mark.parametrize("make, message", [
    (lambda: ShortSideResize(0), "short_side: .*got 0"),
    (lambda: ShortSideResize([]), r"short_side: .*got \[\]"),
    (lambda: ShortSideResize([800, 640], sampling="range"), r"short_side: .*ascending.*got \[800, 640\]"),
    (lambda: ShortSideResize(640, sampling="range"), "short_side: .*got 640"),
    (lambda: ShortSideResize(max_size=0), "max_size: .*got 0"),
    (lambda: LargeScaleJitter(scale=(0, 2)), r"scale: .*got \(0.0, 2.0\)"),
    (lambda: ShortSideResize(sampling="rang"), "sampling: .*got 'rang'.*'range'"),
    (lambda: SSDAugmentation(0), "image_size: .*got 0"),
    (lambda: SSDAugmentation(min_scale=0), "min_scale: .*got 0"),
    (lambda: LargeScaleJitter(0), "^height: .*got 0"),
    (lambda: LargeScaleJitter(8, 0), "^width: .*got 0"),
    (lambda: ZoomOut(0.5), "max_ratio: .*got 0.5"),
    (lambda: IoUCrop((0.5, 1.0)), r"min_overlaps: .*got \(0.5, 1.0\)"),
    (lambda: IoUCrop(scale=(0.3, 2)), r"scale: .*\(0, 1\].*got \(0.3, 2.0\)"),
    (lambda: IoUCrop(aspect=(2, 1)), r"aspect: .*got \(2.0, 1.0\)"),
    (lambda: IoUCrop(trials=0), "trials: .*got 0"),
    (lambda: PhotometricDistort(contrast=(1.5, 0.5)), r"contrast: .*got \(1.5, 0.5\)"),
    (lambda: PhotometricDistort(hue=181), "hue: .*got 181"),
    (lambda: PhotometricDistort(change=2), "change: .*got 2"),
    (lambda: PhotometricDistort(inverse=2), "inverse: .*got 2"),
    (lambda: PhotometricDistort(contrast=(0, 1.5), inverse=0.5), r"contrast: .*\(0, inf\), got \(0.0, 1.5\)"),
])  # fmt: skip
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_masks_are_sampled_at_pixel_centers_as_in_torch():
    mask = np.random.default_rng(0).integers(0, 9, (13, 17), dtype=np.uint8)
    for width, height in ((29, 40), (7, 5), (17, 13), (16, 14)):
        placement = Placement((17, 13), (width, height), (0, 0), (width, height))
        ours = np.zeros((height, width), np.uint8)
        place_mask(mask, placement, ours)
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(mask)[None, None].float(), size=(height, width), mode="nearest-exact"
        )
        np.testing.assert_array_equal(ours, theirs[0, 0].numpy())
        objects = np.stack([mask == value for value in range(10)]).astype(np.uint8)  # the last one is empty
        placed = full_masks(mask_patches(objects, placement), width, height)
        np.testing.assert_array_equal(placed, [ours == value for value in range(10)])


@pytest.mark.parametrize(
    "size, new", [((400, 300), (100, 75)), ((403, 307), (90, 61)), ((403, 307), (130, 150)), ((40, 30), (97, 71))]
)
def test_resized_images_and_boxes_are_aligned(size, new):
    # a ramp encodes the position: the center of pixel i of the new image was at (i + 0.5) * old / new
    ramps = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    image = np.stack([ramp * (200 / max(size)) for ramp in (*ramps, ramps[0])], axis=-1).astype(np.float32)
    out = resize_image(image, *new)
    for axis in (0, 1):
        line = out[new[1] // 2, :, 0] if axis == 0 else out[:, new[0] // 2, 1]
        expected = ((np.arange(new[axis]) + 0.5) * size[axis] / new[axis] - 0.5) * (200 / max(size))
        np.testing.assert_allclose(line[2:-2], expected[2:-2], atol=0.06)


def test_fine_patterns_do_not_alias():
    stripes = np.zeros((60, 403, 3), np.uint8)
    stripes[:, ::2] = 200
    inner = resize_image(stripes, 57, 9)[:, 1:-1].astype(int)
    assert (np.abs(inner - 100) <= 15).all() and np.ptp(cv2.resize(stripes, (57, 9))[:, 1:-1]) > 90


# -- large-scale jitter


def test_jitter_by_hand():
    step = LargeScaleJitter(40, 60, scale=(0.5, 0.5))
    out = run(scene([(0, 0, 32, 24)]), step)  # 64 x 48 fits at 40 / 48; half of that is 27 x 20
    assert step.params["placement"] == Placement((64, 48), (27, 20), (0, 0), (60, 40))
    assert (
        out["image"].shape == (40, 60, 3) and (out["image"][20:] == 128).all() and (out["image"][:, 27:] == 128).all()
    )
    assert out["boxes"].tolist() == [[0, 0, 13, 10]]  # 13.5: the center of column 13 is not below it
    boxed = run(views(scene([(0, 0, 32, 24)]))["boxes"], step)
    np.testing.assert_allclose(boxed["boxes"], [[0, 0, 13.5, 10]], atol=1e-4)
    semantic = run(views(scene([(0, 0, 32, 24)]))["mask"], step)["mask"]
    assert (semantic[:10, :13] == 1).all() and (semantic[10:20, :27] == 0).all()
    assert (semantic[20:] == 255).all() and (semantic[:, 27:] == 255).all()


def test_a_large_image_is_cropped_at_a_random_position():
    step = LargeScaleJitter(30, scale=(2.0, 2.0))
    offsets = set()
    for epoch in range(200):
        out = run(scene([(0, 0, 64, 48)]), step, epoch=epoch)
        placement = step.params["placement"]
        assert placement.new == (60, 45) and out["image"].shape == (30, 30, 3) and not (out["image"] == 128).any()
        offsets.add(placement.offset)
    assert {x for x, _ in offsets} == set(range(-30, 1)) and {y for _, y in offsets} == set(range(-15, 1))


def test_distribution_of_scales():
    step = LargeScaleJitter(1000)
    scales = np.array([step.draw_placement(1000, 500).new[0] / 1000 for _ in range(3000)])
    assert 0.1 <= scales.min() < 0.11 and 1.99 < scales.max() <= 2
    np.testing.assert_allclose(np.median(scales), 1.05, atol=0.05)


def test_jitter_removes_objects_below_a_pixel():
    out = run(views(scene([(0, 0, 32, 24), (40, 40, 44, 44)]))["boxes"], LargeScaleJitter(64, scale=(0.2, 0.2)))
    assert out["labels"].tolist() == [0]  # the other one would be 0.8 pixels wide


@pytest.mark.parametrize("name, options", [
    ("SSDAugmentation", {"image_size": 300}),
    ("ShortSideResize", {"short_side": [640, 672, 800], "max_size": 1333}),
    ("ShortSideResize", {"short_side": 600}),
    ("LargeScaleJitter", {"scale": [0.1, 2.0]}),
    ("Mosaic", {"size": 640, "fill": [1, 2, 3]}),
    ("CopyPaste", {"max_objects": 5}),
    ("IoUCrop", {"min_overlaps": [0.1, 0.5]}),
    ("ZoomOut", {"fill": [1, 2, 3]}),
    ("PhotometricDistort", {}),
])  # fmt: skip
def test_yaml_can_build_each(name, options):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VisionDataModule, "data")
    steps = [{"class_path": f"striate.datamodules.{name}", "init_args": options}]
    steps.append({"class_path": "albumentations.HorizontalFlip"})
    data = {"class_path": "striate.datamodules.CocoDetection", "init_args": {"root": "x", "train_transform": steps}}
    built = parser.instantiate(parser.parse_object({"data": data})).data
    assert [type(step).__name__ for step in built.train_transform] == [name, "HorizontalFlip"]
    for option, value in options.items():
        if hasattr(built.train_transform[0], option):
            actual = getattr(built.train_transform[0], option)
            assert (list(actual) if isinstance(actual, tuple) else actual) == value
