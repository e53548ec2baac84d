"""Settings that all parsers of the command line share."""

from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from .compat import keep_own_defaults

PARSER: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
"""Arguments of every parser: raise ArgumentError, which is explained in one line, and accept no abbreviated keys."""


def prepare_parsing() -> None:
    """Let ``None`` on the command line mean ``null``, and let a class that replaces another have its own defaults.

    jsonargparse (4.53) itself writes ``None`` when it passes an override such as ``--model.model.backbone.weights
    null`` down through nested classes, and would then read it as text.
    """
    keep_own_defaults()
    load = get_loader("yaml")
    set_loader("yaml", lambda text: None if text.strip() == "None" else load(text), (yaml.YAMLError,))
