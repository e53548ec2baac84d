"""LR-ASPP, the light head that came with MobileNetV3, for segmentation in real time.

Shape legend: B images, C channels, h x w a feature map, H x W the image, K classes; the stride of a map is the number
of pixels of the image to a cell of it.
"""

from torch import Tensor, nn

from ..backbones import Backbone, TorchvisionBackbone, as_backbone
from ..ops.checks import check_min
from .layers import conv_norm_relu, init_score_layer, resize

FINE_STRIDE, OUTPUT_STRIDE = 8, 16
"""Strides of the two maps that are scored, in pixels."""


class LRASPP(nn.Module):
    """Lite R-ASPP: the last map, weighted by a gate from its mean, and a finer one, each scored by a 1x1 convolution.

    With MobileNetV3 this is torchvision's ``lraspp_mobilenet_v3_large``: with the same weights the same outputs. The
    last stage's stride becomes dilation (`TorchvisionBackbone.dilate`), so that the last map has a stride of 16; the
    finer one has 8. Images may have any size.

    Args:
        num_classes: Number K of classes, the background among them.
        backbone: A backbone, or the name of one (see `build_backbone`): MobileNetV3, or any other that has a map of
            stride 8 before its last. One of torchvision's whose last map is coarser than 16 is dilated in place.
        weights: For a backbone given by name: the name of published weights, or the path of a checkpoint.
        channels: Channels between the last map and its scores.

    Attributes:
        backbone: The trunk; a task may give it a learning rate of its own.
        project: From the last map to ``channels``.
        gate: The weights of these channels, from the last map's mean.
        score: From them to logits.
        score_fine: From the finer map to logits.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]; H and W of any size that the
          backbone takes.
        - output: logits ``[B, K, H, W]``.

    Raises:
        ValueError: ``num_classes`` is below 1, or the backbone has no map of stride 8 before its last or cannot be
            dilated; in ``forward``: the images are too small for the backbone.

    Reference:
        Howard et al., "Searching for MobileNetV3", ICCV 2019, section 6.4 and Fig. 10. Where this leaves the paper,
        as torchvision does:

        - The gate is the mean of the whole map; the paper's is pooled by 49x49 cells in steps of 16x20, for images of
          1024x2048, and then upsampled.
        - The last block keeps its channels, which the paper halves for segmentation.
        - The finer map is what the first block of stride 8 gives, where a MobileNetV3 of torchvision's is the
          backbone; of any other it is the last map of stride 8.

    Example:
        >>> import torch
        >>> images = torch.zeros(1, 3, 50, 75, dtype=torch.uint8)
        >>> LRASPP(num_classes=19, backbone="mobilenet_v3_small").eval()(images).shape
        torch.Size([1, 19, 50, 75])
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str = "mobilenet_v3_large",
        weights: str | None = None,
        channels: int = 128,
    ) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes)
        self.num_classes = num_classes
        self.backbone = as_backbone(backbone, weights)
        if FINE_STRIDE not in self.backbone.strides[:-1]:
            name = getattr(self.backbone, "name", type(self.backbone).__name__)
            raise ValueError(
                f"LRASPP needs a map of stride {FINE_STRIDE} before the last; {name} gives the strides "
                f"{self.backbone.strides}: choose other out_indices, or another backbone"
            )
        if self.backbone.strides[-1] > OUTPUT_STRIDE and isinstance(self.backbone, TorchvisionBackbone):
            self.backbone.dilate(OUTPUT_STRIDE)
        self._fine = self.backbone.strides.index(FINE_STRIDE)
        self._first_block = _is_mobilenet_v3(self.backbone)
        fine, last = self.backbone.channels[self._fine], self.backbone.channels[-1]
        self.project = conv_norm_relu(last, channels, kernel=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(last, channels, 1, bias=False), nn.Sigmoid())
        self.score = init_score_layer(nn.Conv2d(channels, num_classes, 1))
        self.score_fine = init_score_layer(nn.Conv2d(fine, num_classes, 1))

    def _maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The finer map and the last one."""
        if not self._first_block:
            maps = self.backbone(images)
            return maps[self._fine], maps[-1]
        fine = x = self.backbone.normalize(images)
        tapped = self.backbone.out_indices[self._fine]
        for index, stage in enumerate(self.backbone.stages):
            for number, block in enumerate(stage.children()):
                x = block(x)
                if index == tapped and number == 0:
                    fine = x
        return fine, x

    def forward(self, images: Tensor) -> Tensor:
        """Gives the logits of a batch."""
        fine, last = self._maps(images)
        weighted = self.project(last) * self.gate(last)
        logits = self.score(resize(weighted, fine.shape[-2:])) + self.score_fine(fine)
        return resize(logits, images.shape[-2:])


def _is_mobilenet_v3(backbone: Backbone) -> bool:
    return isinstance(backbone, TorchvisionBackbone) and backbone.name.startswith("mobilenet_v3")
