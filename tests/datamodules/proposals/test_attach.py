"""Tests of stored proposals in data modules: each sample its own, other data sets, missing and wrong ones."""

import json

import numpy as np
import pytest
import torch

from striate.datamodules import CocoDetection, DigitScenes
from striate.datamodules.annotations.annotation_errors import DataError
from striate.datamodules.doctor import check
from striate.datamodules.proposals import ProposalJob, compute_proposals

from ...helpers.small_datasets import BOXES, HEIGHT, WIDTH, write_coco
from ...helpers.stored_proposals import brightest, scenes, write


def coco(root, **options):
    return CocoDetection(str(root), **{"batch_size": 2, "num_workers": 0, **options})


@pytest.fixture(name="root")
def coco_root(tmp_path):
    write_coco(tmp_path / "data")
    return tmp_path / "data"


def write_npz(path, boxes_by_name):
    np.savez(path, **{name: np.asarray(boxes, np.float32).reshape(-1, 4) for name, boxes in boxes_by_name.items()})
    return str(path)


NAMES = [f"train{number}.png" for number in range(4)] + ["val0.png", "val1.png"]


def test_each_scene_has_its_own_in_training_and_validation(tmp_path):
    data = scenes(proposals=str(write(tmp_path / "p.npz")))
    for loader, split in ((data.train_dataloader(), "train"), (data.val_dataloader(), "val")):
        source, count = data.make_source(split), 0
        for batch in loader:
            for index, boxes in zip(batch["index"].tolist(), batch["proposals"], strict=True):
                np.testing.assert_array_equal(boxes.numpy(), brightest(source[index]["image"]))
                assert boxes.dtype == torch.float32
                count += 1
        assert count == len(source)


@pytest.mark.parametrize("change", [{"seed": 1}, {"image_size": 40}, {"train_size": 13}, {"max_digits": 2}])
def test_the_file_of_another_data_set_is_refused_with_both_names(tmp_path, change):
    data = scenes(proposals=str(write(tmp_path / "p.npz")), **change)
    message = (
        r"proposals: .*p\.npz: it has the proposals of another data set: DigitScenes, train \(12 images, \w{16}\), "
        r"val \(5 images, \w{16}\), but not of DigitScenes, train \(\d+ images, \w{16}\); compute those"
    )
    with pytest.raises(DataError, match=message):
        data.setup("fit")


def test_tasks_without_objects_take_no_proposals(tmp_path):
    path = str(write(tmp_path / "p.npz"))
    data = DigitScenes("classification", image_size=32, proposals=path)
    with pytest.raises(ValueError, match=r"proposals: must be null but for detection.*p\.npz"):
        data.setup("fit")


def test_images_of_files_are_found_by_name_in_another_folder_and_split(root, tmp_path):
    data = coco(root)
    sources = {split: data.make_source(split) for split in ("train", "val")}
    path = tmp_path / "p.npz"
    compute_proposals(ProposalJob("Mine", sources, {}), brightest, path, 0)
    moved = tmp_path / "moved"
    root.rename(moved)
    # val reads the training images: another split than in the file
    other = coco(
        moved, proposals=str(path), val_annotations="annotations/instances_train2017.json", val_images="train2017"
    )
    for batch in other.val_dataloader():
        for image, boxes in zip(batch["image"], batch["proposals"], strict=True):
            np.testing.assert_array_equal(boxes.numpy(), brightest(image.permute(1, 2, 0).numpy()))


@pytest.mark.parametrize("name", [str.upper, lambda name: f"a/b/{name}", lambda name: name.removesuffix(".png")])
def test_files_of_others_are_found_by_file_name_or_stem(root, tmp_path, name):
    stored = {
        name(one).replace("PNG", "png").replace("TRAIN", "train").replace("VAL", "val"): [[0, 0, number + 1, 5]]
        for number, one in enumerate(NAMES)
    }
    data = coco(root, proposals=write_npz(tmp_path / "p.npz", stored))
    data.setup("fit")
    assert [data.datasets["train"][index]["proposals"][0, 2] for index in range(4)] == [1, 2, 3, 4]
    assert [data.datasets["val"][index]["proposals"][0, 2] for index in range(2)] == [5, 6]


def test_each_split_may_have_its_own_file(root, tmp_path):
    train, val = ({name: [[0, 0, 5, 5]] for name in names} for names in (NAMES[:4], NAMES[4:]))
    files = [write_npz(tmp_path / "val.npz", val), write_npz(tmp_path / "train.npz", train)]
    data = coco(root, proposals=files)
    data.setup("fit")  # without a warning of missing images
    assert all(len(data.datasets[split][index]["proposals"]) for split in ("train", "val") for index in (0, 1))
    with pytest.raises(ValueError, match="proposals: must be a file or several, got an empty list"):
        coco(root, proposals=[]).setup("fit")


def test_json_is_found_by_the_ids_of_the_annotations(root, tmp_path):
    results = [{"image_id": number, "bbox": [0, 0, number, 3], "score": 1} for number in (4, 3, 2, 1)]
    (tmp_path / "p.json").write_text(json.dumps(results))
    data = coco(root, proposals=str(tmp_path / "p.json"))
    data.setup("fit")
    assert [data.datasets["train"][index]["proposals"][0, 2] for index in range(4)] == [1, 2, 3, 4]


def test_images_without_proposals_are_counted_and_named(root, tmp_path):
    path = write_npz(tmp_path / "p.npz", {name: BOXES for name in NAMES if name not in ("train1.png", "train2.png")})
    data = coco(root, proposals=path)
    with pytest.warns(
        UserWarning,
        match=r"^2 of 4 images of train without proposals in .*p\.npz: train2017/train1\.png, "
        r"train2017/train2\.png; nothing is detected.*striate data check",
    ):
        data.setup("fit")
    assert data.datasets["train"][1]["proposals"].shape == (0, 4)
    assert len(data.datasets["train"][0]["proposals"]) == 2


def test_a_file_without_any_of_the_images_is_refused(root, tmp_path):
    data = coco(root, proposals=write_npz(tmp_path / "p.npz", {"other.png": BOXES}))
    with pytest.raises(
        DataError,
        match=r"it has none of the 4 images of CocoDetection, train, such as "
        r"'train2017/train0\.png'; its images are 'other\.png'; use the file",
    ):
        data.setup("fit")
    with pytest.raises(DataError, match="images are found by their file names, but DigitScenes has no files"):
        scenes(proposals=str(tmp_path / "p.npz")).setup("fit")


@pytest.mark.parametrize("box", [[0, 0, WIDTH + 2, 5], [-3, 0, 5, 5], [5, 5, 5, 9], [9, 9, 2, 12], [0, 0, np.nan, 5]])
def test_boxes_outside_the_image_name_it(root, tmp_path, box):
    path = write_npz(tmp_path / "p.npz", {name: [BOXES[0], box] for name in NAMES})
    data = coco(root, proposals=path)
    data.setup("fit")
    with pytest.raises(
        ValueError,
        match=rf"proposals: box 1 of train2017/train3\.png in .*p\.npz is not inside its image "
        rf"of {WIDTH}x{HEIGHT} pixels, got \[",
    ):
        data.datasets["train"][3]


def test_up_to_a_pixel_of_rounding_is_clipped(root, tmp_path):
    path = write_npz(tmp_path / "p.npz", {name: [[-1, 0, WIDTH + 1, 5]] for name in NAMES})
    data = coco(root, proposals=path)
    data.setup("fit")
    assert data.datasets["train"][0]["proposals"].tolist() == [[0, 0, WIDTH, 5]]


def test_an_image_of_another_size_is_refused(root, tmp_path):
    data = coco(root)
    path = tmp_path / "p.npz"
    compute_proposals(
        ProposalJob("Mine", {"train": data.make_source("train")}, {}), lambda image: np.zeros((0, 4)), path, 0
    )
    stored = coco(root, proposals=str(path)).open_proposals(data.make_source("train"), "train")
    with pytest.raises(
        ValueError, match=r"those of train2017/train0\.png in .* are for 60x40 pixels, got an image of 50x40"
    ):
        stored.boxes(0, (50, 40))


def test_predicted_images_have_theirs_if_the_file_has_all(root, tmp_path):
    some = {name: [[0, 0, 7, 7]] for name in NAMES[:4]}
    data = coco(root, proposals=write_npz(tmp_path / "p.npz", some), images=str(root / "train2017"), eval_batch_size=4)
    (batch,) = data.predict_dataloader()
    assert [boxes.tolist() for boxes in batch["proposals"]] == [[[0, 0, 7, 7]]] * 4
    data.images = str(root / "val2017")
    with pytest.warns(
        UserWarning, match=r"^proposals of all 2 images to predict are computed: .* has none of 2 .*val0"
    ):
        (batch,) = data.predict_dataloader()
    assert "proposals" not in batch
    data.proposals = "none.npz"  # as where only the checkpoint was copied to
    with pytest.warns(
        UserWarning, match=r"^proposals of all images to predict are computed: there is no file 'none\.npz'"
    ):
        (batch,) = data.predict_dataloader()
    assert "proposals" not in batch


def test_the_check_finds_faults_of_proposals_and_their_recall(root, tmp_path):
    stored = {
        "train0.png": BOXES,  # the objects themselves
        "train1.png": [BOXES[0], [0, 0, 500, 5]],  # one of two objects, and a box outside
        "train2.png": [],
        "val0.png": BOXES,
        "val1.png": BOXES,
    }
    report = check(coco(root, proposals=write_npz(tmp_path / "p.npz", stored)), processes=0)
    found = {
        code: [one.location.rsplit("/", 1)[-1] for one in report.findings.of(code)] for code in report.findings.codes()
    }
    assert found["proposal-outside"] == ["train1.png"] and found["no-proposals"] == ["train2.png"]
    assert [one.split for one in report.findings.of("missing-proposals")] == ["train"]
    assert "train3.png" in found["missing-proposals"][0]
    (outside,) = report.findings.of("proposal-outside")
    assert outside.detail == f"1 of 2, the first [0, 0, 500, 5] in {WIDTH}x{HEIGHT}"
    train, val = report.statistics.proposals
    np.testing.assert_allclose(train.recall([1, 2]), [[2 / 8, 3 / 8]] * 2)
    np.testing.assert_allclose(val.recall([1, 2]), [[0.5, 1.0]] * 2)
    assert any("recall 0.375 at IoU 0.5, 0.375 at IoU 0.7" in note for note in report.notes)


def test_the_check_reports_the_file_of_another_data_set(tmp_path):
    report = check(scenes(seed=1, proposals=str(write(tmp_path / "p.npz"))), ["train"], processes=0)
    (finding,) = report.findings.of("proposals-file")
    assert "proposals of another data set" in finding.detail and not report.clean


def test_the_page_has_a_chart_of_recall(tmp_path):
    from striate.datamodules.doctor import write_html

    data = scenes(proposals=str(write(tmp_path / "p.npz")))
    write_html(check(data, ["train", "val"], processes=0), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Recall of proposals" in page and "train, IoU 0.5" in page and "val, IoU 0.7" in page
