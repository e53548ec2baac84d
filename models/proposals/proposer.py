"""Which boxes of an image are proposed as possible objects: a method and its settings."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from ..ops.checks import check_choice, check_min
from .selective_search import Mode, selective_search
from .sliding_windows import sliding_windows

Method = Literal["selective_search", "sliding"]


@dataclass(frozen=True)
class Proposer:
    """Computes the proposals of an image.

    Attributes:
        method: ``selective_search``: `selective_search`. ``sliding``: `sliding_windows`, which do not depend on the
            pixels.
        mode: Mode of Selective Search: ``single``, ``fast`` or ``quality``.
        min_side: Minimum width and height of a box, in pixels; lower it for images that are small throughout.
        max_proposals: Maximum number of boxes per image, the best.
        seed: Seed of the order of boxes.

    Raises:
        ValueError: A method or a mode is unknown, or a number is out of range.
    """

    method: Method = "selective_search"
    mode: Mode = "fast"
    min_side: int = 20
    max_proposals: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(get_args(Method), method=self.method)
        check_choice(get_args(Mode), mode=self.mode)
        check_min(1, min_side=self.min_side, max_proposals=self.max_proposals)
        check_min(0, seed=self.seed)

    def __call__(self, image: Tensor) -> Tensor:
        """Propose boxes of an image, best first.

        Shape:
            - image: ``[3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]
            - output: ``[P, 4]`` float32, x1, y1, x2, y2 in pixels, on the CPU
        """
        if self.method == "sliding":
            height, width = image.shape[-2:]
            return sliding_windows(height, width, self.min_side, self.max_proposals, seed=self.seed)
        return selective_search(
            image.cpu(), self.mode, min_side=self.min_side, max_boxes=self.max_proposals, seed=self.seed
        )[0]
