"""Dilation of a network: replaces strides by dilated convolutions, for finer maps with the same weights.

A stage is a run of layers at one stride.
"""

from collections.abc import Iterable, Sequence

from torch import nn

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def dilate_stages(
    stages: Iterable[nn.Module], strides: Sequence[int], current: int, target: int, dilate_first: bool = False
) -> None:
    """Remove strides from a network, in place, so that no map has a larger stride than ``target``.

    The dilation and padding of every convolution after a removed stride are multiplied by that stride. The finer map
    then contains the coarser one: for a factor of two, every second cell keeps its value (except after global pooling,
    as in squeeze-and-excitation).

    Args:
        stages: Stages of one network, in order.
        strides: Stride of each stage's output before any dilation, in pixels.
        current: Largest stride that the stages have now, in pixels.
        target: Largest stride after dilation, in pixels; one of ``strides``.
        dilate_first: Whether to dilate the convolution that had the stride, too. torchvision's MobileNet v3 does, and
            its finer map does not contain the coarser one; torchvision's ResNets do not.

    Raises:
        ValueError: A stage to dilate has a pooling, a convolution that is not odd and padded by half its size, or no
            stride. The network is left unchanged.

    Reference:
        Chen et al., "DeepLab: Semantic image segmentation with deep convolutional nets, atrous convolution, and fully
        connected CRFs", section 3.1.
    """
    stages = list(stages)
    for index, stage in enumerate(stages):  # check all stages first, so that an error leaves the network unchanged
        if strides[index] > target:
            _check(stage, index)
    for index in range(1, len(stages)):
        # factors on the dilation before and after the convolution that has the stride
        before, after = (max(s // target, 1) // max(s // current, 1) for s in (strides[index - 1], strides[index]))
        factor = before
        for conv in (module for module in stages[index].modules() if isinstance(module, nn.Conv2d)):
            if strides[index] > target and conv.stride != (1, 1):
                conv.stride = (1, 1)
                _dilate(conv, after if dilate_first else before)
                factor = after
            else:
                _dilate(conv, factor)


def _dilate(conv: nn.Conv2d, factor: int) -> None:
    # the padding grows by the same factor, to keep the size of the map
    conv.dilation = tuple(dilation * factor for dilation in conv.dilation)
    conv.padding = tuple(int(padding) * factor for padding in conv.padding)


def _check(stage: nn.Module, index: int) -> None:
    """Check that a stage can be dilated: it has a strided convolution, no pooling, and half padding throughout."""
    for module in stage.modules():
        if isinstance(module, _POOLS):
            raise ValueError(f"stage {index} has a pooling layer ({type(module).__name__})")
        if isinstance(module, nn.Conv2d):
            half = [dilation * (side // 2) for dilation, side in zip(module.dilation, module.kernel_size, strict=True)]
            if list(module.padding) != half or not all(side % 2 for side in module.kernel_size):
                raise ValueError(f"stage {index} has a convolution that is not padded by half its size")
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
    if not any(conv.stride != (1, 1) or conv.dilation != (1, 1) for conv in convolutions):
        raise ValueError(f"stage {index} has no convolution with a stride")
