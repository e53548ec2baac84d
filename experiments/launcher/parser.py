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
    load = get_loader("yaml")
    set_loader("yaml", lambda text: load_python(text, load), (yaml.YAMLError,))


def load_python(text: str, load: Callable[[str], Any]) -> Any:
    """Load a value with ``None`` in it as Python does, and all others with the loader of YAML.

    >>> load_python("[1, None, 'None']", yaml.safe_load), load_python("[a, null]", yaml.safe_load)
    ([1, None, 'None'], ['a', None])
    """
    if "None" in text and text.strip()[:1] in ("N", "[", "{"):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return ast.literal_eval(text.strip())
    return load(text)
