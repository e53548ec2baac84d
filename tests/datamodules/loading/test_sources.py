"""What loaders ask a source for in advance: sizes and classes."""

import numpy as np
import pytest

from striate.datamodules import DigitScenes, RepeatFactor
from striate.datamodules.images.read import ImageError
from striate.datamodules.images.sizes import image_size
from striate.datamodules.loading.sources import source_sizes
from striate.tests.helpers.fixtures import write_image


def test_source_sizes_and_unreadable_files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match="not a readable image"):
        image_size(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="No such file"):
        image_size(tmp_path / "b.jpg")

    class Files(list):
        def path(self, index):
            return tmp_path / self[index]

    write_image(tmp_path / "c.png", np.zeros((4, 9, 3), np.uint8))
    assert source_sizes(Files(["a.jpg", "c.png", "b.jpg"])).tolist() == [[1, 1], [9, 4], [1, 1]]
    partial = Files(["a.jpg", "c.png"])
    partial.sizes = np.array([[7, 8], [0, 0]])
    assert source_sizes(partial).tolist() == [[7, 8], [9, 4]]
    unknown = type("Sizes", (list,), {"sizes": np.array([[7, 8], [0, 0]])})([0, 1])
    with pytest.raises(ValueError, match=r"group_by_aspect: .*got Sizes with 1 unknown"):
        source_sizes(unknown)
    with pytest.raises(ValueError, match="group_by_aspect: .*got list"):
        source_sizes([])


def test_a_source_without_classes_or_sizes_is_rejected():
    data = DigitScenes("detection", num_workers=0, train_size=4, val_size=2)
    data.setup("fit")
    data.sampling = RepeatFactor(0.5)
    with pytest.raises(ValueError, match="sampling: repeat_factor needs the classes .*got SceneSource"):
        data.train_dataloader()
    data.sampling, data.group_by_aspect = "uniform", True
    with pytest.raises(ValueError, match="group_by_aspect: .*got SceneSource"):
        data.train_dataloader()


def test_class_balance_without_classes_is_rejected():
    data = DigitScenes(num_workers=0, train_size=4, val_size=2)
    data.sampling = "class_balanced"
    data.setup("fit")
    with pytest.raises(ValueError, match=r"sampling: class_balanced needs the classes .*got SceneSource"):
        data.train_dataloader()
