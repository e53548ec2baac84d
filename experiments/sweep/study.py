"""The study of a sweep in Optuna's storage, which several processes can share, and the values of its trials.

A trial is claimed by changing its state from waiting to running, which succeeds for one process only. Its values depend
on its number and the seed, so that no process and no resumed sweep repeats those of another trial.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from .parameters import EPSILON, LOGARITHMIC, Parameter, label
from .spec import Sweep

optuna.logging.set_verbosity(optuna.logging.WARNING)

ATTRIBUTE = "striate"
"""Attribute of the study that holds what `SharedStudy.open` writes."""

QUANTILE = " (quantile)"
"""Ending of a stored name whose value is a quantile, since Optuna has no normal or beta distribution."""


def open_storage(location: str) -> BaseStorage:
    """Open Optuna's storage: a database URL such as ``sqlite:///study.db``, or else the path of a journal file.

    Raises:
        ValueError: It cannot be opened; the message is one line.
    """
    try:
        if "://" in location:
            return open_database(location)
        # absolute: the lock of a killed process is a link to this path, and only a link that resolves grows old
        path = Path(location).expanduser().absolute()
        if path.is_dir():
            raise IsADirectoryError(21, "is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileSymlinkLock(str(path))
        drop_incomplete_line(path, lock)
        return JournalStorage(JournalFileBackend(str(path), lock))
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"--storage: cannot be opened ({reason}), got {location!r}; give the path of a journal file, or a URL of "
            "a database such as sqlite:///study.db"
        ) from error


def open_database(url: str, attempts: int = 5) -> RDBStorage:
    """Open a database; again if another process creates its tables at the same moment."""
    for attempt in range(attempts):
        try:
            return RDBStorage(url)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            busy = re.search("exists|unique|duplicate|locked", str(error), re.IGNORECASE)
            if busy is None or attempt == attempts - 1:
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError  # the last attempt returns or raises


def drop_incomplete_line(path: Path, lock: JournalFileSymlinkLock) -> None:
    """Remove a last line without its end, which a process that was killed while writing has left."""
    if not path.is_file() or not os.access(path, os.W_OK) or ends_with_newline(path):
        return
    lock.acquire()
    try:
        if not ends_with_newline(path):
            content = path.read_bytes()
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()


def ends_with_newline(path: Path) -> bool:
    """Whether a file is empty or its last line is complete."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def storage_distribution(parameter: Parameter) -> tuple[str, BaseDistribution]:
    """Name and distribution under which Optuna stores a parameter that is not constant."""
    if parameter.choices:
        return parameter.name, CategoricalDistribution(list(dict.fromkeys(parameter.labels)))
    if parameter.bounds is None:
        return parameter.name + QUANTILE, FloatDistribution(EPSILON, 1 - EPSILON)
    low, high = parameter.bounds
    if parameter.distribution == "int_uniform":
        return parameter.name, IntDistribution(int(low), int(high))
    return parameter.name, FloatDistribution(low, high, log=parameter.base in LOGARITHMIC)


def trial_values(sweep: Sweep, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all parameters, from Optuna's record of a trial."""
    values = {}
    for parameter in sweep.parameters:
        name = parameter.name
        if parameter.distribution == "constant":
            values[name] = parameter.choices[0]
        elif name + QUANTILE in stored:
            values[name] = parameter.finish(parameter.quantile(stored[name + QUANTILE]))
        elif name in stored:
            values[name] = parameter.finish(stored[name])
    return values


def derive_seed(*parts: Any) -> int:
    """A seed that depends on all parts."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:4], "big")


class DrawingSampler(BaseSampler):
    """Draws each parameter from its distribution.

    Args:
        parameters: The parameters.
        seed: Seed of the sweep.
    """

    def __init__(self, parameters: Sequence[Parameter], seed: int) -> None:
        self.parameters = {storage_distribution(one)[0]: one for one in parameters if one.distribution != "constant"}
        self.seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """No parameters are drawn together."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """No parameters are drawn together."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter; the value depends on seed, number of the trial and name."""
        share = float(np.random.default_rng(derive_seed(self.seed, trial.number, param_name)).uniform())
        if param_name.endswith(QUANTILE):
            return min(max(share, EPSILON), 1 - EPSILON)
        return self.parameters[param_name].quantile(share)


class GridSampler(DrawingSampler):
    """Takes the point of the grid that has the number of the trial.

    Args:
        parameters: The parameters.
        points: The points of the grid.
    """

    def __init__(self, parameters: Sequence[Parameter], points: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(parameters, seed=0)
        self.points = points

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of a parameter at that point."""
        value = self.points[trial.number][param_name]
        return label(value) if isinstance(param_distribution, CategoricalDistribution) else value


class BayesSampler(TPESampler):
    """TPE, whose first trials are drawn from the distributions of W&B.

    Args:
        drawing: Draws the first trials.
        seed: Seed of TPE.
    """

    def __init__(self, drawing: DrawingSampler, seed: int) -> None:
        super().__init__(seed=seed, multivariate=True, constant_liar=True)
        self.drawing = drawing

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter of the first trials."""
        return self.drawing.sample_independent(study, trial, param_name, param_distribution)


@dataclass
class SharedStudy:
    """The study of a sweep.

    Attributes:
        sweep: The sweep.
        storage: Where it is stored.
        study: Optuna's study.
        folder: Folder of the trials and of the report.
        seed: Seed of the values.
        joined: Whether it existed before.
    """

    sweep: Sweep
    storage: BaseStorage
    study: Study
    folder: Path
    seed: int
    joined: bool

    @classmethod
    def open(cls, sweep: Sweep, storage: BaseStorage, name: str, folder: Path, seed: int) -> "SharedStudy":
        """Create the study, or join the one of this name.

        Args:
            sweep: The sweep.
            storage: Where it is stored.
            name: Name of the study.
            folder: Folder for a new study; an existing one keeps its own.
            seed: Seed for a new study; an existing one keeps its own.

        Raises:
            ValueError: The existing study is that of another sweep.
        """
        state = {"sweep": json.loads(json.dumps(sweep.identity())), "folder": str(folder.resolve()), "seed": seed}
        joined = name in optuna.get_all_study_names(storage)
        if not joined:
            try:
                optuna.create_study(storage=storage, study_name=name, direction=sweep.metric.goal)
            except DuplicatedStudyError:
                joined = True
        study = optuna.load_study(study_name=name, storage=storage)
        if joined and not wait_for_attribute(study) and study.trials:
            raise ValueError(f"--name: the storage has a study of another program, got {name!r}; choose another")
        if ATTRIBUTE not in study.user_attrs:
            study.set_user_attr(ATTRIBUTE, state)
        known = study.user_attrs[ATTRIBUTE]
        before, now = known["sweep"], state["sweep"]
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if changed:
            raise ValueError(
                f"{changed[0]}: differs from that of the stored sweep {name!r}; restore it, or start a new sweep with "
                "another --name"
            )
        return cls(sweep, storage, study, Path(known["folder"]), known["seed"], joined)

    def trials(self) -> list[FrozenTrial]:
        """All trials that have started, by number."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]

    def running(self) -> list[int]:
        """Numbers of the trials that run, or were interrupted."""
        return [trial.number for trial in self.trials() if trial.state == TrialState.RUNNING]

    def waiting(self, limit: int) -> list[int]:
        """Numbers of the unclaimed trials, up to a limit; one is added if there are none."""
        trials = self.study.get_trials(deepcopy=False)
        found = [trial.number for trial in trials if trial.state == TrialState.WAITING and trial.number < limit]
        if not found and len(trials) < limit:
            self.study.add_trial(create_trial(state=TrialState.WAITING))
            return self.waiting(limit)
        return found

    def claim(self, number: int) -> bool:
        """Change the state of a trial from waiting to running; false if another process was faster."""
        try:
            return self.storage.set_trial_state_values(self.identifier(number), TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def identifier(self, number: int) -> int:
        """The storage's own number of a trial."""
        study = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def draw(self, number: int) -> tuple[Trial, dict[str, Any]]:
        """The trial of a number, which must be running, and its values: those it has already, or new ones."""
        drawing = DrawingSampler(self.sweep.parameters, self.seed)
        if self.sweep.method == "grid":
            self.study.sampler = GridSampler(self.sweep.parameters, self.sweep.grid())
        elif self.sweep.method == "bayes":
            self.study.sampler = BayesSampler(drawing, derive_seed(self.seed, number))
        else:
            self.study.sampler = drawing
        trial = Trial(self.study, self.identifier(number))
        for parameter in self.sweep.parameters:
            if parameter.distribution != "constant":
                suggest(trial, *storage_distribution(parameter))
        return trial, trial_values(self.sweep, trial.params)

    def histories(self, number: int) -> list[list[float]]:
        """The logged values of all trials but one, with the sign that makes less better."""
        sign = self.sweep.metric.sign
        return [
            [sign * trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
            for trial in self.trials()
            if trial.number != number and trial.intermediate_values
        ]

    def reached_target(self) -> bool:
        """Whether a trial has reached the target of the metric."""
        return any(
            self.sweep.metric.reaches_target(value)
            for trial in self.trials()
            for value in trial.intermediate_values.values()
        )


def wait_for_attribute(study: Study, seconds: float = 10) -> bool:
    """Wait until the process that has created a study has also described it; false if it was killed before."""
    deadline = time.monotonic() + seconds
    while ATTRIBUTE not in study.user_attrs:
        if study.trials or time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """Let Optuna choose and store a value."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
