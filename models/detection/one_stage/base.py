"""Base class of the one-stage detectors on a feature pyramid, RetinaNet and FCOS.

Shape legend: B images, A anchors of all levels together, N objects of an image.
"""

from typing import NamedTuple

from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from ..detector import Detections
from ..pyramid_detector import PyramidDetector
from ..resize import ImageBatch

NORM_GROUPS = 32
"""Number of groups of the heads' group normalization."""


class HeadOutput(NamedTuple):
    """Output of the head for a batch, with its anchors."""

    values: dict[str, Tensor]  # [B, A, …] each
    anchors: list[Tensor]  # [A, 4] for each image
    counts: list[int]  # number of anchors on each level


class OneStageDetector(PyramidDetector):
    """A detector whose head predicts classes and boxes for every cell of every pyramid level, without proposals.

    A subclass passes the function that builds the network, and implements `anchor_losses`.
    """

    def _run_head(self, batch: ImageBatch) -> HeadOutput:
        levels = self.network.backbone(batch.pixels)
        return self._with_anchors(self.network.head(levels), levels, batch)

    def _with_anchors(self, outputs: dict[str, Tensor], levels: list[Tensor], batch: ImageBatch) -> HeadOutput:
        """The head's outputs ``[B, A, …]`` in float32, with the anchors of the levels ``[B, C, h, w]``."""
        values = {name: value.float() for name, value in outputs.items()}
        anchors = self.network.anchor_generator(ImageList(batch.pixels, batch.sizes), levels)
        cells = [level.shape[-2] * level.shape[-1] for level in levels]
        per_cell = len(anchors[0]) // sum(cells)
        return HeadOutput(values, anchors, [per_cell * count for count in cells])

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Detect the objects of each image; see `Detector.detect`."""
        values, anchors, counts = self._run_head(batch)
        by_level = {name: list(value.split(counts, dim=1)) for name, value in values.items()}
        return self.network.postprocess_detections(by_level, [list(a.split(counts)) for a in anchors], batch.sizes)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the losses of a batch; see `Detector.compute_losses`."""
        floats = [{"boxes": target["boxes"].float(), "labels": target["labels"]} for target in targets]
        return {f"loss_{name}": loss for name, loss in self.anchor_losses(floats, self._run_head(batch)).items()}

    def anchor_losses(self, targets: list[dict[str, Tensor]], output: HeadOutput) -> dict[str, Tensor]:
        """Compute the losses of the head's output, scalars, from ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``."""
        raise NotImplementedError


def check_group_norm(channels: int, user: str) -> None:
    """Require channels that make groups of two or more: a level may have a single cell, whose variance would be 0."""
    if channels < 2 * NORM_GROUPS or channels % NORM_GROUPS:
        raise ValueError(
            f"fpn_channels: must be a multiple of {NORM_GROUPS}, and {2 * NORM_GROUPS} or more, for the {NORM_GROUPS} "
            f"normalized groups of {user}, got {channels}"
        )
