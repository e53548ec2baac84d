"""Callbacks: everything that observes or controls a run."""

from .checkpoint_io import AtomicCheckpointIO
from .drawing.pictures import Pictures
from .predictions.writer import PredictionWriter
from .region_stages import RegionStages
from .renormalize_filters import RenormalizeFilters
from .reports.activation_comparison import ActivationComparisonPlot
from .reports.classes import ClassReport
from .reports.detection import DetectionReport
from .resume import GracefulInterrupt, LastCheckpoint, RandomState
from .tracking.record import NetworkSummary, RunRecord
from .tracking.report import RunReport
from .tracking.wandb_checkpoints import CheckpointArtifacts
from .tracking.wandb_record import WandbRecord

__all__ = [
    "ActivationComparisonPlot",
    "AtomicCheckpointIO",
    "CheckpointArtifacts",
    "ClassReport",
    "DetectionReport",
    "GracefulInterrupt",
    "LastCheckpoint",
    "NetworkSummary",
    "Pictures",
    "PredictionWriter",
    "RandomState",
    "RegionStages",
    "RenormalizeFilters",
    "RunRecord",
    "RunReport",
    "WandbRecord",
]
