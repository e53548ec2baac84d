"""Limits the class paths of configurations and checkpoints to packages that are named."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence

from jsonargparse import set_parsing_settings

from .compat import keep_parsing_settings

VARIABLE = "STRIATE_TRUSTED_MODULES"
"""Variable of the environment with the names, separated by commas, for the processes of other ranks too."""

UNSAFE = (
    "torch.hub",
    "torch.load",
    "torch.serialization",
    "torch.package",
    "torch.ops",
    "torch.classes",
    "torch.multiprocessing",
    "torch.distributed",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
    "torch.utils.data.datapipes",
    "pytorch_lightning.cli",
    "striate.experiments",
)
"""Parts of common packages that fetch or run code. Name one of them itself to trust it."""


def trusted_modules() -> list[str] | None:
    """The packages that class paths may name; None: all."""
    value = os.environ.get(VARIABLE)
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


def is_trusted(path: str) -> bool:
    """Whether a class path lies in a trusted package; always true if none are named.

    Args:
        path: Class path. A bare name stands for a class that is imported already.
    """
    trusted = trusted_modules()
    if trusted is None or "." not in path:
        return True
    parts = path.split(".")
    for length in range(len(parts), 0, -1):  # the longest entry decides
        name = ".".join(parts[:length])
        if name in trusted or name in UNSAFE:
            return name in trusted
    return False


@contextlib.contextmanager
def trust_only(modules: Sequence[str] | None) -> Iterator[None]:
    """Refuse all class paths outside some packages, before anything is imported from them.

    Args:
        modules: Names of packages or modules, such as ``["striate", "torch"]``; None: those of the variable
            ``STRIATE_TRUSTED_MODULES``, or all if that is not set.

    Raises:
        ValueError: A name is not that of a module, or is outside those of ``STRIATE_TRUSTED_MODULES``, which whoever
            has started this process has set.
    """
    names = trusted_modules() if modules is None else list(modules)
    if names and (outside := [name for name in names if not is_trusted(f"{name}.any")]):
        raise ValueError(
            f"trusted_modules: must be among those of {VARIABLE}, got {outside[0]!r}, which is not in "
            f"{os.environ[VARIABLE]!r}"
        )
    if names is None:
        yield
        return
    before = os.environ.get(VARIABLE)
    with keep_parsing_settings():
        if not names or not all(part.isidentifier() for name in names for part in name.split(".")):
            raise ValueError(f"trusted_modules: must name packages, such as striate,torch, got {','.join(names)!r}")
        denied = ["*", *(name for name in UNSAFE if name not in names)]
        set_parsing_settings(import_path_denylist=denied, import_path_allowlist=names)
        os.environ[VARIABLE] = ",".join(names)
        try:
            yield
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before


def denied_path(message: str) -> str | None:
    """The class path that jsonargparse has refused to import, by its message; None: the message is another one."""
    match = re.search(r"Importing '([\w.]+)' is not allowed", message)
    return match[1] if match else None


def untrusted(path: str, origin: str) -> str:
    """The message for a class path outside the trusted packages.

    Args:
        path: The class path.
        origin: Where it stands.
    """
    names = ",".join(trusted_modules() or ())
    return f"trusted_modules: must name the package of {path} ({origin}), got {names!r}; add it if you trust its code"
