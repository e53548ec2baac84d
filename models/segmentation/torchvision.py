"""torchvision's segmentation networks, as they are, behind this package's interface."""

from difflib import get_close_matches
from typing import Any

import torchvision
from torch import Tensor, nn

from ..backbones import TorchvisionBackbone
from ..ops.checks import check_min
from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from ..pretrained import find_weights
from ..weights import load_weights, match_weights, pretrained_is_skipped
from .layers import resize

_SCORES = ("classifier.4.", "aux_classifier.4.", "classifier.low_classifier.", "classifier.high_classifier.")
"""Beginnings of the names of the layers whose size follows from the number of classes."""


class TorchvisionSegmentation(nn.Module):
    """A segmentation network of torchvision's: FCN, DeepLabV3, LR-ASPP; pixels in, logits out.

    Args:
        name: torchvision's: ``fcn_resnet50``, ``fcn_resnet101``, ``deeplabv3_resnet50``, ``deeplabv3_resnet101``,
            ``deeplabv3_mobilenet_v3_large``, ``lraspp_mobilenet_v3_large``.
        num_classes: Number K of classes, the background among them; 21 for the published weights' own.
        weights: torchvision's name for published weights (``DEFAULT``, ``COCO_WITH_VOC_LABELS_V1``), which torchvision
            downloads, or the path of a checkpoint, of torchvision's own model or of ours. Layers that score classes
            keep their initialisation where the weights are for another number of them. ``None``: torchvision's
            initialisation.
        backbone_weights: Of the trunk alone, a classifier's, where there are no ``weights``: the name of published
            ones, or the path of a checkpoint (see `TorchvisionBackbone`).
        auxiliary: Whether there is an auxiliary head for training. ``None``: where torchvision has one, which is
            everywhere but in LR-ASPP.

    Attributes:
        network: torchvision's model.
        backbone: Its trunk; a task may give it a learning rate of its own.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1], of any size; B at least 2 in
          training for DeepLabV3, which normalises over the images of a batch.
        - output: logits ``[B, K, H, W]``.

    Raises:
        ValueError: There is no such network, ``weights`` are unknown or do not fit, both kinds of weights are given, or
            an auxiliary head is asked of a network that has none.
        FileNotFoundError: The path of a file that does not exist.

    Reference:
        Long et al., CVPR 2015 (the idea of ``fcn``, whose layers are torchvision's own); Chen et al., 2017
        (``deeplabv3``); Howard et al., ICCV 2019 (``lraspp``). The published weights saw images whose shorter side was
        resized to 520 pixels.

    Example:
        >>> import torch
        >>> images = torch.zeros(1, 3, 50, 75, dtype=torch.uint8)
        >>> TorchvisionSegmentation("lraspp_mobilenet_v3_large", num_classes=5).eval()(images).shape
        torch.Size([1, 5, 50, 75])
    """

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
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise ValueError(f"torchvision has no segmentation network {name!r}; {hint}")
        if weights is not None and backbone_weights is not None:
            raise ValueError(
                f"backbone_weights={backbone_weights!r} would have no effect beside weights={weights!r}, which hold "
                "the backbone's too; leave one of them out"
            )
        can = not name.startswith("lraspp")
        if auxiliary and not can:
            raise ValueError(f"auxiliary=True: {name!r} has no auxiliary head; leave auxiliary out")
        source = find_weights(name, weights)
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.network: Any = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=can and auxiliary is not False
        )
        if backbone_weights is not None:
            self._load_backbone(backbone_weights)
        if source is not None and not pretrained_is_skipped():
            self._load(source.state(), source.origin)

    @property
    def backbone(self) -> nn.Module:
        """The trunk of the network."""
        return self.network.backbone

    def _load_backbone(self, weights: str) -> None:
        """Through the backbone of that name, which knows where weights come from, and what they are called there."""
        other = TorchvisionBackbone(self.name.partition("_")[2], weights)
        if not pretrained_is_skipped():
            state = other.state_dict()
            renamed = {theirs: state[ours] for theirs, ours in other.torchvision_names().items()}
            load_weights(self.network.backbone, renamed, origin=weights)

    def _load(self, state: dict[str, Tensor], origin: str) -> None:
        ignored = [] if self.network.state_dict().keys() & {"aux_classifier.4.weight"} else [r"aux_classifier\."]
        fitting, report = match_weights(self.network, state, ignore=ignored)
        unfit = [key for key in report.mismatched if not key.startswith(_SCORES)]
        unfit += [key for key in report.missing if not key.startswith("aux_classifier.")]
        if unfit or report.unexpected or not fitting:
            raise ValueError(f"{origin} does not fit torchvision's {self.name!r}:\n{report.describe()}")
        self.network.load_state_dict(fitting, strict=False)

    def forward(self, images: Tensor) -> Tensor:
        """Gives the logits of a batch; the auxiliary head is not run."""
        return self._score(self.network.backbone(self.normalize(images)), images.shape[-2:])

    def _score(self, maps: dict[str, Tensor], size: tuple[int, ...]) -> Tensor:
        logits = self.network.classifier(maps.get("out", maps))
        return resize(logits, (size[0], size[1]))

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Gives the logits, and those of the auxiliary head, if there is one.

        Shape:
            - images: ``[B, 3, H, W]``
            - output: ``[B, K, H, W]``, and a list of none or one ``[B, K, H, W]``
        """
        maps, size = self.network.backbone(self.normalize(images)), images.shape[-2:]
        head = getattr(self.network, "aux_classifier", None)
        return self._score(maps, size), [] if head is None else [resize(head(maps["aux"]), size)]
