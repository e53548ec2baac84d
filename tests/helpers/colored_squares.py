"""Images with squares of two colors and stored proposals, small R-CNNs, and training runs with their stages."""

from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from striate.callbacks import GracefulInterrupt, LastCheckpoint, RandomState, RegionStages
from striate.datamodules.base import ObjectDataModule
from striate.models import RCNN, PlainCNN, SPPNet
from striate.tasks import Detection

SIDE = 24
COLORS = ((200, 40, 40), (40, 200, 40))
IMAGES = 20


class ColoredSquares(ObjectDataModule):
    """Images of 24 pixels with one red or green square, and proposals: squares near it, and anywhere.

    Args:
        proposals: Whether images have proposals.
        absent: Images whose list of proposals is empty: ``train``, ``val`` or ``all``.
    """

    class_names = ("red", "green")

    def __init__(self, proposals=True, absent="", **options):
        super().__init__(**{"batch_size": 5, "eval_batch_size": 4, "num_workers": 0, **options})
        self.has_proposals, self.absent = proposals, absent

    def make_source(self, split):
        return None if split == "test" else [self.sample(split, index) for index in range(IMAGES)]

    def sample(self, split, index):
        generator = np.random.default_rng([index, split == "val"])
        image = generator.integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
        left, top = generator.integers(2, 12, 2)
        image[top : top + 9, left : left + 9] = COLORS[index % 2]
        box = np.array([[left, top, left + 9, top + 9]], np.float32)
        return {"image": image, "boxes": box, "labels": np.array([index % 2])}

    def setup(self, stage="fit"):
        super().setup(stage)
        for split, dataset in self.datasets.items():
            dataset.proposals = Proposals(dataset.source, self.absent in ("all", split)) if self.has_proposals else None


class Proposals:
    """Five boxes near each object, and eight anywhere."""

    def __init__(self, source, absent):
        self.source, self.absent = source, absent

    def boxes(self, index, size):
        generator = np.random.default_rng(index)
        near = self.source[index]["boxes"] + generator.integers(-1, 2, (5, 4))
        corners = generator.integers(0, SIDE - 8, (8, 2))
        boxes = np.concatenate([near, np.concatenate([corners, corners + 8], 1)]).astype(np.float32)
        return boxes[:0] if self.absent else boxes


def small_rcnn(**options):
    backbone = PlainCNN(widths=(8,), depth=1)
    return RCNN(2, backbone, size=10, context=1, hidden=16, dropout=0.0, **{"svms": {"c": 0.1}, **options})


def small_spp(**options):
    backbone = PlainCNN(widths=(8,), depth=1)
    settings = {"svms": {"c": 0.1, "negative_overlap": 0.7}, "train_backbone": True, **options}
    return SPPNet(2, backbone, levels=(3, 1), scales=(24, 36), side=12, hidden=16, dropout=0.0, **settings)


class Run:
    """A training of two epochs with all stages in a folder, which can be interrupted and resumed."""

    def __init__(self, folder: Path, make=small_rcnn, stages=None, **settings):
        self.folder, self.make, self.settings = folder, make, {"max_epochs": 2, **settings}
        self.stages = RegionStages() if stages is None else stages
        self.checkpoints = folder / "checkpoints"

    def fit(self, *more, resume=False, data=None, **settings):
        torch.manual_seed(9 if resume else 3)
        self.task = Detection(self.make(), optimizer=lambda groups: torch.optim.Adam(groups, lr=0.01))
        keep = {"dirpath": self.checkpoints, "enable_version_counter": False}
        last = LastCheckpoint()
        last.dirpath = str(self.checkpoints)
        self.trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, default_root_dir=self.folder,
            callbacks=[
                RandomState(), self.stages, *more, GracefulInterrupt(),
                ModelCheckpoint(filename="best", monitor="val/map", mode="max", **keep), last,
            ],
            **{**self.settings, **settings},
        )  # fmt: skip
        path = self.checkpoints / "last.ckpt" if resume else None
        self.trainer.fit(self.task, data or ColoredSquares(), ckpt_path=path, weights_only=True)
        return self

    def state(self, name="last"):
        content = torch.load(self.checkpoints / f"{name}.ckpt", weights_only=True)
        return {key.removeprefix("model."): value for key, value in content["state_dict"].items()}
