"""Features of proposed regions, and the training of the SVMs on them.

- Features up to fc7 of 200 regions of a photograph of 500 x 375 pixels, with AlexNet's layers: one map for all regions
  (SPP-net's pyramid, Fast R-CNN's RoI pooling), against R-CNN's way, every region through the network.
- SVMs of five classes on 40,000 regions with 256 features: one pass with hard negatives, as published, against
  liblinear on all negatives of each class. Features are random, around a mean for each class.

CPU time of the threads that torch uses.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from striate.benchmarks.harness import Clock, Goal, Row, interleave, median_clock, median_ratio, time_call
from striate.models import RCNN, FastRCNN, SPPNet
from striate.models.detection.two_stage.padded_backbones import PaddedAlexNetBackbone
from striate.models.detection.two_stage.region_svms import (
    ImageRegions,
    SVMSettings,
    fit_linear_svm,
    mean_norm,
    select_negatives,
    train_svms,
)
from striate.models.proposals.sliding_windows import sliding_windows

REGIONS = 200
IMAGES, PROPOSALS, FEATURES, CLASSES = 200, 200, 256, 5
SHARED = Goal(0.25, at_least=False)
HARD = Goal(1, at_least=False)


def run() -> Iterator[Row]:
    """Compare the ways to features, then those to SVMs."""
    yield from feature_rows()
    yield svm_row(make_regions())


def feature_rows() -> Iterator[Row]:
    """Measure the features of the regions of one image, the networks alternately."""
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 375, 500), dtype=torch.uint8)
    boxes = sliding_windows(375, 500, 20, REGIONS)
    rcnn = RCNN(20, "alexnet").eval()
    spp = SPPNet(20, PaddedAlexNetBackbone(), scales=(600,)).eval()
    fast = FastRCNN(20, "alexnet").eval()
    times = interleave(
        {
            "warped": partial(time_call, lambda: rcnn.extract(image, boxes)),
            "SPP-net's pyramid": partial(time_call, lambda: spp.extract(image, boxes)),
            "RoI pooling and detection": partial(time_call, lambda: fast([image], [boxes])),
        },
        repetitions=3,
    )
    for name in ("SPP-net's pyramid", "RoI pooling and detection"):
        what = f"features of {REGIONS} regions, AlexNet, 500x375, {name}; peer: each region through the network"
        yield _row(what, times[name], times["warped"], SHARED)


def make_regions() -> list[ImageRegions]:
    """Images with an object and `PROPOSALS` proposals each; the features of a region depend on its best class."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES + 1, FEATURES, generator=generator)
    images = []
    for index in range(IMAGES):
        corners = 300 * torch.rand(PROPOSALS, 2, generator=generator)
        proposals = torch.cat([corners, corners + 20 + 80 * torch.rand(PROPOSALS, 2, generator=generator)], 1)
        label = torch.tensor([index % CLASSES])
        kinds = torch.full((PROPOSALS + 1,), CLASSES)
        kinds[0] = label
        noise = torch.randn(PROPOSALS + 1, FEATURES, generator=generator)
        images.append(ImageRegions((means[kinds] + 2 * noise).numpy(), proposals[:1] + 1, label, proposals))
    return images


def svm_row(images: list[ImageRegions]) -> Row:
    """Measure both trainings, and the difference of their scores relative to the spread of the scores."""
    settings = SVMSettings()
    norm = mean_norm(images)
    times = interleave(
        {
            "ours": partial(time_call, lambda: train_svms(images, CLASSES, settings, norm)),
            "peer": partial(time_call, lambda: train_plainly(images, settings, norm)),
        },
        repetitions=3,
    )
    svms = train_svms(images, CLASSES, settings, norm)
    weight, bias = train_plainly(images, settings, norm)
    features = torch.from_numpy(np.concatenate([image.features for image in images])) * svms.scale
    ours, peer = (features @ w.T + b for w, b in ((svms.weight, svms.bias), (weight, bias)))
    difference = float((ours - peer).square().mean().sqrt() / peer.std())
    what = (
        f"SVMs of {CLASSES} classes on {IMAGES * (PROPOSALS + 1):,} regions of {FEATURES} features, hard negatives; "
        f"peer: liblinear on all negatives (scores differ by {100 * difference:.1f} % of their deviation)"
    )
    return _row(what, times["ours"], times["peer"], HARD)


def train_plainly(images: list[ImageRegions], settings: SVMSettings, norm: float) -> tuple[Tensor, Tensor]:
    """Train the SVM of each class on all of its negatives: weights ``[K, D]`` and biases ``[K]``."""
    scale = settings.feature_norm / norm
    chosen = [select_negatives(image, CLASSES, settings).numpy() for image in images]
    found = []
    for label in range(CLASSES):
        positives = [image.features[:1] * scale for image in images if int(image.labels[0]) == label]
        negatives = [image.features[1:][rows[:, label]] * scale for image, rows in zip(images, chosen, strict=True)]
        found.append(fit_linear_svm(np.concatenate(positives), np.concatenate(negatives), settings))
    return torch.tensor(np.stack([weight for weight, _, _ in found])), torch.tensor([bias for _, bias, _ in found])


def _row(what: str, ours: list[Clock], peer: list[Clock], goal: Goal) -> Row:
    """A row of CPU times."""
    mine, theirs = median_clock(ours).cpu, median_clock(peer).cpu
    ratio = median_ratio([clock.cpu for clock in ours], [clock.cpu for clock in peer])
    return Row(f"{what}; CPU time", f"{mine:.2f} s", f"{theirs:.2f} s", ratio, goal)
