"""GoogLeNet, the network of 2014, with the two auxiliary classifiers that help its training."""

from typing import Final

import torch
from torch import Tensor, nn
from torchvision.models.googlenet import InceptionAux

from ..backbones import TorchvisionBackbone
from ..ops.checks import check_dropout, check_min
from ..weights import match_weights

AUXILIARY_AFTER: Final[tuple[str, str]] = ("inception4a", "inception4d")
"""The modules whose outputs feed the auxiliary classifiers."""


class GoogLeNet(nn.Module):
    """Torchvision's GoogLeNet through the seam: pixels in, logits out, and auxiliary logits where they are asked for.

    Args:
        num_classes: Number K of classes.
        weights: Torchvision's name for published weights (``DEFAULT``, ``IMAGENET1K_V1``), or the path of a checkpoint,
            of torchvision's model or of ours, with auxiliary classifiers or without. A last layer for another number of
            classes keeps its initialisation. Torchvision says that the auxiliary classifiers in its published file were
            not trained. ``None``: torchvision's initialisation.
        auxiliary: Whether the auxiliary classifiers are there.
        dropout: Probability that one of the 1,024 pooled features is zeroed in training.
        auxiliary_dropout: The same for the 1,024 hidden units of each auxiliary classifier.
        frozen_stages: How many stages of the trunk, from the first, do not train.
        mean: Mean of each channel, of values in [0, 1]. ``None``: the weights' own. The published ones want one half,
            which is what torchvision's ``transform_input`` makes of ImageNet's; ImageNet's otherwise.
        std: Standard deviation of each channel. ``None``: as for ``mean``.

    Attributes:
        backbone: The trunk, five maps of strides 2 to 32.
        head: Pooling, dropout and the last linear layer.
        auxiliary: The auxiliary classifiers, or nothing.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: logits ``[B, K]``.

    Raises:
        ValueError: ``weights`` is unknown or does not fit, or ``num_classes`` is below 1.
        FileNotFoundError: ``weights`` is the path of a file that does not exist.

    Reference:
        Szegedy et al., "Going deeper with convolutions", CVPR 2015, Table 1 and section 5. The network is torchvision's
        and leaves the paper in this: every convolution has batch normalisation, which came a year later, and there is
        no response normalisation; the branches called 5x5 convolve by 3x3; an auxiliary classifier pools to 4x4 cells
        at any image size. Dropout is the paper's, 0.4 and 0.7 (torchvision's own default is 0.2 for the first).
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
        trunk = {name: layer for stage in self.backbone.stages for name, layer in stage.named_children()}
        self.auxiliary = nn.ModuleList(
            InceptionAux(_out_channels(trunk[name]), num_classes, dropout=auxiliary_dropout)
            for name in (AUXILIARY_AFTER if auxiliary else ())
        )
        self._init_auxiliary()

    @torch.no_grad()
    def _init_auxiliary(self) -> None:
        """Draws weights as torchvision does in the trunk, then takes over what the backbone's weights hold of them."""
        for layer in self.auxiliary.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-2, b=2)
        if not len(self.auxiliary) or (found := self.backbone.weights_beside()) is None:
            return
        state, theirs, ours = found
        for index, classifier in enumerate(self.auxiliary):
            prefixes = (f"{theirs}aux{index + 1}.", f"{ours}auxiliary.{index}.")
            fitting, _ = match_weights(classifier, state, prefixes=prefixes)
            classifier.load_state_dict(fitting, strict=False)

    def forward(self, images: Tensor) -> Tensor:
        """Gives the logits of a batch."""
        return self.head(self.backbone(images)[-1])

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Gives the logits, and those of each auxiliary classifier: after 4a, after 4d; none without them.

        Shape:
            - images: ``[B, 3, H, W]``
            - output: ``[B, K]``, and a list of ``[B, K]``

        Raises:
            ValueError: The images are too small for a stage; names their size and the smallest that works.
        """
        x, tapped = self.backbone.run(self._last_and_tapped, images)
        return self.head(x), [classifier(maps) for classifier, maps in zip(self.auxiliary, tapped, strict=False)]

    def _last_and_tapped(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Of normalised images the last map, and those that the auxiliary classifiers see."""
        tapped = []
        for stage in self.backbone.stages:
            for name, layer in stage.named_children():
                x = layer(x)
                if name in AUXILIARY_AFTER:
                    tapped.append(x)
        return x, tapped


def _out_channels(block: nn.Module) -> int:
    """Channels that an inception block gives: those of its four branches, each of which ends in a normalisation."""
    ends = [list(branch.modules())[-1] for branch in block.children()]
    return sum(end.num_features for end in ends if isinstance(end, nn.BatchNorm2d))
