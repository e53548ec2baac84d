"""Finer maps from the same weights: strides taken out of a network, its later convolutions spread by as much.

Shape legend: a stage is a run of layers at one stride; its dilation is the number of cells between the taps of its
kernels, 1 where they are neighbours.
"""

from collections.abc import Iterable, Sequence

from torch import nn

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def dilate_stages(
    stages: Iterable[nn.Module], strides: Sequence[int], current: int, wanted: int, spread_first: bool = False
) -> None:
    """Takes strides out of a network, in place, so that no map is coarser than wanted.

    Every convolution after a stride that was taken out has its taps apart by that factor, and as much more padding.
    The finer map then holds the coarser one: every second cell of it, for a factor of two, has the very value that it
    had (global pooling, as in squeeze-and-excitation, apart).

    Args:
        stages: Of one network, in order.
        strides: Pixels of the image per cell of each stage's output, before anything was dilated.
        current: The coarsest stride that the stages have now, in pixels.
        wanted: The coarsest stride that they are to have, in pixels; one of ``strides``.
        spread_first: Spread also the convolution that had the stride. torchvision's MobileNets v3 do so, and then the
            coarser map is no part of the finer one; its ResNets do not.

    Raises:
        ValueError: A stage shrinks its map by something else than a convolution of odd size padded by half of it.
            Nothing has been changed then.

    Reference:
        Chen et al., "DeepLab: Semantic image segmentation with deep convolutional nets, atrous convolution, and fully
        connected CRFs", section 3.1.
    """
    stages = list(stages)
    for index, stage in enumerate(stages):
        if strides[index] > wanted:
            _check(stage, index)
    for index in range(1, len(stages)):
        # how much further apart the taps get, before the convolution that has the stride and after it
        before, after = (max(s // wanted, 1) // max(s // current, 1) for s in (strides[index - 1], strides[index]))
        factor = before
        for conv in (module for module in stages[index].modules() if isinstance(module, nn.Conv2d)):
            if strides[index] > wanted and conv.stride != (1, 1):
                conv.stride = (1, 1)
                _spread(conv, after if spread_first else before)
                factor = after
            else:
                _spread(conv, factor)


def _spread(conv: nn.Conv2d, factor: int) -> None:
    conv.dilation = tuple(dilation * factor for dilation in conv.dilation)
    conv.padding = tuple(int(padding) * factor for padding in conv.padding)


def _check(stage: nn.Module, index: int) -> None:
    """That all which reaches beyond a cell is a convolution that can be spread, and one of them can have the stride."""
    for module in stage.modules():
        if isinstance(module, _POOLS):
            raise ValueError(f"its stage {index} pools ({type(module).__name__})")
        if isinstance(module, nn.Conv2d):
            half = [dilation * (side // 2) for dilation, side in zip(module.dilation, module.kernel_size, strict=True)]
            if list(module.padding) != half or not all(side % 2 for side in module.kernel_size):
                raise ValueError(f"its stage {index} has a convolution that is not padded by half its size")
    convolutions = [module for module in stage.modules() if isinstance(module, nn.Conv2d)]
    if not any(conv.stride != (1, 1) or conv.dilation != (1, 1) for conv in convolutions):
        raise ValueError(f"no convolution of its stage {index} has a stride")
