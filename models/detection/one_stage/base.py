"""Base class of the one-stage detectors on a feature pyramid, RetinaNet and FCOS.

Shape legend: B images, A anchors of all levels together, N objects of an image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from ...backbones import Backbone
from ..detector import Detections
from ..resize import ImageBatch
from ..torchvision_network import NetworkDetector

NORM_GROUPS = 32
"""Number of groups of the heads' group normalization."""


class OneStageDetector(NetworkDetector):
    """A detector whose head predicts classes and boxes for every cell of every pyramid level, without proposals.

    A subclass builds ``network`` and implements `anchor_losses`.
    """

    @property
    def backbone(self) -> Backbone:
        """The backbone, without the pyramid."""
        return self.network.backbone.body

    def _outputs(self, batch: ImageBatch) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
        """The head's outputs ``[B, A, …]``, the anchors ``[A, 4]`` of each image, and their number on each level."""
        levels = list(self.network.backbone(batch.pixels).values())
        outputs = {name: values.float() for name, values in self.network.head(levels).items()}
        anchors = self.network.anchor_generator(ImageList(batch.pixels, batch.sizes), levels)
        cells = [level.shape[-2] * level.shape[-1] for level in levels]
        per_cell = len(anchors[0]) // sum(cells)
        return outputs, anchors, [per_cell * count for count in cells]

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Detect the objects of each image; see `Detector.detect`."""
        outputs, anchors, counts = self._outputs(batch)
        by_level = {name: list(values.split(counts, dim=1)) for name, values in outputs.items()}
        return self.network.postprocess_detections(by_level, [list(a.split(counts)) for a in anchors], batch.sizes)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the losses of a batch; see `Detector.compute_losses`."""
        outputs, anchors, counts = self._outputs(batch)
        floats = [{"boxes": target["boxes"].float(), "labels": target["labels"]} for target in targets]
        return {f"loss_{name}": loss for name, loss in self.anchor_losses(floats, outputs, anchors, counts).items()}

    def anchor_losses(
        self,
        targets: Sequence[Mapping[str, Any]],
        outputs: Mapping[str, Tensor],
        anchors: Sequence[Tensor],
        counts: Sequence[int],
    ) -> dict[str, Tensor]:
        """Compute the losses of the head's outputs.

        Args:
            targets: For each image ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``.
            outputs: Outputs of the head, ``[B, A, …]`` each.
            anchors: Anchors of each image, ``[A, 4]``.
            counts: Number of anchors on each level.
        """
        raise NotImplementedError


def check_group_norm(channels: int, user: str) -> None:
    """Require channels that make groups of two or more: a level may have a single cell, whose variance would be 0."""
    if channels < 2 * NORM_GROUPS or channels % NORM_GROUPS:
        raise ValueError(
            f"fpn_channels: must be a multiple of {NORM_GROUPS}, and {2 * NORM_GROUPS} or more, for the {NORM_GROUPS} "
            f"normalized groups of {user}, got {channels}"
        )
