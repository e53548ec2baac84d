"""Checks of constructor arguments, and settings given as dictionaries."""

import math
import re

import pytest

from striate.models import (
    LRASPP,
    SSD,
    BatchMixer,
    DeepLabV3Plus,
    ExtraLayer,
    FasterRCNN,
    Localizer,
    MAPLoss,
    PlainCNN,
    RoISettings,
    RPNSettings,
    SingleMapFasterRCNN,
)
from striate.models.detection import RPN
from striate.models.ops.checks import as_settings, check_above, check_fraction, check_length, check_min


@pytest.mark.parametrize("check", [lambda **v: check_min(0, **v), check_fraction, lambda **v: check_above(0, **v)])
def test_numbers_are_required(check):
    check(size=None), check(size=0.5)
    for wrong in ("3", [1], 1j):
        with pytest.raises(TypeError, match=re.escape(f"size: must be a number, got {wrong!r}")):
            check(size=wrong)
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError, match=f"^size: must be .*got {wrong}"):
            check(size=wrong)


def test_limits_are_excluded_and_lengths_are_exact():
    with pytest.raises(ValueError, match=r"^size: must be > 0, got 0$"):
        check_above(0, size=0)
    check_length(2, pair=(1, 2))
    with pytest.raises(ValueError, match=r"^pair: must have 2 numbers, got \[1, 2, 3\]"):
        check_length(2, pair=[1, 2, 3])
    for wrong in (3, "ab"):
        with pytest.raises(TypeError, match=f"^pair: must be a list of 2 numbers, got {wrong!r}"):
            check_length(2, pair=wrong)


def test_settings_from_a_dictionary_equal_the_dataclass():
    assert as_settings(ExtraLayer, "extra[0]", {"channels": 32, "stride": 1}) == ExtraLayer(32, stride=1)
    assert as_settings(RPNSettings, "rpn", None) == RPNSettings() == as_settings(RPNSettings, "rpn", {})
    given = RoISettings(samples=7)
    assert as_settings(RoISettings, "roi", given) is given


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"chanels": 32}, TypeError, "extra: ExtraLayer has no argument 'chanels'; did you mean 'channels'?"),
        ({"stride": 2}, TypeError, "extra: missing a required argument: 'channels' of ExtraLayer, got {'stride': 2}"),
        ({"channels": 0}, ValueError, "extra.channels: must be >= 1, got 0"),
        ({"channels": "32"}, TypeError, "extra.channels: must be a number, got '32'"),
        (32, TypeError, "extra: must be ExtraLayer or a dictionary of its arguments, got int"),
    ],
)
def test_invalid_dictionaries(value, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        as_settings(ExtraLayer, "extra", value)


def test_models_take_dictionaries_as_in_a_yaml():
    ssd = SSD(3, PlainCNN((8, 16)), 64, extra=[{"channels": 16}, ExtraLayer(16, kernel=1, stride=1, padding=0)])
    assert [layer.conv.out_channels for layer in ssd.extra] == [16, 16] and len(ssd.grids) == 4
    with pytest.raises(TypeError, match=r"^extra\[1\]: .*'stide'.*'stride'"):
        SSD(3, PlainCNN((8, 16)), 64, extra=[{"channels": 16}, {"channels": 16, "stide": 1}])
    model = SingleMapFasterRCNN(
        3, PlainCNN((8, 16)), hidden=8, rpn={"anchor_scales": [2, 4], "proposals": [30, 10]}, roi={"samples": 9}
    )
    assert model.rpn.settings.proposals == [30, 10] and model.head.settings == RoISettings(samples=9)
    with pytest.raises(ValueError, match=r"^rpn.foreground_iou: .*got 0.2, 0.3"):
        SingleMapFasterRCNN(3, PlainCNN((8, 16)), hidden=8, rpn={"foreground_iou": 0.2})
    with pytest.raises(TypeError, match="^settings: .*RPNSettings"):
        RPN(8, 8, 4, [1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RPNSettings(foreground_iou=0.3, background_iou=0.5), "^foreground_iou: .*got 0.3, 0.5"),
        (lambda: RPNSettings(proposals=(2000,)), r"^proposals: must have 2 numbers, got \[2000\]"),
        (lambda: RPNSettings(anchor_scales=()), r"^anchor_scales: .*got \[\]"),
        (lambda: RPNSettings(anchor_ratios=(1.0, 0.0)), r"^anchor_ratios\[1\]: must be > 0, got 0"),
        (lambda: RoISettings(background_iou=(0.5, 0.1)), r"^background_iou: must be an ascending range, got \[0.5"),
        (lambda: RoISettings(background_iou=(0.1, 0.6)), "^foreground_iou: .*got 0.5, 0.6"),
        (lambda: RoISettings(box_std=(0.1, 0.1)), r"^box_std: must have 4 numbers, got \[0.1, 0.1\]"),
        (lambda: RoISettings(box_mean=(0.0,) * 5), "^box_mean: must have 4 numbers"),
    ],
)
def test_settings_that_would_fail_in_training_fail_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FasterRCNN(2, PlainCNN((8, 8)), proposals=(100,)), r"^proposals: must have 2 numbers, got \[100\]"),
        (lambda: FasterRCNN(2, PlainCNN((8, 8)), proposals=(100, 0)), r"^proposals\[1\]: must be >= 1, got 0"),
        (lambda: FasterRCNN(2, PlainCNN((8, 8)), hidden=0), "^hidden: must be >= 1, got 0"),
        (lambda: FasterRCNN(2, PlainCNN((8, 8)), roi_samples=0), "^roi_samples: must be >= 1, got 0"),
        (lambda: FasterRCNN(2, PlainCNN((8, 8)), canonical_scale=0), "^canonical_scale: must be >= 1, got 0"),
        (lambda: SSD(2, PlainCNN((8, 8)), 64, l2_norm=0.0), "^l2_norm: must be > 0, got 0.0"),
        (lambda: DeepLabV3Plus("resnet18", 2, fine_channels=0), "^fine_channels: must be >= 1, got 0"),
        (lambda: LRASPP(2, channels=0), "^channels: must be >= 1, got 0"),
        (lambda: Localizer("plain", 2, box_width=0), "^box_width: must be >= 1, got 0"),
        (lambda: BatchMixer(num_classes=0), "^num_classes: must be >= 1, got 0"),
        (lambda: MAPLoss(j=0.0), "^j: must be > 0, got 0.0"),
    ],
)
def test_sizes_of_networks_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
