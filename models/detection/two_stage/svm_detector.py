"""Base class of R-CNN and SPP-net: features of proposals, classified by SVMs that are trained after the network.

Shape legend: B images; P proposals of an image; R regions of all images; K classes; D features of a region, D' pooled
features. Boxes are ``x1, y1, x2, y2`` in pixels of the resized images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...modes import evaluation_mode
from ...ops.box_coding import decode_boxes
from ...ops.boxes import clip_boxes
from ...ops.checks import OrMapping, as_settings
from ...ops.matching import sample_balanced
from ...proposals.proposer import Proposer
from ..detector import Detections, check_detection_settings, check_images
from ..postprocessing import select_detections
from ..resize import ImageBatch, ResizeAndPad, scale_boxes
from .proposal_detector import ProposalDetector
from .region_boxes import BoxRegression, BoxRegressionSettings
from .region_svms import SVMs, SVMSettings, score_to_probability
from .roi_head import RoISample, SamplingSettings, sample_regions


class RegionFeatures(NamedTuple):
    """Features of regions.

    Attributes:
        pooled: Input of fc6 and of the box regression, ``[R, D']``.
        features: Output of fc7, input of the softmax layer and of the SVMs, ``[R, D]``.
    """

    pooled: Tensor
    features: Tensor


class SVMDetector(ProposalDetector):
    """Base class of detectors that are trained in stages: a network, then linear SVMs, then box regression.

    The network is trained by `losses`, a softmax over the classes and background. It is all that a training loop of
    your own trains. The callback `striate.callbacks.RegionStages` trains the rest after it. Until then the detector
    detects by the softmax, with boxes as proposed. The results of all stages are buffers, and so part of checkpoints.

    A subclass sets the attribute ``score`` and implements `region_features`.

    Args:
        num_classes: Number of classes K, without background.
        resize: How images are brought to one size.
        features: Number of features D.
        pooled: Number of pooled features D'.
        sampling: Which regions of a batch the network is trained on; ``samples`` is their number in all images of the
            batch together. `SamplingSettings` or a dictionary of its arguments. None: R-CNN's, 128 regions of which up
            to 32 are positive.
        svms: Training of the SVMs, as `SVMSettings` or a dictionary of its arguments. None: R-CNN's.
        boxes: Training of the box regression, as `BoxRegressionSettings` or a dictionary of its arguments. None:
            R-CNN's.
        use_svms: Whether to detect by the SVMs once they are trained. False: by the softmax.
        use_box_regression: Whether to correct boxes once the regression is trained.
        score_threshold: Detections by the softmax have a higher score than this.
        svm_threshold: Detections by the SVMs have a higher SVM score than this; 0 is the decision boundary, which
            `Detections` give as 0.5.
        nms_iou: Of two detections of one class with a higher IoU, the one with the lower score is dropped.
        max_detections: Maximum number of detections per image.
        proposer: How proposals are computed where none are passed; see `ProposalDetector`.

    Attributes:
        score: Layer from features to the logits of the classes and, last, background.
        svm_weight: ``[K, D]``.
        svm_bias: ``[K]``.
        svm_scale: Factor of the features before the SVMs, a scalar.
        box_weight: ``[K, D', 4]``.
        box_bias: ``[K, 4]``.
        svms_trained: Whether the SVMs are trained, a bool scalar.
        boxes_trained: Whether the box regression is trained, a bool scalar.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A number is out of range.
    """

    score: nn.Linear
    svm_weight: Tensor
    svm_bias: Tensor
    svm_scale: Tensor
    box_weight: Tensor
    box_bias: Tensor
    svms_trained: Tensor
    boxes_trained: Tensor

    def __init__(
        self,
        num_classes: int,
        resize: ResizeAndPad,
        features: int,
        pooled: int,
        sampling: OrMapping[SamplingSettings] | None = None,
        svms: OrMapping[SVMSettings] | None = None,
        boxes: OrMapping[BoxRegressionSettings] | None = None,
        use_svms: bool = True,
        use_box_regression: bool = True,
        score_threshold: float = 0.05,
        svm_threshold: float = -1.1,
        nms_iou: float = 0.3,
        max_detections: int = 100,
        proposer: OrMapping[Proposer] | None = None,
    ) -> None:
        super().__init__(num_classes, resize, proposer)
        check_detection_settings(score_threshold, nms_iou, max_detections)
        self.sampling = as_settings(SamplingSettings, "sampling", sampling)
        self.svms = as_settings(SVMSettings, "svms", svms)
        self.boxes = as_settings(BoxRegressionSettings, "boxes", boxes)
        self.use_svms, self.use_box_regression = use_svms, use_box_regression
        self.score_threshold, self.svm_threshold = score_threshold, svm_threshold
        self.nms_iou, self.max_detections = nms_iou, max_detections
        self.register_buffer("svm_weight", torch.zeros(num_classes, features))
        self.register_buffer("svm_bias", torch.zeros(num_classes))
        self.register_buffer("svm_scale", torch.ones(()))
        self.register_buffer("box_weight", torch.zeros(num_classes, pooled, 4))
        self.register_buffer("box_bias", torch.zeros(num_classes, 4))
        self.register_buffer("svms_trained", torch.tensor(False))
        self.register_buffer("boxes_trained", torch.tensor(False))

    # -- supplied by a subclass --------------------------------------------------------------------

    def region_features(self, batch: ImageBatch, boxes: Sequence[Tensor]) -> RegionFeatures:
        """Compute the features of regions of each image, of all images concatenated; with gradient in training.

        Shape:
            - boxes: B tensors ``[P_i, 4]``; output: see `RegionFeatures`
        """
        raise NotImplementedError(self._undefined("region_features(batch, boxes)"))

    # -- stages ------------------------------------------------------------------------------------

    @property
    def stages_finished(self) -> bool:
        """Whether SVMs and box regression are trained."""
        return bool(self.svms_trained & self.boxes_trained)

    @property
    def stage_buffers(self) -> tuple[str, ...]:
        """Names of the buffers with the results of the stages after the network's training."""
        return tuple(name for name, _ in self.named_buffers(recurse=False))

    def reset_stages(self) -> None:
        """Forget SVMs and box regression: they belong to a network that has changed since."""
        self.svms_trained.fill_(False)
        self.boxes_trained.fill_(False)

    @torch.no_grad()
    def set_svms(self, svms: SVMs) -> None:
        """Take over trained SVMs, from now on used in detection."""
        self.svm_weight.copy_(svms.weight)
        self.svm_bias.copy_(svms.bias)
        self.svm_scale.fill_(svms.scale)
        self.svms_trained.fill_(True)

    @torch.no_grad()
    def set_box_regression(self, regression: BoxRegression) -> None:
        """Take over a trained box regression."""
        self.box_weight.copy_(regression.weight)
        self.box_bias.copy_(regression.bias)
        self.boxes_trained.fill_(True)

    # -- training ----------------------------------------------------------------------------------

    def sample(self, targets: Sequence[dict[str, Tensor]]) -> list[RoISample]:
        """Draw the regions of each image that the network is trained on, from those of all images together.

        Shape:
            - targets: B dictionaries with ``boxes`` ``[N, 4]``, ``labels`` ``[N]`` and ``proposals`` ``[P, 4]``
        """
        proposals = [target["proposals"] for target in targets]
        candidates = sample_regions(proposals, targets, self.num_classes, self.sampling, all_regions=True)
        matches = torch.cat([one.objects for one in candidates])
        chosen = sample_balanced(matches, self.sampling.samples, self.sampling.positive_fraction)
        mask = torch.zeros_like(matches, dtype=torch.bool)
        mask[torch.cat(chosen)] = True
        parts = mask.split([len(one.objects) for one in candidates])
        return [
            RoISample(one.boxes[kept], one.labels[kept], one.objects[kept])
            for one, kept in zip(candidates, parts, strict=True)
        ]

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute ``loss_class``, the mean cross-entropy of the sampled regions; 0 if there are none.

        Shape:
            - targets: as for `sample`; output: a scalar
        """
        sampled = self.sample(targets)
        labels = torch.cat([one.labels for one in sampled])
        if not len(labels):
            return {"loss_class": 0 * self.score.weight.sum()}
        logits = self.score(self.region_features(batch, [one.boxes for one in sampled]).features)
        return {"loss_class": F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)}

    @torch.no_grad()
    def extract(self, image: Tensor, boxes: Tensor) -> RegionFeatures:
        """Compute the features of regions of one image, in evaluation mode.

        Shape:
            - image: ``[3, H, W]``, as for `forward`; boxes: ``[R, 4]`` in its pixels
            - output: see `RegionFeatures`
        """
        with evaluation_mode(self):
            batch = self.resize(check_images([image], self._pixel_range))
            regions = boxes.to(image.device, torch.float32)
            return self.region_features(batch, [scale_boxes(regions, batch.original_sizes[0], batch.sizes[0])])

    # -- detection ---------------------------------------------------------------------------------

    @torch.no_grad()
    def detect_proposals(self, batch: ImageBatch, proposals: list[Tensor]) -> list[Detections]:
        """Detect the objects of each image among its proposals ``[P_i, 4]``; see `ProposalDetector`."""
        with evaluation_mode(self):
            found = self.region_features(batch, proposals)
        counts = [len(boxes) for boxes in proposals]
        scores = self.class_scores(found.features).split(counts)
        parts = zip(proposals, found.pooled.split(counts), scores, batch.sizes, strict=True)
        return [self._select(*part) for part in parts]

    def class_scores(self, features: Tensor) -> Tensor:
        """Scores of the classes, in [0, 1], from features ``[R, D]``: ``[R, K]``."""
        if self.use_svms and self.svms_trained:
            features = features.to(self.svm_weight)
            return score_to_probability(features @ self.svm_weight.T * self.svm_scale + self.svm_bias)
        return self.score(features).float().softmax(dim=1)[:, :-1]

    def _select(self, proposals: Tensor, pooled: Tensor, scores: Tensor, size: tuple[int, int]) -> Detections:
        """Detections of one image from proposals ``[P, 4]``, pooled ``[P, D']`` and scores ``[P, K]``."""
        boxes = proposals
        if self.use_box_regression and self.boxes_trained:
            # [P, D'] by [K, D', 4]: [K, P, 4]
            deltas = torch.matmul(pooled.to(self.box_weight), self.box_weight) + self.box_bias[:, None]
            boxes = clip_boxes(decode_boxes(deltas.transpose(0, 1), proposals[:, None]), width=size[1], height=size[0])
        threshold = self.score_threshold
        if self.use_svms and self.svms_trained:
            threshold = score_to_probability(torch.tensor(self.svm_threshold)).item()
        return select_detections(boxes, scores, threshold, self.nms_iou, self.max_detections)
