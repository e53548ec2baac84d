"""CUB-200-2011: boxes, labels and splits by hand, and errors for lists that are malformed or inconsistent."""

import numpy as np
import pytest

from striate.datamodules import CUB200
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise, write_image

CLASSES = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird"]
# image number: class, training, x y w h; images are 60x40
BIRDS = {
    1: (1, 1, "60.0 27.0 325.0 304.0"),
    2: (1, 0, "0.0 0.0 500.0 335.0"),
    3: (10, 1, "14.5 12.25 38.0 18.5"),
    5: (2, 0, "1.0 2.0 30.0 30.0"),
    6: (2, 1, "11.0 9.0 25.0 24.0"),
    7: (10, 0, "0.0 0.0 60.0 40.0"),
}
SIZES = {1: (500, 335), 2: (500, 335)}
BOXES = {
    1: [60, 27, 385, 331],
    2: [0, 0, 500, 335],
    3: [14.5, 12.25, 52.5, 30.75],
    5: [1, 2, 31, 32],
    6: [11, 9, 36, 33],
    7: [0, 0, 60, 40],
}
LABELS = {1: 0, 2: 0, 3: 2, 5: 1, 6: 1, 7: 2}  # class 10 is the third


def name_of(number, label):
    folder = next(name for name in CLASSES if int(name[:3]) == label)
    return f"{folder}/Bird_{number:04d}.jpg"


def write_cub(root, birds=None, folder="CUB_200_2011"):
    birds = BIRDS if birds is None else birds
    base = root / folder
    base.mkdir(parents=True, exist_ok=True)
    lists = {
        "images.txt": [f"{n} {name_of(n, label)}" for n, (label, _, _) in birds.items()],
        "classes.txt": [f"{int(name[:3])} {name}" for name in CLASSES],
        "image_class_labels.txt": [f"{n} {label}" for n, (label, _, _) in birds.items()],
        "bounding_boxes.txt": [f"{n} {box}" for n, (_, _, box) in birds.items()],
        "train_test_split.txt": [f"{n} {training}" for n, (_, training, _) in birds.items()],
    }
    for file, lines in lists.items():
        (base / file).write_text("".join(f"{line}\n" for line in lines))
    for number, (label, _, _) in birds.items():
        write_image(base / "images" / name_of(number, label), noise(*SIZES.get(number, (60, 40)), number))
    return base


def numbers(source):
    return [int(path.decode().split("_")[-1][:4]) for path in source.paths]


def cub(root, **options):
    return CUB200(str(root), num_workers=0, **{"val_fraction": 0, **options})


@pytest.mark.parametrize("folder", ["CUB_200_2011", ""])
def test_boxes_labels_and_splits_by_hand(tmp_path, folder):
    write_cub(tmp_path, folder=folder)
    data = cub(tmp_path)
    data.setup("fit")
    data.setup("test")
    assert data.class_names == ["Black footed Albatross", "Laysan Albatross", "Red winged Blackbird"]
    train, val, test = (data.datasets[split].source for split in ("train", "val", "test"))
    assert numbers(train) == [1, 3, 6] and numbers(val) == numbers(test) == [2, 5, 7]
    for source in (train, test):
        for number, sample in zip(numbers(source), source, strict=True):
            assert sample["box"].tolist() == BOXES[number] and sample["label"] == LABELS[number]
            assert sample["image"].shape[1::-1] == SIZES.get(number, (60, 40))
            assert sample["path"].endswith(f"{number:04d}.jpg")


def test_validation_images_are_held_out_of_the_official_training_images(tmp_path):
    birds = {n: (1 + n % 2, int(n <= 20), "1 1 9 9") for n in range(1, 31)}
    write_cub(tmp_path, birds)
    data = cub(tmp_path, val_fraction=0.2)
    train, val, test = (data.make_source(split) for split in ("train", "val", "test"))
    assert sorted([*numbers(train), *numbers(val)]) == list(range(1, 21)) and numbers(test) == list(range(21, 31))
    assert np.bincount(val.labels).tolist() == [2, 2] and np.bincount(train.labels).tolist() == [8, 8]
    assert numbers(cub(tmp_path, val_fraction=0.2).make_source("val")) == numbers(val)
    others = [numbers(cub(tmp_path, val_fraction=0.2, seed=seed).make_source("val")) for seed in range(1, 5)]
    assert any(other != numbers(val) for other in others)


def test_a_batch(tmp_path):
    write_cub(tmp_path, {n: BIRDS[n] for n in (3, 5, 6, 7)})
    data = cub(tmp_path)
    data.setup("validate")
    (batch,) = data.val_dataloader()
    assert batch["image"].shape == (2, 3, 40, 60) and batch["label"].tolist() == [1, 2]
    assert batch["box"].tolist() == [BOXES[5], BOXES[7]]


@pytest.mark.parametrize(
    "box, code",
    [
        ("1 1 0.0 9", "box-zero-area"),
        ("9 1 -3 9", "box-inverted"),
        ("60 1 5 5", "box-outside"),
        ("nan 1 5 5", "box-not-finite"),
        ("inf 1 -inf 5", "box-not-finite"),
    ],
)
def test_unusable_boxes(tmp_path, box, code):
    write_cub(tmp_path, BIRDS | {3: (10, 1, box)})
    with warns_of(code, "image 3"):
        data = cub(tmp_path)
        assert numbers(data.make_source("train")) == [1, 6] and numbers(data.make_source("test")) == [2, 5, 7]
    with stops_at(code, "bounding_boxes.txt, image 3: "):
        cub(tmp_path, strict=True).make_source("train")


def change(path, number, line):
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("".join(f"{text}\n" for text in lines))


@pytest.mark.parametrize(
    "file, line, message",
    [
        ("images.txt", "3 ../../x.jpg", "images.txt, image 3: must be in.*got '../../x.jpg'"),
        ("images.txt", "3 /etc/x.jpg", "images.txt, image 3: must be in.*got '/etc/x.jpg'"),
        ("images.txt", "three x.jpg", "images.txt, line 3: .*1 more column.*got 'three x.jpg'"),
        ("images.txt", "1 x.jpg", "images.txt, line 3: .*got 1 more than once"),
        ("classes.txt", "10", "classes.txt, line 3: .*1 more column.*got '10'"),
        ("bounding_boxes.txt", "3 1 2 3", "bounding_boxes.txt, line 3: .*4 more column.*got '3 1 2 3'"),
        ("bounding_boxes.txt", "3 1 2 x 4", "bounding_boxes.txt, image 3: .*four numbers.*got '1 2 x 4'"),
        ("image_class_labels.txt", "3 11", "image_class_labels.txt, image 3: class '11'"),
        ("train_test_split.txt", "3 2", "train_test_split.txt, image 3: .*got '2'"),
        ("train_test_split.txt", "4 1", "train_test_split.txt: no line for image 3"),
        ("images.txt", "", "images.txt: no line for image 3"),
    ],
)
def test_malformed_or_inconsistent_lists(tmp_path, file, line, message):
    change(write_cub(tmp_path) / file, 3, line)
    with pytest.raises(ValueError, match=message):
        cub(tmp_path).setup("fit")


def test_an_empty_list_and_an_empty_split(tmp_path):
    base = write_cub(tmp_path, {n: bird for n, bird in BIRDS.items() if bird[1]})
    with pytest.raises(ValueError, match=r"split.txt: no image with a usable box is marked 0 \(test\)"):
        cub(tmp_path).setup("test")
    (base / "images.txt").write_text("\n")
    with pytest.raises(ValueError, match="images.txt: .*empty"):
        cub(tmp_path).setup("fit")
    with pytest.raises(ValueError, match="val_fraction.*1"):
        cub(tmp_path, val_fraction=1)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)images.txt'. CUB200 expects.*ROOT/CUB_200_2011/images"):
        cub(tmp_path).setup("fit")
    base = write_cub(tmp_path)
    (base / "images" / name_of(3, 10)).unlink()
    with pytest.raises(FileNotFoundError, match=r"images.txt: 1 of 6 images.*\n    010.Red_winged_"):
        cub(tmp_path).setup("fit")
    (base / "train_test_split.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)no file '.*_test_split.txt'.*contains: CUB_200"):
        cub(tmp_path).setup("fit")


def test_an_unreadable_image(tmp_path):
    base = write_cub(tmp_path)
    (base / "images" / name_of(3, 10)).write_bytes(b"")
    data = cub(tmp_path)
    data.setup("fit")
    assert numbers(data.datasets["train"].source) == [1, 3, 6]
    with pytest.raises(ImageError, match="0003.jpg: the file is empty"):
        data.datasets["train"].source[1]
    assert data.datasets["train"][1]["label"] == LABELS[6]  # in training, the next sample replaces it
