"""Where the weights of torchvision's models come from: the ones it publishes, or a file."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.error import URLError

import torchvision
from torch import Tensor

from .ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from .weights import load_state_dict_file


@dataclass(frozen=True)
class WeightSource:
    """Where the weights of a model come from.

    Attributes:
        name: torchvision's, of the model.
        entry: The published ones; None: a file.
        path: The file; None: published.
        key: The argument that asked for them, which messages name.
    """

    name: str
    entry: torchvision.models.WeightsEnum | None = None
    path: Path | None = None
    key: str = "weights"

    def state(self) -> dict[str, Tensor]:
        """The tensors; published ones are downloaded, if they are not at hand.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is no checkpoint.
            ConnectionError: Published weights could not be downloaded.
        """
        if self.path is not None:
            state = load_state_dict_file(self.path)
        else:
            assert self.entry is not None
            try:
                state = self.entry.get_state_dict(progress=True, check_hash=True)
            except (URLError, TimeoutError, ConnectionError) as error:
                raise ConnectionError(
                    f"{self.key}: {self.origin} could not be downloaded ({getattr(error, 'reason', error)}). Without a "
                    f"network give a file: `{self.key}: FILE`, such as {Path(self.entry.url).name} from "
                    f"{self.entry.url}; or `{self.key}: null`, to train from random ones"
                ) from error
        # Torchvision's published DenseNets carry names from before dots in module names were forbidden.
        return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): v for key, v in state.items()}

    @property
    def origin(self) -> str:
        """What messages call them."""
        return str(self.path or self.entry)

    @property
    def published(self) -> torchvision.models.WeightsEnum | None:
        """The published weights that these are; a file is recognised by the name that it is published under."""
        if self.path is None:
            return self.entry
        entries = torchvision.models.get_model_weights(self.name)
        return next((entry for entry in entries if Path(entry.url).name == self.path.name), None)

    def statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and standard deviation that a classifier's weights expect; ImageNet's for a file that says nothing.

        Torchvision's published GoogLeNet and Inception v3 take images normalised by ImageNet's statistics and bring
        them to a mean and standard deviation of one half themselves (``transform_input``). Both steps are affine, and
        together they are a normalisation by one half.
        """
        entry = self.published
        if entry is None:
            return IMAGENET_MEAN, IMAGENET_STD
        if self.name in ("googlenet", "inception_v3"):
            return (0.5,) * 3, (0.5,) * 3
        preset = entry.transforms()
        return preset.mean, preset.std


def find_weights(name: str, weights: str | os.PathLike[str] | None, key: str = "weights") -> WeightSource | None:
    """What is meant by a model's ``weights``; opens no file.

    Args:
        name: torchvision's, of any model.
        weights: The name of published weights (``DEFAULT``, ``IMAGENET1K_V1``, …), or the path of a file. None: none.
        key: The argument that they were given by.

    Raises:
        ValueError: ``weights`` is neither the name of some of its weights nor a path.
    """
    if weights is None:
        return None
    text = os.fspath(weights)
    enum = torchvision.models.get_model_weights(name)
    member = text.removeprefix(f"{enum.__name__}.")
    if member in enum.__members__:
        return WeightSource(name, entry=enum[member], key=key)
    if isinstance(weights, os.PathLike) or os.sep in text or Path(text).suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return WeightSource(name, path=Path(text), key=key)
    near = get_close_matches(member, enum.__members__, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{name!r} has no weights {text!r}{hint} Choose one of {', '.join(map(repr, enum.__members__))}, or give the "
        "path of a .pt, .pth or .ckpt file"
    )
