"""Learning-rate schedules, as data: when to change the rate, by steps or epochs, with a horizon from the trainer.

torch's schedulers must be told how long training lasts, and count either steps or epochs without knowing which.
A schedule here is told neither: the task builds it with the `Horizon` of its trainer. torch's own schedulers
remain usable (see `Task`); Lightning steps them once an epoch.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

Unit = Literal["step", "epoch"]


@dataclass(frozen=True)
class Horizon:
    """How long training lasts.

    Attributes:
        steps: optimizer steps in all; ``inf`` when training has no end.
        steps_per_epoch: optimizer steps an epoch.
    """

    steps: float
    steps_per_epoch: float

    def length(self, unit: Unit) -> float:
        """The horizon in optimizer steps or epochs."""
        return self.steps if unit == "step" else math.ceil(self.steps / self.steps_per_epoch)


class Schedule:
    """A factor on the learning rate as a function of time; subclasses give `factor`.

    Args:
        warmup: duration of a linear rise at the start, in `unit`.
        warmup_start: factor at which that rise starts.
        unit: what `warmup` and every other duration of the schedule counts, and how often the rate changes:
            optimizer ``step`` or ``epoch``.
    """

    needs_end = True

    def __init__(self, warmup: int = 0, warmup_start: float = 0.0, unit: Unit = "step") -> None:
        if warmup < 0:
            raise ValueError(f"scheduler: warmup: {warmup} is negative; give a number of {unit}s")
        self.warmup, self.warmup_start, self.unit = warmup, warmup_start, unit

    def factor(self, time: float, end: float) -> float:
        """The factor `time` units after the start of training (warm-up apart), which lasts `end` units."""
        raise NotImplementedError

    def __call__(self, time: float, end: float) -> float:
        """The factor including warm-up; during warm-up the schedule's own course is scaled."""
        own = self.factor(time, end)
        if time < self.warmup:
            return own * (self.warmup_start + (1 - self.warmup_start) * time / self.warmup)
        return own

    def build(self, optimizer: Optimizer, horizon: Horizon, monitor: str, mode: str) -> dict[str, Any]:
        """Lightning's ``lr_scheduler`` dictionary.

        Raises:
            ValueError: when the schedule needs to know the end of training and there is none.
        """
        end = horizon.length(self.unit)
        if self.needs_end and math.isinf(end):
            raise ValueError(
                f"the schedule {type(self).__name__} needs to know when training ends: "
                "set trainer.max_epochs or trainer.max_steps"
            )
        if self.warmup > end:
            warnings.warn(
                f"the schedule's warm-up of {self.warmup} {self.unit}s is longer than training ({end:g}): the full "
                "rate is never reached",
                stacklevel=2,
            )
        return {"scheduler": LambdaLR(optimizer, lambda time: self(time, end)), "interval": self.unit}


class Constant(Schedule):
    """The same rate throughout, after the warm-up."""

    needs_end = False

    def factor(self, time: float, end: float) -> float:
        """1."""
        return 1.0


class Steps(Schedule):
    """Multiply the rate by `gamma` at each milestone, as AlexNet, VGG, ResNet and the R-CNNs do.

    Args:
        milestones: when, in `unit`.
        gamma: the factor.
        warmup, warmup_start, unit: see `Schedule`.
    """

    needs_end = False

    def __init__(
        self,
        milestones: Sequence[int],
        gamma: float = 0.1,
        warmup: int = 0,
        warmup_start: float = 0.0,
        unit: Unit = "epoch",
    ) -> None:
        super().__init__(warmup, warmup_start, unit)
        if list(milestones) != sorted(milestones):
            raise ValueError(f"scheduler.milestones: {list(milestones)} is not in ascending order")
        self.milestones, self.gamma = list(milestones), gamma

    def factor(self, time: float, end: float) -> float:
        """``gamma ** (number of milestones passed)``."""
        return self.gamma ** sum(time >= milestone for milestone in self.milestones)


class Cosine(Schedule):
    """Half a cosine from 1 to `final`, after the warm-up (Loshchilov and Hutter, SGDR, eq. 5, without restarts).

    Args:
        final: factor at the end.
        warmup, warmup_start, unit: see `Schedule`.
    """

    def __init__(self, final: float = 0.0, warmup: int = 0, warmup_start: float = 0.0, unit: Unit = "step") -> None:
        super().__init__(warmup, warmup_start, unit)
        self.final = final

    def factor(self, time: float, end: float) -> float:
        """The cosine over what the warm-up leaves of the horizon."""
        part = min(max(time - self.warmup, 0) / max(end - self.warmup, 1), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * part))


class Polynomial(Schedule):
    """``(1 - time / end) ** power``, as the DeepLab and GoogLeNet-in-Caffe recipes have it.

    Args:
        power: exponent; 1 is linear.
        final: factor at the end.
        warmup, warmup_start, unit: see `Schedule`.
    """

    def __init__(
        self,
        power: float = 0.9,
        final: float = 0.0,
        warmup: int = 0,
        warmup_start: float = 0.0,
        unit: Unit = "step",
    ) -> None:
        super().__init__(warmup, warmup_start, unit)
        self.power, self.final = power, final

    def factor(self, time: float, end: float) -> float:
        """The polynomial over what the warm-up leaves of the horizon."""
        part = min(max(time - self.warmup, 0) / max(end - self.warmup, 1), 1.0)
        return self.final + (1 - self.final) * (1 - part) ** self.power


class Plateau(Schedule):
    """Divide the rate when the task's monitored metric no longer improves ("by hand", as AlexNet's authors did).

    The metric and its direction are the task's own.

    Args:
        factor: what the rate is multiplied by.
        patience: epochs without improvement before that.
        threshold: smallest relative improvement that counts.
        min_lr: the rate is not lowered below this.
    """

    needs_end = False

    def __init__(self, factor: float = 0.1, patience: int = 5, threshold: float = 1e-4, min_lr: float = 0.0) -> None:
        super().__init__(unit="epoch")
        self.settings = {"factor": factor, "patience": patience, "threshold": threshold, "min_lr": min_lr}

    def build(self, optimizer: Optimizer, horizon: Horizon, monitor: str, mode: str) -> dict[str, Any]:
        """Lightning's ``lr_scheduler`` dictionary, watching `monitor`."""
        plateau = ReduceLROnPlateau(optimizer, mode=mode, **self.settings)  # type: ignore[arg-type]
        return {"scheduler": plateau, "interval": "epoch", "monitor": monitor}
