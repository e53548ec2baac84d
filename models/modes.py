"""Evaluation for a while: training and evaluation modes that are restored module by module."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def restored_modes(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restore the training or evaluation mode of each module at the end of this context."""
    modes = [(module, module.training) for module in modules]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode inside this context, and restore the mode of each submodule afterwards.

    Dropout is off, and batch normalization uses its running statistics and does not update them.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout().eval())
        >>> with evaluation_mode(net):
        ...     [part.training for part in net.modules()]
        [False, False, False]
        >>> [part.training for part in net.modules()]
        [True, True, False]
    """
    if not any(part.training for part in module.modules()):
        yield
        return
    training = module.training
    with restored_modes(module.modules()):
        module.eval()
        try:
            yield
        finally:
            module.train(training)  # some modules do more than set a flag here; the flags follow
