"""The tasks: one LightningModule per task, over a base class that owns the steps."""

from .activation_comparison import ActivationComparison
from .base import Task
from .classification import Classification
from .detection import Detection
from .instance_segmentation import InstanceSegmentation
from .interfaces import ClassReporter, DetectionReporter, Predictor
from .localization import Localization
from .schedules import Constant, Cosine, Plateau, Polynomial, Schedule, Steps
from .semantic_segmentation import SemanticSegmentation

__all__ = [
    "ActivationComparison",
    "ClassReporter",
    "Classification",
    "Constant",
    "Cosine",
    "Detection",
    "DetectionReporter",
    "InstanceSegmentation",
    "Localization",
    "Plateau",
    "Polynomial",
    "Predictor",
    "Schedule",
    "SemanticSegmentation",
    "Steps",
    "Task",
]
