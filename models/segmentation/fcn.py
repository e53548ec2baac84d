"""Fully convolutional networks: scores of several maps, coarse to fine, added up by bilinear upsampling."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from ..backbones import Backbone, as_backbone
from ..ops.checks import check_min
from ..weights import LoadReport, State, load_state_dict_file, match_weights, pretrained_is_skipped
from .fcn_backbones import AlexNetFullyConvolutional, FullyConvolutional, VGG16FullyConvolutional
from .fcn_upsampling import BilinearUpsample, Grid, align, crop, half_pixel_grid, offset

_IMAGE = Grid(1, 0.0)

Upsampling = Literal["fixed", "learned"]

AT_ONCE = (0.01, 0.0001)
"""Factors on pool4 and pool3 with which FCN-8s trains in one stage; the authors' ``voc-fcn8s-atonce``."""


class FCN(nn.Module):
    """The skip architecture of FCN over any backbone.

    The backbone's last map and those that ``skips`` names are scored by 1 x 1 convolutions, which start at zero. The
    scores are upsampled to the stride of the next finer ones and added, and in the end upsampled to pixels. `FCN32s`,
    `FCN16s`, `FCN8s` and `FCNAlexNet` are this on a `FullyConvolutional` backbone, with the crop offsets of the paper's
    nets (pool4 5, pool3 9; the image 19, 27 and 31 for strides of 32, 16 and 8). They are not tabulated but follow from
    where cells lie in the image. Of any other backbone it is assumed that its maps divide the image into squares; its
    scores are then extended by their border cells, so that upsampling is what resizing is, up to the border.

    Training as in the authors' solvers is one image a step, SGD with momentum 0.99, weight decay 5e-4, biases at twice
    the rate and without decay (`CaffeSGD`), at 1e-10 for FCN-32s and for FCN-8s at once, 1e-12 for FCN-16s, 1e-14 for
    FCN-8s, with a loss that is **summed** over pixels and not divided. Such rates are useless with a mean: the gradient
    of a mean over N labelled pixels is an N-th of the sum's, so the same step needs N times the rate, and an N-th of
    the weight decay, since that is added to the gradient. VOC's images have N = 1.8e5 pixels, about: rates of 1.8e-5,
    1.8e-7 and 1.8e-9, and a decay of 2.8e-9, which is none. One difference stays: a sum gives large images more weight
    than small ones, a mean does not. (The CVPR paper's own figures are from 20 images a step, momentum 0.9, 1e-4 for
    VGG-16, and a divided loss.)

    Args:
        backbone: A backbone, or the name of one (see `build_backbone`).
        num_classes: Classes K, the background among them.
        skips: Strides, in pixels, of the backbone's finer maps that are scored too, falling: ``(16, 8)`` makes it an
            FCN-8s. Each must divide the one before.
        skip_scales: Fixed factors on the maps of ``skips``, before they are scored: `AT_ONCE` for the paper's FCN-8s in
            one stage. None: 1.
        hidden: Channels of a 3 x 3 convolution with ReLU between the last map and its scores; None: there is none, as
            in the paper, where fc6 and fc7 are in the backbone.
        dropout: Probability of dropping an activation of what is scored for the last map.
        upsampling: ``fixed``: bilinear throughout, as in the authors' code, who found no significant difference.
            ``learned``: the transposed convolutions between scores start so and are trained, the last one is fixed, as
            in the paper.
        weights: Path of an FCN's checkpoint, to go on from: the backbone must fit, and of scores what has the same
            stride and shape is taken (see `load`). None: the backbone as it is, scores at zero.

    Attributes:
        backbone: The backbone.
        scores: The 1 x 1 convolutions, by stride: ``scores["32"]`` is the paper's score_fr, ``["16"]`` its score_pool4.
        ups: The transposed convolutions, by the stride that they start from.
        load_report: What ``weights`` gave, and what they did not.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - output: logits ``[B, K, H, W]``

    Raises:
        ValueError: ``num_classes`` is below 1; ``skips`` are no strides of the backbone; a number of arguments that
            do not go together; ``weights`` without that backbone.
        FileNotFoundError: ``weights`` is the path of a file that does not exist.

    Reference:
        Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015; Shelhamer, Long,
        Darrell, the same, PAMI 2017; the authors' Caffe nets (fcn.berkeleyvision.org).

    Example:
        >>> import torch
        >>> FCN("plain", num_classes=5, skips=(4, 2))(torch.zeros(1, 3, 50, 70, dtype=torch.uint8)).shape
        torch.Size([1, 5, 50, 70])
    """

    def __init__(
        self,
        backbone: Backbone | str,
        num_classes: int,
        skips: Sequence[int] = (),
        skip_scales: Sequence[float] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
        upsampling: Upsampling = "fixed",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes)
        if upsampling not in ("fixed", "learned"):
            raise ValueError(f"upsampling={upsampling!r}: choose 'fixed' or 'learned'")
        self.num_classes = num_classes
        self.backbone = as_backbone(backbone)
        chain = (self.backbone.strides[-1], *skips)
        _check_skips(self.backbone, chain)
        if skip_scales is not None and len(skip_scales) != len(skips):
            raise ValueError(f"skip_scales={tuple(skip_scales)}: give one for each of skips={tuple(skips)}, or none")
        self.chain = chain
        self.skip_scales = dict(zip(skips, skip_scales or (1.0,) * len(skips), strict=True))
        self._maps = {s: i for i, s in enumerate(self.backbone.strides)}  # of equal strides the last
        channels = {stride: self.backbone.channels[i] for stride, i in self._maps.items()}
        self.neck = _neck(channels[chain[0]], hidden, dropout)
        channels[chain[0]] = hidden or channels[chain[0]]
        self.scores = nn.ModuleDict({str(s): nn.Conv2d(channels[s], num_classes, 1) for s in chain})
        self._build_upsampling(upsampling == "learned")
        self.reset_parameters()
        self.load_report: LoadReport | None = None
        if weights is not None and not pretrained_is_skipped():
            self.load(weights)

    def _build_upsampling(self, learned: bool) -> None:
        grids = getattr(self.backbone, "grids", None)  # a `FullyConvolutional` knows them
        grow = grids is None
        grids = [half_pixel_grid(stride) for stride in self.backbone.strides] if grids is None else grids
        self._grids = {stride: grids[index] for stride, index in self._maps.items()} | {1: _IMAGE}
        grid, ups = self._grids[self.chain[0]], {}
        for coarse, fine in zip(self.chain, (*self.chain[1:], 1), strict=True):
            target = self._grids[fine]
            is_learned = learned and fine != 1
            up = BilinearUpsample(self.num_classes, grid, coarse // fine, target.start, is_learned, grow=grow)
            ups[str(coarse)] = up
            grid = target if offset(up.grid, target) > 0 else up.grid  # where `align` will have cut
        self.ups = nn.ModuleDict(ups)

    def reset_parameters(self) -> None:
        """Sets the score layers to zero: every class is as likely as any other, and skips change nothing at first."""
        for layer in self.scores.values():
            nn.init.zeros_(layer.get_parameter("weight"))
            nn.init.zeros_(layer.get_parameter("bias"))

    def score_maps(self, images: Tensor) -> list[Tensor]:
        """The scores of each map by itself, coarse to fine, as large as the map.

        Shape:
            - images: ``[B, 3, H, W]``
            - output: a list of ``[B, K, h, w]``, the last map's first
        """
        maps = self.backbone(images)
        coarse, *skips = self.chain
        scores = [self.scores[str(coarse)](self.neck(maps[self._maps[coarse]]))]
        for stride in skips:
            features, scale = maps[self._maps[stride]], self.skip_scales[stride]
            scores.append(self.scores[str(stride)](features if scale == 1 else features * scale))
        return scores

    def forward(self, images: Tensor) -> Tensor:
        """Gives the logits of each pixel."""
        scores, *skips = self.score_maps(images)
        for index, skip in enumerate(skips):
            up = self.ups[str(self.chain[index])]
            assert isinstance(up, BilinearUpsample)
            first, second = align(up(scores), up.grid, skip, self._grids[self.chain[index + 1]])
            scores = first + second
        up = self.ups[str(self.chain[-1])]
        assert isinstance(up, BilinearUpsample)
        return crop(up(scores), offset(up.grid, _IMAGE), *images.shape[-2:])

    def load(self, source: str | Path | State, origin: str = "the state dict") -> LoadReport:
        """Goes on from another FCN on the same backbone: FCN-16s from FCN-32s, FCN-8s from FCN-16s.

        All of the backbone, and the score layers and learned upsampling of the same stride and shape. What the other
        does not have, a new skip, stays at zero, so that it changes nothing until it is trained.

        Args:
            source: A checkpoint's path, or names -> tensors.
            origin: What messages call a ``source`` that is not a path.

        Returns:
            What was loaded and what was not; kept as `load_report`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file holds no FCN, or its backbone is another one.
        """
        if isinstance(source, (str, Path)):
            origin, source = str(source), load_state_dict_file(source)
        fitting, report = match_weights(self, source, origin=origin)
        lacking = [n for n in (*report.missing, *report.mismatched) if n.startswith("backbone.")]
        if lacking or not any(name.startswith("scores.") for name in (*fitting, *report.mismatched)):
            what = (
                f"{len(lacking)} of its backbone's tensors are missing or of another shape (such as {lacking[0]})"
                if lacking
                else "it has no score layers"
            )
            raise ValueError(
                f"{origin} is no checkpoint of an FCN on {type(self.backbone).__name__}: {what}. Start from a "
                f"classifier with backbone.weights instead, which takes its trunk alone:\n{report.describe()}"
            )
        self.load_state_dict(fitting, strict=False)
        self.load_report = report
        return report


def _neck(channels: int, hidden: int | None, dropout: float) -> nn.Sequential:
    """What lies between the last map and its scores, if anything."""
    layers: list[nn.Module] = []
    if hidden is not None:
        layers += [nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(inplace=True)]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def _check_skips(backbone: Backbone, chain: Sequence[int]) -> None:
    there = backbone.strides[:-1]
    for coarse, fine in pairwise(chain):
        if fine not in there or fine >= coarse or coarse % fine:
            raise ValueError(
                f"skips={tuple(chain[1:])}: {fine} is not the stride of a finer map that divides {coarse}; the "
                f"backbone's last map has stride {chain[0]}, those before it have {', '.join(map(str, there))}"
            )


class _VGGFCN(FCN):
    """An FCN on VGG-16; subclasses say with which skips."""

    _skips: tuple[int, ...] = ()

    def __init__(
        self,
        num_classes: int = 21,
        backbone: FullyConvolutional | None = None,
        upsampling: Upsampling = "fixed",
        weights: str | None = None,
    ) -> None:
        trunk = VGG16FullyConvolutional() if backbone is None else backbone
        super().__init__(trunk, num_classes, self._skips, upsampling=upsampling, weights=weights)


class FCN32s(_VGGFCN):
    """FCN-32s: VGG-16 made convolutional, fc7 scored at every 32nd pixel and upsampled; 134,346,581 parameters.

    Args:
        num_classes: Classes K, the background among them.
        backbone: `VGG16FullyConvolutional`, to which a classifier's weights are given; None: that, with random weights.
        upsampling: See `FCN`; an FCN-32s has one transposed convolution, which is fixed either way.
        weights: Path of an FCN's checkpoint to go on from, see `FCN`.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of any size; output: logits ``[B, K, H, W]``

    Reference and training: see `FCN`.
    """


class FCN16s(_VGGFCN):
    """FCN-16s: FCN-32s and the scores of pool4; 134,357,354 parameters.

    Its ``weights`` are FCN-32s' checkpoint: what it then says at first is what FCN-32s says, interpolated in two steps.
    Arguments and shapes as for `FCN32s`.
    """

    _skips = (16,)


class FCN8s(FCN):
    """FCN-8s: FCN-16s and the scores of pool3; 134,362,751 parameters, as many as the paper's "134M".

    Its ``weights`` are FCN-16s' checkpoint. Or it is trained at once, from a classifier's weights in the backbone,
    with ``skip_scales=(0.01, 0.0001)`` (`AT_ONCE`): without them the large activations of pool4 and pool3 would
    dominate the gradient.

    Args:
        num_classes: Classes K, the background among them.
        backbone: `VGG16FullyConvolutional`, to which a classifier's weights are given; None: that, with random weights.
        upsampling: See `FCN`.
        skip_scales: Fixed factors on pool4 and pool3; None: 1.
        weights: Path of an FCN's checkpoint to go on from, see `FCN`.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of any size; output: logits ``[B, K, H, W]``

    Reference and training: see `FCN`.
    """

    def __init__(
        self,
        num_classes: int = 21,
        backbone: FullyConvolutional | None = None,
        upsampling: Upsampling = "fixed",
        skip_scales: Sequence[float] | None = None,
        weights: str | None = None,
    ) -> None:
        trunk = VGG16FullyConvolutional() if backbone is None else backbone
        super().__init__(trunk, num_classes, (16, 8), skip_scales, upsampling=upsampling, weights=weights)


class FCNAlexNet(FCN):
    """FCN-AlexNet: AlexNet made convolutional, fc7 scored at every 32nd pixel and upsampled.

    Args:
        num_classes: Classes K, the background among them.
        backbone: `AlexNetFullyConvolutional`, to which a classifier's weights are given; None: that of the paper's
            layout, with random weights.
        weights: Path of an FCN's checkpoint to go on from, see `FCN`.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of any size; output: logits ``[B, K, H, W]``

    Reference: as for `FCN`, Table 1 and ``voc-fcn-alexnet``: upsampling by a 63 x 63 kernel, crop offset 18. Its solver
    is another one: 20 images a step, normalised loss, momentum 0.9, rate 1e-4.
    """

    def __init__(
        self, num_classes: int = 21, backbone: FullyConvolutional | None = None, weights: str | None = None
    ) -> None:
        trunk = AlexNetFullyConvolutional() if backbone is None else backbone
        super().__init__(trunk, num_classes, weights=weights)
