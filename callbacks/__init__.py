"""Callbacks: everything that watches or steers a run."""

from .detection_report import DetectionReport
from .pictures import ConfusionMatrix, Pictures
from .predictions import PredictionWriter
from .race import RacePicture
from .record import NetworkSummary, RunRecord, RunReport
from .renormalize import RenormalizeFilters
from .resume import GracefulInterrupt, RandomState

__all__ = [
    "ConfusionMatrix",
    "DetectionReport",
    "GracefulInterrupt",
    "NetworkSummary",
    "Pictures",
    "PredictionWriter",
    "RacePicture",
    "RandomState",
    "RenormalizeFilters",
    "RunRecord",
    "RunReport",
]
