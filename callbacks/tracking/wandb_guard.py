"""Calls to W&B and to other loggers that can neither stop a run nor make it wait for long."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from pytorch_lightning.utilities.rank_zero import rank_zero_info

T = TypeVar("T")

CALL_THREAD = "logger-call"
"""Name of the threads in which calls run that may wait."""


def wait_for(function: Callable[[], T], seconds: float) -> T:
    """Call a function in a separate thread, and return its result.

    Args:
        function: Called without arguments.
        seconds: Maximum time to wait; the thread itself cannot be stopped.

    Raises:
        TimeoutError: It has not returned in time. Errors of the function are raised as they are.
    """
    result: Future[T] = Future()

    def work() -> None:
        try:
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, name=CALL_THREAD, daemon=True).start()
    return result.result(timeout=seconds)


class Guard:
    """Turns errors of W&B, or of another logger, into one line each, and bounds the time that a call may take.

    Args:
        timeout: Maximum duration of a call, in seconds.
        advice: What becomes of the record when a call fails, for the message.
        name: Name of the logger, to begin the message with.

    Attributes:
        hangs: Whether a call has not returned in time. No other call that may wait is made then.
    """

    def __init__(self, timeout: float, advice: str = "the run continues", name: str = "W&B") -> None:
        self.timeout, self.advice, self.name = timeout, advice, name
        self.hangs = False
        self._reported: set[str] = set()

    def call(self, what: str, function: Callable[[], T], waits: bool = False) -> T | None:
        """Return the result of a call; None if it fails, which is reported in one line.

        Args:
            what: What the call is for, to begin the message with.
            function: The call.
            waits: Whether it may wait for the server or write large files.
        """
        if waits and self.hangs:
            return None
        try:
            return wait_for(function, self.timeout) if waits else function()
        except TimeoutError:
            self.hangs = self.hangs or waits
            self.report(what, f"not done after {self.timeout:g} s; no more calls that may wait")
        except (Exception, SystemExit) as error:
            self.report(what, describe(error))
        return None

    def report(self, what: str, reason: str) -> None:
        """Print one line for each kind of failure, when it first occurs."""
        if what not in self._reported:
            self._reported.add(what)
            rank_zero_info(f"{self.name}: {what} failed ({reason}); {self.advice}")


def describe(error: BaseException) -> str:
    """The first line of an error, without a full stop."""
    text = " ".join(str(error).split("\n", maxsplit=1)[0].split())
    return (text or type(error).__name__).rstrip(".")


@contextlib.contextmanager
def quiet_errors() -> Any:
    """Ignore errors in the cleanup of W&B after a failure that has been reported already."""
    with contextlib.suppress(Exception, SystemExit):
        yield
