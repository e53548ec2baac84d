"""Classifiers: a backbone and what turns its last feature map into logits."""

from torch import Tensor, nn

from ..backbones import Backbone, as_backbone
from ..ops.checks import check_dropout, check_min


class Classifier(nn.Module):
    """Gives one logit a class for each image, from any backbone.

    Over a torchvision backbone the head is torchvision's own, so that the logits are exactly torchvision's; weights for
    as many classes keep their classifier, others get a new last layer. Over any other backbone the head is its
    ``make_head``: average pooling, dropout and a linear layer, unless the backbone knows better.

    Args:
        backbone: A backbone, or the name of one (see `build_backbone`).
        num_classes: Classes K to tell apart.
        weights: For a backbone given by name: the name of published weights, or the path of a checkpoint.
        dropout: Probability that a feature of the head is zeroed in training. ``None``: as the head has it.
        head: A module of one's own from the last feature map to logits. ``None``: as said above.

    Attributes:
        backbone: The backbone; a task may give it a learning rate of its own.
        head: What follows it.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: logits ``[B, K]``.

    Raises:
        ValueError: ``num_classes`` is below 1; or an argument is given that another one leaves without effect.

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
            raise ValueError(
                f"dropout={dropout} would have no effect: the head is built already; give it dropout there"
            )
        self.num_classes = num_classes
        self.backbone = as_backbone(backbone, weights)
        self.head = self.backbone.make_head(num_classes, dropout) if head is None else head

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees, ``[B, D]``; for AlexNet and VGG the activations of fc7, 4,096 numbers.

        Raises:
            TypeError: The head does not say which layer is its last.
        """
        head = self.head
        if isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear):
            return head[:-1](self.backbone(images)[-1])
        if not callable(before := getattr(head, "features", None)):
            raise TypeError(
                f"{type(head).__name__} has no method `features`, nor is it a Sequential that ends in Linear"
            )
        return before(self.backbone(images)[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Gives the logits of a batch."""
        return self.head(self.backbone(images)[-1])
