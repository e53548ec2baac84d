"""timm's networks as backbones, through its ``features_only`` interface. timm is an optional dependency."""

import importlib
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..weights import load_weights, pretrained_is_skipped
from .base import Backbone, check_out_indices

_ANY_SIZE: tuple[dict[str, Any], ...] = ({"strict_img_size": False}, {"dynamic_img_size": True}, {})
"""Arguments by which timm's transformers take images of other sizes than their own; most networks know neither."""


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(
            "backbones named timm/… need timm, an optional dependency: pip install striate[timm]"
        ) from error


class TimmBackbone(Backbone):
    """Any timm network that gives feature maps.

    Args:
        name: timm's name, with or without the tag of its weights: ``convnext_atto``, ``resnet10t.c3_in1k``.
        weights: ``True`` or ``"DEFAULT"`` for timm's first choice (or the tag in ``name``), the tag of other published
            weights, or the path of a checkpoint, of timm's own model or of ours. ``None``: timm's initialisation.
        frozen_stages: How many of the first stages are frozen: what the first so many maps depend on.
        freeze_norm: Whether every batch normalisation keeps its running statistics and its scale and shift.
        out_indices: Which maps are returned, increasing from 0. ``None``: all that timm gives.
        mean: Mean of each channel, of values in [0, 1]. ``None``: of timm's configuration for ``name`` and tag.
        std: Standard deviation of each channel, of values in [0, 1]. ``None``: as for ``mean``.
        options: Further arguments of ``timm.create_model``. Some transformers take images of one size only, which
            ``{"img_size": 512}`` sets; those that can are asked for any size.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: list of ``[B, channels[i], H / strides[i], W / strides[i]]``.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such network, or its weights are unknown or do not fit.
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
    """

    def __init__(
        self,
        name: str,
        weights: bool | str | None = None,
        frozen_stages: int = 0,
        freeze_norm: bool = False,
        out_indices: tuple[int, ...] | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        full_name, path = _resolve(name, weights)
        load = bool(weights) and not pretrained_is_skipped()
        net = _create(full_name, load and path is None, options, out_indices)
        config = net.pretrained_cfg
        self._frozen_names: tuple[str, ...] = ()
        self._input_side: int = config["input_size"][-1]
        super().__init__(
            [net],
            net.feature_info.channels(),
            net.feature_info.reduction(),
            mean=config["mean"] if mean is None else mean,
            std=config["std"] if std is None else std,
            frozen_stages=frozen_stages,
            freeze_norm=freeze_norm,
            out_indices=out_indices,
            nhwc=str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC"),
        )
        self.name = name
        if path is not None and load:
            aliases, others = _aliases(full_name, net, options)
            self.load_report = load_weights(self, path, aliases=aliases, ignore=others)

    def _freeze(self, frozen_stages: int, freeze_norm: bool) -> None:
        if 0 < frozen_stages <= self.out_indices[-1] + 1:
            levels = _parameters_by_level(self.stages[0], self._input_side)
            self._frozen_names = tuple(sorted(set().union(*levels[:frozen_stages])))
        super()._freeze(frozen_stages, freeze_norm)

    def _frozen_modules(self) -> list[nn.Module]:
        frozen = {id(self.stages[0].get_parameter(name)) for name in self._frozen_names}
        owned = ((module, {id(p) for p in module.parameters()}) for module in self.stages[0].modules())
        return [module for module, parameters in owned if parameters and parameters <= frozen]

    def _frozen_parameters(self) -> list[nn.Parameter]:
        return super()._frozen_parameters() + [self.stages[0].get_parameter(name) for name in self._frozen_names]

    def _maps(self, x: Tensor) -> list[Tensor]:
        """The feature maps of normalised images ``[B, 3, H, W]``."""
        maps = self.stages[0](x)
        return [maps[i].permute(0, 3, 1, 2) if self.nhwc else maps[i] for i in self.out_indices]


def _resolve(name: str, weights: bool | str | os.PathLike[str] | None) -> tuple[str, str | None]:
    """timm's name with the tag of the weights, where there is one, and the path of the weights, where there is one."""
    timm = _timm()
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        near = get_close_matches(base, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"timm has no network {base!r}{hint}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}*") if full.partition(".")[0] == base]
    if tag and tag not in tags:
        raise ValueError(f"timm has no weights {tag!r} for {base!r}; it has {', '.join(tags) or 'none'}")
    if not weights:
        return name, None
    if weights is True or weights == "DEFAULT":
        if not tags:
            raise ValueError(f"timm publishes no weights for {base!r}; leave weights out or give the path of a file")
        return name, None
    text = os.fspath(weights)
    if text in tags:
        if tag and tag != text:
            raise ValueError(f"{name!r} names the weights {tag!r}, but weights={text!r}; give one of them")
        return f"{base}.{text}", None
    if isinstance(weights, os.PathLike) or os.sep in text or text.endswith((".pt", ".pth", ".ckpt", ".bin")):
        return name, text
    raise ValueError(
        f"{base!r} has no weights {text!r}: choose True, one of {', '.join(map(repr, tags)) or '(timm has none)'}, or "
        "give the path of a .pt, .pth or .ckpt file"
    )


def _create(name: str, pretrained: bool, options: dict[str, Any] | None, out_indices: Sequence[int] | None) -> Any:
    """The network as a feature extractor, without what comes after the last map of ``out_indices``."""
    create = _creator(options, features_only=True)
    if out_indices is None:
        return create(name, pretrained=pretrained)
    with torch.random.fork_rng(devices=[]):  # counts the maps; the same seed then gives the same weights
        net = create(name, pretrained=False)
    needed = check_out_indices(out_indices, len(net.feature_info.channels()))[-1] + 1
    # Where timm numbers a transformer's blocks and not its maps, one can only choose among the maps it gives.
    getter = type(net).__name__ == "FeatureGetterNet"
    return create(name, pretrained=pretrained, **({} if getter else {"out_indices": tuple(range(needed))}))


def _creator(options: dict[str, Any] | None, **fixed: Any) -> Any:
    """``timm.create_model``, for images of any size where the network can be asked for that."""

    def create(name: str, **kwargs: Any) -> Any:
        for any_size in _ANY_SIZE:
            try:
                return _timm().create_model(name, **any_size, **fixed, **kwargs, **(options or {}))
            except TypeError as error:
                if not any_size or not any(key in str(error) for key in any_size):
                    raise
        raise AssertionError("the last attempt returns or raises")

    return create


def _aliases(name: str, net: nn.Module, options: dict[str, Any] | None) -> tuple[dict[str, str], list[str]]:
    """Names of timm's tensors -> ours; and, as patterns, names of those that only the whole network has."""
    with torch.device("meta"):
        whole = _creator(options)(name, pretrained=False).state_dict()
    own = net.state_dict()
    aliases = {key: f"stages.0.{key}" for key in own}
    for key in whole:
        # timm's extractors lift the second level of names to the first, or hold the network as "model".
        for lifted in (key, key.replace(".", "_", 1), f"model.{key}"):
            if lifted in own:
                aliases[key] = f"stages.0.{lifted}"
    return aliases, [f"{re.escape(key)}$" for key in whole if key not in aliases]


def _parameters_by_level(net: nn.Module, side: int) -> list[set[str]]:
    """Names of the parameters that each map depends on, read off the autograd graph; nothing is computed."""
    names = {}
    tensors: dict[str, Tensor] = {key: value.to("meta") for key, value in net.named_buffers()}
    for key, value in net.named_parameters():
        tensors[key] = value.detach().to("meta").requires_grad_()
        names[id(tensors[key])] = key
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    with torch.enable_grad():
        maps = functional_call(net, tensors, (torch.empty(1, 3, side, side, device="meta"),))
    for module, mode in modes:
        module.training = mode
    return [{names[leaf] for leaf in _leaves(m)} for m in maps]


def _leaves(output: Tensor) -> set[int]:
    """Ids of the tensors that ``output`` takes its gradient to."""
    found, seen, todo = set(), set(), [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        todo.extend(parent for parent, _ in node.next_functions)
    return found
