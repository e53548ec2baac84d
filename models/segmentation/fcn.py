"""Fully convolutional networks (FCN): class scores of several maps, upsampled bilinearly and summed."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from ..backbones import Backbone, as_backbone
from ..ops.checks import check_choice, check_dropout, check_min
from ..weights import LoadReport, State, load_state_dict_file, match_weights, pretrained_is_skipped
from .fcn_backbones import AlexNetFullyConvolutional, FullyConvolutional, VGG16FullyConvolutional
from .fcn_upsampling import BilinearUpsample, Grid, align, crop, half_pixel_grid, offset

_IMAGE = Grid(1, 0.0)

Upsampling = Literal["fixed", "learned"]

AT_ONCE = (0.01, 0.0001)
"""Factors on pool4 and pool3 for training FCN-8s in one stage, as in the authors' ``voc-fcn8s-atonce``."""


class FCN(nn.Module):
    """The skip architecture of FCN with any backbone.

    The backbone's last map and those of ``skips`` are scored by 1 x 1 convolutions, which are initialized with zeros.
    The scores are upsampled to the stride of the next finer ones and added; the sum is upsampled to pixels. `FCN32s`,
    `FCN16s`, `FCN8s` and `FCNAlexNet` have a `FullyConvolutional` backbone and the crop offsets of the paper's nets
    (pool4 5, pool3 9; the image 19, 27 and 31 for strides of 32, 16 and 8). The offsets are computed from the positions
    of cells in the image. The maps of any other backbone are assumed to divide the image into squares; its scores are
    extended by their border cells, so that upsampling equals resizing up to the border.

    The authors train with one image per step, SGD with momentum 0.99, weight decay 5e-4, biases at twice the learning
    rate and without decay (`CaffeSGD`). The learning rate is 1e-10 for FCN-32s and for FCN-8s at once, 1e-12 for
    FCN-16s and 1e-14 for FCN-8s, with a loss that is **summed** over pixels and not divided. Such rates do not work
    with a mean: the gradient of a mean over N labeled pixels is 1 / N of the sum's, so the same step needs N times the
    rate, and 1 / N of the weight decay, which is added to the gradient. VOC's images have about N = 1.8e5 pixels, which
    gives rates of 1.8e-5, 1.8e-7 and 1.8e-9, and a negligible decay of 2.8e-9. One difference remains: a sum gives
    large images more weight than small ones, a mean does not. (The results in the CVPR paper are from 20 images per
    step, momentum 0.9, 1e-4 for VGG-16, and a divided loss.)

    Args:
        backbone: A backbone, or its name (see `build_backbone`).
        num_classes: Number K of classes, including the background.
        skips: Strides of the backbone's finer maps that are scored too, in pixels and decreasing: ``(16, 8)`` for an
            FCN-8s. Each must divide the previous one.
        skip_scales: Fixed factors on the maps of ``skips`` before scoring: `AT_ONCE` for the paper's FCN-8s in one
            stage. ``None``: 1.
        hidden: Channels of a 3 x 3 convolution with ReLU between the last map and its scores. ``None``: no such layer,
            as in the paper, whose backbone includes fc6 and fc7.
        dropout: Dropout probability of the last map before scoring.
        upsampling: ``fixed``: bilinear, as in the authors' code, who found no significant difference. ``learned``: the
            transposed convolutions between scores are initialized as bilinear and trained, and the last one is fixed,
            as in the paper.
        weights: Path of an FCN's checkpoint to initialize from. The backbone must match; score layers with the same
            stride and shape are loaded (see `load`). ``None``: the backbone is unchanged, score layers are zero.

    Attributes:
        backbone: The backbone.
        scores: The 1 x 1 convolutions by stride: ``scores["32"]`` is the paper's score_fr, ``["16"]`` its score_pool4.
        ups: The transposed convolutions by the stride of their input.
        load_report: Report on the loading of ``weights``, or None.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - output: logits ``[B, K, H, W]``

    Raises:
        ValueError: ``num_classes`` is below 1, ``skips`` are not strides of the backbone, ``skip_scales`` does not
            match them, or ``weights`` does not match the backbone.
        FileNotFoundError: ``weights`` is the path of a missing file.

    Reference:
        Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015; Shelhamer, Long,
        Darrell, same title, PAMI 2017; the authors' Caffe nets (fcn.berkeleyvision.org).

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
        check_min(1, num_classes=num_classes, hidden=hidden)
        check_dropout(dropout=dropout)
        check_choice(("fixed", "learned"), upsampling=upsampling)
        self.num_classes = num_classes
        self.backbone = as_backbone(backbone)
        chain = (self.backbone.strides[-1], *skips)
        _check_skips(self.backbone, chain)
        if skip_scales is not None and len(skip_scales) != len(skips):
            raise ValueError(
                f"skip_scales: must have one factor for each of skips={tuple(skips)}, got {tuple(skip_scales)}"
            )
        self.chain = chain
        self.skip_scales = dict(zip(skips, skip_scales or (1.0,) * len(skips), strict=True))
        self._maps = {s: i for i, s in enumerate(self.backbone.strides)}  # the last of equal strides
        channels = {stride: self.backbone.channels[i] for stride, i in self._maps.items()}
        self.neck = _neck(channels[chain[0]], hidden, dropout)
        channels[chain[0]] = hidden or channels[chain[0]]  # of the map that is scored
        self.scores = nn.ModuleDict({str(s): nn.Conv2d(channels[s], num_classes, 1) for s in chain})
        self._build_upsampling(upsampling == "learned")
        self.reset_parameters()
        self.load_report: LoadReport | None = None
        if weights is not None and not pretrained_is_skipped():
            self.load(weights)

    def _build_upsampling(self, learned: bool) -> None:
        grids = getattr(self.backbone, "grids", None)  # of a `FullyConvolutional`
        grow = grids is None
        grids = [half_pixel_grid(stride) for stride in self.backbone.strides] if grids is None else grids
        self._grids = {stride: grids[index] for stride, index in self._maps.items()} | {1: _IMAGE}
        grid, ups = self._grids[self.chain[0]], {}
        for coarse, fine in zip(self.chain, (*self.chain[1:], 1), strict=True):
            target = self._grids[fine]
            is_learned = learned and fine != 1
            # one filter per class
            up = BilinearUpsample(self.num_classes, grid, coarse // fine, target.start, is_learned, grow=grow)
            ups[str(coarse)] = up
            grid = target if offset(up.grid, target) > 0 else up.grid  # the grid after `align`
        self.ups = nn.ModuleDict(ups)

    def reset_parameters(self) -> None:
        """Set the score layers to zero: all classes are equally likely, and new skips have no effect at first."""
        for layer in self.scores.values():
            nn.init.zeros_(layer.get_parameter("weight"))
            nn.init.zeros_(layer.get_parameter("bias"))

    def score_maps(self, images: Tensor) -> list[Tensor]:
        """Compute the scores of each map at its resolution, from coarse to fine.

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
        """Return the logits ``[B, K, H, W]`` of images ``[B, 3, H, W]``."""
        scores, *skips = self.score_maps(images)
        for index, skip in enumerate(skips):
            up = self.ups[str(self.chain[index])]
            assert isinstance(up, BilinearUpsample)
            # [B, K, h, w] both, cropped to their overlap
            first, second = align(up(scores), up.grid, skip, self._grids[self.chain[index + 1]])
            scores = first + second
        up = self.ups[str(self.chain[-1])]
        assert isinstance(up, BilinearUpsample)
        return crop(up(scores), offset(up.grid, _IMAGE), *images.shape[-2:])

    def load(self, source: str | Path | State, origin: str = "the state dict") -> LoadReport:
        """Initialize from another FCN with the same backbone: FCN-16s from FCN-32s, FCN-8s from FCN-16s.

        Loads the whole backbone, and the score layers and learned upsampling with the same stride and shape. A new skip
        stays at zero, so that it has no effect until it is trained.

        Args:
            source: Path of a checkpoint, or tensors by name.
            origin: Name in messages of a ``source`` that is not a path.

        Returns:
            A report on the tensors that were loaded and those that were not; also in `load_report`.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is not an FCN's checkpoint, or has another backbone.
        """
        if isinstance(source, (str, Path)):
            origin, source = str(source), load_state_dict_file(source)
        fitting, report = match_weights(self, source, origin=origin)
        absent = [n for n in (*report.missing, *report.mismatched) if n.startswith("backbone.")]
        if absent or not any(name.startswith("scores.") for name in (*fitting, *report.mismatched)):
            reason = (
                f"{len(absent)} tensors of the backbone are missing or have another shape, such as {absent[0]}"
                if absent
                else "it has no score layers"
            )
            raise ValueError(
                f"{origin} does not match an FCN with {type(self.backbone).__name__} ({reason}); use backbone.weights "
                f"to load the trunk of a classifier:\n{report.describe()}"
            )
        self.load_state_dict(fitting, strict=False)
        self.load_report = report
        return report


def _neck(channels: int, hidden: int | None, dropout: float) -> nn.Sequential:
    """Build the layers between the last map and its scores, possibly none."""
    layers: list[nn.Module] = []
    if hidden is not None:
        layers += [nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(inplace=True)]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def _check_skips(backbone: Backbone, chain: Sequence[int]) -> None:
    finer = backbone.strides[:-1]
    for coarse, fine in pairwise(chain):
        if fine not in finer or fine >= coarse or coarse % fine:
            raise ValueError(
                f"skips: {fine} is not the stride of a finer map that divides {coarse}, got {tuple(chain[1:])}; the "
                f"backbone's last map has stride {chain[0]}, finer maps have {', '.join(map(str, finer))}"
            )


class _VGGFCN(FCN):
    """An FCN with VGG-16; subclasses define the skips."""

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
    """FCN-32s: a convolutional VGG-16 whose fc7 is scored at every 32nd pixel and upsampled; 134,346,581 parameters.

    Args:
        num_classes: Number K of classes, including the background.
        backbone: A `VGG16FullyConvolutional`, whose ``weights`` are a classifier's. ``None``: with random weights.
        upsampling: See `FCN`. An FCN-32s has a single transposed convolution, which is fixed in both cases.
        weights: Path of an FCN's checkpoint to initialize from, see `FCN`.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of any size; output: logits ``[B, K, H, W]``

    Reference and training: see `FCN`.
    """


class FCN16s(_VGGFCN):
    """FCN-16s: FCN-32s with the scores of pool4 added; 134,357,354 parameters.

    Initialize it with FCN-32s' checkpoint as ``weights``: its first output is that of FCN-32s, interpolated in two
    steps. Arguments and shapes are those of `FCN32s`.
    """

    _skips = (16,)


class FCN8s(FCN):
    """FCN-8s: FCN-16s with the scores of pool3 added; 134,362,751 parameters, the paper's "134M".

    Initialize it with FCN-16s' checkpoint as ``weights``. Alternatively, train it at once from a classifier's weights
    in the backbone, with ``skip_scales=(0.01, 0.0001)`` (`AT_ONCE`): without these factors, the large activations of
    pool4 and pool3 dominate the gradient.

    Args:
        num_classes: Number K of classes, including the background.
        backbone: A `VGG16FullyConvolutional`, whose ``weights`` are a classifier's. ``None``: with random weights.
        upsampling: See `FCN`.
        skip_scales: Fixed factors on pool4 and pool3. ``None``: 1.
        weights: Path of an FCN's checkpoint to initialize from, see `FCN`.

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
    """FCN-AlexNet: a convolutional AlexNet whose fc7 is scored at every 32nd pixel and upsampled.

    Args:
        num_classes: Number K of classes, including the background.
        backbone: An `AlexNetFullyConvolutional`, whose ``weights`` are a classifier's. ``None``: with the paper's
            layout and random weights.
        weights: Path of an FCN's checkpoint to initialize from, see `FCN`.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of any size; output: logits ``[B, K, H, W]``

    Reference: as for `FCN`, Table 1 and ``voc-fcn-alexnet``: upsampling by a 63 x 63 kernel, crop offset 18. Its solver
    differs: 20 images per step, normalized loss, momentum 0.9, learning rate 1e-4.
    """

    def __init__(
        self, num_classes: int = 21, backbone: FullyConvolutional | None = None, weights: str | None = None
    ) -> None:
        trunk = AlexNetFullyConvolutional() if backbone is None else backbone  # with random weights
        super().__init__(trunk, num_classes, weights=weights)
