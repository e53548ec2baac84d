"""Callbacks: everything that watches or steers a run."""

from .drawing.pictures import ConfusionMatrix, Pictures
from .predictions.writer import PredictionWriter
from .renormalize import RenormalizeFilters
from .reports.activation_comparison import RacePicture
from .reports.detection import DetectionReport
from .resume import GracefulInterrupt, RandomState
from .tracking.record import NetworkSummary, RunRecord, RunReport

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
