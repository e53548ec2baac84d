"""Learning-rate schedules that count steps or epochs and take the length of training from the trainer.

torch's schedulers need the length of training as a number, and count either steps or epochs without knowing which.
The schedules here need neither: the task builds them with the `Horizon` of its trainer. torch's own schedulers remain
usable (see `Task`); Lightning steps them once per epoch.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from ..datamodules.base import Unpack
from ..models.ops.checks import check_choice, check_dropout, check_fraction, check_min, indexed

Unit = Literal["step", "epoch"]


@dataclass(frozen=True)
class Horizon:
    """Length of a training run.

    Attributes:
        steps: Total number of optimizer steps; ``inf`` when training has no end.
        steps_per_epoch: Optimizer steps per epoch.
    """

    steps: float
    steps_per_epoch: float

    def length(self, unit: Unit) -> float:
        """Return the length in optimizer steps or epochs."""
        return self.steps if unit == "step" else math.ceil(self.steps / self.steps_per_epoch)


class WarmupOptions(TypedDict, total=False):
    """Arguments of the warmup that schedules pass on to `Schedule`, which documents them and defines their defaults."""

    warmup: int
    warmup_start: float


class ScheduleOptions(WarmupOptions, total=False):
    """All arguments of `Schedule`, for a schedule that has no unit of its own."""

    unit: Unit


class Schedule:
    """Base class: a factor on the learning rate as a function of time. Subclasses supply `factor`.

    Args:
        warmup: Duration of a linear warmup at the start, in `unit`.
        warmup_start: Factor at the start of the warmup.
        unit: Unit of `warmup` and all other durations of the schedule, and how often the rate changes: optimizer
            ``step`` or ``epoch``.

    Raises:
        ValueError: `warmup` is negative, `warmup_start` is outside [0, 1], or `unit` is unknown.
    """

    needs_end = True

    def __init__(self, warmup: int = 0, warmup_start: float = 0.0, unit: Unit = "step") -> None:
        check_choice(get_args(Unit), unit=unit)
        check_min(0, warmup=warmup)
        check_fraction(warmup_start=warmup_start)
        self.warmup, self.warmup_start, self.unit = warmup, warmup_start, unit

    def factor(self, time: float, end: float) -> float:
        """Return the factor after `time` of `end` units of training, without the warmup."""
        raise NotImplementedError

    def __call__(self, time: float, end: float) -> float:
        """Return the factor after `time` of `end` units; during the warmup, `factor` is scaled down."""
        factor = self.factor(time, end)
        if time < self.warmup:
            return factor * (self.warmup_start + (1 - self.warmup_start) * time / self.warmup)
        return factor

    def _progress(self, time: float, end: float) -> float:
        """The part of the training after the warmup that is over, from 0 to 1."""
        return min(max(time - self.warmup, 0) / max(end - self.warmup, 1), 1.0)

    def build(self, optimizer: Optimizer, horizon: Horizon, monitor: str, mode: str) -> dict[str, Any]:
        """Build Lightning's ``lr_scheduler`` dictionary.

        Raises:
            ValueError: The schedule depends on the length of training, and training has no end.
        """
        end = horizon.length(self.unit)
        if self.needs_end and math.isinf(end):
            raise ValueError(
                f"{type(self).__name__} needs the length of training, got a trainer without an end; set its max_epochs "
                "or max_steps"
            )
        if self.warmup > end:
            warnings.warn(
                f"training ends before the full learning rate (warmup of {self.warmup} {self.unit}s, training of "
                f"{end:g}): reduce warmup",
                stacklevel=2,
            )
        return {"scheduler": LambdaLR(optimizer, lambda time: self(time, end)), "interval": self.unit}


class Constant(Schedule):
    """The same learning rate throughout, after the warmup."""

    needs_end = False

    def factor(self, time: float, end: float) -> float:
        """Return 1, independently of the time."""
        return 1.0


class Steps(Schedule):
    """Multiply the learning rate by `gamma` at each milestone, as AlexNet, VGG, ResNet and the R-CNNs do.

    Args:
        milestones: Times of the changes, in `unit`, ascending.
        gamma: Factor per milestone.
        unit: Unit of all durations: optimizer ``step`` or ``epoch``.
        **kwargs: ``warmup`` and ``warmup_start`` of `Schedule`.

    Raises:
        ValueError: `milestones` are negative or not ascending, or `gamma` or an argument of `Schedule` is out of range.
    """

    needs_end = False

    def __init__(
        self,
        milestones: Sequence[int],
        gamma: float = 0.1,
        unit: Unit = "epoch",
        **kwargs: Unpack[WarmupOptions],
    ) -> None:
        super().__init__(unit=unit, **kwargs)
        check_min(0, **indexed("milestones", milestones))
        if list(milestones) != sorted(milestones):
            raise ValueError(f"milestones: must be in ascending order, got {list(milestones)}")
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma: must be in (0, 1], got {gamma}; 0.1 divides the learning rate by 10")
        self.milestones, self.gamma = list(milestones), gamma

    def factor(self, time: float, end: float) -> float:
        """Return ``gamma ** (number of milestones passed)``."""
        return self.gamma ** sum(time >= milestone for milestone in self.milestones)


class Cosine(Schedule):
    """Half a cosine from 1 to `final`, after the warmup (Loshchilov and Hutter, SGDR, eq. 5, without restarts).

    Args:
        final: Factor at the end.
        **kwargs: ``warmup``, ``warmup_start`` and ``unit`` of `Schedule`.

    Raises:
        ValueError: `final` is outside [0, 1], or an argument of `Schedule` is out of range.
    """

    def __init__(self, final: float = 0.0, **kwargs: Unpack[ScheduleOptions]) -> None:
        super().__init__(**kwargs)
        check_fraction(final=final)
        self.final = final

    def factor(self, time: float, end: float) -> float:
        """Return the cosine of the time since the warmup."""
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * self._progress(time, end)))


class Polynomial(Schedule):
    """``(1 - time / end) ** power``, as in the recipes of DeepLab and of GoogLeNet in Caffe.

    Args:
        power: Exponent; 1 is linear.
        final: Factor at the end.
        **kwargs: ``warmup``, ``warmup_start`` and ``unit`` of `Schedule`.

    Raises:
        ValueError: `power` is negative, `final` is outside [0, 1], or an argument of `Schedule` is out of range.
    """

    def __init__(self, power: float = 0.9, final: float = 0.0, **kwargs: Unpack[ScheduleOptions]) -> None:
        super().__init__(**kwargs)
        check_min(0, power=power)
        check_fraction(final=final)
        self.power, self.final = power, final

    def factor(self, time: float, end: float) -> float:
        """Return the polynomial of the time since the warmup."""
        return self.final + (1 - self.final) * (1 - self._progress(time, end)) ** self.power


class Plateau(Schedule):
    """Reduce the learning rate when the task's monitored metric stops improving (AlexNet's authors did so by hand).

    The metric and its direction come from the task.

    Args:
        factor: Factor on the learning rate.
        patience: Epochs without improvement before it is applied.
        threshold: Smallest relative improvement that counts.
        min_lr: Lower bound of the learning rate.

    Raises:
        ValueError: `factor` is outside [0, 1), or another number is negative.
    """

    needs_end = False

    def __init__(self, factor: float = 0.1, patience: int = 5, threshold: float = 1e-4, min_lr: float = 0.0) -> None:
        super().__init__(unit="epoch")
        check_dropout(factor=factor)  # [0, 1)
        check_min(0, patience=patience, threshold=threshold, min_lr=min_lr)
        self.settings = {"factor": factor, "patience": patience, "threshold": threshold, "min_lr": min_lr}

    def build(self, optimizer: Optimizer, horizon: Horizon, monitor: str, mode: str) -> dict[str, Any]:
        """Build Lightning's ``lr_scheduler`` dictionary, which monitors `monitor`."""
        plateau = ReduceLROnPlateau(optimizer, mode=mode, **self.settings)  # type: ignore[arg-type]
        return {"scheduler": plateau, "interval": "epoch", "monitor": monitor}
