"""LR-ASPP, the lightweight head of the MobileNetV3 paper, for segmentation in real time.

Shape legend: B images, C channels, h x w a feature map, H x W the image, K classes. The stride of a map is the number
of image pixels per cell.
"""

from torch import Tensor, nn

from ..backbones import Backbone, TorchvisionBackbone, as_backbone, backbone_name
from ..ops.checks import check_min
from ..ops.init import init_glorot
from .layers import conv_norm_relu, resize

FINE_STRIDE, OUTPUT_STRIDE = 8, 16
"""Strides of the two maps that are scored, in pixels."""


class LRASPP(nn.Module):
    """Lite R-ASPP: logits from the last map, gated by its mean, and from a finer map, by 1x1 convolutions.

    With MobileNetV3 this is torchvision's ``lraspp_mobilenet_v3_large``; the same weights give the same outputs. The
    last stage is dilated (`TorchvisionBackbone.dilate`), so that the last map has a stride of 16; the finer map has a
    stride of 8. Images may have any size.

    Args:
        num_classes: Number K of classes, including the background.
        backbone: A backbone, or its name (see `build_backbone`): MobileNetV3, or any other with a map of stride 8
            before the last. If the last stride of a torchvision backbone exceeds 16, it is dilated in place.
        weights: Name of published weights or path of a checkpoint, for a backbone given by name.
        channels: Channels between the last map and its logits.

    Attributes:
        backbone: The trunk; a task may train it at a separate learning rate.
        project: The 1x1 convolution of the last map to ``channels``.
        gate: The factors of these channels, computed from the last map's mean.
        score: The 1x1 convolution of the gated channels to logits.
        score_fine: The 1x1 convolution of the finer map to logits.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]; H and W of any size that the
          backbone accepts.
        - output: logits ``[B, K, H, W]``.

    Raises:
        ValueError: ``num_classes`` is below 1, or the backbone has no map of stride 8 before its last or cannot be
            dilated; in ``forward``, the images are too small for the backbone.

    Reference:
        Howard et al., "Searching for MobileNetV3", ICCV 2019, section 6.4 and Fig. 10. Deviations from the paper,
        as in torchvision:

        - The gate uses the mean of the whole map. The paper's pools 49x49 cells with strides of 16x20, for images of
          1024x2048, and upsamples the result.
        - The last block keeps its channels, which the paper halves for segmentation.
        - The finer map is the output of the first block of stride 8 in torchvision's MobileNetV3, and the last map of
          stride 8 in any other backbone.

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
        check_min(1, num_classes=num_classes, channels=channels)
        self.num_classes = num_classes
        self.backbone = as_backbone(backbone, weights)
        if FINE_STRIDE not in self.backbone.strides[:-1]:
            name = backbone_name(self.backbone)
            raise ValueError(
                f"backbone: LRASPP needs a map of stride {FINE_STRIDE} before the last, got {name} with the strides "
                f"{self.backbone.strides}; choose other out_indices, or another backbone"
            )
        if self.backbone.strides[-1] > OUTPUT_STRIDE and isinstance(self.backbone, TorchvisionBackbone):
            self.backbone.dilate(OUTPUT_STRIDE)
        self._fine = self.backbone.strides.index(FINE_STRIDE)
        name = self.backbone.name if isinstance(self.backbone, TorchvisionBackbone) else ""
        self._fine_is_first_block = name.startswith("mobilenet_v3")
        fine, last = self.backbone.channels[self._fine], self.backbone.channels[-1]
        self.project = conv_norm_relu(last, channels, kernel=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(last, channels, 1, bias=False), nn.Sigmoid())
        self.score = init_glorot(nn.Conv2d(channels, num_classes, 1))
        self.score_fine = init_glorot(nn.Conv2d(fine, num_classes, 1))

    def _maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the finer and the last map, ``[B, C, h, w]``, of images ``[B, 3, H, W]``."""
        if not self._fine_is_first_block:
            maps = self.backbone(images)
            return maps[self._fine], maps[-1]
        fine = x = self.backbone.normalize(images)
        fine_stage = self.backbone.out_indices[self._fine]
        for index, stage in enumerate(self.backbone.stages):
            for number, block in enumerate(stage.children()):
                x = block(x)
                if index == fine_stage and number == 0:
                    fine = x
        return fine, x

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, K, H, W]`` of images ``[B, 3, H, W]``."""
        fine, last = self._maps(images)
        gated = self.project(last) * self.gate(last)  # [B, channels, h, w] times [B, channels, 1, 1]
        logits = self.score(resize(gated, fine.shape[-2:])) + self.score_fine(fine)
        return resize(logits, images.shape[-2:])
