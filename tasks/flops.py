"""The cost of a network: floating-point operations of a forward pass."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..models.modes import evaluation_mode


def count_flops(network: nn.Module, image: Tensor) -> int:
    """Floating-point operations of one forward pass in evaluation mode: two per multiplication with addition.

    It counts matrix products and convolutions, as PyTorch's counter does, and changes neither modes nor random state.

    Shape:
        - image: ``[1, 3, H, W]``.
    """
    devices = [image.device] if image.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        evaluation_mode(network),
        torch.no_grad(),
        FlopCounterMode(display=False) as counter,
    ):
        network(image)
    return int(counter.get_total_flops())
