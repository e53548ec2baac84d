"""All windows of an image of 500 x 375 pixels, classified one by one and in one pass per scale.

A trunk without padding and fully connected layers on windows of 64 pixels, four scales, a stride of 8 pixels. CPU time
and wall time are those of the threads that torch uses. Both ways give the same probabilities.
"""

from collections.abc import Iterator

import torch

from striate.benchmarks.harness import Goal, Row
from striate.models import FullyConnectedHead, SlidingWindowDetector, TrunkWithHead, UnpaddedCNN

SIDES = (64, 96, 128, 192)


def run() -> Iterator[Row]:
    """Compare the two ways, with and without OverFeat's dense pooling."""
    torch.manual_seed(0)
    trunk = UnpaddedCNN((32, 64, 64), (5, 3, 3), (2, 2, 2))
    classifier = TrunkWithHead(trunk, FullyConnectedHead(64, 6, 21, hidden=256), 64)
    image = torch.randint(0, 256, (1, 3, 375, 500), dtype=torch.uint8)
    for dense in (False, True):
        detector = SlidingWindowDetector(20, classifier, sides=SIDES, ratios=(1.0,), dense_pooling=dense)
        found = detector.compare_ways(image)
        yield Row(
            f"{found.windows} windows of 500x375, stride {detector.stride}, in one pass per scale"
            f"{' with dense pooling' if dense else ''}; peer: window by window (difference {found.difference:.0e})",
            f"{found.convolutional:.2f} s",
            f"{found.crops:.2f} s",
            found.convolutional / found.crops,
            None if dense else Goal(1, at_least=False),
        )
