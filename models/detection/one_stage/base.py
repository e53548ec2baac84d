"""What RetinaNet and FCOS share.

Shape legend: B images, A anchors of all levels.
"""

from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from ...backbones import Backbone
from ..detector import Detections
from ..pyramid import NetworkDetector
from ..resize import ImageBatch

NORM_GROUPS = 32
"""Groups of channels that the heads' group normalization has."""


class OneStageDetector(NetworkDetector):
    """What RetinaNet and FCOS share: every cell of every level says what is there, and that is all."""

    @property
    def backbone(self) -> Backbone:
        """The trunk."""
        return self.network.backbone.body

    def _outputs(self, batch: ImageBatch) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
        """What the head says of every anchor, ``[B, A, …]``, the anchors of each image, and their number by level."""
        levels = list(self.network.backbone(batch.pixels).values())
        outputs = {name: values.float() for name, values in self.network.head(levels).items()}
        anchors = self.network.anchor_generator(ImageList(batch.pixels, batch.sizes), levels)
        cells = [level.shape[-2] * level.shape[-1] for level in levels]
        each = len(anchors[0]) // sum(cells)
        return outputs, anchors, [each * count for count in cells]

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        outputs, anchors, counts = self._outputs(batch)
        by_level = {name: list(values.split(counts, dim=1)) for name, values in outputs.items()}
        return self.network.postprocess_detections(by_level, [list(a.split(counts)) for a in anchors], batch.sizes)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """See `Detector.compute_losses`."""
        outputs, anchors, counts = self._outputs(batch)
        wanted = [{"boxes": target["boxes"].float(), "labels": target["labels"]} for target in targets]
        return {f"loss_{name}": loss for name, loss in self._losses(wanted, outputs, anchors, counts).items()}

    def _losses(
        self, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], counts: list[int]
    ) -> dict[str, Tensor]:
        raise NotImplementedError


def check_group_norm(channels: int, who: str) -> None:
    """See that there are groups to normalise: of two values or more, since a level may have a single cell."""
    if channels < 2 * NORM_GROUPS or channels % NORM_GROUPS:
        raise ValueError(
            f"fpn_channels: must be a multiple of {NORM_GROUPS}, and {2 * NORM_GROUPS} or more, for the {NORM_GROUPS} "
            f"normalized groups of {who}, got {channels}"
        )
