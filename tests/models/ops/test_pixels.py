"""The check of pixels: which values, types and layouts pass, and when a device is waited for."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from striate.models import Normalize
from striate.models.ops.pixels import PixelRange, layout_hint


def check(*images: Tensor, training: bool = False) -> None:
    PixelRange().check(images, training, [f"images[{index}]" for index in range(len(images))])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_pixels_from_0_to_1_pass_with_some_overshoot(dtype: torch.dtype) -> None:
    check(torch.tensor([-0.2, 0.0, 1.0, 1.2], dtype=dtype), torch.empty(0, 3, dtype=dtype))
    check(torch.tensor([0, 255], dtype=torch.uint8), torch.empty(2, device="meta"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 255.0], "from 0 to 255"),
        ([-2.1, 2.6], "from -2.1 to 2.6"),
        ([-0.3, 0.5], "from -0.3 to 0.5"),
        ([0.0, 1.3], "from 0 to 1.3"),
        ([0.5, float("nan")], "from nan to nan"),
        ([0.5, float("inf")], "from 0.5 to inf"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_other_values_are_rejected(values: list[float], message: str, training: bool) -> None:
    fine = torch.zeros(2, dtype=torch.float16)
    with pytest.raises(
        ValueError, match=rf"^images\[1\]: floating point .* in \[0, 1\], got values {message}; .*uint8"
    ):
        check(fine, torch.tensor(values), training=training)


class OnDevice:
    """Pixels ``[N]`` that claim to be on a GPU, and count how often they are read."""

    def __init__(self, *values: float) -> None:
        self.values, self.reads, self.device = torch.tensor(values), 0, SimpleNamespace(type="cuda")

    def is_floating_point(self) -> bool:
        return True

    def numel(self) -> int:
        return self.values.numel()

    def detach(self) -> Tensor:
        self.reads += 1
        return self.values


def test_training_waits_for_a_gpu_until_a_batch_has_passed() -> None:
    pixels, fine, wrong = PixelRange(), OnDevice(0.0, 1.0), OnDevice(0.0, 255.0)
    for _ in range(2):
        with pytest.raises(ValueError, match="got values from 0 to 255"):
            pixels.check([wrong], True)  # type: ignore[list-item]
    for _ in range(3):
        pixels.check([fine], True)  # type: ignore[list-item]
    assert fine.reads == 1
    for _ in range(3):
        pixels.check([fine], False)  # type: ignore[list-item]
    assert fine.reads == 4
    with pytest.raises(ValueError, match="got values from 0 to 255"):
        pixels.check([wrong], False)  # type: ignore[list-item]


def test_the_check_compiles_and_works_where_values_cannot_be_read() -> None:
    normalize, images = Normalize(), torch.rand(2, 3, 4, 4)
    compiled = torch.compile(normalize, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images), normalize(images))
    mapped = torch.vmap(normalize)(images[:, None])  # [2, 1, 3, 4, 4]
    assert torch.equal(mapped[:, 0], normalize(images))


@pytest.mark.parametrize(
    ("shape", "order"), [((2, 9, 8, 3), "0, 3, 1, 2"), ((9, 8, 3), "2, 0, 1"), ((2, 3, 9, 3), None), ((9, 8), None)]
)
def test_layout_hint(shape: tuple[int, ...], order: str | None) -> None:
    assert layout_hint(shape) == (f"; move channels to the front with images.permute({order})" if order else "")
