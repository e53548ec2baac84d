"""Pretrained weights of torchvision's models: published ones, which are downloaded, or a checkpoint file."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor

from .ops.checks import suggest
from .ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from .weights import load_state_dict_file


@dataclass(frozen=True)
class WeightSource:
    """The source of a model's weights: published ones or a file.

    Attributes:
        name: Torchvision's name of the model.
        entry: The published weights; None for a file.
        path: The file; None for published weights.
        key: Name of the argument in error messages.
    """

    name: str
    entry: torchvision.models.WeightsEnum | None = None
    path: Path | None = None
    key: str = "weights"

    def state(self) -> dict[str, Tensor]:
        """Return the tensors by name; published weights are downloaded unless they are cached.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is not a checkpoint.
            ConnectionError: Published weights could not be downloaded.
        """
        if self.path is not None:
            state = load_state_dict_file(self.path)
        else:
            assert self.entry is not None
            try:
                state = self.entry.get_state_dict(progress=True, check_hash=True)
            except (URLError, TimeoutError, ConnectionError) as error:
                cache = Path(torch.hub.get_dir(), "checkpoints")
                raise ConnectionError(
                    f"{self.key}: {self.origin} could not be downloaded ({getattr(error, 'reason', error)}); copy "
                    f"{Path(self.entry.url).name} from {self.entry.url} into {cache}, or give the path of a file, or "
                    "null for random initialization"
                ) from error
        # Torchvision's published DenseNets have names from before dots in module names were forbidden.
        return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): v for key, v in state.items()}

    @property
    def origin(self) -> str:
        """The source as named in messages."""
        return str(self.path or self.entry)

    @property
    def published(self) -> torchvision.models.WeightsEnum | None:
        """The published weights; a file is recognized by the name under which torchvision publishes it."""
        if self.path is None:
            return self.entry
        entries = torchvision.models.get_model_weights(self.name)
        return next((entry for entry in entries if Path(entry.url).name == self.path.name), None)

    def statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return the mean and standard deviation that a classifier's weights expect; ImageNet's for an unknown file.

        Torchvision's published GoogLeNet and Inception v3 take images normalized with ImageNet's statistics and convert
        them to a mean and standard deviation of one half (``transform_input``). Both steps are affine; combined, they
        are a normalization with one half.
        """
        entry = self.published
        if entry is None:
            return IMAGENET_MEAN, IMAGENET_STD
        if self.name in ("googlenet", "inception_v3"):
            return (0.5,) * 3, (0.5,) * 3
        preset = entry.transforms()  # transforms for evaluation
        return preset.mean, preset.std


def find_weights(name: str, weights: str | os.PathLike[str] | None, key: str = "weights") -> WeightSource | None:
    """Resolve a model's ``weights`` argument, without opening a file.

    Args:
        name: Torchvision's name of any model.
        weights: Name of published weights (``DEFAULT``, ``IMAGENET1K_V1``, …), or path of a file. None: no weights.
        key: Name of the argument in error messages.

    Raises:
        ValueError: ``weights`` is neither the name of published weights of the model nor a path.
    """
    if weights is None:
        return None
    text = os.fspath(weights)
    enum = torchvision.models.get_model_weights(name)
    member = text.removeprefix(f"{enum.__name__}.")
    if member in enum.__members__:  # also with the name of the enum, as torchvision prints it
        return WeightSource(name, entry=enum[member], key=key)
    if isinstance(weights, os.PathLike) or os.sep in text or Path(text).suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return WeightSource(name, path=Path(text), key=key)
    hint = suggest(member, enum.__members__)
    raise ValueError(
        f"{key}: unknown weights of {name!r}, got {text!r}; {hint} (or give the path of a .pt, .pth or .ckpt file)"
    )
