"""The tasks: one LightningModule each, over a base that owns the steps."""

from .activation_comparison import TrainingRace
from .base import Task
from .classification import Classification
from .detection import Detection
from .localization import Localization
from .schedules import Constant, Cosine, Plateau, Polynomial, Schedule, Steps
from .semantic_segmentation import SemanticSegmentation

__all__ = [
    "Classification",
    "Constant",
    "Cosine",
    "Detection",
    "Localization",
    "Plateau",
    "Polynomial",
    "Schedule",
    "SemanticSegmentation",
    "Steps",
    "Task",
    "TrainingRace",
]
