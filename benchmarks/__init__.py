"""Benchmarks: striate next to other libraries. ``python -m benchmarks`` in the checkout, installed or not."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("striate") is None:  # not installed, as on a machine without a network
    spec = importlib.util.spec_from_file_location("striate", Path(__file__).parents[1] / "__init__.py")
    assert spec is not None and spec.loader is not None
    sys.modules["striate"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
