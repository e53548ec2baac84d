"""Private names of torch that the models depend on, each behind a public name of our own.

Only this module may use private names of other libraries. `tests/models/test_compat.py` has a test for each, which
fails with a sentence when a release moves it.
"""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class ConversionAwareModule(nn.Module):
    """A module that is notified after each move or cast, such as ``.to()``, ``.half()`` or ``.to_empty()``.

    torch routes all of these through ``nn.Module._apply`` and has no public hook for them.
    """

    def on_converted(self) -> None:
        """Restore what a conversion must not change, such as constants that would be rounded. Does nothing here."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert parameters and buffers ``[...]`` of any shape, then call `on_converted`."""
        super()._apply(fn, recurse)
        self.on_converted()
        return self


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether calling a module calls hooks of its own too; torch has no public list of them."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
