"""torchvision's segmentation networks with the interface of this package."""

from dataclasses import replace
from typing import Any

import torchvision
from torch import Tensor, nn

from ..backbones import TorchvisionBackbone
from ..ops.checks import check_min, suggest
from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from ..pretrained import find_weights
from ..weights import LoadReport, load_weights, match_weights, pretrained_is_skipped
from .layers import resize

_SCORES = ("classifier.4.", "aux_classifier.4.", "classifier.low_classifier.", "classifier.high_classifier.")
"""Prefixes of the layers whose size depends on the number of classes."""


class TorchvisionSegmentation(nn.Module):
    """A segmentation network of torchvision on pixels: FCN, DeepLabV3 or LR-ASPP.

    Args:
        name: torchvision's name: ``fcn_resnet50``, ``fcn_resnet101``, ``deeplabv3_resnet50``, ``deeplabv3_resnet101``,
            ``deeplabv3_mobilenet_v3_large``, ``lraspp_mobilenet_v3_large``.
        num_classes: Number K of classes, including the background; the published weights have 21.
        weights: torchvision's name of published weights (``DEFAULT``, ``COCO_WITH_VOC_LABELS_V1``), which torchvision
            downloads, or the path of a checkpoint of torchvision's model or of striate. If the weights are for another
            number of classes, the layers that score classes keep their initialization. ``None``: torchvision's
            initialization.
        backbone_weights: Weights of a classifier for the trunk, without ``weights``: the name of published weights, or
            the path of a checkpoint (see `TorchvisionBackbone`).
        auxiliary: Whether to build the auxiliary head for training. ``None``: if torchvision has one, in all networks
            except LR-ASPP.

    Attributes:
        network: torchvision's model.
        backbone: The trunk of ``network``; a task may train it at a separate learning rate.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1], of any size; B at least 2 in
          training for DeepLabV3, which normalizes over the images of a batch.
        - output: logits ``[B, K, H, W]``.

    Raises:
        ValueError: ``name`` or ``weights`` is unknown, ``weights`` does not match, both kinds of weights are given, or
            the network has no auxiliary head.
        FileNotFoundError: A path of weights does not exist.

    Reference:
        Long et al., CVPR 2015 (the idea of ``fcn``, whose layers are torchvision's); Chen et al., 2017
        (``deeplabv3``); Howard et al., ICCV 2019 (``lraspp``). The published weights were trained on images whose
        shorter side was resized to 520 pixels.

    Example:
        >>> import torch
        >>> images = torch.zeros(1, 3, 50, 75, dtype=torch.uint8)
        >>> TorchvisionSegmentation("lraspp_mobilenet_v3_large", num_classes=5).eval()(images).shape
        torch.Size([1, 5, 50, 75])
    """

    load_report: LoadReport | None = None

    def __init__(
        self,
        name: str,
        num_classes: int,
        weights: str | None = None,
        backbone_weights: str | None = None,
        auxiliary: bool | None = None,
    ) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes)
        self.name, self.num_classes = name, num_classes
        names = torchvision.models.list_models(module=torchvision.models.segmentation)
        if name not in names:
            raise ValueError(f"name: unknown torchvision segmentation network, got {name!r}; {suggest(name, names)}")
        if weights is not None and backbone_weights is not None:
            raise ValueError(
                f"backbone_weights: has no effect with weights={weights!r}, which contain the backbone, got "
                f"{backbone_weights!r}; remove one of them"
            )
        has_auxiliary = not name.startswith("lraspp")
        if auxiliary and not has_auxiliary:
            raise ValueError(f"auxiliary: {name!r} has no auxiliary head, got True; remove auxiliary")
        source = find_weights(name, weights)
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.network: Any = torchvision.models.get_model(
            name,
            weights=None,
            weights_backbone=None,
            num_classes=num_classes,
            aux_loss=has_auxiliary and auxiliary is not False,
        )
        if backbone_weights is not None:
            self._load_backbone(backbone_weights)
        if source is not None and not pretrained_is_skipped():
            self._load(source.state(), source.origin)

    @property
    def backbone(self) -> nn.Module:
        """The trunk of torchvision's network."""
        return self.network.backbone

    def _load_backbone(self, weights: str) -> None:
        """Load a classifier's trunk through `TorchvisionBackbone`, which finds the weights and maps their names."""
        trunk = TorchvisionBackbone(self.name.partition("_")[2], weights)
        if not pretrained_is_skipped():
            state = trunk.state_dict()
            renamed = {theirs: state[ours] for theirs, ours in trunk.torchvision_names().items()}
            load_weights(self.network.backbone, renamed, origin=weights)

    def _load(self, state: dict[str, Tensor], origin: str) -> None:
        # published files have an auxiliary head
        ignored = [] if self.network.state_dict().keys() & {"aux_classifier.4.weight"} else [r"aux_classifier\."]
        fitting, report = match_weights(self.network, state, ignore=ignored)
        invalid = [key for key in report.mismatched if not key.startswith(_SCORES)]  # other classes are allowed
        invalid += [key for key in report.missing if not key.startswith("aux_classifier.")]
        if invalid or report.unexpected or not fitting:
            raise ValueError(f"{origin} does not match torchvision's {self.name!r}:\n{report.describe()}")
        self.network.load_state_dict(fitting, strict=False)
        self.load_report = replace(report, origin=origin)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, K, H, W]`` of images ``[B, 3, H, W]``, without running the auxiliary head."""
        return self._score(self.network.backbone(self.normalize(images)), images.shape[-2:])

    def _score(self, maps: dict[str, Tensor], size: tuple[int, ...]) -> Tensor:
        """Compute the logits ``[B, K, *size]`` from maps ``[B, C, h, w]``."""
        logits = self.network.classifier(maps.get("out", maps))
        return resize(logits, (size[0], size[1]))

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and those of the auxiliary head, if there is one.

        Shape:
            - images: ``[B, 3, H, W]``
            - output: ``[B, K, H, W]``, and a list of none or one ``[B, K, H, W]``
        """
        maps, size = self.network.backbone(self.normalize(images)), images.shape[-2:]
        head = getattr(self.network, "aux_classifier", None)
        return self._score(maps, size), [] if head is None else [resize(head(maps["aux"]), size)]
