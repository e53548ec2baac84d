"""Fast R-CNN: one pass of the trunk per image, and RoI pooling of proposals that come from outside."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import RoIPool

from ...backbones import Backbone, TorchvisionBackbone, as_backbone
from ...ops.box_coding import encode_boxes
from ...ops.checks import OrMapping, as_settings, check_choice, check_min
from ...ops.matching import match_anchors
from ...proposals import Proposer
from ..detector import Detections
from ..resize import ImageBatch, ResizeAndPad
from .fully_connected import describe_region_weights, load_fully_connected
from .padded_backbones import PaddedAlexNetBackbone
from .proposal_detector import ProposalDetector
from .roi_head import RoIFullyConnected, RoIHead, RoISettings

_POOL_SIZES = {"vgg16": 7, "alexnet": 6}


@dataclass(frozen=True)
class FastRCNNSettings(RoISettings):
    """Settings of training and detection. The defaults are the paper's, for batches of two images.

    ``box_mean`` and ``box_std`` are used until the offsets of the training set are measured. See `RoISettings`.
    """

    samples: int = 64
    background_iou: tuple[float, float] = (0.1, 0.5)


class FastRCNN(ProposalDetector):
    """Fast R-CNN as published, on stored proposals, with the paper's values as defaults.

    The proposals of an image are pooled from the backbone's last map by maxima, and pass through fc6 and fc7 to class
    scores and one box per class. There are two losses of weight 1, ``loss_class`` and ``loss_box``. The targets of
    boxes are normalized for each class to zero mean and unit variance. Both are measured on the training set when
    training starts (`measure_offsets`), and are part of the checkpoint.

    Args:
        num_classes: Number of classes K, without background.
        backbone: ``vgg16``: up to conv5_3, with conv1 and conv2 frozen, as the paper's model L. ``alexnet``:
            `PaddedAlexNetBackbone` with conv1 frozen, as its model S, which is CaffeNet: there, pooling precedes
            normalization. Or any backbone, of which the last map is used.
        weights: Weights of a backbone given by name: torchvision's name for published weights of VGG-16
            (``IMAGENET1K_V1``), or the path of a checkpoint. fc6 and fc7 are loaded too if they fit, also for a
            backbone that was built with weights.
        resize: Resizing of images. None: shorter side 600 pixels, longer side at most 1,000.
        pool_size: Number of cells per side of a pooled region. None: 7, or 6 with ``alexnet``.
        hidden: Number of units of fc6 and of fc7.
        dropout: Probability of dropping a unit of fc6 and of fc7.
        roi: Sampling and detection, as `FastRCNNSettings` or a dictionary of its arguments. None: the paper's.
        proposer: How proposals are computed where none are stored; see `ProposalDetector`.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: There is no such backbone, or ``weights`` are given for one that is already built.

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015. The images of a batch are as many as the data module gives; the paper's are
        two. As in the author's code, ground-truth boxes are among the proposals in training.
    """

    offsets_measured: Tensor

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str = "vgg16",
        weights: str | None = None,
        resize: ResizeAndPad | None = None,
        pool_size: int | None = None,
        hidden: int = 4096,
        dropout: float = 0.5,
        roi: OrMapping[FastRCNNSettings] | None = None,
        proposer: OrMapping[Proposer] | None = None,
    ) -> None:
        check_min(1, pool_size=pool_size)
        if isinstance(backbone, str):
            check_choice(tuple(_POOL_SIZES), backbone=backbone)
            pool_size = pool_size or _POOL_SIZES[backbone]
        built = _build_backbone(backbone, weights)
        channels, stride, size = built.channels[-1], built.strides[-1], pool_size or 7
        if resize is None:
            resize = ResizeAndPad(600, 1000, size_divisible=stride, fill=built.normalize.mean.tolist())
        super().__init__(num_classes, resize, proposer)
        self.backbone = built
        body = RoIFullyConnected(channels, size, hidden, dropout)
        self._body_report = load_fully_connected(body, built)
        settings = as_settings(FastRCNNSettings, "roi", roi)
        self.head = RoIHead(RoIPool(size, 1 / stride), body, hidden, num_classes, settings)
        self.register_buffer("offsets_measured", torch.tensor(False))

    def detect_proposals(self, batch: ImageBatch, proposals: list[Tensor]) -> list[Detections]:
        """Detect the objects of each image among its proposals ``[P_i, 4]``; none among none."""
        return self.head.detect(self.backbone(batch.pixels)[-1], proposals, batch.sizes)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the two losses of a batch; see `Detector.compute_losses`."""
        maps = self.backbone(batch.pixels)[-1]
        return self.head.losses(maps, [target["proposals"] for target in targets], targets)

    def measure_offsets(self, targets: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure mean and standard deviation of the offsets of each class, on the proposals of a training set.

        Every proposal is taken that is trained as an object: its IoU with an object is at least ``foreground_iou``.
        Classes with fewer than two such proposals keep their values. The image's size does not matter, since offsets
        are relative. `striate.tasks.Detection` calls this when training starts, unless a checkpoint has them.

        Args:
            targets: ``boxes`` ``[N, 4]``, ``labels`` ``[N]`` and ``proposals`` ``[P, 4]`` of each image.
        """
        settings, k = self.head.settings, self.num_classes
        count = torch.zeros(k, dtype=torch.float64)
        sums, squares = torch.zeros(k, 4, dtype=torch.float64), torch.zeros(k, 4, dtype=torch.float64)
        for target in targets:
            boxes, proposals = target["boxes"], target["proposals"]
            matches = match_anchors(boxes, proposals, settings.foreground_iou, settings.foreground_iou)
            positive = (matches >= 0).nonzero()[:, 0]
            classes = target["labels"][matches[positive]]
            offsets = encode_boxes(boxes[matches[positive]], proposals[positive]).double()
            count += torch.bincount(classes, minlength=k)
            sums.index_add_(0, classes, offsets)
            squares.index_add_(0, classes, offsets.square())
        mean = sums / count.clamp(min=1)[:, None]
        std = (squares / count.clamp(min=1)[:, None] - mean.square()).clamp(min=0).sqrt()
        usable = ((count >= 2)[:, None] & (std > 1e-6)).all(1).to(self.head.box_mean.device)
        head = self.head
        head.set_box_statistics(
            torch.where(usable[:, None], mean.to(head.box_mean), head.box_mean),
            torch.where(usable[:, None], std.to(head.box_std), head.box_std),
        )
        self.offsets_measured.fill_(True)

    def compressed(self, fc6: int = 1024, fc7: int = 256) -> "FastRCNN":
        """Return a copy that detects faster: fc6 and fc7 are replaced by their truncated singular value decompositions.

        Each layer of U inputs and V outputs becomes two, of ``rank`` times U and V times ``rank`` weights, the first
        without a bias. At full rank the outputs are the same.

        Args:
            fc6: Rank of fc6. The paper's is 1,024, for VGG-16.
            fc7: Rank of fc7. The paper's is 256.

        Raises:
            ValueError: A rank is below 1, or above the smaller side of the weights.

        Reference:
            Girshick, "Fast R-CNN", ICCV 2015, section 3.1: mAP 66.9 to 66.6, and over 30 % less time per image.
        """
        copied = copy.deepcopy(self)
        body = copied.head.body
        assert isinstance(body, RoIFullyConnected)
        for name, rank in (("fc6", fc6), ("fc7", fc7)):
            setattr(body, name, truncated_svd(getattr(body, name), rank, name))
        return copied

    def describe_weights(self) -> str | None:
        """What was loaded into the backbone, fc6 and fc7, as lines of text. None: nothing was loaded."""
        return describe_region_weights(self.backbone, self._body_report, "class scores and boxes: new")


def truncated_svd(layer: nn.Module, rank: int, name: str = "layer") -> nn.Sequential:
    """Return two linear layers for one, by its singular value decomposition without the smallest values.

    Args:
        layer: A linear layer of U inputs and V outputs.
        rank: Number of singular values that are kept.
        name: Name of the layer, for messages.

    Shape:
        - the first layer's weights: ``[rank, U]``; the second's ``[V, rank]``, with the bias ``[V]``

    Raises:
        TypeError: It is not a linear layer, such as one that is compressed already.
        ValueError: ``rank`` is not in 1 … min(U, V).
    """
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{name}: must be a linear layer, got {type(layer).__name__}; compress the original model")
    if not 1 <= rank <= min(layer.weight.shape):
        raise ValueError(f"{name}: rank must be in 1 … {min(layer.weight.shape)}, got {rank}")
    u, values, v = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    options = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    first = nn.Linear(layer.in_features, rank, bias=False, **options)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None, **options)
    with torch.no_grad():
        first.weight.copy_(values[:rank, None] * v[:rank])
        second.weight.copy_(u[:, :rank])
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def _build_backbone(backbone: Backbone | str, weights: str | None) -> Backbone:
    if backbone == "vgg16":
        return TorchvisionBackbone("vgg16", weights, frozen_stages=2, out_indices=(4,))
    if backbone == "alexnet":
        return PaddedAlexNetBackbone(weights, frozen_stages=1)
    return as_backbone(backbone, weights)
