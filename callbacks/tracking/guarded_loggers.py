"""Loggers of a configuration whose calls can neither stop a run nor make it wait for long."""

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyLogger

from .wandb_guard import CALL_THREAD, Guard

TIMEOUT = 60.0
"""Maximum duration of a call to a logger, in seconds."""

CALLS = ("log_metrics", "log_hyperparams", "save", "finalize", "after_save_checkpoint")
"""Methods that Lightning calls and that may wait for a server. `log_graph` runs the network, so it has no limit."""

_guards: WeakKeyDictionary[Logger, Guard] = WeakKeyDictionary()


def guard_of(logger: Logger, record: Path | None = None) -> Guard:
    """The guard of a logger, which reports its first failure only.

    Args:
        logger: Any logger but striate's for W&B, which has its own.
        record: The folder with all that is logged, for the message.
    """
    if logger not in _guards:
        complete = "" if record is None else f", and {record} has all of it"
        advice = f"the run continues, its record there may be incomplete{complete}"
        _guards[logger] = Guard(TIMEOUT, advice, type(logger).__name__)
    return _guards[logger]


def guard_logger(logger: Logger, record: Path) -> None:
    """Let no call of a logger fail: its class becomes a subclass in which errors turn into one line.

    A client that cannot be started is replaced by one that does nothing, as Lightning does on other ranks.

    Args:
        logger: A logger of the configuration.
        record: Folder of the run, with all that is logged.
    """
    guard_of(logger, record)
    original = type(logger)
    guarded: dict[str, Any] = {name: _guarded(getattr(original, name), waits=True) for name in CALLS}
    guarded["log_graph"] = _guarded(original.log_graph, waits=False)
    if isinstance(experiment := getattr(original, "experiment", None), property):
        guarded["experiment"] = property(_guarded(experiment.fget, waits=True, otherwise=DummyLogger().experiment))
    logger.__class__ = type(original.__name__, (original,), {"__module__": original.__module__, **guarded})


def _guarded(call: Any, waits: bool, otherwise: Any = None) -> Callable[..., Any]:
    """A method that calls another under the guard of its logger, and returns `otherwise` if that fails."""

    @functools.wraps(call)
    def method(self: Logger, *args: Any, **kwargs: Any) -> Any:
        if threading.current_thread().name == CALL_THREAD:  # within another guarded call, which reports
            return call(self, *args, **kwargs)
        result = guard_of(self).call("recording", lambda: call(self, *args, **kwargs), waits)
        return otherwise if result is None else result

    return method
