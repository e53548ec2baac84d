"""Load fc6 and fc7 of a classifier into the second stage of a detector on its backbone."""

from pathlib import Path

from torch import Tensor

from ...backbones import Backbone, TorchvisionBackbone
from ...weights import LoadReport, load_state_dict_file, match_weights
from .roi_head import RoIFullyConnected

_FC_INDICES = {"vgg": (0, 3), "alexnet": (1, 4)}
"""Start of torchvision's name of a network -> indices of fc6 and fc7 in its ``classifier``."""


def load_fully_connected(body: RoIFullyConnected, backbone: Backbone) -> LoadReport | None:
    """Load fc6 and fc7 from the file of the backbone's weights, if they are there and fit."""
    source = _find_fully_connected(backbone)
    if source is None:
        return None
    state, prefixes, aliases = source
    fitting, report = match_weights(body, state, prefixes=prefixes, aliases=aliases)
    body.load_state_dict(fitting, strict=False)
    return report


def _find_fully_connected(backbone: Backbone) -> tuple[dict[str, Tensor], list[str], dict[str, str]] | None:
    """The tensors ``[...]`` of the backbone's file, possible prefixes of fc6 and fc7, and other names -> ours."""
    report = backbone.load_report
    if report is None:
        return None
    indices: tuple[int, ...] = ()
    if isinstance(backbone, TorchvisionBackbone):
        checkpoint = backbone.full_checkpoint()
        if checkpoint is None:
            return None
        state, theirs, ours = checkpoint
        indices = next((value for start, value in _FC_INDICES.items() if backbone.name.startswith(start)), ())
    elif Path(report.origin).is_file():
        state = load_state_dict_file(report.origin)
        theirs = ours = report.prefix.removesuffix("backbone.")
    else:
        return None
    aliases = {
        f"{container}.{index}.{kind}": f"{layer}.{kind}"
        for layer, index in zip(("fc6", "fc7"), indices, strict=False)
        for container in ("classifier", "head.body")
        for kind in ("weight", "bias")
    }
    return state, [theirs, ours, f"{ours}head.", f"{ours}head.body."], aliases


def describe_region_weights(backbone: Backbone, body_report: LoadReport | None, rest: str) -> str | None:
    """Return what was loaded into the backbone, fc6 and fc7, as lines of text. None: nothing was loaded.

    Args:
        backbone: The backbone.
        body_report: What was loaded into fc6 and fc7.
        rest: What was not loaded, as the last line.
    """
    report = backbone.load_report
    if report is None:
        return None
    loaded = body_report.loaded if body_report else ()
    layers = [name for name in ("fc6", "fc7") if f"{name}.weight" in loaded and f"{name}.bias" in loaded]
    lines = [f"from {report.origin}:", f"  backbone: all {len(report.loaded)} tensors"]
    lines.append(
        f"  {' and '.join(layers)}: loaded" if layers else "  fc6 and fc7: new, since nothing in the file fits"
    )
    return "\n".join([*lines, f"  {rest}"])
