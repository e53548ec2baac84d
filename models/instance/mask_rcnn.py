"""Mask R-CNN over a feature pyramid on any backbone.

Shape legend: B images, K classes, N objects, P regions; ``m`` = 28 cells per side of a mask.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import fastrcnn_loss

from ..backbones import Backbone
from ..detection.resize import ImageBatch
from ..detection.two_stage.faster_rcnn import FasterRCNN, roi_align_levels, torchvision_targets
from ..ops.checks import check_fraction, check_min
from .instance_segmenter import InstanceSegmenter
from .mask_targets import mask_loss, mask_targets

_POOLED = 14
"""Cells per side of a region pooled for its mask; the transposed convolution doubles them."""


_REGIONS_AT_ONCE = 32
"""Number of regions whose masks are predicted at once without gradient, which bounds memory."""


class MaskRCNN(InstanceSegmenter, FasterRCNN):
    """Mask R-CNN: Faster R-CNN on a feature pyramid with a small network that predicts a mask for each region.

    Regions are pooled to 14 x 14 cells. 3 x 3 convolutions, a transposed convolution that doubles the size, and a 1 x 1
    convolution give one mask of 28 x 28 cells per class. The losses are `FasterRCNN`'s and ``loss_mask``: the binary
    cross-entropy of the ground-truth class's mask, averaged over the cells of all regions that have an object. At test,
    masks are predicted for the final boxes only.

    Args:
        num_classes: Number of classes K, without background.
        backbone: A backbone, or the name of one, as in `FasterRCNN`.
        detector_weights: Weights of the whole network: torchvision's name for published weights (``COCO_V1``, with
            ``resnet50``), or the path of a checkpoint, torchvision's or ours. From the checkpoint of a `FasterRCNN`,
            everything but the mask branch is loaded.
        mask_layers: Number of 3 x 3 convolutions of the mask branch.
        mask_channels: Number of channels of its layers.
        mask_threshold: Pixels with a higher probability belong to the object.
        canonical_scale: Side of a region that is pooled from the level of stride 16, in pixels.
        conv_heads: Use the stronger heads of torchvision's ``_v2`` network, as in `FasterRCNN`; with batch
            normalization in the mask branch too.
        kwargs: Other arguments of `FasterRCNN` and `PyramidDetector`.

    Attributes:
        network: torchvision's modules, under its names; the mask branch is in ``network.roi_heads``.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections` with masks

    Raises:
        ValueError: As in `FasterRCNN`, or a number is out of range.

    Reference:
        He et al., "Mask R-CNN", ICCV 2017, section 3. Deviations, as in torchvision: those of `FasterRCNN`; RoIAlign
        averages 2 x 2 samples per cell and shifts regions by half a pixel (``aligned=False``), on which its weights
        depend. Detectron2's RoIAlign does not shift them. With torchvision's weights, boxes, scores, small masks and
        losses equal torchvision's; `paste_masks` does not round boxes, which torchvision does.

    Example:
        >>> import torch
        >>> model = MaskRCNN(3, "resnet18", min_size=None, max_size=None, fpn_channels=32, hidden=64, mask_channels=32)
        >>> detections = model.eval()([torch.zeros(3, 50, 70, dtype=torch.uint8)])
        >>> detections[0]["masks"].dense().shape[1:]
        torch.Size([50, 70])
    """

    _name = "maskrcnn_resnet50_fpn"

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str,
        *,
        detector_weights: str | None = None,
        mask_layers: int = 4,
        mask_channels: int = 256,
        mask_threshold: float = 0.5,
        canonical_scale: int = 224,
        conv_heads: bool = False,
        **kwargs: Any,
    ) -> None:
        check_min(1, mask_layers=mask_layers, mask_channels=mask_channels)
        check_fraction(mask_threshold=mask_threshold)
        super().__init__(num_classes, backbone, canonical_scale=canonical_scale, conv_heads=conv_heads, **kwargs)
        self.mask_threshold = mask_threshold
        pyramid, heads = self.network.backbone, self.network.roi_heads
        # not in the heads, where torchvision would paste float masks of whole images
        self.mask_pool = roi_align_levels(pyramid.strides[:-1], _POOLED, canonical_scale)
        norm = nn.BatchNorm2d if conv_heads else None
        heads.mask_head = MaskRCNNHeads(pyramid.out_channels, [mask_channels] * mask_layers, 1, norm)
        heads.mask_predictor = MaskRCNNPredictor(mask_channels, mask_channels, num_classes + 1)
        self.load_detector_weights(detector_weights)

    def predict_masks(
        self, levels: dict[str, Tensor], boxes: Sequence[Tensor], labels: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Predict the mask of each region for one class, as logits in float32.

        Args:
            levels: The pyramid's levels by name.
            boxes: The regions of each image, in pixels of the resized images.
            labels: The class of each region of all images, 1 … K; int64.
            sizes: Height and width of each resized image.

        Shape:
            - levels: ``[B, C, h, w]`` each
            - boxes: B tensors ``[P_i, 4]``
            - labels: ``[P]``
            - output: ``[P, m, m]``
        """
        heads = self.network.roi_heads
        features = self.mask_pool(levels, list(boxes), list(sizes))
        at_once = max(len(features), 1) if torch.is_grad_enabled() else _REGIONS_AT_ONCE
        parts = []
        for part, label in zip(features.split(at_once), labels.split(at_once), strict=True):
            logits = heads.mask_predictor(heads.mask_head(part))
            parts.append(logits[torch.arange(len(label), device=label.device), label].float())
        return torch.cat(parts)

    def detect(self, batch: ImageBatch) -> list[Any]:
        """Detect the objects of each image, with ``mask_probabilities`` ``[M, m, m]``; see `InstanceSegmenter`."""
        levels, proposals, _ = self.propose(batch)
        detections, _ = self.refine(levels, proposals, batch)
        boxes, labels = [one["boxes"] for one in detections], torch.cat([one["labels"] for one in detections])
        masks = self.predict_masks(levels, boxes, labels, batch.sizes).sigmoid().split([len(one) for one in boxes])
        return [
            {**one, "labels": one["labels"] - 1, "mask_probabilities": mask}
            for one, mask in zip(detections, masks, strict=True)
        ]

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the losses of both stages and of the masks; see `Detector.compute_losses`."""
        shifted = torchvision_targets(targets)
        levels, proposals, losses = self.propose(batch, shifted)
        heads = self.network.roi_heads
        regions, objects, labels, offsets = heads.select_training_samples(proposals, shifted)
        scores, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(levels, regions, batch.sizes)))
        loss_classifier, loss_box_reg = fastrcnn_loss(scores, deltas, labels, offsets)
        positive = [(label > 0).nonzero()[:, 0] for label in labels]
        boxes = [region[index] for region, index in zip(regions, positive, strict=True)]
        classes = torch.cat([label[index] for label, index in zip(labels, positive, strict=True)])
        logits = self.predict_masks(levels, boxes, classes, batch.sizes)
        expected = [
            mask_targets(target["masks"], box, index[chosen], logits.shape[-1], size)
            for target, box, index, chosen, size in zip(shifted, boxes, objects, positive, batch.sizes, strict=True)
        ]
        return {
            **losses,
            "loss_classifier": loss_classifier,
            "loss_box_reg": loss_box_reg,
            "loss_mask": mask_loss(logits, expected),
        }
