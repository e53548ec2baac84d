"""Private names of torchvision that the benchmarks measure against."""

from torchvision.models.detection._utils import Matcher, SSDMatcher

__all__ = ["Matcher", "SSDMatcher"]
