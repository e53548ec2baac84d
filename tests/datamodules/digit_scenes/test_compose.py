"""Scenes: targets agree with each other and with the picture, splits share nothing, and an index means one scene."""

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
from striate.datamodules.digit_scenes.compose import CLASS_NAMES, SEMANTIC_CLASS_NAMES, Scene, SceneComposer

BT601 = np.array([0.299, 0.587, 0.114])


def digest(scene: Scene) -> str:
    arrays = (scene.image, scene.labels, scene.boxes, scene.masks, scene.semantic)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def crowded(split: str = "train", seed: int = 0) -> SceneComposer:
    return SceneComposer(split, size=64, min_digits=2, max_digits=5, min_scale=0.25, max_scale=0.6, seed=seed)


@st.composite
def composers(draw: st.DrawFn) -> SceneComposer:
    size = draw(st.sampled_from([32, 47, 64, 128, 200]))
    low = draw(st.floats(max(0.1, 8 / size), 1.0))
    fewest = draw(st.integers(1, 5))
    return SceneComposer(
        split=draw(st.sampled_from(["train", "val", "test"])),
        size=size,
        min_digits=fewest,
        max_digits=fewest + draw(st.integers(0, 4)),
        min_scale=low,
        max_scale=draw(st.floats(low, 1.0)),
        contrast=draw(st.floats(0, 127)),
        max_occlusion=draw(st.sampled_from([0.0, 0.3, 0.9])),
        rotation=draw(st.sampled_from([0.0, 10.0, 45.0])),
        seed=draw(st.integers(0, 2**40)),
    )


@given(composer=composers(), index=st.integers(0, 2**40))
@settings(max_examples=150, deadline=None)
def test_targets_agree_with_each_other(composer: SceneComposer, index: int):
    scene = composer(index)
    size, count = composer.size, len(scene.labels)
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
def test_picture_and_targets_are_recomputed_from_the_layers(composer: SceneComposer, index: int):
    """An independent renderer: layer after layer over whole pictures in double precision."""
    scene = composer(index)
    background, layers = composer.layers(index)
    size, count = composer.size, len(layers)
    canvas, touched = background.astype(np.float64), np.zeros((size, size), bool)
    whole = np.zeros((count, size, size), bool)
    for number, layer in enumerate(layers):
        alpha = np.zeros((size, size))
        alpha[layer.window] = layer.alpha
        assert layer.alpha.min() >= 0
        assert layer.alpha.max() <= 1
        whole[number] = alpha >= 0.5
        # Contrast with the mean of what is under the digit, and colours within a level of rounding.
        under = canvas[whole[number]].mean(axis=0) @ BT601
        assert abs(layer.color @ BT601 - under) >= composer.contrast - 1e-3
        canvas = np.rint((1 - alpha[..., None]) * canvas + alpha[..., None] * layer.color)
        touched |= alpha > 0
    assert np.abs(scene.image - canvas).max() <= 1  # single precision rounds a tie elsewhere
    np.testing.assert_array_equal(scene.image[~touched], background[~touched])
    for number in range(count):
        np.testing.assert_array_equal(scene.masks[number], whole[number] & ~whole[number + 1 :].any(axis=0))
        hidden = 1 - scene.masks[number].sum() / whole[number].sum()
        assert hidden <= composer.max_occlusion + 1e-9
    np.testing.assert_array_equal(scene.labels, [layer.label for layer in layers])


def test_contrast_decides_the_color():
    """The most contrast that any background allows leaves only near black and near white."""
    composer = SceneComposer(contrast=127, size=32, min_scale=0.5)
    luminances = []
    for index in range(60):
        background, (layer,) = composer.layers(index)
        under = background[layer.window][layer.mask].mean(axis=0) @ BT601
        luminances.append((under, layer.color @ BT601))
    for under, own in luminances:
        assert own >= under + 127 - 1e-3 if under < 127 else own <= under - 127 + 1e-3
    assert {under < 127 for under, _ in luminances} == {True, False}


@pytest.mark.parametrize(("size", "scale"), [(32, 0.25), (64, 0.35), (64, 0.8), (512, 0.8)])
def test_edges_are_about_a_pixel_wide_at_any_size(size: int, scale: float):
    """Pixels neither bare nor covered, over the length of the outline; and no veil of paint around the strokes."""
    composer, widths = SceneComposer(size=size, min_scale=scale, max_scale=scale), []
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
    """Upright digits fill nearly the height asked for; rotated ones stay inside the scene all the same."""
    heights = []
    for index in range(40):
        scene = SceneComposer(size=100, min_scale=0.6, max_scale=0.6, rotation=rotation)(index)
        heights.append(scene.boxes[0, 3] - scene.boxes[0, 1])
    assert 50 <= np.median(heights) <= 64
    if rotation == 0:
        assert max(heights) <= 64
    largest = SceneComposer(size=100, min_scale=1, max_scale=1, rotation=rotation)
    assert all(largest(i).boxes.min() >= 0 and largest(i).boxes.max() <= 100 for i in range(20))


def test_a_rotation_of_zero_is_upright_and_others_turn_both_ways():
    """The digits' own slant averages out: second moments lean left as often as right, and only when rotated widely."""
    base, turned = (SceneComposer(size=96, min_scale=0.8, max_scale=0.8, rotation=r) for r in (0.0, 30.0))
    angles = []
    for index in range(60):
        leans = []
        for composer in (base, turned):
            moments = cv2.moments(composer(index).masks[0].astype(np.uint8), binaryImage=True)
            leans.append(0.5 * np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"]) % np.pi)
        angles.append((leans[1] - leans[0] + np.pi / 2) % np.pi - np.pi / 2)  # the same digit, so only the turn is left
    degrees = np.rad2deg(angles)
    assert np.percentile(degrees, 90) > 15
    assert np.percentile(degrees, 10) < -15
    assert np.percentile(np.abs(degrees), 95) < 33


def test_numbers_of_digits_are_drawn_from_the_whole_range():
    composer = SceneComposer(size=128, min_digits=1, max_digits=4, min_scale=0.1, max_scale=0.25)
    counts = np.bincount([len(composer(index).labels) for index in range(400)], minlength=6)
    assert counts[0] == counts[5] == 0
    assert counts[1:5].min() > 60  # 100 expected each


def test_digits_without_room_are_left_out_but_never_all():
    composer = SceneComposer(size=64, min_digits=9, max_digits=9, min_scale=0.9, max_scale=1.0, max_occlusion=0.0)
    counts = [len(composer(index).labels) for index in range(10)]
    assert min(counts) >= 1
    assert max(counts) < 9
    roomy = SceneComposer(size=128, min_digits=4, max_digits=4, min_scale=0.15, max_scale=0.6)
    assert [len(roomy(index).labels) for index in range(100)] == [4] * 100


def test_labels_are_the_digits_shown():
    """A nearest-neighbour reader of the masks, taught with scikit-learn's raw 8 x 8 digits, reads the labels."""
    images, targets = sources.load_digits()
    known = sources.split_digits("train")
    composer = SceneComposer("train", size=96, min_scale=0.8, max_scale=0.8, rotation=0.0)
    right = 0
    for index in range(100):
        _, (layer,) = composer.layers(index)
        height, width = layer.alpha.shape
        square = np.zeros((max(height, width),) * 2, np.float32)
        left = (square.shape[1] - width) // 2
        square[:height, left : left + width] = layer.alpha
        read = cv2.resize(square, (8, 8), interpolation=cv2.INTER_AREA)
        # Let the reader try shifts of a cell: the patch is cut to the strokes, the source is not.
        shifted = [np.roll(read, dx, axis=1) for dx in (-1, 0, 1)]
        errors = np.min([((images[known] - s) ** 2).sum(axis=(1, 2)) for s in shifted], axis=0)
        right += int(targets[known][np.argmin(errors)] == layer.label)
    assert right >= 90


def test_every_class_appears_about_equally_often():
    composer = SceneComposer(size=32, min_scale=0.5)
    counts = np.bincount([composer(index).labels[0] for index in range(1000)], minlength=10)
    assert len(counts) == 10
    assert counts.min() > 60  # 100 expected each, standard deviation 9.5


def test_names():
    assert CLASS_NAMES == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert SEMANTIC_CLASS_NAMES == ("background", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


def test_the_same_index_is_the_same_scene_in_any_order_and_after_pickling():
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
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [digest(crowded(split)(index)) for split in ("train", "val", "test") for index in (5, 2)]
    assert answer.stdout.split() == expected


def test_seeds_splits_and_indices_differ():
    composed = [
        crowded(split, seed=seed)(index) for split in sources.SPLITS for seed in (0, 1, 2) for index in (0, 1, 2)
    ]
    assert len({digest(scene) for scene in composed}) == 27


def test_splits_and_seeds_draw_independently():
    """Not only other digits in the same places: the places are unrelated too."""
    composers = (
        SceneComposer("train", size=64),
        SceneComposer("val", size=64),
        SceneComposer("train", size=64, seed=1),
    )
    centers = [[composer(i).boxes[0].reshape(2, 2).mean(axis=0) for i in range(200)] for composer in composers]
    for axis in (0, 1):
        correlations = np.corrcoef(np.array(centers)[:, :, axis])
        assert np.abs(correlations - np.eye(3)).max() < 0.25  # standard deviation 0.07


def test_a_scene_is_its_owners_to_change():
    composer = crowded()
    before = digest(composer(0))
    scene = composer(0)
    scene.image[:] = 0
    scene.masks[:] = False
    assert digest(composer(0)) == before


def test_splits_share_no_digit_and_leave_none_out():
    images, targets = sources.load_digits()
    parts = {split: sources.split_digits(split) for split in sources.SPLITS}
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(1797))
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797  # nor does one occur twice under two indices
    for split, share in (("train", 0.70), ("val", 0.15), ("test", 0.15)):
        for label in range(10):
            assert abs((targets[parts[split]] == label).sum() - share * (targets == label).sum()) <= 1


def test_splits_share_no_column_of_a_photograph():
    for photograph in sources.load_photographs():
        columns = [set(range(*sources.split_columns(split, photograph.shape[1]))) for split in sources.SPLITS]
        assert sum(map(len, columns)) == len(set.union(*columns)) == photograph.shape[1]


@pytest.fixture
def fresh_sources():
    """Lets a test replace what is loaded, and forgets it afterwards."""
    cached = (sources.load_glyphs, sources.load_strips, sources.largest_crop)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.mark.parametrize("split", sources.SPLITS)
def test_scenes_use_nothing_but_their_own_split(split: str, monkeypatch: pytest.MonkeyPatch, fresh_sources: None):
    """Whatever the other splits' digits and columns hold, this split's scenes are the same."""
    composer = crowded(split)
    expected = [digest(composer(index)) for index in range(30)]
    images, targets = sources.load_digits()
    foreign = np.setdiff1d(np.arange(len(images)), sources.split_digits(split))
    poisoned = images.copy()
    poisoned[foreign] = 1.0
    photographs = []
    for photograph in sources.load_photographs():
        first, last = sources.split_columns(split, photograph.shape[1])
        spoilt = np.full_like(photograph, 255)
        spoilt[:, first:last] = photograph[:, first:last]
        photographs.append(spoilt)
    for function in (sources.load_glyphs, sources.load_strips, sources.largest_crop):
        function.cache_clear()
    monkeypatch.setattr(sources, "load_digits", lambda: (poisoned, targets))
    monkeypatch.setattr(sources, "load_photographs", lambda: tuple(photographs))
    assert [digest(composer(index)) for index in range(30)] == expected


def test_backgrounds_are_pieces_of_the_photographs():
    """Mirrored or not, a background's mean colour is one that its strip can have, and both mirrorings occur."""
    composer = SceneComposer("val", size=64)
    backgrounds = np.array([composer.layers(index)[0] for index in range(200)], np.float64)
    lit = backgrounds.mean(axis=(1, 2, 3))
    assert lit.std() > 20  # a dark flower bed and a bright sky
    strips = sources.load_strips("val")
    low = min(float(s.min()) for s in strips)
    assert backgrounds.min() >= 0.85 * low - 1
    # The light of china.jpg comes from above: crops of it keep their top on top, so rows differ and columns do not.
    assert (backgrounds[:, :32].mean() - backgrounds[:, 32:].mean()) > 3
    assert abs(backgrounds[:, :, :32].mean() - backgrounds[:, :, 32:].mean()) < 5


def test_composing_needs_neither_torch_nor_an_import_of_sklearn_at_load():
    for module in (scenes, sources):
        tree = ast.parse(inspect.getsource(module))
        everywhere = {name for node in ast.walk(tree) for name in imported(node)}
        assert everywhere <= {"cv2", "dataclasses", "difflib", "functools", "math", "numpy", "operator", "sklearn", ""}
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
        ({"split": "trian"}, r"split='trian': must be one of train, val, test; did you mean 'train'\?"),
        ({"size": 31}, r"size=31: .* at least 32 pixels"),
        ({"min_digits": 0}, r"min_digits=0: .* at least 1"),
        ({"min_digits": 3, "max_digits": 2}, r"max_digits=2: must be at least min_digits=3"),
        ({"max_digits": 256}, r"max_digits=256: .* at most 255"),
        ({"min_scale": 0.0}, r"min_scale=0.0: must be in \(0, 1\]"),
        ({"min_scale": float("nan")}, r"min_scale=nan: must be in \(0, 1\]"),
        ({"max_scale": 1.01}, r"max_scale=1.01: must be in \[min_scale=0.\d+, 1\]"),
        ({"min_scale": 0.5, "max_scale": 0.4}, r"max_scale=0.4: must be in \[min_scale=0.5, 1\]"),
        ({"min_scale": 0.1}, r"min_scale=0.1: digits of 6.4 pixels .* size=64 take at least 0.125"),
        ({"contrast": -1.0}, r"contrast=-1.0: must be in \[0, 127\]"),
        ({"contrast": 128.0}, r"contrast=128.0: must be in \[0, 127\]"),
        ({"max_occlusion": 1.0}, r"max_occlusion=1.0: must be in \[0, 1\)"),
        ({"rotation": 46.0}, r"rotation=46.0: must be in \[0, 45\] degrees"),
        ({"seed": -1}, r"seed=-1: must be 0 or more"),
    ],
)
def test_bad_parameters_are_named(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SceneComposer(**arguments)


def test_bad_types_and_indices_are_named():
    with pytest.raises(TypeError, match=r"size=64.0: must be a whole number, not float"):
        SceneComposer(size=64.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"min_digits=True: must be a whole number, not bool"):
        SceneComposer(min_digits=True)
    with pytest.raises(ValueError, match=r"index=-1: must be 0 or more"):
        SceneComposer()(-1)
    with pytest.raises(ValueError, match=r"split='tests'.*did you mean 'test'\?"):
        sources.split_digits("tests")
