"""GoogLeNet, the network of 2014, with the two auxiliary classifiers that support its training."""

from typing import Final

import torch
from torch import Tensor, nn
from torchvision.models.googlenet import InceptionAux

from ..backbones import TorchvisionBackbone
from ..ops.checks import check_dropout, check_min
from ..weights import match_weights

AUXILIARY_AFTER: Final[tuple[str, str]] = ("inception4a", "inception4d")
"""Modules whose outputs are the inputs of the auxiliary classifiers."""


class GoogLeNet(nn.Module):
    """Torchvision's GoogLeNet on pixels, with optional auxiliary logits.

    Args:
        num_classes: Number K of classes.
        weights: Torchvision's name of published weights (``DEFAULT``, ``IMAGENET1K_V1``), or the path of a checkpoint
            of torchvision's model or of this one, with or without auxiliary classifiers. Last layers for another number
            of classes keep their initialization. According to torchvision, the auxiliary classifiers in its published
            file were not trained. ``None``: torchvision's initialization.
        auxiliary: Whether to build the auxiliary classifiers.
        dropout: Dropout probability of the 1,024 pooled features.
        auxiliary_dropout: Dropout probability of the 1,024 hidden units of each auxiliary classifier.
        frozen_stages: Number of leading stages of the trunk that are not trained.
        mean: Mean of each channel, for pixels in [0, 1]. ``None``: the value that belongs to the weights. For the
            published weights it is one half, to which torchvision's ``transform_input`` converts ImageNet's mean;
            otherwise it is ImageNet's mean.
        std: Standard deviation of each channel, for pixels in [0, 1]. ``None``: as for ``mean``.

    Attributes:
        backbone: The trunk, five maps of strides 2 to 32.
        head: Pooling, dropout and the last linear layer.
        auxiliary: List of the auxiliary classifiers; empty without them.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: logits ``[B, K]``.

    Raises:
        ValueError: ``weights`` is unknown or does not match, or an argument is out of range.
        FileNotFoundError: ``weights`` is the path of a missing file.

    Reference:
        Szegedy et al., "Going deeper with convolutions", CVPR 2015, Table 1 and section 5. The network is torchvision's
        and deviates from the paper: every convolution has batch normalization, which was published a year later, and
        there is no response normalization; the branches called 5x5 have 3x3 convolutions; an auxiliary classifier pools
        to 4x4 cells at any image size. Dropout is the paper's, 0.4 and 0.7 (torchvision's default is 0.2 for the
        first).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        weights: str | None = None,
        auxiliary: bool = True,
        dropout: float = 0.4,
        auxiliary_dropout: float = 0.7,
        frozen_stages: int = 0,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
    ) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes)
        check_dropout(dropout=dropout, auxiliary_dropout=auxiliary_dropout)
        self.num_classes = num_classes
        self.backbone = TorchvisionBackbone("googlenet", weights, frozen_stages, mean=mean, std=std)
        self.head = self.backbone.make_head(num_classes, dropout)
        # by name, since stages are grouped by stride
        trunk = {name: layer for stage in self.backbone.stages for name, layer in stage.named_children()}
        self.auxiliary = nn.ModuleList(
            InceptionAux(_out_channels(trunk[name]), num_classes, dropout=auxiliary_dropout)
            for name in (AUXILIARY_AFTER if auxiliary else ())
        )
        self._init_auxiliary()

    @torch.no_grad()
    def _init_auxiliary(self) -> None:
        """Draw weights as torchvision does in the trunk, then load those in the checkpoint of the backbone."""
        for layer in self.auxiliary.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-2, b=2)
        if not len(self.auxiliary) or (checkpoint := self.backbone.full_checkpoint()) is None:
            return
        state, theirs, ours = checkpoint
        for index, classifier in enumerate(self.auxiliary):
            prefixes = (f"{theirs}aux{index + 1}.", f"{ours}auxiliary.{index}.")
            fitting, _ = match_weights(classifier, state, prefixes=prefixes)
            classifier.load_state_dict(fitting, strict=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, K]`` of images ``[B, 3, H, W]``."""
        return self.head(self.backbone(images)[-1])

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and those of the auxiliary classifiers after 4a and 4d, if there are any.

        Shape:
            - images: ``[B, 3, H, W]``
            - output: ``[B, K]``, and a list of none or two ``[B, K]``

        Raises:
            ValueError: The images are too small for a stage; the message names the smallest size that works.
        """
        x, tapped = self.backbone.run(self._maps, images)
        return self.head(x), [classifier(maps) for classifier, maps in zip(self.auxiliary, tapped, strict=False)]

    def _maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute, from normalized images ``[B, 3, H, W]``, the last map and the inputs of the auxiliary classifiers.

        All maps are ``[B, C, h, w]``.
        """
        tapped = []
        for stage in self.backbone.stages:
            for name, layer in stage.named_children():
                x = layer(x)
                if name in AUXILIARY_AFTER:
                    tapped.append(x)
        return x, tapped


def _out_channels(block: nn.Module) -> int:
    """Return the output channels of an inception block: the sum over its branches, which end in a normalization."""
    ends = [list(branch.modules())[-1] for branch in block.children()]  # each branch ends with a normalization
    return sum(end.num_features for end in ends if isinstance(end, nn.BatchNorm2d))
