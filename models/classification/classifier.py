"""Classifiers: a backbone and a head that maps its last feature map to logits."""

from torch import Tensor, nn

from ..backbones import Backbone, as_backbone
from ..ops.checks import check_dropout, check_min


class Classifier(nn.Module):
    """An image classifier with any backbone.

    With a torchvision backbone the head is torchvision's, and the logits equal torchvision's exactly. If the weights
    are for ``num_classes`` classes, the classifier layer is loaded too; otherwise it is new. Any other backbone builds
    its head by ``make_head``: by default average pooling, dropout and a linear layer.

    Args:
        backbone: A backbone, or its name (see `build_backbone`).
        num_classes: Number K of classes.
        weights: Name of published weights or path of a checkpoint, for a backbone given by name.
        dropout: Dropout probability of the head. ``None``: the head's default.
        head: A module that maps the last feature map to logits. ``None``: the head described above.

    Attributes:
        backbone: The backbone; a task may train it at a separate learning rate.
        head: The head.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: logits ``[B, K]``.

    Raises:
        ValueError: ``num_classes`` is below 1, ``dropout`` is outside [0, 1), or an argument would have no effect
            because of another one.

    Example:
        >>> import torch
        >>> Classifier("plain", num_classes=10)(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        backbone: Backbone | str,
        num_classes: int,
        weights: str | None = None,
        dropout: float | None = None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes)
        check_dropout(dropout=dropout)
        if dropout is not None and head is not None:
            raise ValueError(f"dropout: has no effect on a head that is already built, got {dropout}; set it there")
        self.num_classes = num_classes
        self.backbone = as_backbone(backbone, weights)
        self.head = self.backbone.make_head(num_classes, dropout) if head is None else head

    def features(self, images: Tensor) -> Tensor:
        """Return the input of the last layer, ``[B, D]``, of images ``[B, 3, H, W]``.

        For AlexNet and VGG these are the activations of fc7 with D = 4096.

        Raises:
            TypeError: The head has no method ``features`` and is not a ``Sequential`` that ends in ``Linear``.
        """
        head = self.head
        if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear):
            return head[:-1](self.backbone(images)[-1])
        if not callable(features := getattr(head, "features", None)):
            raise TypeError(f"head: needs a method `features` or to end in Linear, got {type(head).__name__}")
        return features(self.backbone(images)[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, K]`` of images ``[B, 3, H, W]``."""
        return self.head(self.backbone(images)[-1])
