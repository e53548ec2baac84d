"""What tasks and callbacks expect of models, data modules and each other, as protocols for `isinstance`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from ..datamodules.images.bit_depth import ReadOptions
from ..models.ops.masks import RunLengths as RunLengths  # the masks of predictions, for callbacks
from .metrics.coco_detection import COCODetection

EvaluationStage = Literal["val", "test"]

# -- models ----------------------------------------------------------------------------------------


@runtime_checkable
class HasNumClasses(Protocol):
    """A model that knows its number of classes."""

    num_classes: int


@runtime_checkable
class HasBackbone(Protocol):
    """A model with a backbone, which may have another learning rate than the rest."""

    backbone: nn.Module


@runtime_checkable
class HasLearningRateFactors(Protocol):
    """A model of which some parts have another learning rate, as its paper requires."""

    lr_factors: Mapping[str, float]  # name of a submodule -> its learning rate, relative to the rest


@runtime_checkable
class HasAuxiliary(Protocol):
    """A classifier or segmenter with auxiliary heads for training."""

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and the logits of each auxiliary head in the same shape.

        Shape:
            - images: ``[B, 3, H, W]``
            - output: ``[B, K]``, or ``[B, K, H, W]`` from a segmenter
        """
        ...


@runtime_checkable
class ComputesLosses(Protocol):
    """A detector, which computes its own losses."""

    def losses(self, images: Any, targets: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the training losses by name, a scalar each."""
        ...


@runtime_checkable
class MeasuresOffsets(Protocol):
    """A detector that normalizes the offsets of boxes by their statistics on the training set's proposals."""

    offsets_measured: Tensor  # bool scalar, part of checkpoints

    def measure_offsets(self, targets: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure them; each target has ``boxes`` ``[N, 4]``, ``labels`` ``[N]`` and ``proposals`` ``[P, 4]``."""
        ...


@runtime_checkable
class RenormalizesFilters(Protocol):
    """A model that can limit the size of its filters, such as `striate.models.ZFNet`."""

    def renormalize_filters(self, radius: float) -> None:
        """Rescale each filter with a root mean square above `radius` to it."""
        ...


# -- data modules ----------------------------------------------------------------------------------


@runtime_checkable
class HasClassNames(Protocol):
    """A data module that knows the names of its classes."""

    class_names: Sequence[str]


@runtime_checkable
class HasValTransform(Protocol):
    """A data module with a transform of the images that are evaluated and predicted."""

    val_transform: Any


@runtime_checkable
class HasReadOptions(Protocol):
    """A data module that states how ambiguous image files are read."""

    read_options: ReadOptions


@runtime_checkable
class ChecksTargets(Protocol):
    """A data module that says whether its workers validate the targets of each sample."""

    checks_targets: bool


@runtime_checkable
class KnowsDifficult(Protocol):
    """A data module that knows whether there is something to train on without difficult objects."""

    def absence_without_difficult(self) -> str | None:
        """Return why not; None: there is, or it is not known."""
        ...


@runtime_checkable
class HasCategoryIds(Protocol):
    """A data module that keeps the category ids of its source, such as COCO's 1 … 90."""

    category_ids: Sequence[int] | None


# -- tasks -----------------------------------------------------------------------------------------


@runtime_checkable
class Predictor(Protocol):
    """A task with predictions that can be drawn."""

    class_names: Sequence[str]

    def predict(self, images: Tensor) -> list[dict[str, Any]]:
        """Return one prediction per image of a transformed batch. Shape: images ``[B, 3, H, W]``."""
        ...


@runtime_checkable
class ClassReporter(Protocol):
    """A task with results per class."""

    class_names: Sequence[str]

    def confusion_matrix(self, stage: EvaluationStage) -> Tensor | None:
        """Return counts ``[K, K]``, ground truth by prediction; None where the task has no such matrix."""
        ...

    def class_table(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return columns of metrics by name, ``[K]`` each."""
        ...


@runtime_checkable
class DetectionReporter(Protocol):
    """A task with COCO's detection metric, for curves and kinds of error."""

    class_names: Sequence[str]

    def detection_metric(self, stage: EvaluationStage) -> COCODetection:
        """Return the metric of one evaluation stage."""
        ...


@runtime_checkable
class CurveReporter(Protocol):
    """A task with precision-recall curves."""

    class_names: Sequence[str]

    def pr_curves(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return ``recall`` ``[R]``, ``precision`` and ``scores`` ``[K, R]``; empty: the task has too many classes."""
        ...


@runtime_checkable
class ThresholdReporter(Protocol):
    """A task that can recommend a score threshold for each class."""

    class_names: Sequence[str]

    def best_thresholds(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return columns by name, the first ``threshold``: per class, then for all classes together, ``[K + 1]``."""
        ...
