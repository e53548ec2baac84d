"""Classic trunks with the padding that detectors need to project boxes onto maps by division."""

from torch import nn

from ...classification.alexnet import AlexNetBackbone
from ...classification.layers import ClassicBackbone
from ...classification.zfnet import ZFNetBackbone


class _Padded(ClassicBackbone):
    """Gives a classic trunk, the next base class, its last map alone and its padding."""

    def __init__(self, weights: str | None = None, width: float = 1.0, frozen_stages: int = 0) -> None:
        super().__init__(  # type: ignore[call-arg] # the classic trunk's
            width,  # type: ignore[arg-type]
            frozen_stages=frozen_stages,
            out_indices=(2,),
            weights=weights,
            init="he" if weights is None else None,
        )
        _pad_by_half_a_kernel(self.stages)


class PaddedZFNetBackbone(_Padded, ZFNetBackbone):
    """ZFNet up to conv5 with the padding of SPP-net's and Faster R-CNN's ZF: one map of stride 16.

    Every layer is padded by half a kernel. Cell i is therefore centered at about pixel 16 i, as projecting a box onto
    the map by division assumes. Without padding, as in `ZFNetBackbone`, it is pixel 16 i + 20. Weights and their names
    are the same.

    Args:
        weights: Path of a checkpoint of ours, of `ZFNet` or a model on it. None: N(0, 2 / fan-in).
        width: Factor on all numbers of channels, rounded to multiples of 8.
        frozen_stages: Number of stages, from the first, that are not trained; 0 to 3 (conv1; conv2; conv3 to conv5).

    Reference:
        He et al., "Spatial pyramid pooling", ECCV 2014, appendix A, and py-faster-rcnn's ZF. Those normalize responses
        within a map, before pooling. Here it is `ZFNet`'s normalization, across maps after pooling, to which its
        weights belong.
    """


class PaddedAlexNetBackbone(_Padded, AlexNetBackbone):
    """AlexNet up to conv5 with the padding of Fast R-CNN's CaffeNet: one map of stride 16.

    Every layer is padded by half a kernel, so that cell i is centered at about pixel 16 i. Weights and their names are
    those of `AlexNet`.

    Args:
        weights: Path of a checkpoint of ours, of `AlexNet` or a model on it. None: N(0, 2 / fan-in).
        width: Factor on all numbers of channels, rounded to multiples of 8.
        frozen_stages: Number of stages, from the first, that are not trained; 0 to 3 (conv1; conv2; conv3 to conv5).

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015, and the author's definition of CaffeNet. CaffeNet pools before it normalizes
        responses; here it is the other way around, as in AlexNet, to which the weights belong.
    """


def _pad_by_half_a_kernel(stages: nn.Module) -> None:
    """Pad every convolution and pooling of a trunk by half its kernel, rounded down."""
    for layer in stages.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding = tuple(side // 2 for side in layer.kernel_size)
        elif isinstance(layer, nn.MaxPool2d):
            layer.padding = 1
