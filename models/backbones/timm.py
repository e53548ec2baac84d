"""timm's networks as backbones, through its ``features_only`` interface; timm is an optional dependency."""

import importlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..modes import evaluation_mode
from ..ops.checks import suggest
from ..weights import load_weights, pretrained_is_skipped
from .base import Backbone, check_out_indices

_ANY_SIZE: tuple[dict[str, Any], ...] = ({"strict_img_size": False}, {"dynamic_img_size": True}, {})
"""Arguments that make timm's transformers accept images of any size; most networks have neither."""

_NETWORK = frozenset({"httpcore", "httpx", "http", "huggingface_hub", "requests", "urllib", "urllib3"})
"""Packages whose errors mean that a download failed."""


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(
            "backbones named timm/… need the optional package timm; run pip install 'striate[timm]'"
        ) from error


class TimmBackbone(Backbone):
    """Any timm network that returns feature maps.

    Args:
        name: timm's name, with or without the tag of the weights: ``convnext_atto``, ``resnet10t.c3_in1k``.
        weights: ``True`` or ``"DEFAULT"`` for timm's default (or the tag in ``name``), the tag of other published
            weights, or the path of a checkpoint of timm's model or of striate. ``None``: timm's initialization.
        frozen_stages: Number of leading maps whose layers are all frozen.
        freeze_norm: Whether to freeze the running statistics, scale and shift of every batch normalization.
        out_indices: Indices of the returned maps, increasing from 0. ``None``: all of timm's.
        mean: Mean of each channel, for pixels in [0, 1]. ``None``: timm's configuration for ``name`` and tag.
        std: Standard deviation of each channel, for pixels in [0, 1]. ``None``: as for ``mean``.
        options: Further arguments of ``timm.create_model``. Transformers are built for images of any size if they
            support it; set the size of others, for example with ``{"img_size": 512}``.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: list of ``[B, channels[i], H / strides[i], W / strides[i]]``.

    Raises:
        ImportError: timm is not installed.
        ValueError: The name or the weights are unknown, or the weights do not match.
        FileNotFoundError: ``weights`` is the path of a missing file.
        ConnectionError: Published weights could not be downloaded.
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
        with _explained_download(full_name):
            net = _create_extractor(full_name, load and path is None, options, out_indices)
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
            aliases, ignore = _aliases(full_name, net, options)
            self.load_report = load_weights(self, path, aliases=aliases, ignore=ignore)

    def _freeze(self, frozen_stages: int, freeze_norm: bool) -> None:
        if 0 < frozen_stages <= self.out_indices[-1] + 1:
            # parameters of each map include those of the finer maps
            levels = _parameters_by_level(self.stages[0], self._input_side)
            self._frozen_names = tuple(sorted(set().union(*levels[:frozen_stages])))
        super()._freeze(frozen_stages, freeze_norm)

    def _frozen_modules(self) -> list[nn.Module]:
        frozen = {id(self.stages[0].get_parameter(name)) for name in self._frozen_names}
        owned = ((module, {id(p) for p in module.parameters()}) for module in self.stages[0].modules())
        # without a trained parameter
        return [module for module, parameters in owned if parameters and parameters <= frozen]

    def _frozen_parameters(self) -> list[nn.Parameter]:
        return super()._frozen_parameters() + [self.stages[0].get_parameter(name) for name in self._frozen_names]

    def _maps(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Compute some of the feature maps, ``[B, C, h, w]`` each, of normalized images ``[B, 3, H, W]``."""
        maps = self.stages[0](x)
        chosen = [maps[self.out_indices[index]] for index in indices]
        return [features.permute(0, 3, 1, 2) if self.nhwc else features for features in chosen]


def _resolve(name: str, weights: bool | str | os.PathLike[str] | None) -> tuple[str, str | None]:
    """Return timm's name, with the tag of published weights if there is one, and the path of a weights file or None."""
    timm = _timm()
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise ValueError(f"name: unknown timm network, got {base!r}; {suggest(base, timm.list_models(), n=3)}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}*") if full.partition(".")[0] == base]
    if tag and tag not in tags:
        raise ValueError(f"name: unknown weights of timm's {base!r}, got {tag!r}; {_choose(tags)}")
    if not weights:
        return name, None
    if weights is True or weights == "DEFAULT":
        if not tags:
            raise ValueError(f"weights: timm has none for {base!r}, got {weights!r}; {_choose(tags)}")
        return name, None
    text = os.fspath(weights)
    if text in tags:
        if tag and tag != text:
            raise ValueError(f"weights: conflicts with the tag in name={name!r}, got {text!r}; remove one of them")
        return f"{base}.{text}", None
    if isinstance(weights, os.PathLike) or os.sep in text or text.endswith((".pt", ".pth", ".ckpt", ".bin")):
        return name, text
    raise ValueError(f"weights: unknown weights of timm's {base!r}, got {text!r}; {_choose(tags)}")


def _choose(tags: Sequence[str]) -> str:
    """List the valid choices of weights for an error message."""
    return f"use {''.join(f'{tag!r}, ' for tag in tags)}null, or the path of a .pt, .pth or .ckpt file"


def _create_extractor(
    name: str, pretrained: bool, options: dict[str, Any] | None, out_indices: Sequence[int] | None
) -> Any:
    """Build the network as a feature extractor that ends at the last map of ``out_indices``."""
    create = _creator(options, features_only=True)
    if out_indices is None:
        return create(name, pretrained=pretrained)
    with torch.random.fork_rng(devices=[]):  # a trial network to count the maps, without consuming random numbers
        net = create(name, pretrained=False)
    needed = check_out_indices(out_indices, len(net.feature_info.channels()))[-1] + 1
    # For transformers, timm's out_indices number the blocks and not the maps, so the network cannot be shortened.
    getter = type(net).__name__ == "FeatureGetterNet"
    return create(name, pretrained=pretrained, **({} if getter else {"out_indices": tuple(range(needed))}))


@contextmanager
def _explained_download(name: str) -> Iterator[None]:
    """Report a failed download of published weights in one line; other errors pass."""
    try:
        yield
    except Exception as error:
        chain: list[BaseException] = [error]
        while cause := chain[-1].__cause__ or chain[-1].__context__:
            chain.append(cause)
        if not _NETWORK & {type(each).__module__.partition(".")[0] for each in chain}:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConnectionError(
            f"weights: timm's {name!r} could not be downloaded ({reason}); copy Hugging Face's cache "
            "(~/.cache/huggingface/hub by default) from a machine that has them, or give the path of a file, or null "
            "for random initialization"
        ) from error


def _creator(options: dict[str, Any] | None, **fixed: Any) -> Any:
    """Return ``timm.create_model`` with arguments for images of any size, if the network supports them."""

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
    """Map timm's tensor names to names in the backbone, and list patterns of tensors that the backbone lacks."""
    with torch.device("meta"):
        full_names = list(_creator(options)(name, pretrained=False).state_dict())
    names = net.state_dict().keys()
    aliases = {key: f"stages.0.{key}" for key in names}
    for key in full_names:
        # timm's extractors merge the first two levels of a name, or have the network as "model".
        for candidate in (key, key.replace(".", "_", 1), f"model.{key}"):
            if candidate in names:
                aliases[key] = f"stages.0.{candidate}"
    return aliases, [f"{re.escape(key)}$" for key in full_names if key not in aliases]


def _parameters_by_level(net: nn.Module, side: int) -> list[set[str]]:
    """Find the names of the parameters that each map depends on, from the autograd graph on the meta device."""
    names = {}
    tensors: dict[str, Tensor] = {key: value.to("meta") for key, value in net.named_buffers()}
    for key, value in net.named_parameters():
        tensors[key] = value.detach().to("meta").requires_grad_()
        names[id(tensors[key])] = key  # autograd leaves are identified by their id
    with evaluation_mode(net), torch.enable_grad():
        maps = functional_call(net, tensors, (torch.empty(1, 3, side, side, device="meta"),))
    return [{names[leaf] for leaf in _leaves(m)} for m in maps]


def _leaves(output: Tensor) -> set[int]:
    """Return the ids of the leaf tensors that ``output``, ``[B, ...]``, depends on."""
    leaves, visited, pending = set(), set(), [output.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        pending.extend(parent for parent, _ in node.next_functions)
    return leaves
