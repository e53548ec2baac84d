"""Targets on their images: positions and colors of boxes and masks, tags and legends."""

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image, ImageDraw
from torch import nn

from striate.callbacks import Pictures
from striate.callbacks.drawing import pictures
from striate.callbacks.drawing.colors import NEUTRAL, color_of, contrast_color, pale
from striate.callbacks.drawing.legend import LegendEntry
from striate.callbacks.drawing.object_numbers import follow_ground_truth
from striate.callbacks.drawing.overlays import (
    draw_target,
    drawable_fields,
    legible_side,
    score_note,
    target_of,
    target_panel,
    with_title,
)
from striate.callbacks.drawing.regions import scaled_windows
from striate.callbacks.drawing.tags import draw_tags
from striate.datamodules import DigitScenes
from striate.models import RunLengths
from striate.tests.helpers.text_fonts import use_fonts

GRAY = np.full((50, 100, 3), 128, np.uint8)
NAMES = ["cat", "dog", "car"]


def objects(boxes, labels, **more):
    return {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.array(labels, np.int64)} | more


def test_boxes_are_scaled_and_drawn_inside_the_picture():
    box_class = color_of(2)
    picture, legend = draw_target(GRAY, objects([[0, 0, 50, 50], [60, 30, 100, 50]], [2, 2]), NAMES, 200)
    assert picture.shape == (100, 200, 3) and legend == [LegendEntry("car x2", box_class)]
    drawn = (picture == box_class).all(axis=2)
    for row, column in ((50, 0), (50, 1), (50, 98), (50, 99), (99, 50), (98, 50), (99, 199), (80, 199), (70, 120)):
        assert drawn[row, column], (row, column)
    assert not drawn[50, 2:98].any() and not drawn[50, 100:120].any()
    assert (picture[75, 150] == 128).all()  # boxes are not filled


def test_names_are_drawn_at_their_boxes_without_overlap():
    bare = [draw_target(GRAY, objects(boxes, [0] * len(boxes)), NAMES, 300)[0] for boxes in (
        [[30, 20, 80, 45]], [[30, 20, 80, 45]] * 2)]  # fmt: skip
    red = [(one == color_of(0)).all(axis=2) for one in bare]
    assert red[0][46:59, 92:110].mean() > 0.5  # above the corner, which is at row 60, column 90
    assert red[1][62:74, 93:110].mean() > 0.5 and red[0][62:74, 93:110].mean() == 0  # the second: below it


@pytest.fixture
def written(monkeypatch):
    """The texts that are drawn, with the start and end of each."""
    texts, draw = [], ImageDraw.ImageDraw.text

    def text(self, xy, text, *args, **kwargs):
        texts.append((text, xy[0], xy[0] + kwargs["font"].getlength(text)))
        draw(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def texts_of(written, *args, **more):
    written.clear()
    draw_target(*args, **more)
    return [text for text, _, _ in written]


def scored(boxes, labels, scores):
    return objects(boxes, labels, scores=np.array(scores, np.float32))


def test_a_score_is_a_percentage_apart_from_the_name(written):
    assert texts_of(written, GRAY, scored([[0, 20, 50, 50]], [0], [0.744]), "0123", 100) == ["0  74%"]


def test_a_long_name_is_cut_before_the_score_where_space_is_short(written):
    names, size = ["a long ellipse"], 224
    small = [40.0, 20, 46, 26]
    alone = scored([small], [0], [0.98])
    assert texts_of(written, GRAY, alone, names, size) == ["a long ellipse  98%"]
    assert texts_of(written, GRAY, objects([small], [0]), names, size) == ["a long ellipse"]
    # neighbors all around, which the name would cover
    around = [[x, y, x + 6, y + 6] for x in (30, 40, 50, 60, 70) for y in (10, 20, 30) if (x, y) != (40, 20)]
    crowded = scored([small, *around], [0] * 15, [0.98] * 15)
    texts = texts_of(written, GRAY, crowded, names, size)
    assert texts.count("a long ellipse  98%") <= 2 and all(text.endswith("98%") for text in texts)
    assert any("…" in text for text in texts) and "98%" in texts
    # at the edge a tag starts further left; in a picture narrower than the tag it is cut
    (edge,) = texts_of(written, GRAY, scored([[90, 20, 100, 30]], [0], [0.98]), names, size)
    assert edge == "a long ellipse  98%" and 0 < written[0][1] < written[0][2] <= size
    for width, text in ((30, "a…e  98%"), (15, "98%")):
        strip = np.full((120, width, 3), 128, np.uint8)
        assert texts_of(written, strip, scored([[2, 40, 9, 60]], [0], [0.98]), names, 240) == [text]
        assert written[0][2] <= 2 * width


def test_a_wide_tag_may_lie_inside_a_larger_box(written):
    nested = scored([[0, 0, 100, 50], [40, 20, 46, 26]], [1, 0], [0.5, 0.98])
    assert texts_of(written, GRAY, nested, ["a long ellipse", "cat"], 224) == ["cat  50%", "a long ellipse  98%"]


def test_a_short_name_is_not_cut_among_neighbors(written):
    rows = [[40, y, 46, y + 6] for y in range(0, 50, 6)]
    texts = texts_of(written, GRAY, scored([*rows, [0, 0, 100, 50]], [0] * len(rows) + [1], [0.98] * 10), NAMES, 224)
    assert texts[1:4] == ["cat  98%"] * 3


def test_a_small_box_is_not_covered_by_its_own_tag():
    # no space above: the tag of a small box goes below it, that of a large one inside
    for bottom, inside in ((14, False), (40, True)):
        picture, _ = draw_target(GRAY, scored([[20, 2, 60, bottom]], [0], [0.98]), NAMES, 200)
        red = (picture == color_of(0)).all(axis=2)
        assert (red[6:17, 44:80].mean() > 0.4) == inside
        assert (red[2 * bottom + 2 : 2 * bottom + 12, 44:80].mean() > 0.4) != inside


def test_crowds_and_difficult_objects_are_dashed_and_counted():
    flags = {"iscrowd": np.array([True, False, False]), "difficult": np.array([False, True, False])}
    target = objects([[0, 0, 30, 50], [35, 0, 60, 50], [65, 0, 100, 50]], [0, 1, 1], **flags)
    picture, legend = draw_target(GRAY, target, NAMES, 200)
    assert legend[:2] == [LegendEntry("dog x2", color_of(1)), LegendEntry("cat crowd", color_of(0), dashed=True)]
    assert [(entry.text, entry.dashed) for entry in legend[2:]] == [("1 difficult", True)]
    for column, label, dashed in ((0, 0, True), (70, 1, True), (130, 1, False)):
        line = (picture[20:90, column] == color_of(label)).all(axis=1)
        assert (0.4 < line.mean() < 0.8) if dashed else line.all()


def test_the_legend_of_a_crowd_looks_like_the_crowd():
    flags = {"iscrowd": np.array([True, True, False])}
    boxes, labels = [[0, 0, 30, 50], [35, 0, 60, 50], [65, 0, 100, 50]], [0, 0, 1]
    drawn = target_panel(GRAY, objects(boxes, labels, **flags), NAMES, side=200)
    legend = drawn[200 + 7 : 200 + 24]
    red = (legend == color_of(0)).all(axis=2)
    own = (legend == color_of(1)).all(axis=2)
    assert own.sum() == 9 * 9  # the patch of an object is filled, that of a crowd is a dashed outline
    rows, columns = np.nonzero(red)
    patch = red[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert 0.2 < patch.mean() < 0.7 and not patch[3:-3, 3:-3].any()
    masks = np.ones((3, 50, 100), np.uint8)
    legend = draw_target(GRAY, objects(boxes, labels, masks=masks, **flags), NAMES, 200)[1]
    assert [(entry.text, entry.hatched, entry.dashed) for entry in legend] == [
        ("dog", False, False), ("cat crowd x2", True, False)
    ]  # fmt: skip


def test_colors_tell_instances_or_semantic_classes_apart():
    masks = np.zeros((2, 50, 100), np.uint8)
    masks[0, 10:40, 10:40] = masks[1, 10:40, 60:90] = 1
    target = objects([[10, 10, 40, 40], [60, 10, 90, 40]], [1, 1], masks=masks)
    picture, legend = draw_target(GRAY, target, NAMES, 100)
    assert legend == [LegendEntry("dog x2")]
    one, two = picture[30, 25].astype(int), picture[30, 75].astype(int)
    assert one[0] > one[2] + 50 and two[2] > two[0] + 50  # the first color is red, the second blue
    semantic = masks[0] + 2 * masks[1]
    semantic[:5] = 255
    picture, legend = draw_target(GRAY, {"mask": semantic}, ["background", "dog", "car"], 100)
    assert [entry.text for entry in legend] == ["dog: 18 %", "car: 18 %", "background: 54 %", "ignored: 10 %"]
    assert legend[3].hatched and (picture[45] == 128).all()  # the background is not tinted
    np.testing.assert_allclose(picture[30, 25], 128 * 0.3 + np.array(color_of(1)) * 0.7, atol=1)
    assert picture[2].std() > 20 and (picture[2, :, 0] == picture[2, :, 1]).all()  # gray stripes
    assert (draw_target(GRAY, {"mask": semantic}, ["road", "dog", "car"], 100)[0][45] != 128).any()


@pytest.mark.parametrize("name", ["bg", "Background", "_background_", "unlabeled", "Void"])
def test_the_background_is_not_tinted_under_any_of_its_names(name):
    mask = np.zeros((50, 100), np.uint8)
    mask[:10] = 1
    picture, legend = draw_target(GRAY, {"mask": mask}, [name, "dog"], 100)
    assert (picture[20:] == 128).all() and [entry.text for entry in legend] == ["dog: 20 %", f"{name}: 80 %"]
    picture, legend = draw_target(GRAY, {"mask": 1 - mask}, ["dog", name], 100)
    assert (picture[20:] != 128).any() and len(legend) == 2  # as another class it is tinted


def test_unusual_images_and_targets_are_drawn():
    for shape in ((1, 1), (2, 2000), (2000, 3)):
        image = np.zeros((*shape, 3), np.uint8)
        whole = objects([[0, 0, shape[1], shape[0]]], [0], masks=np.ones((1, *shape), np.uint8))
        assert max(draw_target(image, whole, [], 64)[0].shape) == 64
    assert draw_target(GRAY, objects([], []), NAMES, 64)[1] == [LegendEntry("no objects")]
    assert draw_target(GRAY, {"label": 1}, NAMES, 64)[1] == [LegendEntry("dog")]
    assert draw_target(GRAY, {"label": np.int64(1), "box": np.array([0, 0, 9, 9])}, NAMES, 64)[1] == [
        LegendEntry("dog", color_of(1))
    ]
    assert draw_target(GRAY, objects([[0, 0, 9, 9]], [7]), NAMES, 64)[1][0].text == "class 7"
    full = [f"a class of a long name {k}" for k in range(60)]
    drawn = target_panel(GRAY, objects([[0, 0, 9, 9]] * 60, range(60)), full, "x" * 300, side=128)
    assert drawn.shape == (128 + 8 + 54, 136, 3) and (drawn[:, -3:] == 255).all()  # nothing crosses the edge
    assert with_title(drawn, "y" * 300).shape == (220, 136, 3)


def test_predictions_of_low_score_are_not_drawn():
    scores = torch.tensor([0.9, 0.29])
    picture, legend = draw_target(GRAY, objects([[0, 0, 30, 30], [50, 0, 90, 50]], [0, 1], scores=scores), NAMES, 100)
    assert legend == [LegendEntry("cat", color_of(0))] and (picture[:, 60:] == 128).all()


def test_the_minimum_score_is_an_argument():
    less = scored([[0, 0, 30, 30], [50, 0, 90, 50]], [0, 1], [0.31, 0.29])
    assert [entry.text for entry in draw_target(GRAY, less, NAMES, 100, min_score=0.3)[1]] == ["cat"]
    assert [entry.text for entry in draw_target(GRAY, less, NAMES, 100, min_score=0)[1]] == ["cat", "dog"]
    assert score_note(less, 0.3) == ", 1 below 30 % not drawn" and score_note(less, 0.2) == ""


def test_the_best_three_are_drawn_paler_where_none_has_the_minimum_score(written):
    boxes = [[0, 0, 20, 50], [25, 0, 45, 50], [50, 0, 70, 50], [75, 0, 95, 50]]
    weak = scored(boxes, [0, 1, 0, 1], [0.2, 0.4, 0.1, 0.3])
    picture, legend = draw_target(GRAY, weak, NAMES, 100, labels=False)
    assert legend == [LegendEntry("cat", pale(color_of(0))), LegendEntry("dog x2", pale(color_of(1)))]
    assert (picture[45, 25] == pale(color_of(1))).all() and (picture[45, 50:71] == 128).all()  # the worst is not drawn
    assert not (picture == color_of(0)).all(axis=2).any()
    assert score_note(weak) == ", 4 below 50 %: best 3 drawn" and score_note(scored([], [], [])) == ""
    assert score_note(scored(boxes[:2], [0, 1], [0.1, 0.2])) == ", 2 below 50 %"
    many = scored(boxes * 50, [0] * 200, [0.1] * 200)
    target_panel(GRAY, many, NAMES, "predicted" + score_note(many), side=224)
    assert [text for text, *_ in written][-1] == "predicted, 200 below 50 %: best 3 drawn"  # not shortened
    target_panel(GRAY, weak, NAMES, "predicted" + score_note(weak), side=224)
    assert [text for text, *_ in written][-1] == "predicted, 4 below 50 %: best 3 drawn"  # not shortened
    # masks too: the tint is weaker
    masks = np.ones((4, 50, 100), np.uint8)
    strong, faint = (
        draw_target(GRAY, weak | {"masks": masks}, NAMES, 100, least, labels=False)[0][25, 98].astype(int)
        for least in (0.1, 0.5)
    )
    assert np.abs(faint - 128).max() < np.abs(strong - 128).max()


def test_labels_can_be_left_out(written):
    target = scored([[0, 20, 50, 50]], [0], [0.744])
    picture, legend = draw_target(GRAY, target, NAMES, 200, labels=False)
    assert not written and [entry.text for entry in legend] == ["cat"] and (picture[60, 1] == color_of(0)).all()


def crowd(count, side, seed=0):
    """Boxes of `side` pixels on an image of 640 by 480 pixels."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, [640 - side, 480 - side], (count, 2))
    return np.concatenate([corners, corners + side], axis=1)


def test_crowded_images_are_drawn_larger():
    image = np.zeros((480, 640, 3), np.uint8)
    assert legible_side(image, objects(crowd(20, 48), [0] * 20), 224, 448) == 24 / 48 * 640
    assert legible_side(image, objects(crowd(20, 10), [0] * 20), 224, 448) == 448
    assert legible_side(image, objects(crowd(20, 100), [0] * 20), 224, 448) == 224
    assert legible_side(image, objects(crowd(4, 10), [0] * 4), 224, 448) == 224  # not crowded
    assert legible_side(image, {"mask": image[..., 0]}, 224, 448) == 224


@pytest.mark.parametrize("seed", range(3))
def test_tags_leave_the_objects_of_a_crowd_visible(seed, monkeypatch):
    boxes, tags = crowd(60, 40, seed), []
    kept = ImageDraw.ImageDraw.rectangle

    def rectangle(self, xy, fill=None, **more):
        if fill is not None:
            tags.append(np.array(xy, np.float64))
        kept(self, xy, fill=fill, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", rectangle)
    page = Image.new("RGB", (640, 480))
    draw_tags(page, boxes, [("cat", f"{score}%") for score in range(40, 100)], [color_of(0)] * 60)
    assert len(tags) >= 15
    for tag in tags:
        sides = np.minimum(boxes[:, 2:], tag[2:] + 1) - np.maximum(boxes[:, :2], tag[:2])
        covered = np.sort(sides.clip(0).prod(axis=1) / 40**2)
        assert covered[-1] <= 0.36 and covered[-2] <= 0.13  # its own box, and any other


def test_many_small_objects_have_scores_but_no_names(written):
    image = np.full((480, 640, 3), 128, np.uint8)
    boxes = crowd(20, 40)
    assert not texts_of(written, image, objects(boxes, [0] * 20), NAMES, 640)
    texts = texts_of(written, image, scored(boxes, [0] * 20, [0.9] * 20), NAMES, 640)
    assert len(texts) >= 10 and set(texts) == {"90%"}
    few = scored(boxes[:19], [0] * 19, [0.9] * 19)
    assert "cat  90%" in texts_of(written, image, few, NAMES, 640)
    masks = np.zeros((20, 480, 640), np.uint8)  # their colors stand for objects, not for classes
    assert "cat" in texts_of(written, image, objects(boxes, [0] * 20, masks=masks), NAMES, 640)


@pytest.mark.parametrize("gray, fill", [(230, (20, 20, 24)), (30, (255, 255, 255))])
def test_scores_of_many_objects_are_readable_on_any_image(gray, fill, monkeypatch):
    fills, kept = set(), ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, *args, **more: fills.add(more["fill"]) or kept(self, *args, **more)
    )
    draw_target(np.full((480, 640, 3), gray, np.uint8), scored(crowd(20, 40), [0] * 20, [0.9] * 20), NAMES, 640)
    assert fills == {fill}


def test_a_class_has_one_color_and_dark_borders_with_a_light_rim():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (60, 100, 3), np.uint8)
    mask = np.zeros((60, 100), np.uint8)
    mask[:, 50:] = 1
    picture, _ = draw_target(image, {"mask": mask}, ["road", "car"], 100)
    for label, region in ((0, picture[:, :45]), (1, picture[:, 55:])):
        shade = region - 0.7 * np.array(color_of(label))
        assert np.abs(shade - shade.mean(axis=2, keepdims=True)).max() <= 1  # gray below the color
        assert region.std(axis=(0, 1)).max() < 0.3 * image.std()
    assert (picture[:, 50] < 30).all() and (picture[:, [49, 51]] > 150).all()


def test_names_without_a_font_are_drawn_as_numbers(monkeypatch):
    use_fonts(monkeypatch)
    target = scored([[30, 20, 80, 45]], [1], [0.9])
    with pytest.warns(UserWarning, match="1 of 2 class names drawn as numbers"):
        drawn = target_panel(GRAY, target, ["cat", "犬"], side=200)
    np.testing.assert_array_equal(drawn, target_panel(GRAY, target, ["cat", "class 1"], side=200))


def test_colors_differ_and_have_contrast():
    colors = [color_of(number) for number in range(256)]
    assert len(set(colors)) == 256 and color_of(256) == color_of(0)
    for color in colors[:64]:  # apart from a black and from a white image
        assert max(color) >= 100 and min(color) <= 190
    assert contrast_color((255, 255, 0)) == (0, 0, 0) and contrast_color((0, 0, 255)) == (255, 255, 255)


def test_targets_of_all_batches():
    box = torch.tensor([1.0, 1, 2, 2])
    batch = {"image": torch.zeros(2, 3, 4, 4), "label": torch.tensor([4, 5]), "box": box.expand(2, 4), "index": None}
    fields = drawable_fields(target_of(batch, 1))
    assert fields.keys() == {"label", "box"} and fields["label"] == 5
    listed = {"image": [], "target": [{"boxes": torch.zeros(0, 4)}, {"boxes": box[None], "image_id": 3}]}
    assert drawable_fields(target_of(listed, 1))["boxes"].tolist() == [[1, 1, 2, 2]] and not target_of(
        {"image": 0, "path": []}, 0
    )


class FixedPrediction(pl.LightningModule):
    """Predicts one object in the upper left of each image."""

    class_names = tuple("0123456789")

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def validation_step(self, batch, _):
        return None

    def predict(self, images):
        one = {"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.tensor([7]), "scores": torch.tensor([0.5])}
        return [one for _ in images]


@pytest.mark.parametrize("task, size", [("detection", 2), ("instance_segmentation", 2)])
def test_pictures_show_ground_truth_beside_prediction(tmp_path, monkeypatch, task, size):
    drawn = []
    kept = pictures.target_panel
    monkeypatch.setattr(pictures, "target_panel", lambda *a, **k: drawn.append(a) or kept(*a, **k))
    data = DigitScenes(task, image_size=48, val_size=4, train_size=1, batch_size=2, num_workers=0)
    trainer = pl.Trainer(
        accelerator="cpu", callbacks=[Pictures(count=size)], logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, enable_checkpointing=False,
    )  # fmt: skip
    trainer.validate(FixedPrediction(), data, verbose=False)
    # one of each half, drawn by the seed
    assert [one[3] for one in drawn] == ["ground truth, sample 1", "predicted", "ground truth, sample 3", "predicted"]
    sample = data.make_source("val")[3]
    np.testing.assert_array_equal(drawn[2][0], sample["image"])
    np.testing.assert_array_equal(drawn[2][1]["boxes"], sample["boxes"])
    assert ("masks" in drawn[2][1]) == (task == "instance_segmentation")
    assert drawn[3][1]["labels"].tolist() == [7]
    assert (tmp_path / "pictures" / "val.png").is_file()


def test_text_is_dark_on_paper():
    assert (target_panel(GRAY, {"label": 1}, NAMES, side=64)[64 + 7 : 64 + 26] == NEUTRAL).all(axis=2).any()


@pytest.mark.parametrize(
    "name, plain", [("background", True), ("_background_", True), ("BG", True), ("Background", True), ("road", False)]
)
def test_class_0_is_not_tinted_if_its_name_is_that_of_the_background(name, plain):
    gray = np.full((20, 20, 3), 128, np.uint8)
    picture, legend = draw_target(gray, {"mask": np.zeros((20, 20), np.uint8)}, [name, "bg"], 20)
    assert (picture == 128).all() == plain and legend[0].text == f"{name}: 100 %"
    painted, _ = draw_target(gray, {"mask": np.ones((20, 20), np.uint8)}, [name, "bg"], 20)
    assert not (painted == 128).all()  # another class with that name is tinted


def test_objects_of_which_evaluation_has_nothing_left_are_not_drawn():
    lost = {
        "boxes": torch.tensor([[0.0, 0, 0, 0], [1, 2, 5, 6]]),
        "labels": torch.tensor([3, 4]),
        "masks": torch.zeros(2, 8, 8, dtype=torch.uint8),
        "iscrowd": torch.tensor([False, True]),
    }
    fields = drawable_fields(lost)
    assert fields["boxes"].tolist() == [[1, 2, 5, 6]] and fields["labels"].tolist() == [4]
    assert fields["masks"].dense().shape == (1, 8, 8) and fields["iscrowd"].tolist() == [True]
    assert drawable_fields({"label": torch.tensor(1), "box": torch.zeros(4)}).keys() == {"label"}
    assert drawable_fields({"label": torch.tensor(1), "box": torch.tensor([1.0, 1, 2, 2])}).keys() == {"label", "box"}


@pytest.mark.parametrize("size", [(48, 90), (17, 23), (96, 180)])
def test_windows_of_masks_equal_whole_masks_resized(size):
    masks = torch.rand(5, 48, 90, generator=torch.Generator().manual_seed(0)) > 0.7
    masks[1], masks[2, :, 30:] = False, False
    for mask, (region, x, y) in zip(masks, scaled_windows(RunLengths.from_dense(masks), size), strict=True):
        whole = np.zeros(size, bool)
        whole[y : y + region.shape[0], x : x + region.shape[1]] = region
        resized = cv2.resize(mask.numpy().astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
        assert np.array_equal(whole, resized != 0)


def test_run_lengths_and_dense_masks_give_the_same_plot():
    masks = np.zeros((2, 50, 100), np.uint8)
    masks[0, 5:40, 10:60] = masks[1, 20:45, 40:90] = 1
    target = objects([[10, 5, 60, 40], [40, 20, 90, 45]], [0, 1], masks=masks, iscrowd=np.array([False, True]))
    runs = {**target, "masks": RunLengths.from_dense(torch.from_numpy(masks))}
    plots = [draw_target(GRAY, one, NAMES, 200)[0] for one in (target, runs)]
    assert np.array_equal(*plots)
    tinted = [(plots[0][2 * y, 2 * x] != 128).any() for y, x in ((7, 12), (42, 85), (2, 2))]
    assert tinted == [True, True, False]


def test_predicted_objects_have_the_colors_of_their_ground_truth():
    masks = RunLengths.from_dense(torch.zeros(3, 50, 100, dtype=torch.uint8))
    boxes = np.array([[60.0, 10, 90, 40], [11, 10, 41, 40], [10, 10, 40, 40]])
    truth = {"boxes": boxes[[2, 0]], "masks": masks[:2]}
    for order in ([0, 1, 2], [2, 0, 1]):  # the scores change from epoch to epoch
        scores = np.array([0.9, 0.8, 0.7])[np.argsort(order)]
        found = {"boxes": boxes, "masks": masks, "scores": scores}
        numbers = follow_ground_truth(found, truth, (50, 100))["numbers"].tolist()
        nearer = int(scores[2] > scores[1]) + 1  # the one that takes the first object
        assert numbers[0] == 1 and numbers[nearer] == 0
        assert numbers[3 - nearer] == 2 + 16 * 8 + 4  # by position: row 8 and column 4 of 16 x 16 cells
    without = {"boxes": boxes, "labels": np.zeros(3)}
    assert follow_ground_truth(without, truth, (50, 100)).keys() == without.keys()
    plot = draw_target(GRAY, {**truth, "labels": np.zeros(2, int), "numbers": np.array([4, 7])}, NAMES, 100)[0]
    assert all((plot == np.array(color_of(number))).all(-1).any() for number in (4, 7))
