"""Scenes: targets agree with each other and with the image, splits are disjoint, and an index determines its scene."""

import ast
import hashlib
import inspect
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.datamodules.digit_scenes import compose as scenes
from striate.datamodules.digit_scenes import sources as sources
from striate.datamodules.digit_scenes.compose import SEMANTIC_CLASS_NAMES, Scene, SceneComposer
from striate.datamodules.digit_scenes.sources import CLASS_NAMES

BT601 = np.array([0.299, 0.587, 0.114])


def digest(scene: Scene) -> str:
    arrays = (scene.image, scene.labels, scene.boxes, scene.masks, scene.semantic)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def crowded(split: str = "train", seed: int = 0) -> SceneComposer:
    return SceneComposer(split, image_size=64, min_digits=2, max_digits=5, scale=(0.25, 0.6), seed=seed)


@st.composite
def composers(draw: st.DrawFn) -> SceneComposer:
    size = draw(st.sampled_from([32, 47, 64, 128, 200]))
    low = draw(st.floats(max(0.1, 8 / size), 1.0))
    min_digits = draw(st.integers(1, 5))
    return SceneComposer(
        split=draw(st.sampled_from(["train", "val", "test"])),
        image_size=size,
        min_digits=min_digits,
        max_digits=min_digits + draw(st.integers(0, 4)),
        scale=(low, draw(st.floats(low, 1.0))),
        contrast=draw(st.floats(0, 127)),
        occlusion=draw(st.sampled_from([0.0, 0.3, 0.9])),
        rotation=draw(st.sampled_from([0.0, 10.0, 45.0])),
        seed=draw(st.integers(0, 2**40)),
    )


@given(composer=composers(), index=st.integers(0, 2**40))
@settings(max_examples=150, deadline=None)
def test_targets_agree_with_each_other(composer: SceneComposer, index: int):
    scene = composer(index)
    size, count = composer.image_size, len(scene.labels)
    assert 1 <= count <= composer.max_digits
    for array, dtype, shape in (
        (scene.image, "uint8", (size, size, 3)),
        (scene.labels, "int64", (count,)),
        (scene.boxes, "float32", (count, 4)),
        (scene.masks, "bool", (count, size, size)),
        (scene.semantic, "uint8", (size, size)),
    ):
        assert (str(array.dtype), array.shape) == (dtype, shape)
    assert scene.labels.min() >= 0
    assert scene.labels.max() <= 9
    assert scene.masks.sum(axis=0).max() == 1, "masks overlap"
    semantic = np.zeros((size, size), np.uint8)
    for label, box, mask in zip(scene.labels, scene.boxes, scene.masks, strict=True):
        rows, columns = np.nonzero(mask)
        assert len(rows) > 0
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        semantic[mask] = label + 1
    np.testing.assert_array_equal(scene.semantic, semantic)


@given(composer=composers(), index=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_image_and_targets_against_an_independent_renderer(composer: SceneComposer, index: int):
    """The renderer paints one layer after another over the whole image, in double precision."""
    scene = composer(index)
    background, layers = composer.layers(index)
    size, count = composer.image_size, len(layers)
    canvas, touched = background.astype(np.float64), np.zeros((size, size), bool)
    whole = np.zeros((count, size, size), bool)
    for number, layer in enumerate(layers):
        alpha = np.zeros((size, size))
        alpha[layer.window] = layer.alpha
        assert layer.alpha.min() >= 0
        assert layer.alpha.max() <= 1
        whole[number] = alpha >= 0.5
        # contrast with the mean of what is under the digit; colors are rounded to whole levels
        under = canvas[whole[number]].mean(axis=0) @ BT601
        assert abs(layer.color @ BT601 - under) >= composer.contrast - 1e-3
        canvas = np.rint((1 - alpha[..., None]) * canvas + alpha[..., None] * layer.color)
        touched |= alpha > 0
    assert np.abs(scene.image - canvas).max() <= 1  # single precision rounds a tie elsewhere
    np.testing.assert_array_equal(scene.image[~touched], background[~touched])
    for number in range(count):
        np.testing.assert_array_equal(scene.masks[number], whole[number] & ~whole[number + 1 :].any(axis=0))
        hidden = 1 - scene.masks[number].sum() / whole[number].sum()
        assert hidden <= composer.occlusion + 1e-9
    np.testing.assert_array_equal(scene.labels, [layer.label for layer in layers])


def test_maximum_contrast_gives_near_black_or_near_white():
    composer = SceneComposer(contrast=127, image_size=32, scale=(0.5, 0.8))
    luminances = []
    for index in range(60):
        background, (layer,) = composer.layers(index)
        under = background[layer.window][layer.mask].mean(axis=0) @ BT601
        luminances.append((under, layer.color @ BT601))
    for under, luminance in luminances:
        assert luminance >= under + 127 - 1e-3 if under < 127 else luminance <= under - 127 + 1e-3
    assert {under < 127 for under, _ in luminances} == {True, False}


@pytest.mark.parametrize(("size", "scale"), [(32, 0.25), (64, 0.35), (64, 0.8), (512, 0.8)])
def test_edges_are_about_a_pixel_wide_at_any_size(size: int, scale: float):
    """Partly covered pixels per length of the outline; and no faint paint around the strokes."""
    composer, widths = SceneComposer(image_size=size, scale=(scale, scale)), []
    for index in range(20):
        _, (layer,) = composer.layers(index)
        soft = (layer.alpha > 0) & (layer.alpha < 1)
        mask = layer.mask.astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        widths.append(soft.sum() / sum(cv2.arcLength(contour, True) for contour in contours))
        _, _, width, height = cv2.boundingRect(mask)
        assert max(layer.alpha.shape[0] - height, layer.alpha.shape[1] - width) <= 5
    assert 0.6 < np.median(widths) < 1.4


@pytest.mark.parametrize("rotation", [0.0, 45.0])
def test_scale_is_the_height_of_the_digit(rotation: float):
    """Upright digits nearly have the requested height; rotated ones still stay inside the scene."""
    heights = []
    for index in range(40):
        scene = SceneComposer(image_size=100, scale=(0.6, 0.6), rotation=rotation)(index)
        heights.append(scene.boxes[0, 3] - scene.boxes[0, 1])
    assert 50 <= np.median(heights) <= 64
    if rotation == 0:
        assert max(heights) <= 64
    largest = SceneComposer(image_size=100, scale=(1, 1), rotation=rotation)
    assert all(largest(i).boxes.min() >= 0 and largest(i).boxes.max() <= 100 for i in range(20))


def test_rotations_in_both_directions():
    """Compare the orientation, from second moments, of the same digit with and without rotation."""
    upright, rotated = (SceneComposer(image_size=96, scale=(0.8, 0.8), rotation=r) for r in (0.0, 30.0))
    angles = []
    for index in range(60):
        orientations = []
        for composer in (upright, rotated):
            moments = cv2.moments(composer(index).masks[0].astype(np.uint8), binaryImage=True)
            orientations.append(0.5 * np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"]) % np.pi)
        angles.append((orientations[1] - orientations[0] + np.pi / 2) % np.pi - np.pi / 2)
    degrees = np.rad2deg(angles)
    assert np.percentile(degrees, 90) > 15
    assert np.percentile(degrees, 10) < -15
    assert np.percentile(np.abs(degrees), 95) < 33


def test_number_of_digits_covers_the_whole_range():
    composer = SceneComposer(image_size=128, min_digits=1, max_digits=4, scale=(0.1, 0.25))
    counts = np.bincount([len(composer(index).labels) for index in range(400)], minlength=6)
    assert counts[0] == counts[5] == 0
    assert counts[1:5].min() > 60  # 100 expected each


def test_digits_without_room_are_omitted_but_never_all():
    composer = SceneComposer(image_size=64, min_digits=9, max_digits=9, scale=(0.9, 1.0), occlusion=0.0)
    counts = [len(composer(index).labels) for index in range(10)]
    assert min(counts) >= 1
    assert max(counts) < 9
    roomy = SceneComposer(image_size=128, min_digits=4, max_digits=4, scale=(0.15, 0.6))
    assert [len(roomy(index).labels) for index in range(100)] == [4] * 100


def test_labels_match_the_visible_digits():
    """A nearest-neighbor classifier on scikit-learn's raw 8 x 8 digits recognizes the masks."""
    images, targets = sources.load_digits()
    known = sources.split_digits("train")
    composer = SceneComposer("train", image_size=96, scale=(0.8, 0.8), rotation=0.0)
    correct = 0
    for index in range(100):
        _, (layer,) = composer.layers(index)
        height, width = layer.alpha.shape
        square = np.zeros((max(height, width),) * 2, np.float32)
        left = (square.shape[1] - width) // 2
        square[:height, left : left + width] = layer.alpha
        read = cv2.resize(square, (8, 8), interpolation=cv2.INTER_AREA)
        # shifts of a cell, since the patch is cropped to the strokes and the source is not
        shifted = [np.roll(read, dx, axis=1) for dx in (-1, 0, 1)]
        errors = np.min([((images[known] - s) ** 2).sum(axis=(1, 2)) for s in shifted], axis=0)
        correct += int(targets[known][np.argmin(errors)] == layer.label)
    assert correct >= 90


def test_every_class_appears_about_equally_often():
    composer = SceneComposer(image_size=32, scale=(0.5, 0.8))
    counts = np.bincount([composer(index).labels[0] for index in range(1000)], minlength=10)
    assert len(counts) == 10
    assert counts.min() > 60  # 100 expected each, standard deviation 9.5


def test_names():
    assert CLASS_NAMES == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert SEMANTIC_CLASS_NAMES == ("background", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


def test_an_index_gives_the_same_scene_in_any_order_and_after_pickling():
    composer = crowded()
    forward = [digest(composer(index)) for index in range(8)]
    copy = pickle.loads(pickle.dumps(composer))
    assert [digest(copy(index)) for index in reversed(range(8))] == forward[::-1]
    assert len(set(forward)) == 8
    assert len(pickle.dumps(composer)) < 1000


def test_another_process_composes_the_same_scenes():
    code = (
        "from striate.tests.datamodules.digit_scenes.test_compose import crowded, digest\n"
        "print(*(digest(crowded(split)(index)) for split in ('train', 'val', 'test') for index in (5, 2)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [digest(crowded(split)(index)) for split in ("train", "val", "test") for index in (5, 2)]
    assert result.stdout.split() == expected


def test_seeds_splits_and_indices_differ():
    composed = [
        crowded(split, seed=seed)(index) for split in sources.SPLITS for seed in (0, 1, 2) for index in (0, 1, 2)
    ]
    assert len({digest(scene) for scene in composed}) == 27


def test_splits_and_seeds_draw_independently():
    """Positions are uncorrelated, not only the digits."""
    composers = (
        SceneComposer("train", image_size=64),
        SceneComposer("val", image_size=64),
        SceneComposer("train", image_size=64, seed=1),
    )
    centers = [[composer(i).boxes[0].reshape(2, 2).mean(axis=0) for i in range(200)] for composer in composers]
    for axis in (0, 1):
        correlations = np.corrcoef(np.array(centers)[:, :, axis])
        assert np.abs(correlations - np.eye(3)).max() < 0.25  # standard deviation 0.07


def test_changes_to_a_scene_do_not_affect_the_composer():
    composer = crowded()
    before = digest(composer(0))
    scene = composer(0)
    scene.image[:] = 0
    scene.masks[:] = False
    assert digest(composer(0)) == before


def test_splits_are_disjoint_and_contain_all_digits():
    images, targets = sources.load_digits()
    parts = {split: sources.split_digits(split) for split in sources.SPLITS}
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(1797))
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797  # no digit occurs under two indices
    for split, share in (("train", 0.70), ("val", 0.15), ("test", 0.15)):
        for label in range(10):
            assert abs((targets[parts[split]] == label).sum() - share * (targets == label).sum()) <= 1


def test_splits_share_no_column_of_a_photograph():
    for photograph in sources.load_photographs():
        columns = [set(range(*sources.split_columns(split, photograph.shape[1]))) for split in sources.SPLITS]
        assert sum(map(len, columns)) == len(set.union(*columns)) == photograph.shape[1]


@pytest.fixture
def fresh_sources():
    """Clear the caches before and after a test that replaces the sources."""
    cached = (sources.load_glyphs, sources.load_strips, sources.largest_crop)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.parametrize("split", sources.SPLITS)
def test_scenes_use_their_own_split_only(split: str, monkeypatch: pytest.MonkeyPatch, fresh_sources: None):
    """Changes to the digits and columns of other splits do not change this split's scenes."""
    composer = crowded(split)
    expected = [digest(composer(index)) for index in range(30)]
    images, targets = sources.load_digits()
    foreign = np.setdiff1d(np.arange(len(images)), sources.split_digits(split))
    poisoned = images.copy()
    poisoned[foreign] = 1.0
    photographs = []
    for photograph in sources.load_photographs():
        first, last = sources.split_columns(split, photograph.shape[1])
        masked = np.full_like(photograph, 255)
        masked[:, first:last] = photograph[:, first:last]
        photographs.append(masked)
    for function in (sources.load_glyphs, sources.load_strips, sources.largest_crop):
        function.cache_clear()
    monkeypatch.setattr(sources, "load_digits", lambda: (poisoned, targets))
    monkeypatch.setattr(sources, "load_photographs", lambda: tuple(photographs))
    assert [digest(composer(index)) for index in range(30)] == expected


def test_backgrounds_are_crops_of_the_photographs():
    composer = SceneComposer("val", image_size=64)
    backgrounds = np.array([composer.layers(index)[0] for index in range(200)], np.float64)
    assert backgrounds.mean(axis=(1, 2, 3)).std() > 20  # a dark flower bed and a bright sky
    strips = sources.load_strips("val")
    low = min(float(s.min()) for s in strips)
    assert backgrounds.min() >= 0.85 * low - 1
    # china.jpg is brighter at the top: rows differ since crops are never upside down, columns do not since they flip
    assert (backgrounds[:, :32].mean() - backgrounds[:, 32:].mean()) > 3
    assert abs(backgrounds[:, :, :32].mean() - backgrounds[:, :, 32:].mean()) < 5


def test_composing_imports_no_torch_and_sklearn_only_when_used():
    for module in (scenes, sources):
        tree = ast.parse(inspect.getsource(module))
        packages = {name for node in ast.walk(tree) for name in imported(node)}
        assert packages <= {"cv2", "dataclasses", "functools", "math", "numpy", "operator", "sklearn", "typing", ""}
        assert "sklearn" not in {name for node in tree.body for name in imported(node)}


def imported(node: ast.AST) -> list[str]:
    """Top-level packages that a statement imports; "" for a relative import."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["" if node.level else (node.module or "").split(".")[0]]
    return []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "trian"}, r"split: .*got 'trian'.*'train'"),
        ({"image_size": 31}, r"image_size: .* >= 32 .*got 31"),
        ({"min_digits": 0}, r"min_digits: .*got 0"),
        ({"min_digits": 3, "max_digits": 2}, r"max_digits: .*min_digits, 3, .*got 2"),
        ({"max_digits": 256}, r"max_digits: .*255, got 256"),
        ({"scale": (0.0, 0.8)}, r"scale: .*got \(0.0, 0.8\)"),
        ({"scale": (float("nan"), 0.8)}, r"scale: .*got \(nan"),
        ({"scale": (0.4, 1.01)}, r"scale: .*got .*1.01"),
        ({"scale": (0.5, 0.4)}, r"scale: .*low <= high.*got \(0.5, 0.4\)"),
        ({"scale": (0.1, 0.8)}, r"scale: .*got 0.1 for 6.4 pixels.* >= 0.125"),
        ({"contrast": -1.0}, r"contrast: .*got -1.0"),
        ({"contrast": 128.0}, r"contrast: .*127\], got 128.0"),
        ({"occlusion": 1.0}, r"occlusion: .*got 1.0"),
        ({"rotation": 46.0}, r"rotation: .*45\] degrees, got 46.0"),
        ({"seed": -1}, r"seed: .*got -1"),
    ],
)
def test_bad_parameters_are_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SceneComposer(**arguments)


def test_bad_types_and_indices_are_named():
    with pytest.raises(TypeError, match="image_size: .*got 64.0"):
        SceneComposer(image_size=64.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="min_digits: .*got True"):
        SceneComposer(min_digits=True)
    with pytest.raises(ValueError, match="index: .*got -1"):
        SceneComposer()(-1)
    with pytest.raises(ValueError, match="split: .*got 'tests'.*'test'"):
        sources.split_digits("tests")
