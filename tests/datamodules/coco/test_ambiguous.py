"""What COCO's files leave open: units, crowds, flags, areas, names of categories, images listed twice."""

import json
import math

import numpy as np
import pytest
from hotcoco import mask as rle

from striate.datamodules import CocoDetection, CocoLocalization
from striate.datamodules.annotations.annotation_errors import DataError, record_faults
from striate.datamodules.annotations.corners import are_corners
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.small_datasets import BOXES, HEIGHT, WIDTH, actions, coco_item, edit, repaired, write_coco


@pytest.fixture
def file(tmp_path):
    return write_coco(tmp_path / "data")


def module(file, task="detection", **options):
    return CocoDetection(str(file.parent.parent), task, num_workers=0, **options)


def change_items(file, change):
    """Apply a function to each annotation of a file."""
    edit(file, lambda content: [change(item) for item in content["annotations"]])


def codes(data, split="train"):
    """The codes of the faults that the reader records."""
    with record_faults() as faults:
        data.make_source(split)
    return [fault.code for fault in faults]


# -- units ---------------------------------------------------------------------------------------------


def test_boxes_in_fractions(file):
    change_items(file, lambda item: item.update(bbox=list(np.divide(item["bbox"], [WIDTH, HEIGHT] * 2))))
    with stops_at("box-normalized", r"train2017.json, annotations, bbox: .*all 8 .*multiply x"):
        module(file).make_source("train")
    assert codes(module(file))[0] == "box-normalized"


def test_some_boxes_in_fractions(file):
    def change(item):
        if item["id"] == 3:
            item["bbox"] = [0.5, 0.25, 0.25, 0.5]

    change_items(file, change)
    message = r"^1 of 8 lie in 0 to 1.*train2017.json, annotation 3, got 0\.5, 0\.25, 0\.75, 0\.75\)"
    with pytest.warns(UserWarning, match=message):
        module(file).make_source("train")
    assert codes(module(file)) == ["box-mixed-units"]


def test_a_single_box_in_fractions(file):
    edit(file, lambda content: content.update(annotations=[coco_item(1, 1, (0.1, 0.2, 0.5, 0.9))]))
    with stops_at("box-normalized"):
        module(file).make_source("train")


@pytest.mark.parametrize("task", ["instance_segmentation", "semantic_segmentation"])
def test_polygons_in_fractions(file, task):
    def change(item):
        points = np.reshape(item["segmentation"][0], (-1, 2)) / (WIDTH, HEIGHT)
        item.update(segmentation=[points.ravel().tolist()])

    change_items(file, change)
    with stops_at("box-normalized", "annotations, segmentation: .*polygons of all 8"):
        module(file, task).make_source("train")
    assert len(module(file).make_source("train").objects.labels) == 8  # boxes are in pixels


def moved(item, x, y):
    points = np.add(np.reshape(item["segmentation"][0], (-1, 2)), [x, y])
    item.update(segmentation=[points.ravel().tolist()])


@pytest.mark.parametrize("task", ["instance_segmentation", "semantic_segmentation"])
def test_polygons_outside_their_images_are_refused(file, task):
    change_items(file, lambda item: moved(item, 0, 2 * HEIGHT))
    message = (
        "annotations, segmentation: .*polygons of all 8 .*annotation 1, .*outside their images; write them in pixels"
    )
    with stops_at("no-objects", message):
        module(file, task).make_source("train")
    assert "no-objects" in codes(module(file, task))
    assert len(module(file).make_source("train").objects.labels) == 8  # boxes are inside


def test_polygons_elsewhere_than_their_boxes_are_warned_of(file, recwarn):
    # partly outside, where box and polygon are clipped alike, and 2 pixels apart, as other tools round
    def change(item):
        if item["id"] == 3:
            item.update(coco_item(3, item["image_id"], (-4, 6, 25, 30)))
        if item["id"] == 4:
            moved(item, 2, 0)

    change_items(file, change)
    module(file, "instance_segmentation").make_source("train")
    assert not [one for one in recwarn if "masks" in str(one.message)]
    change_items(file, lambda item: moved(item, 0, HEIGHT) if item["id"] == 5 else None)
    message = (
        r"^1 of 8 masks do not match their boxes \(first: .*train2017.json, annotation 5, "
        r"box \[5, 6, 25, 30\], mask \[5, 46, 25, 70\]\); run striate data check"
    )
    with pytest.warns(UserWarning, match=message):
        module(file, "instance_segmentation").make_source("train")
    assert "mask-box" not in codes(module(file, "instance_segmentation"))  # the check of the image finds it


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths_elsewhere_than_their_boxes_are_warned_of(file, recwarn, compressed):
    def runs(item, x, y, width, height):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        mask[int(y) : int(y + height), int(x) : int(x + width)] = 1
        encoded = rle.encode(mask)
        ends = np.flatnonzero(np.diff(mask.ravel("F"), prepend=0, append=2))
        counts = encoded["counts"] if compressed else np.diff(ends, prepend=0).tolist()
        counts = counts.decode() if isinstance(counts, bytes) else counts
        item.update(segmentation={"size": [HEIGHT, WIDTH], "counts": counts})

    change_items(file, lambda item: runs(item, *item["bbox"]))
    module(file, "instance_segmentation").make_source("train")
    assert not [one for one in recwarn if "masks" in str(one.message)]
    change_items(file, lambda item: runs(item, 0, 0, WIDTH, HEIGHT) if item["id"] == 5 else None)
    message = rf"^1 of 8 masks do not match their boxes .*annotation 5, .*mask \[0, 0, {WIDTH}, {HEIGHT}\]"
    with pytest.warns(UserWarning, match=message):
        module(file, "instance_segmentation").make_source("train")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda polygon: polygon, r"list of polygons .*got the number 5\S* in it; add outer brackets"),
        (lambda polygon: [np.reshape(polygon, (-1, 2)).tolist()], r"got a list of points \[\[.*without the inner"),
        (lambda polygon: [None], "a polygon is not a list of numbers, got null"),
    ],
)
def test_brackets_of_polygons(file, change, message):
    def applied(item):
        if item["id"] == 5:
            item.update(segmentation=change(item["segmentation"][0]))

    change_items(file, applied)
    with pytest.raises(DataError, match=f"annotation 5: mask cannot be used: .*{message}"):
        module(file, "instance_segmentation", strict=True).make_source("train")


def as_corners(item):
    x, y, width, height = item["bbox"]
    item.update(bbox=[x, y, x + width, y + height])


@pytest.mark.parametrize("with_area", [False, True])
@pytest.mark.filterwarnings("ignore:.*(clipped, reaching beyond|may be percentages)")
def test_boxes_of_two_corners(file, with_area):
    change_items(file, as_corners)
    if not with_area:
        change_items(file, lambda item: item.pop("area"))
        # the first box of each image lies in the image either way
        edit(file, lambda content: content.update(annotations=content["annotations"][1::2]))
    with stops_at("box-corners", "train2017.json, annotations, bbox: .*set box_format: xyxy"):
        module(file).make_source("train")
    boxes = module(file, box_format="xyxy").make_source("train")[0]["boxes"]
    assert boxes.tolist() == [list(box) for box in BOXES[not with_area :]]
    localization = CocoLocalization(str(file.parent.parent), "largest", box_format="xyxy", num_workers=0)
    assert localization.make_source("train")[0]["box"].tolist() == list(BOXES[1])
    assert module(file, box_format="xywh").make_source("train")[0]["boxes"][-1].tolist() == [30, 10, 60, 40]


def test_areas_of_the_wrong_numbers_do_not_hide_corners():
    corners = np.array([[10.0, 10, 50, 40], [20, 5, 60, 30], [30, 20, 60, 45], [40, 12, 63, 47]])
    sizes = np.repeat([[64, 48]], 4, axis=0)
    assert are_corners(corners, sizes, corners[:, 2:].prod(axis=1))
    assert not are_corners(corners / 2, sizes, corners[:, 2:].prod(axis=1) / 4)  # as sizes, they are inside


@pytest.mark.filterwarnings("ignore:.*(clipped, reaching beyond|areas replaced)")
def test_percent_in_small_images(file):
    percent = [(10, 20, 90, 80), (50, 30, 100, 80), (0, 0, 100, 100)]
    items = [coco_item(number, 1, box) for number, box in enumerate(percent, start=1)]
    edit(file, lambda content: content.update(annotations=items))
    message = "may be percentages of their images: all 3 lie in 0 to 100, and 3 extend beyond"
    with pytest.warns(UserWarning, match=message):
        module(file).make_source("train")
    assert "box-percent" in codes(module(file))


def test_areas_tell_sizes_from_corners():
    sizes = np.array([[60, 40]])
    ambiguous = np.array([[20.0, 10, 45, 35]])
    assert are_corners(ambiguous, sizes) and are_corners(ambiguous, sizes, np.array([25.0 * 25]))
    assert not are_corners(ambiguous, sizes, np.array([45.0 * 35]))
    inside = np.array([[5.0, 5, 20, 20]])
    assert not are_corners(inside, sizes) and are_corners(inside, sizes, np.array([15.0 * 15]))
    assert not are_corners(np.array([[20.0, 10, 45, 35], [30, 5, 10, 30]]), np.repeat(sizes, 2, axis=0))
    assert not are_corners(np.zeros((0, 4)), np.zeros((0, 2)))


def test_a_corrected_copy_keeps_the_form_of_boxes(tmp_path, file):
    for one in (file, file.with_name("instances_val2017.json")):
        change_items(one, as_corners)
    change_items(file, lambda item: item.update(bbox=[item["bbox"][0], 10, 99, 38]) if item["id"] == 2 else None)
    root = str(file.parent.parent)
    report, changes, copy, _ = repaired(CocoDetection, tmp_path, root=root, box_format="xyxy", num_workers=0)
    assert actions(changes) == {"clipped": "box-beyond"} and report.clean
    assert copy.make_source("train")[0]["boxes"][1].tolist() == [30, 10, 60, 38]


# -- flags and crowds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("no, yes", [("0", "1"), (0.0, 1.0), (False, True), ("false", "True"), (None, "TRUE"), ("", 1)])
def test_flags_are_read_as_what_they_say(file, no, yes):
    change_items(file, lambda item: item.update(iscrowd=yes if item["id"] == 3 else no))
    objects = module(file).make_source("train").objects
    assert objects.iscrowd.tolist() == [k == 2 for k in range(8)]


@pytest.mark.parametrize("value", ["maybe", 2, -1, [0], math.nan])
def test_other_flags_are_refused(file, value):
    change_items(file, lambda item: item.update(iscrowd=value) if item["id"] == 3 else None)
    with stops_at(
        "unusable-annotation", r"annotation 3 \(annotations\[2\]\): iscrowd must be 0, 1, true or false, got"
    ):
        module(file).make_source("train")


def brush(item):
    """What CVAT writes for an object drawn with a brush."""
    if item["category_id"] == 2:
        item.update(iscrowd=1)


def test_many_crowds(file):
    change_items(file, brush)
    with pytest.warns(UserWarning, match=r"^4 of 8 objects are crowds and never trained on, all objects of dog .*"):
        source = module(file).make_source("train")
    assert source.objects.iscrowd.sum() == 4
    assert codes(module(file)) == ["many-crowds"]
    assert not module(file, crowds="objects").make_source("train").objects.iscrowd.any()


def test_few_crowds_are_no_finding(file):
    change_items(file, lambda item: item.update(iscrowd=int(item["id"] == 3)))
    assert codes(module(file)) == []


def test_only_crowds(file):
    change_items(file, lambda item: item.update(iscrowd=1))
    reason = r"train2017.json: none of its 4 images .*8 are crowds.*crowds: objects"
    with pytest.warns(UserWarning, match="^8 of 8 objects are crowds"), stops_at("no-objects", reason):
        module(file).setup("fit")
    with pytest.warns(UserWarning, match="^8 of 8"), stops_at("no-objects", "8 are crowds"):
        CocoLocalization(str(file.parent.parent), num_workers=0).make_source("train")
    data = module(file, crowds="objects")
    data.setup("fit")
    assert len(data.datasets["train"][0]["labels"]) == 2


def test_only_crowds_in_semantic_masks(file):
    change_items(file, lambda item: item.update(iscrowd=1))
    data = module(file, "semantic_segmentation")
    data.setup("fit")  # crowds are pixels like all others
    assert set(np.unique(data.datasets["train"].source[0]["mask"])) == {0, 1, 2}


# -- training on nothing -------------------------------------------------------------------------------


def test_a_class_without_a_pixel_in_semantic_masks(file):
    edit(file, lambda content: content.update(annotations=[a for a in content["annotations"] if a["category_id"] == 1]))
    absent = next(name for name in module(file).class_names if name != module(file).class_names[0])
    message = rf"^1 of 3 classes will not be learned \(no training object in CocoDetection\): '{absent}'; run"
    with pytest.warns(UserWarning, match=message):
        module(file, "semantic_segmentation").setup("fit")


@pytest.mark.parametrize("task", ["detection", "semantic_segmentation"])
def test_validation_without_an_object_is_warned_of(file, task):
    edit(file.with_name("instances_val2017.json"), lambda content: content.update(annotations=[]))
    nothing = (
        r"^metrics of val will measure nothing \(.*val2017.json: none of its \d images has a usable object: it has no"
    )
    for stage in ("fit", "validate"):
        with pytest.warns(UserWarning, match=nothing):
            module(file, task).setup(stage)


def test_the_reason_names_what_was_dropped(file):
    change_items(file, lambda item: item.update(bbox=[1, 2, 0, 3], area=1) if item["id"] % 2 else None)
    edit(file, lambda content: content.update(annotations=content["annotations"][::2]))
    reason = r"none of its 4 images has a usable object: dropped: 4 x .*\(box-zero-area"
    with pytest.warns(UserWarning, match="^4 annotations .* dropped"), stops_at("no-objects", reason):
        module(file).setup("fit")


@pytest.mark.parametrize("task", ["detection", "instance_segmentation", "semantic_segmentation"])
def test_no_annotation(file, task):
    edit(file, lambda content: content.update(annotations=[]))
    with stops_at("no-objects", r"train2017.json: none of its 4 images has a usable object: it has no annotation"):
        module(file, task).setup("fit")


# -- areas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("area", [0, -1, WIDTH * HEIGHT + 1, float("inf"), 0.13])
@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_impossible_areas_are_computed(tmp_path, file, task, area):
    triangle = [[5, 6, 25, 6, 25, 30]]
    change_items(file, lambda item: item.update(area=area, segmentation=triangle) if item["id"] % 2 else None)
    if area == 0.13:  # a fraction of the image; a polygon may be as small, unless all are
        change_items(file, lambda item: item.update(area=area))
    count = 8 if area == 0.13 else 4
    with pytest.warns(UserWarning, match=rf"^{count} of 8 areas replaced .*annotation 1\)"):
        source = module(file, task).make_source("train")
    areas = source.objects.area.tolist()
    expected = 20 * 24 if task == "detection" else source[0]["masks"][0].sum()
    assert areas[0] == expected and areas[1] == 25 * 28
    assert task == "detection" or 0.4 * 20 * 24 < expected < 0.6 * 20 * 24
    assert codes(module(file, task)) == ["bad-area"]


def test_a_corrected_copy_has_the_areas(tmp_path, file):
    change_items(file, lambda item: item.update(area=-1))
    root = str(file.parent.parent)
    report, changes, _, fix = repaired(CocoDetection, tmp_path, root=root, num_workers=0)
    assert report.clean and actions(changes) == {"computed from the mask or the box": " ".join(["bad-area"] * 8)}
    content = json.loads((fix.folder / "annotations" / file.name).read_text())
    pixels = [WIDTH * HEIGHT > item["area"] > 0 for item in content["annotations"]]
    assert all(pixels) and content["annotations"][0]["area"] == 20 * 24


def test_a_missing_area_is_that_of_the_box(file):
    change_items(file, lambda item: item.pop("area"))
    assert module(file).make_source("train").objects.area.tolist() == [480, 700] * 4


# -- categories ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cat", "Cat", " cat ", "CAT"])
def test_categories_with_the_same_name(file, name):
    def change(content):
        content["categories"].append({"id": 5, "name": name})
        content["annotations"][1]["category_id"] = 5

    for one in (file, file.with_name("instances_val2017.json")):
        edit(one, change)
    with stops_at("similar-classes", rf"category 1 'cat' and category 5 '{name}'; .*merge_similar_classes: true"):
        module(file).make_source("train")
    assert codes(module(file)) == ["similar-classes"]
    data = module(file, merge_similar_classes=True)
    assert data.class_names == ["cat", "dog"] and data.category_ids == [1, 2]
    assert data.make_source("train").objects.labels[:4].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("name", ["background", "Background"])
def test_a_category_named_background(file, name):
    for one in (file, file.with_name("instances_val2017.json")):
        edit(one, lambda content: content["categories"][0].update(name=name))
    with stops_at("similar-classes", r"the background \(class 0\) and category 1 '.ackground'"):
        module(file, "semantic_segmentation").make_source("train")
    data = module(file, "semantic_segmentation", merge_similar_classes=True)
    assert data.class_names == ["background", "dog"]
    source = data.make_source("train")
    assert set(np.unique(source[0]["mask"])) == {0, 1} and source.presence().classes.tolist() == [0, 1] * 4
    assert module(file).class_names == [name, "dog"]  # detection has no other background


def test_a_set_of_background_alone(file):
    for one in (file, file.with_name("instances_val2017.json")):
        edit(one, lambda content: content.update(categories=[{"id": 1, "name": "background"}], annotations=[]))
    with pytest.raises(DataError, match="train2017.json: categories must list a category beside the background"):
        module(file, "semantic_segmentation", merge_similar_classes=True).make_source("train")


# -- images listed twice -------------------------------------------------------------------------------


def list_twice(content):
    """Move the second object of the first image to a second entry of its file."""
    content["images"].append(content["images"][0] | {"id": 99})
    content["annotations"][1]["image_id"] = 99


def test_a_file_listed_twice(tmp_path, file):
    edit(file, list_twice)
    with pytest.warns(UserWarning, match=r"^1 of 5 images are listed more than once.*'train0.png'.*--fix"):
        module(file).make_source("train")
    root = str(file.parent.parent)
    report, changes, copy, _ = repaired(CocoDetection, tmp_path, root=root, num_workers=0)
    assert report.clean and [change["kind"] for change in changes] == ["duplicate-image"]
    source = copy.make_source("train")
    assert len(source) == 4 and source[0]["boxes"].tolist() == [list(box) for box in BOXES]


# -- names of files ------------------------------------------------------------------------------------


def test_backslashes_in_file_names(tmp_path, file):
    root = file.parent.parent

    def change(content):
        for image in content["images"]:
            image["file_name"] = f"train2017\\{image['file_name']}"

    edit(file, change)
    data = module(file, train_images=".")
    assert data.make_source("train").path(0) == f"{root}/train2017/train0.png"
    data.make_source("train")[0]


@pytest.mark.parametrize("name", ["", " ", "a\0.png", "\ud800.png"])
def test_impossible_file_names(file, name):
    edit(file, lambda content: content["images"][1].update(file_name=name))
    with stops_at("bad-target", r"\(images\[1\]\): file_name must be the path of a file"):
        module(file).make_source("train")


def test_an_area_of_nan_is_counted(file):
    change_items(file, lambda item: item.update(area=math.nan) if item["id"] == 2 else None)
    with pytest.warns(UserWarning, match="1 of 8 areas replaced.*annotation 2"):
        source = module(file).make_source("train")
    assert np.isfinite(source.objects.area).all()
    assert codes(module(file)) == ["bad-area"]
