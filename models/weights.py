"""Weights from files: read without running code, matched to a module by name and shape, refused when they do not fit.

A checkpoint seldom names its tensors as the module at hand does: it was saved from a wrapper (``module.``,
``_orig_mod.``), from a LightningModule (``model.``), from a whole of which one wants a part (``model.backbone.``), or
by another library. Here the prefix is found by comparing names and shapes, and other names are given as aliases.
"""

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_SKIP: ContextVar[bool] = ContextVar("striate_skip_pretrained", default=False)

_CONTAINERS = ("state_dict", "model", "model_state_dict", "module", "net")
"""Keys under which training programs put a state dict in a checkpoint, the likeliest first."""

_SHOWN = 10
"""Keys of each kind that an error message lists."""

State = Mapping[str, Tensor]


@contextmanager
def skip_pretrained() -> Iterator[None]:
    """Within it every builder of this package leaves out the loading of ``weights``, and nothing else.

    For models whose weights a checkpoint is about to overwrite: neither a download nor a file is needed then. The
    architecture, and the mean and standard deviation that belong to the weights, stay the same.

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
    """Whether the caller runs inside `skip_pretrained`."""
    return _SKIP.get()


@dataclass(frozen=True)
class LoadReport:
    """What of a state dict went into a module, or would have.

    Attributes:
        prefix: What was taken off the names in the file.
        loaded: Names in the module that were set.
        missing: Names in the module that the file does not give.
        unexpected: Names in the file, less the prefix, that the module does not have.
        mismatched: Name in the module -> its shape in the file, its shape in the module.
        origin: The file, or what the caller calls its source.
    """

    prefix: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    origin: str = ""

    @property
    def complete(self) -> bool:
        """Whether file and module agree in every name and shape."""
        return not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> str:
        """How many tensors came from where, and the differences."""
        under = f", there under {self.prefix!r}" if self.prefix else ""
        return "\n".join(filter(None, [f"from {self.origin}: {len(self.loaded)} tensors{under}", self.describe()]))

    def describe(self) -> str:
        """The differences, the first ten of each kind, as lines of text."""
        shapes = [f"{k}: {list(f)} in the file, {list(m)} in the model" for k, (f, m) in self.mismatched.items()]
        lines = []
        for title, keys in (
            ("missing (in the model, not in the file)", self.missing),
            ("unexpected (in the file, not in the model)", self.unexpected),
            ("of another shape", shapes),
        ):
            if keys:
                more = f", and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
                lines.append(f"  {len(keys)} {title}: {', '.join(keys[:_SHOWN])}{more}")
        return "\n".join(lines)


def load_state_dict_file(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint, on the CPU, without running code from it.

    Understood are a state dict as such, and one kept under ``state_dict`` (as Lightning does), ``model``,
    ``model_state_dict``, ``module`` or ``net``.

    Args:
        path: The file, as written by `torch.save`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, holds no tensors, or could only be read by running code from it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weights file at {path}")
    content = _read(path)
    candidates = [content]
    if isinstance(content, Mapping):
        candidates = [content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)] + candidates
    for candidate in candidates:
        if isinstance(candidate, Mapping):
            state = {k: v for k, v in candidate.items() if isinstance(k, str) and isinstance(v, Tensor)}
            if state:
                return state
    held = f"the keys {sorted(map(str, content))[:_SHOWN]}" if isinstance(content, Mapping) else type(content).__name__
    raise ValueError(
        f"{path} holds no state dict: expected names -> tensors, by themselves or under one of "
        f"{', '.join(_CONTAINERS)}; found {held}"
    )


def _read(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a TorchScript archive warns before it is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, OSError, UnicodeDecodeError) as error:
        if re.search(r"global|unsupported class", str(error), re.IGNORECASE):
            raise ValueError(
                f"{path} was refused: it holds more than tensors and plain values, and reading the rest would run code "
                f"from the file. Where you trust its source, save its state_dict() alone and give that file. "
                f"({_first_line(error)})"
            ) from error
        raise ValueError(
            f"{path} is not a checkpoint that torch.load can read: expected a file written by torch.save "
            f"({type(error).__name__}: {_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    # PyTorch puts advice (among it to read the file unsafely) before its own cause.
    text = str(error)
    cause = re.search(r"WeightsUnpickler error: (.*)", text)
    return (cause.group(1) if cause else text.strip().split("\n", 1)[0])[:200]


def match_weights(
    module: nn.Module,
    state: State,
    *,
    prefixes: Sequence[str] | None = None,
    aliases: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
    origin: str = "the state dict",
) -> tuple[dict[str, Tensor], LoadReport]:
    """Finds which tensors of a state dict belong where in a module; changes neither.

    Args:
        module: Where the tensors would go.
        state: Names -> tensors.
        prefixes: The prefixes that may be taken off. ``None``: whichever makes most names and shapes agree.
        aliases: Other names for the module's own, other -> own. They count only where together they fit better.
        ignore: Regular expressions; a name in the file (less the prefix) that one of them matches from its start, and
            that the module does not have, is no surprise.
        origin: What the report calls the source.

    Returns:
        The tensors under the module's own names, and the report.
    """
    state = {re.sub(r"(?<![^.])_orig_mod\.", "", key): value for key, value in state.items()}
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    other = {alias: own[key] for alias, key in (aliases or {}).items() if key in own}
    prefix, score = _best_prefix(state, own, prefixes)
    rename: Mapping[str, str] = {}
    if other:
        other_prefix, other_score = _best_prefix(state, other, prefixes)
        if other_score > score:
            prefix, rename = other_prefix, aliases or {}

    fitting: dict[str, Tensor] = {}
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    unexpected = []
    for full, value in state.items():
        if not full.startswith(prefix):
            continue
        key = full[len(prefix) :]
        name = rename.get(key, key)
        if name not in own:
            if not any(re.match(pattern, key) for pattern in ignore):
                unexpected.append(key)
        elif tuple(value.shape) == own[name]:
            fitting[name] = value
        else:
            mismatched[name] = (tuple(value.shape), own[name])
    # Files from before PyTorch 0.4.1 count no batches; nothing but a momentum of None ever reads that count.
    missing = [k for k in own if k not in fitting and k not in mismatched and not k.endswith("num_batches_tracked")]
    return fitting, LoadReport(prefix, tuple(fitting), tuple(missing), tuple(unexpected), mismatched, origin)


def _best_prefix(
    state: State, wanted: Mapping[str, tuple[int, ...]], allowed: Sequence[str] | None
) -> tuple[str, tuple[int, int]]:
    """The prefix under which most of ``wanted`` is found, by shape and by name; the shortest of equals."""
    by_name: Counter[str] = Counter()
    by_shape: Counter[str] = Counter()
    for key, value in state.items():
        starts = [0] + [match.end() for match in re.finditer(r"\.", key)]
        for start in starts:
            shape = wanted.get(key[start:])
            if shape is not None and (allowed is None or key[:start] in allowed):
                by_name[key[:start]] += 1
                by_shape[key[:start]] += shape == tuple(value.shape)
    if not by_name:
        return "", (0, 0)
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
    """Loads a module's weights from a checkpoint file or a state dict, whatever prefix its names carry.

    Prefixes such as ``model.``, ``module.``, ``model.backbone.`` and the ``_orig_mod.`` of compiled modules are found
    and taken off; what lies beside the chosen prefix (metrics, the other parts of a task) is left alone.

    Args:
        module: Where the tensors go. Nothing is changed when an error is raised.
        source: A path (see `load_state_dict_file`), or names -> tensors.
        prefixes: The prefixes that may be taken off. ``None``: whichever makes most names and shapes agree.
        aliases: Other names for the module's own, other -> own. They count only where together they fit better.
        ignore: Regular expressions for names in the file that may be left over.
        strict: Whether every name and shape must agree. Otherwise what fits is loaded, and the report says what
            did not.
        origin: What messages call a ``source`` that is not a path.

    Returns:
        What was loaded and what was not.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint; or names or shapes differ and ``strict``; or nothing at all fits.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> load_weights(layer, {"model.head.weight": torch.ones(1, 2), "model.head.bias": torch.zeros(1)}).prefix
        'model.head.'
    """
    if isinstance(source, (str, Path)):
        origin, source = str(source), load_state_dict_file(source)
    fitting, report = match_weights(module, source, prefixes=prefixes, aliases=aliases, ignore=ignore, origin=origin)
    if not report.complete and (strict or not fitting):
        fits = f"{len(fitting)} of {len(fitting) + len(report.missing) + len(report.mismatched)} tensors fit"
        if report.unexpected and fitting:
            fits += f", and the file has {len(report.unexpected)} that are unknown here"
        at = f" under the prefix {report.prefix!r}" if report.prefix else ""
        # in the first line, which is all that a launcher shows of it
        hint = ""
        if report.missing and not fitting:
            hint = f"; wanted are names such as {report.missing[0]!r}, and it has such as {next(iter(source), '')!r}"
        raise ValueError(f"{origin} does not fit {type(module).__name__} ({fits}{at}){hint}:\n{report.describe()}")
    module.load_state_dict(fitting, strict=False)
    return report


def frozen_at_random(model: nn.Module) -> list[str]:
    """The parts of a model that are not to train although nothing was loaded into them or the whole, in words.

    A part says so by ``frozen_stages`` or ``freeze_norm``, and by a ``load_report`` what it was given.
    """
    if loaded_weights(model):
        return []
    found = []
    for name, module in model.named_modules():
        settings = {key: getattr(module, key, None) for key in ("frozen_stages", "freeze_norm")}
        frozen = [f"{key}: {str(value).lower()}" for key, value in settings.items() if isinstance(value, int) and value]
        if frozen:
            found.append(f"{name or type(module).__name__} ({', '.join(frozen)})")
    return found


def loaded_weights(model: nn.Module) -> list[str]:
    """What the parts of a model were given from files, in words: its ``load_report()``, or what its modules keep."""
    own = getattr(model, "load_report", None)
    if callable(own):
        return [text] if (text := own()) else []
    reports = [getattr(module, "load_report", None) for module in model.modules()]
    return [report.summary() for report in reports if isinstance(report, LoadReport)]
