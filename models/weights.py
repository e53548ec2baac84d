"""Loading weights from checkpoints: safe reading, matching by name and shape, and reports of what was loaded.

Tensor names in a checkpoint often differ from those in the module: it was saved from a wrapper (``module.``,
``_orig_mod.``), from a LightningModule (``model.``), from a model of which a part is needed (``model.backbone.``), or
by another library. The prefix is found by comparing names and shapes; other names are passed as aliases.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from .checkpoint_files import DamagedCheckpointError, UnsafeCheckpointError, read_file, usable_checkpoint

_SKIP: ContextVar[bool] = ContextVar("striate_skip_pretrained", default=False)

_CONTAINERS = ("state_dict", "model", "model_state_dict", "module", "net")
"""Keys under which training programs save a state dict in a checkpoint, in order of preference."""

_MAX_LISTED = 10
"""Maximum number of names of each kind in a message."""

State = Mapping[str, Tensor]


@contextmanager
def skip_pretrained() -> Iterator[None]:
    """Build models without loading ``weights``, inside this context.

    Use it for models whose weights are loaded from a checkpoint afterwards: neither a download nor a file is needed.
    The architecture, and the mean and standard deviation that belong to the weights, do not change.

    Example:
        >>> with skip_pretrained():
        ...     pretrained_is_skipped()
        True
    """
    token = _SKIP.set(True)
    try:
        yield
    finally:
        _SKIP.reset(token)


def pretrained_is_skipped() -> bool:
    """Return whether the caller is inside `skip_pretrained`."""
    return _SKIP.get()


@dataclass(frozen=True)
class LoadReport:
    """The result of matching a state dict with a module.

    Attributes:
        prefix: Prefix removed from the names in the file.
        loaded: Names in the module that match.
        missing: Names in the module that are not in the file.
        unexpected: Names in the file, without the prefix, that are not in the module.
        mismatched: Name in the module -> its shape in the file, its shape in the module.
        origin: The file, or the caller's name for the source.
    """

    prefix: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    origin: str = ""

    @property
    def complete(self) -> bool:
        """Whether all names and shapes of file and module agree."""
        return not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> str:
        """Return the source, the number of loaded tensors, and the differences, as lines of text."""
        prefix = f", prefix {self.prefix!r}" if self.prefix else ""
        return "\n".join(filter(None, [f"from {self.origin}: {len(self.loaded)} tensors{prefix}", self.describe()]))

    def describe(self) -> str:
        """Return the differences as lines of text, at most ten of each kind."""
        shapes = [f"{k}: {list(f)} in the file, {list(m)} in the model" for k, (f, m) in self.mismatched.items()]
        lines = []
        for title, keys in (
            ("missing (in the model, not in the file)", self.missing),
            ("unexpected (in the file, not in the model)", self.unexpected),
            ("with another shape", shapes),
        ):
            if keys:
                more = f", and {len(keys) - _MAX_LISTED} more" if len(keys) > _MAX_LISTED else ""
                lines.append(f"  {len(keys)} {title}: {', '.join(keys[:_MAX_LISTED])}{more}")
        return "\n".join(lines)


@runtime_checkable
class HasLoadReport(Protocol):
    """A module that keeps the report on the weights loaded into it."""

    load_report: LoadReport | None


@runtime_checkable
class DescribesWeights(Protocol):
    """A model that describes in one text what was loaded into its parts."""

    def describe_weights(self) -> str | None:
        """Return lines of text; None: nothing was loaded."""
        ...


def load_state_dict_file(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint to the CPU, without running code from the file.

    The file contains a state dict, either directly or under the key ``state_dict`` (as in Lightning), ``model``,
    ``model_state_dict``, ``module`` or ``net``.

    Args:
        path: A file written by `torch.save`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a checkpoint, has no tensors, or cannot be read without running code from it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weights file at {path}")
    content = _read(path)
    candidates = [content]
    if isinstance(content, Mapping):
        # containers first, since they may have tensors beside the state dict
        candidates = [content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)] + candidates
    for candidate in candidates:
        if isinstance(candidate, Mapping):
            state = {k: v for k, v in candidate.items() if isinstance(k, str) and isinstance(v, Tensor)}
            if state:
                return state
    keys = isinstance(content, Mapping) and sorted(map(str, content))[:_MAX_LISTED]
    raise ValueError(
        f"{path} has no state dict: expected a mapping from names to tensors, directly or under one of the keys "
        f"{', '.join(_CONTAINERS)}, got {f'the keys {keys}' if keys else type(content).__name__}"
    )


def _read(path: Path) -> Any:
    try:
        return read_file(path)
    except UnsafeCheckpointError as error:
        raise ValueError(
            f"{path} was rejected: it has more than tensors and plain values, and loading it would run code from "
            f"the file ({error}); if you trust its source, save its state_dict() alone to a new file"
        ) from error
    except DamagedCheckpointError as error:
        other = usable_checkpoint(path) if path.suffix == ".ckpt" else None
        raise ValueError(
            f"{path} is not a checkpoint: it is damaged, or was not written by torch.save ({error}); "
            + (f"use {other}" if other else "copy or download it again")
        ) from error


def match_weights(
    module: nn.Module,
    state: State,
    *,
    prefixes: Sequence[str] | None = None,
    aliases: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    origin: str = "the state dict",
) -> tuple[dict[str, Tensor], LoadReport]:
    """Match the tensors of a state dict with those of a module, without modifying either.

    Args:
        module: The module to load the tensors into.
        state: Tensors by name.
        prefixes: Prefixes that may be removed. ``None``: the one for which most names and shapes agree.
        aliases: Alternative name -> name in the module. Used only if more tensors match with them.
        ignore: Regular expressions for names in the file, without the prefix, that are not reported as unexpected. They
            match from the start of a name.
        origin: Name of the source in the report.

    Returns:
        The matching tensors by their name in the module, and the report.
    """
    # names of compiled modules, at any level
    state = {re.sub(r"(?<![^.])_orig_mod\.", "", key): value for key, value in state.items()}
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    alias_shapes = {alias: shapes[key] for alias, key in (aliases or {}).items() if key in shapes}
    prefix, score = _best_prefix(state, shapes, prefixes)
    rename: Mapping[str, str] = {}
    if alias_shapes:
        alias_prefix, alias_score = _best_prefix(state, alias_shapes, prefixes)
        if alias_score > score:
            prefix, rename = alias_prefix, aliases or {}

    fitting: dict[str, Tensor] = {}
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    unexpected = []
    for full_key, value in state.items():
        if not full_key.startswith(prefix):
            continue
        key = full_key[len(prefix) :]
        name = rename.get(key, key)
        if name not in shapes:
            if not any(re.match(pattern, key) for pattern in ignore):
                unexpected.append(key)
        elif tuple(value.shape) == shapes[name]:
            fitting[name] = value
        else:
            mismatched[name] = (tuple(value.shape), shapes[name])
    # Files from before PyTorch 0.4.1 have no num_batches_tracked, which is used with a momentum of None only.
    missing = [k for k in shapes if k not in fitting and k not in mismatched and not k.endswith("num_batches_tracked")]
    return fitting, LoadReport(prefix, tuple(fitting), tuple(missing), tuple(unexpected), mismatched, origin)


def _best_prefix(
    state: State, shapes: Mapping[str, tuple[int, ...]], allowed: Sequence[str] | None
) -> tuple[str, tuple[int, int]]:
    """Find the prefix for which most shapes and names agree, the shortest on ties; also return both counts."""
    by_name: Counter[str] = Counter()
    by_shape: Counter[str] = Counter()
    for key, value in state.items():
        starts = [0] + [match.end() for match in re.finditer(r"\.", key)]  # a prefix ends with a dot
        for start in starts:
            shape = shapes.get(key[start:])
            if shape is not None and (allowed is None or key[:start] in allowed):
                by_name[key[:start]] += 1
                by_shape[key[:start]] += shape == tuple(value.shape)
    if not by_name:
        return "", (0, 0)
    # most shapes, then most names, then the shortest
    best = max(by_name, key=lambda p: (by_shape[p], by_name[p], -len(p)))
    return best, (by_shape[best], by_name[best])


def load_weights(
    module: nn.Module,
    source: str | Path | State,
    *,
    prefixes: Sequence[str] | None = None,
    aliases: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    strict: bool = True,
    origin: str = "the state dict",
) -> LoadReport:
    """Load a module's weights from a checkpoint file or a state dict, with any prefix of the names.

    Prefixes such as ``model.``, ``module.``, ``model.backbone.`` and the ``_orig_mod.`` of compiled modules are
    detected and removed. Tensors without the prefix (metrics, other parts of a task) are ignored.

    Args:
        module: The module to load the tensors into. It is not modified if an error is raised.
        source: A path (see `load_state_dict_file`), or tensors by name.
        prefixes: Prefixes that may be removed. ``None``: the one for which most names and shapes agree.
        aliases: Alternative name -> name in the module. Used only if more tensors match with them.
        ignore: Regular expressions for names in the file that are not an error.
        strict: Whether all names and shapes must agree. Otherwise the tensors that match are loaded.
        origin: Name in messages of a ``source`` that is not a path.

    Returns:
        A report on the tensors that were loaded and those that were not.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a checkpoint, names or shapes differ and ``strict`` is set, or no tensor matches.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 1)
        >>> load_weights(layer, {"model.head.weight": torch.ones(1, 2), "model.head.bias": torch.zeros(1)}).prefix
        'model.head.'
    """
    if isinstance(source, (str, Path)):
        origin, source = str(source), load_state_dict_file(source)
    fitting, report = match_weights(module, source, prefixes=prefixes, aliases=aliases, ignore=ignore, origin=origin)
    if not report.complete and (strict or not fitting):
        counts = f"{len(fitting)} of {len(fitting) + len(report.missing) + len(report.mismatched)} tensors match"
        if report.unexpected and fitting:
            counts += f", {len(report.unexpected)} unexpected"
        prefix = f", prefix {report.prefix!r}" if report.prefix else ""
        # in the first line, because the launcher shows no more than that
        hint = ""
        if report.missing and not fitting:
            hint = f"; expected names such as {report.missing[0]!r}, got names such as {next(iter(source), '')!r}"
        raise ValueError(
            f"{origin} does not match {type(module).__name__} ({counts}{prefix}){hint}:\n{report.describe()}"
        )
    module.load_state_dict(fitting, strict=False)
    return report


def frozen_without_weights(model: nn.Module) -> list[str]:
    """Describe the parts of a model that are frozen although no weights were loaded into the model.

    Frozen parts have a nonzero ``frozen_stages`` or ``freeze_norm``.
    """
    if summarize_loaded_weights(model):  # a checkpoint of the whole model fills frozen parts too
        return []
    parts = []
    for name, module in model.named_modules():
        settings = {key: getattr(module, key, None) for key in ("frozen_stages", "freeze_norm")}
        frozen = [f"{key}: {str(value).lower()}" for key, value in settings.items() if isinstance(value, int) and value]
        if frozen:
            parts.append(f"{name or type(module).__name__} ({', '.join(frozen)})")
    return parts


def summarize_loaded_weights(model: nn.Module) -> list[str]:
    """Describe the weights loaded into a model: in its own words (`DescribesWeights`), or by its modules' reports."""
    if isinstance(model, DescribesWeights):
        return [text] if (text := model.describe_weights()) else []
    # backbones and heads have one report each
    reports = [module.load_report for module in model.modules() if isinstance(module, HasLoadReport)]
    return [report.summary() for report in reports if report is not None]


def parts_without_weights(model: nn.Module) -> list[str]:
    """Return the names of the parts of a model with parameters that no weights were loaded into, in order.

    A part is a child of the model, such as ``backbone`` or ``head``. Auxiliary heads do not count.

    Example:
        >>> net = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> parts_without_weights(net)
        ['backbone', 'head']
        >>> net["backbone"].load_report = load_weights(net["backbone"], nn.Linear(2, 2).state_dict())
        >>> parts_without_weights(net)
        ['head']
    """
    loaded: set[str] = set()
    for prefix, module in model.named_modules():
        report = module.load_report if isinstance(module, HasLoadReport) else None
        if report is None:
            continue
        tensors = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
        names = {name for name in report.loaded if not name.endswith("num_batches_tracked")}
        if not report.missing and not report.mismatched and len(names) >= len(tensors):
            names = tensors  # a report may have the names of the file
        loaded |= {f"{prefix}.{name}" if prefix else name for name in names}
    missing = [name for name, _ in model.named_parameters() if name not in loaded]
    return list(dict.fromkeys(name.partition(".")[0] for name in missing if not re.search(r"(^|\.)aux", name)))


def reports_weights(model: nn.Module) -> bool:
    """Whether a model or a part of it reports what was loaded into it, as the models of striate do."""
    return any(isinstance(module, HasLoadReport) for module in model.modules())
