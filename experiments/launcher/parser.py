"""Settings that all parsers of the command line share."""

import ast
import contextlib
from collections.abc import Callable
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from .compat import keep_own_defaults

PARSER: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
"""Arguments of every parser: raise ArgumentError, which is explained in one line, and accept no abbreviated keys."""


def prepare_parsing() -> None:
    """Let ``None`` on the command line mean ``null``, and let a class that replaces another have its own defaults.

    jsonargparse (4.53) itself writes ``None`` when it passes an override such as ``--model.model.backbone.weights
    null`` down through nested classes, and would then read it as text. W&B's agent writes lists and mappings as Python
    does, with ``None`` in them.
    """
    keep_own_defaults()
    set_loader("yaml", load_value, (yaml.YAMLError,))


_LOAD: Callable[[str], Any] = get_loader("yaml")
"""jsonargparse's own loader. It is kept once: replaced in each call, it would be called through all earlier ones."""


def load_value(text: str) -> Any:
    """Load a value with ``None`` in it as Python does, and all others as YAML.

    >>> load_value("[1, None, 'None']"), load_value("[a, null]")
    ([1, None, 'None'], ['a', None])
    """
    if "None" in text and text.strip()[:1] in ("N", "[", "{"):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return ast.literal_eval(text.strip())
    return _LOAD(text)
