"""Report errors in one line instead of a traceback. The modules that explain an error are imported only then."""

import os
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from ...callbacks.stop_signals import TERMINATED
from .argument_origins import CommandLine
from .messages import fail
from .runs import is_first_rank

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 plus the number of its signal, as in shells."""


@contextmanager
def one_line_errors(
    command_line: CommandLine,
    config: Callable[[], Any] = lambda: None,
    code: int = 1,
    interrupted: str | None = None,
) -> Iterator[None]:
    """Report errors that the user can fix in one line on the first rank, and exit.

    ``STRIATE_TRACEBACK=1`` in the environment keeps the traceback.

    Args:
        command_line: The arguments of the command.
        config: Returns the resolved configuration, or None as long as there is none.
        code: Exit code for an error of the run. A configuration that does not parse exits with 2.
        interrupted: Message after Ctrl-C, which exits with 130; None: Ctrl-C is not handled here.
    """
    try:
        yield
    except BrokenPipeError:  # `main` handles a reader that has stopped
        raise
    except ArgumentError as error:
        from .config_errors import explain

        message, code = str(explain(str(error), command_line)), 2
    except SIGTERMException as error:  # Lightning's own has no exit code
        raise SystemExit(TERMINATED) from error
    except SystemExit as error:  # Lightning exits with 1 after Ctrl-C, as after an error
        if isinstance(error.__context__, KeyboardInterrupt):
            raise SystemExit(INTERRUPTED) from error
        raise
    except KeyboardInterrupt:
        if interrupted is None:
            raise
        message, code = interrupted, INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MisconfigurationException) as error:
        from .run_errors import describe_error

        description = describe_error(error, command_line, config())
        if description is None or os.environ.get("STRIATE_TRACEBACK"):
            raise
        message = description
    else:
        return
    if is_first_rank():
        fail(message, code)
    raise SystemExit(code)
