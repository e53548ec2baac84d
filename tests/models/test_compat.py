"""The private names of other libraries that `striate.models.compat` uses still do what the models need."""

import pytest
import torch
from torch import nn

from striate.models import compat


class Counting(compat.ConversionAwareModule):
    """Counts its conversions."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.conversions = 0

    def on_converted(self):
        self.conversions += 1


@pytest.mark.parametrize(
    "convert",
    [
        lambda module: module.to(torch.float64),
        lambda module: module.half(),
        lambda module: module.cpu(),
        lambda module: module.to_empty(device="meta"),
        lambda module: nn.Sequential(module).double(),
    ],
)
def test_module_apply_runs_in_every_conversion(convert):
    module = Counting()
    convert(module)
    assert module.conversions, (
        "torch no longer routes conversions through torch.nn.Module._apply: give ConversionAwareModule another way to "
        "notice them, or Normalize rounds its constants in half precision"
    )


def test_hooks_of_a_module_are_known():
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        module = nn.Linear(1, 1)
        assert not compat.has_forward_hooks(module)
        handle = getattr(module, register)(lambda *_: None)
        assert compat.has_forward_hooks(module), "torch keeps hooks elsewhere: Backbone would skip those of its stages"
        handle.remove()
        assert not compat.has_forward_hooks(module)
