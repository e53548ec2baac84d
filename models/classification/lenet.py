"""LeNet-5, the network of 1998, with its trainable subsampling, sparse C3 layer and radial basis outputs.

Shape legend: B images, H x W pixels, K classes.
"""

from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.checks import check_above, check_choice, check_min
from ..ops.normalize import Normalize
from ..ops.pixels import check_pixel_type, layout_hint

BACKGROUND, FOREGROUND = -0.1, 1.175
"""Inputs of C1 for pixel 0 (background) and pixel 255 (ink), so that they have about mean 0 and variance 1."""

C3_TABLE: Final[tuple[tuple[int, ...], ...]] = (
    *(tuple(sorted((i + j) % 6 for j in range(3))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in range(4))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in (0, 1, 3, 4))) for i in range(3)),
    (0, 1, 2, 3, 4, 5),
)
"""The paper's Table I: the maps of S2 that feed each of C3's 16 maps. Six contiguous triples, six contiguous
quadruples, three quadruples with gaps (contiguous in a cycle), and one map fed by all."""

# Rows of 7 pixels, top to bottom, one digit per block of columns.
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
    """Return the fixed parameters of the RBF units: a 7 x 12 bitmap of each digit, +1 for ink and -1 for background.

    The paper shows its bitmaps only as a figure (Fig. 3), without numbers; these were drawn for striate in their style.

    Shape:
        - output: float32 ``[10, 84]``, row by row from the top
    """
    rows = [line.split() for line in _DIGITS.split("\n") if line]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for row in rows for pixel in row[d]] for d in range(10)])


def rbf_penalties(features: Tensor, centers: Tensor) -> Tensor:
    """Compute the squared Euclidean distance to each class center, eq. 7: ``y_i = sum_j (x_j - w_ij)^2``.

    Shape:
        - features: ``[B, D]``
        - centers: ``[K, D]``
        - output: ``[B, K]``, nonnegative; the smallest belongs to the predicted class
    """
    return (features[:, None, :] - centers).square().sum(-1)


def map_loss(logits: Tensor, target: Tensor, j: float = 0.1) -> Tensor:
    """Compute LeNet-5's discriminative training criterion, the paper's eq. 9.

    ``E = mean_p( y_D + log(exp(-j) + sum_i exp(-y_i)) )`` with penalties ``y = -logits`` and D the target class. This
    is cross-entropy with an additional class, "none of these", of fixed penalty j, which stops large penalties from
    being increased further.

    Penalties, and with them gradients, start large: at about 84, one for each unit of F6. Plain SGD needs a learning
    rate of about 5e-4; at 5e-3 the units saturate at once and the network does not learn.

    Args:
        logits: Negative penalties, as `LeNet5` returns them.
        target: Class indices, or class probabilities.
        j: The constant. The paper requires a positive value and names none; 0.1 is usual in reimplementations.

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
    other = logits.new_full((logits.shape[0], 1), -j)  # the class "none of these"
    loss = penalty + torch.cat([logits, other], 1).logsumexp(1)
    return loss.sum() / max(logits.shape[0], 1)


class MAPLoss(nn.Module):
    """`map_loss` as a module, for a YAML: ``loss: {class_path: striate.models.MAPLoss}``."""

    def __init__(self, j: float = 0.1) -> None:
        super().__init__()
        check_above(0, j=j)
        self.j = j

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the scalar mean loss of ``logits [B, K]`` for class indices ``[B]`` or probabilities ``[B, K]``."""
        return map_loss(logits, target, self.j)


class ScaledTanh(nn.Module):
    """The squashing function ``1.7159 * tanh(2/3 * a)``, which maps +1 and -1 to themselves (appendix A)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the function to each element of a tensor ``[B, ...]``."""
        return 1.7159 * torch.tanh(inputs * (2.0 / 3.0))


class Subsampling(nn.Module):
    """S2 and S4: the sum of each 2 x 2 square times a trainable coefficient plus a trainable bias, both per map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Subsample ``[B, C, H, W]`` to ``[B, C, H // 2, W // 2]``."""
        total = F.avg_pool2d(maps, 2, divisor_override=1)  # the sum of 2 x 2 cells
        return total * self.weight[:, None, None] + self.bias[:, None, None]


class TableConv2d(nn.Module):
    """A convolution that connects each output map to some of the input maps only.

    Args:
        table: For each output map, the indices of the input maps connected to it.
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
        # output and input map of each connection, [P, 2]
        pairs = torch.tensor([(o, i) for o, row in enumerate(table) for i in row])
        self.register_buffer("outputs", pairs[:, 0], persistent=False)
        self.register_buffer("inputs", pairs[:, 1], persistent=False)
        self.weight = nn.Parameter(torch.empty(len(pairs), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(len(table)))

    def fan_in(self) -> Tensor:
        """Return the number of inputs to a unit of each output map, float32 ``[O]`` for O output maps."""
        return torch.bincount(self.outputs, minlength=self.out_channels).float() * self.kernel_size**2

    def dense_weight(self) -> Tensor:
        """Return the kernel ``[O, I, k, k]`` for O output and I input maps, with zeros for missing connections."""
        dense = self.weight.new_zeros(self.out_channels, self.in_channels, self.kernel_size, self.kernel_size)
        return dense.index_put((self.outputs, self.inputs), self.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve maps ``[B, in_channels, H, W]`` without padding."""
        return F.conv2d(maps, self.dense_weight(), self.bias)


class RBFOutput(nn.Module):
    """Radial basis output units with fixed centers ``[K, D]``, whose negative penalties serve as logits."""

    centres: Tensor  # the name in checkpoints

    def __init__(self, centers: Tensor) -> None:
        """Register the centers ``[K, D]`` as a buffer."""
        super().__init__()
        self.register_buffer("centres", centers)

    def forward(self, features: Tensor) -> Tensor:
        """Return the negative squared distances ``[B, K]`` of features ``[B, D]``."""
        return -rbf_penalties(features, self.centres)


class LeNet5(nn.Module):
    """LeNet-5 as published: 60,000 trainable parameters from C1 to F6, none in the output layer.

    C1 6@28x28 (156 parameters), S2 6@14x14 (12), C3 16@10x10 (1,516, sparse), S4 16@5x5 (32), C5 120 (48,120), F6 84
    (10,164), each followed by ``1.7159 tanh(2/3 a)``, then ten RBF units whose centers are bitmaps of the digits.

    Args:
        num_classes: Number K of classes. The RBF units have bitmaps of the ten digits only.
        output: ``"rbf"``: the paper's output units. ``"softmax"``: a linear layer whose logits go into cross-entropy,
            for any number of classes, as in most networks called LeNet today.
        in_channels: 1, as in the paper, for which RGB images are converted to luminance; or 3, for which C1 has 3 input
            maps (456 parameters).

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 1, H, W]`` or ``[B, 3, H, W]``, each side at least 28 pixels. Ink is
          bright and the background dark, as in MNIST's files. Sides from 28 to 31 are padded evenly to 32 with
          background, as in the paper for 28 x 28 digits.
        - output: logits ``[B, K]``; for ``"rbf"`` negative penalties, which suit both cross-entropy and `map_loss`, the
          paper's criterion

    Raises:
        ValueError: ``output`` is unknown, ``num_classes`` is below 1 or not the 10 that ``"rbf"`` requires, or images
            have the wrong number of channels or sides below 28 pixels.

    Reference:
        LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11),
        1998, section II.B and appendix A. Deviations from the paper, and choices that it leaves open:

        - The bitmaps were drawn for striate (see `digit_bitmaps`).
        - Images above 32 pixels: C5 is a convolution, so its output has several cells, as the paper says. The paper
          reads the output cell by cell (section VII, SDNN); a classifier returns one output per image, so C5's
          activations are averaged over the cells before F6. At 32 pixels there is one cell.
        - Weights are drawn uniformly from +-2.4 / F, F the number of inputs of a unit, as published. Biases are drawn
          in the same way. Subsampling counts as F = 4 inputs.
        - The paper trains with stochastic diagonal Levenberg-Marquardt; here the task's optimizer is used.
    """

    def __init__(
        self, num_classes: int = 10, output: Literal["rbf", "softmax"] = "rbf", in_channels: Literal[1, 3] = 1
    ) -> None:
        super().__init__()
        check_choice(("rbf", "softmax"), output=output)
        if output == "rbf" and num_classes != 10:
            raise ValueError(
                f"num_classes: the RBF output has bitmaps of the ten digits only, got {num_classes}; use "
                "num_classes=10 or output='softmax'"
            )
        check_min(1, num_classes=num_classes)
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels: must be 1 (RGB is converted to luminance) or 3, got {in_channels}")
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
        """Draw weights and biases uniformly from +-2.4 / fan-in."""
        for layer in self.children():
            if isinstance(layer, TableConv2d):
                bound = 2.4 / layer.fan_in()  # [O], since output maps differ in their inputs
                layer.bias.copy_((torch.rand_like(layer.bias) * 2 - 1) * bound)
                layer.weight.copy_((torch.rand_like(layer.weight) * 2 - 1) * bound[layer.outputs][:, None, None])
            elif isinstance(layer, (nn.Conv2d, nn.Linear, Subsampling)):
                fan_in = 4 if isinstance(layer, Subsampling) else layer.weight[0].numel()
                for parameter in layer.parameters():
                    nn.init.uniform_(parameter, -2.4 / fan_in, 2.4 / fan_in)

    def pixels(self, images: Tensor) -> Tensor:
        """Convert images ``[B, 1 or 3, H, W]`` to the input of C1, ``[B, in_channels, H, W]``.

        The background is -0.1 and ink 1.175; sides below 32 pixels are padded to 32.
        """
        check_pixel_type(images)
        if images.ndim == 4 and images.shape[1] not in {3, self.in_channels}:
            choices = "1 or 3" if self.in_channels == 1 else "3"
            raise ValueError(
                f"images: LeNet5(in_channels={self.in_channels}) takes {choices} channels, got {images.shape[1]}"
                f"{layout_hint(images.shape)}"
            )
        if images.ndim == 4 and images.shape[1] > self.in_channels:
            # The weights of luminance sum to 1, so it may be computed after normalization.
            channels = self.normalize(images.flatten(0, 1)[:, None]).unflatten(0, images.shape[:2])  # [B, 3, 1, H, W]
            red, green, blue = channels.unbind(1)
            inputs = 0.299 * red + 0.587 * green + 0.114 * blue
        else:
            inputs = self.normalize(images)
        height, width = inputs.shape[-2:]
        if min(height, width) < 28:
            raise ValueError(
                f"images: LeNet5 needs at least 28 x 28 pixels (the paper uses 32 x 32), got {height} x {width}"
            )
        rows, columns = max(32 - height, 0), max(32 - width, 0)
        return F.pad(inputs, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), value=BACKGROUND)

    def features(self, images: Tensor) -> Tensor:
        """Return the activations of F6, ``[B, 84]``, of images ``[B, 1 or 3, H, W]``."""
        maps = self.squash(self.s2(self.squash(self.c1(self.pixels(images)))))
        maps = self.squash(self.s4(self.squash(self.c3(maps))))
        cells = self.squash(self.c5(maps))  # [B, 120, 1, 1] at 32 pixels
        return self.squash(self.f6(cells.mean((2, 3))))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, K]`` of images ``[B, 1 or 3, H, W]``."""
        return self.output(self.features(images))
