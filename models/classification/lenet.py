"""LeNet-5, the network of 1998, with its trainable subsampling, sparse C3 and radial-basis outputs.

Shape legend: B images, H x W pixels, K classes.
"""

from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.checks import check_min
from ..ops.normalize import Normalize

BACKGROUND, FOREGROUND = -0.1, 1.175
"""What pixel 0 (background) and pixel 255 (ink) become, so that the input has about mean 0 and variance 1."""

C3_TABLE: Final[tuple[tuple[int, ...], ...]] = (
    *(tuple(sorted((i + j) % 6 for j in range(3))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in range(4))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in (0, 1, 3, 4))) for i in range(3)),
    (0, 1, 2, 3, 4, 5),
)
"""The paper's Table I: the maps of S2 that feed each of C3's 16 maps. Six contiguous triples, six contiguous
quadruples, three quadruples with gaps (contiguous means cyclically so), and one map that sees all."""

# Rows of 7 pixels, top to bottom, one digit a column block.
_DIGITS = """
..###.. ...##.. ..###.. .#####. ....##. ####### ..####. ####### ..###.. ..###..
.##.##. ..###.. .##.##. ##...## ...###. ##..... .##..## ......# .##.##. .##.##.
##...## .####.. ##...## .....## ..#.##. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## ..#.##. ##..... ##..... .....#. ##...## ##...##
##...## ...##.. .....## ....##. .#..##. ##.###. ##..... ....##. .##.##. ##...##
##...## ...##.. ....##. ..####. .#..##. ###..## ##.###. ....#.. ..###.. .##.###
##...## ...##.. ....##. ....##. #...##. .....## ###..## ...##.. .##.##. ..##.##
##...## ...##.. ...##.. .....## ####### .....## ##...## ...#... ##...## .....##
##...## ...##.. ..##... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ....##. ##...## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ....##. .##.##. .##.##. ..##... .##.##. .##.##.
..###.. .###### ####### .#####. ....##. ..###.. ..###.. ..##... ..###.. ..###..
"""


def digit_bitmaps() -> Tensor:
    """The RBF units' fixed parameters: a 7 x 12 picture of each digit, +1 for ink and -1 for paper.

    The paper shows its bitmaps only as a figure (Fig. 3), without numbers; these are drawn for striate in their manner.

    Shape:
        - output: float32 ``[10, 84]``, row by row from the top
    """
    rows = [line.split() for line in _DIGITS.split("\n") if line]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for row in rows for pixel in row[d]] for d in range(10)])


def rbf_penalties(features: Tensor, centres: Tensor) -> Tensor:
    """Squared Euclidean distance to each class's centre, the paper's eq. 7: ``y_i = sum_j (x_j - w_ij)^2``.

    Shape:
        - features: ``[B, D]``
        - centres: ``[K, D]``
        - output: ``[B, K]``, at least 0, and small for the class that fits
    """
    return (features[:, None, :] - centres).square().sum(-1)


def map_loss(logits: Tensor, target: Tensor, j: float = 0.1) -> Tensor:
    """The discriminative criterion by which LeNet-5 is trained, the paper's eq. 9.

    ``E = mean_p( y_D + log(exp(-j) + sum_i exp(-y_i)) )`` with penalties ``y = -logits`` and D the right class. It is
    cross-entropy with one more class of fixed penalty j, "none of these", which keeps penalties that are large already
    from being pushed further up.

    Penalties, and gradients with them, start large: at about 84, one for each unit of F6. Plain SGD wants a learning
    rate of about 5e-4 here; at 5e-3 the units saturate at once and nothing is learned.

    Args:
        logits: Negative penalties, as `LeNet5` returns them.
        target: Class indices, or probabilities.
        j: The constant. The paper asks for a positive one and names no number; 0.1 is what re-implementations take.

    Shape:
        - logits: ``[B, K]``
        - target: int64 ``[B]`` or float ``[B, K]``, rows of sum 1
        - output: scalar; 0 for an empty batch

    Reference:
        LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998, section II.C.
    """
    if target.is_floating_point():
        penalty = -(logits * target).sum(1)
    else:
        penalty = -logits.gather(1, target[:, None])[:, 0]
    rubbish = logits.new_full((logits.shape[0], 1), -j)
    loss = penalty + torch.cat([logits, rubbish], 1).logsumexp(1)
    return loss.sum() / max(logits.shape[0], 1)


class MAPLoss(nn.Module):
    """`map_loss` as a module, to be named in a YAML: ``loss: {class_path: striate.models.MAPLoss}``."""

    def __init__(self, j: float = 0.1) -> None:
        super().__init__()
        self.j = j

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of ``logits [B, K]`` against class indices ``[B]`` or probabilities ``[B, K]``."""
        return map_loss(logits, target, self.j)


class ScaledTanh(nn.Module):
    """The squashing function ``1.7159 * tanh(2/3 * a)``, which maps +1 and -1 to themselves (appendix A)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Squashes element by element."""
        return 1.7159 * torch.tanh(inputs * (2.0 / 3.0))


class Subsampling(nn.Module):
    """S2 and S4: the sum of each 2 x 2 square times a trainable coefficient plus a trainable bias, one pair a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Halves ``[B, C, H, W]`` to ``[B, C, H // 2, W // 2]``."""
        total = F.avg_pool2d(maps, 2, divisor_override=1)
        return total * self.weight[:, None, None] + self.bias[:, None, None]


class TableConv2d(nn.Module):
    """A convolution in which each output map sees only some of the input maps, and only those have weights.

    Args:
        table: For each output map, the indices of the input maps that feed it.
        in_channels: Number of input maps.
        kernel_size: Side of the square kernel.

    Shape:
        - input: ``[B, in_channels, H, W]``
        - output: ``[B, len(table), H - kernel_size + 1, W - kernel_size + 1]``
    """

    outputs: Tensor
    inputs: Tensor

    def __init__(self, table: tuple[tuple[int, ...], ...], in_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, len(table), kernel_size
        pairs = torch.tensor([(o, i) for o, row in enumerate(table) for i in row])
        self.register_buffer("outputs", pairs[:, 0], persistent=False)
        self.register_buffer("inputs", pairs[:, 1], persistent=False)
        self.weight = nn.Parameter(torch.empty(len(pairs), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(len(table)))

    def fan_in(self) -> Tensor:
        """Inputs of a unit of each output map, float32 ``[out_channels]``."""
        return torch.bincount(self.outputs, minlength=self.out_channels).float() * self.kernel_size**2

    def dense_weight(self) -> Tensor:
        """The kernel with zeros where there is no connection, ``[out_channels, in_channels, k, k]``."""
        dense = self.weight.new_zeros(self.out_channels, self.in_channels, self.kernel_size, self.kernel_size)
        return dense.index_put((self.outputs, self.inputs), self.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolves without padding."""
        return F.conv2d(maps, self.dense_weight(), self.bias)


class RBFOutput(nn.Module):
    """Radial-basis output units with fixed centres; gives negative penalties, so that the largest is the best class."""

    centres: Tensor

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        self.register_buffer("centres", centres)

    def forward(self, features: Tensor) -> Tensor:
        """Negative squared distances ``[B, K]`` of ``[B, D]``."""
        return -rbf_penalties(features, self.centres)


class LeNet5(nn.Module):
    """LeNet-5 as published: 60,000 trainable parameters from C1 to F6, none in the output.

    C1 6@28x28 (156 parameters), S2 6@14x14 (12), C3 16@10x10 (1,516, sparse), S4 16@5x5 (32), C5 120 (48,120), F6 84
    (10,164), each followed by ``1.7159 tanh(2/3 a)``, then ten RBF units whose centres are pictures of the digits.

    Args:
        num_classes: Number K of classes. The RBF units have bitmaps of the ten digits only.
        output: ``"rbf"``, the paper's; ``"softmax"``, a linear layer whose logits go into cross-entropy, which is what
            most people mean by LeNet today and which takes any number of classes.
        in_channels: 1, as in the paper: RGB images are turned to luminance; or 3, for which C1 gets 3 input maps (456
            parameters).

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 1, H, W]`` or ``[B, 3, H, W]``, each side 28 pixels at least. Ink is
          bright and the background dark, as in MNIST's files. Sides from 28 to 31 are padded evenly to 32 with
          background, as the paper did with its 28 x 28 digits.
        - output: logits ``[B, K]``, larger is better; for ``"rbf"`` negative penalties, which suit both cross-entropy
          and `map_loss`, the paper's criterion

    Raises:
        ValueError: for an unknown ``output``, no classes or a count that RBF has no bitmaps for, other channels, or
            images below 28 pixels.

    Reference:
        LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11),
        1998, section II.B and appendix A. Where this leaves the paper:

        - The bitmaps are our own drawings (see `digit_bitmaps`).
        - Images above 32 pixels: C5 is a convolution, so it gets more than one place, as the paper says; the paper
          reads the outputs place by place (section VII, SDNN), whereas a classifier here owes one answer an image, so
          C5's activations are averaged over its places before F6. At 32 pixels nothing is averaged.
        - Weights start uniform in +-2.4 / F, F the number of inputs of a unit, as published. Biases are drawn likewise.
          Subsampling counts as F = 4 inputs.
        - The paper trains by stochastic diagonal Levenberg-Marquardt; here the task's optimizer does.
    """

    def __init__(
        self, num_classes: int = 10, output: Literal["rbf", "softmax"] = "rbf", in_channels: Literal[1, 3] = 1
    ) -> None:
        super().__init__()
        if output not in ("rbf", "softmax"):
            raise ValueError(f"output={output!r}: choose 'rbf' (the paper's) or 'softmax'")
        if output == "rbf" and num_classes != 10:
            raise ValueError(
                f"num_classes={num_classes}: the RBF output has bitmaps of the ten digits only; "
                "take num_classes=10 or output='softmax'"
            )
        check_min(1, num_classes=num_classes)
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels={in_channels}: choose 1 (RGB is turned to luminance) or 3")
        self.num_classes, self.in_channels = num_classes, in_channels
        scale = FOREGROUND - BACKGROUND
        self.normalize = Normalize(mean=(-BACKGROUND / scale,) * in_channels, std=(1 / scale,) * in_channels)
        self.c1 = nn.Conv2d(in_channels, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = TableConv2d(C3_TABLE, in_channels=6, kernel_size=5)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.squash = ScaledTanh()
        self.output: nn.Module = RBFOutput(digit_bitmaps()) if output == "rbf" else nn.Linear(84, num_classes)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws weights and biases uniformly from +-2.4 / fan-in of their unit."""
        for layer in self.children():
            if isinstance(layer, TableConv2d):
                bound = 2.4 / layer.fan_in()
                layer.bias.copy_((torch.rand_like(layer.bias) * 2 - 1) * bound)
                layer.weight.copy_((torch.rand_like(layer.weight) * 2 - 1) * bound[layer.outputs][:, None, None])
            elif isinstance(layer, (nn.Conv2d, nn.Linear, Subsampling)):
                fan_in = 4 if isinstance(layer, Subsampling) else layer.weight[0].numel()
                for parameter in layer.parameters():
                    nn.init.uniform_(parameter, -2.4 / fan_in, 2.4 / fan_in)

    def pixels(self, images: Tensor) -> Tensor:
        """What C1 sees: one or three channels, background at -0.1 and ink at 1.175, 32 pixels a side at least."""
        if images.ndim == 4 and images.shape[1] not in {3, self.in_channels}:
            wanted = "1 or 3" if self.in_channels == 1 else "3"
            raise ValueError(
                f"images have {images.shape[1]} channels: LeNet5(in_channels={self.in_channels}) takes {wanted}"
            )
        if images.ndim == 4 and images.shape[1] > self.in_channels:
            # Luminance of normalised channels: the same as normalised luminance, for the weights sum to 1.
            channels = self.normalize(images.flatten(0, 1)[:, None]).unflatten(0, images.shape[:2])  # [B, 3, 1, H, W]
            red, green, blue = channels.unbind(1)
            inputs = 0.299 * red + 0.587 * green + 0.114 * blue
        else:
            inputs = self.normalize(images)
        height, width = inputs.shape[-2:]
        if min(height, width) < 28:
            raise ValueError(
                f"images are {height} x {width} pixels: LeNet5 needs 28 x 28 at least (32 x 32 is its own)"
            )
        rows, columns = max(32 - height, 0), max(32 - width, 0)
        return F.pad(inputs, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), value=BACKGROUND)

    def features(self, images: Tensor) -> Tensor:
        """Activations of F6, ``[B, 84]``."""
        maps = self.squash(self.s2(self.squash(self.c1(self.pixels(images)))))
        maps = self.squash(self.s4(self.squash(self.c3(maps))))
        places = self.squash(self.c5(maps))  # [B, 120, 1, 1] at 32 pixels
        return self.squash(self.f6(places.mean((2, 3))))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]``, larger is better."""
        return self.output(self.features(images))
