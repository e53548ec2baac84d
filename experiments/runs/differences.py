"""Configurations side by side: which keys differ, under the shortest names that tell them apart."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

NOT_COMPARED = ("run", "wandb", "ckpt_path", "weights_only", "return_predictions", "allow_random_weights")
"""Sections that are about the record of a run, and not about what it does."""

MISSING = "—"
"""Stands for a key that a configuration does not have."""


def flatten(config: Any, key: str = "") -> dict[str, Any]:
    """The values of a nested configuration by dotted key. The key of an object holds its class path.

    >>> flatten({"lr": 0.1, "model": {"class_path": "LeNet", "init_args": {"width": 8}}})
    {'lr': 0.1, 'model': 'LeNet', 'model.width': 8}
    """
    if isinstance(config, Mapping) and config:
        flat: dict[str, Any] = {}
        for name, value in config.items():
            if name == "class_path" and key and isinstance(value, str):
                flat[key] = value
            elif name in ("init_args", "dict_kwargs") and "class_path" in config:
                flat |= flatten(value, key) if value else {}
            elif key or name not in NOT_COMPARED:
                flat |= flatten(value, f"{key}.{name}" if key else str(name))
        return flat
    if isinstance(config, list | tuple) and any(isinstance(item, Mapping) for item in config):
        return {name: value for n, item in enumerate(config) for name, value in flatten(item, f"{key}[{n}]").items()}
    return {key: config} if key else {}


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all flat configurations, in the order in which they occur.

    Args:
        configs: Results of `flatten`; empty ones, those of runs without a readable configuration, are left out.
    """
    known = [config for config in configs if config]
    keys = dict.fromkeys(key for config in known for key in config)
    return [key for key in keys if len({text_of(config[key]) if key in config else None for config in known}) > 1]


def without_details(keys: Sequence[str]) -> list[str]:
    """The keys without those of objects that are themselves in the list, because their classes differ."""
    whole = set(keys)

    def owners(key: str) -> list[str]:
        parts = key.split(".")
        return [".".join(parts[:count]) for count in range(1, len(parts))]

    return [key for key in keys if not whole & set(owners(key))]


def text_of(value: Any) -> str:
    """Text of a value, in which values of different types differ, such as ``1`` and ``'1'``."""
    return json.dumps(value, ensure_ascii=False, default=str)


def show(value: Any, width: int = 40) -> str:
    """Short text of a value: numbers with four digits, classes by their name with their arguments.

    >>> show({"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}}), show(None)
    ('SGD(momentum=0.9)', 'null')
    """
    if isinstance(value, float):
        text = f"{value:.4g}"
    elif isinstance(value, Mapping) and "class_path" in value:
        arguments = ", ".join(f"{key}={show(one)}" for key, one in (value.get("init_args") or {}).items())
        name = value["class_path"].rpartition(".")[2]
        text = f"{name}({arguments})" if arguments else name
    elif isinstance(value, list):
        text = f"[{', '.join(map(show, value))}]"
    elif isinstance(value, str) and re.fullmatch(r"([A-Za-z_]\w*\.)+[A-Z]\w*", value):
        text = value.rpartition(".")[2]
    else:
        text = value if isinstance(value, str) else text_of(value)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The shortest ends of dotted names that tell them apart: ``lr`` for ``model.optimizer.lr``."""
    short = {}
    for name in names:
        parts = name.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        clashes = [other.split(".") for other in names if other != name]
        short[name] = next(
            (end for end in ends if not any(other[-len(end.split(".")) :] == end.split(".") for other in clashes)), name
        )
    return short
