"""``striate data proposals``: compute the proposals of a data set once, for detectors that classify stored boxes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from jsonargparse import Namespace

    from ...datamodules.base import VisionDataModule
    from ...datamodules.loading.sources import Source
    from ...models import Proposer

USAGE = """\
usage: striate data proposals --config FILE --out FILE.npz [--KEY VALUE …]
       striate data proposals NAME --out FILE.npz [--KEY VALUE …]          NAME: a data module, such as digit_scenes

Computes boxes in which an object may be, for every image, and stores them for R-CNN, SPP-net and Fast R-CNN: the data
module's argument proposals reads the file. An interrupted command continues when it is run again.

    --out FILE.npz         file to write
    --method selective_search    or sliding: windows of all sizes, which do not depend on the image
    --mode fast            mode of selective search: single, fast or quality
    --min_side 20          minimum width and height of a box, in pixels
    --max_proposals 2000   maximum number of boxes per image, the best
    --box_seed 0           seed of the order of boxes
    --splits train,val,test      splits to compute; default: all that exist
    --jobs 4               number of processes; default: the number of cores
    --KEY VALUE            any key of the data section: --root data/pets, or --data.root data/pets"""


def proposals(arguments: Sequence[str]) -> None:
    """Run ``striate data proposals``.

    Args:
        arguments: The command line behind ``striate data proposals``.
    """
    from pathlib import Path

    from ..launcher.messages import fail
    from .build_data import Option, parse_data_command

    options = {
        "out": Option(str | None),
        "method": Option(str, "selective_search"),
        "mode": Option(str, "fast"),
        "min_side": Option(int, 20),
        "max_proposals": Option(int, 2000),
        "box_seed": Option(int, 0),
        "splits": Option(str, "train,val,test"),
        "jobs": Option(int | None),
    }
    call = parse_data_command(arguments, options)
    if call.positionals:
        fail(f"{call.positionals[0]}: unexpected argument; keys are given as --KEY VALUE")
    out = Path(call.options.out or "").expanduser()
    if out.suffix.lower() != ".npz":
        fail(f"--out: must end in .npz, got {call.options.out!r}; write --out FILE.npz")
    if not out.parent.is_dir():
        fail(f"--out: no folder {str(out.parent)!r}; create it")
    proposer = make_proposer(call.options)
    with call.one_line_errors("interrupted; run the command again to resume"):
        data = call.build_vision()
        compute(data, type(data).__name__, proposer, out, call.options)


def make_proposer(options: "Namespace") -> "Proposer":
    """Return the proposer of a command line; exits with 2 if an option is wrong."""
    import torch

    from ...datamodules.doctor.report import SPLITS
    from ...models import Proposer
    from ..launcher.messages import did_you_mean, fail
    from .check import split_list

    for split in split_list(options.splits):
        if split not in SPLITS:
            fail(f"--splits: unknown name {split!r}{did_you_mean(split, SPLITS)}; use {', '.join(SPLITS)}")
    if options.jobs is not None and options.jobs < 0:
        fail(f"--jobs: must be >= 0 (0: no other process), got {options.jobs}")
    try:
        proposer = Proposer(options.method, options.mode, options.min_side, options.max_proposals, options.box_seed)
        proposer(torch.zeros(3, 32, 32, dtype=torch.uint8))  # imports what it needs, once for all processes
    except ValueError as error:
        fail(f"--{str(error).replace('seed:', 'box_seed:', 1)}")
    except ImportError as error:
        fail(str(error))
    return proposer


class ArrayProposer:
    """A proposer for images in numpy, as samples have them.

    Args:
        proposer: Computes the proposals of a tensor.
    """

    def __init__(self, proposer: "Proposer") -> None:
        self.proposer = proposer

    def __call__(self, image: "np.ndarray") -> "np.ndarray":
        """Return the boxes ``[P, 4]`` of an image ``[H, W, 3]``."""
        import torch

        return self.proposer(torch.from_numpy(image).permute(2, 0, 1)).numpy()


def compute(data: "VisionDataModule", name: str, proposer: "Proposer", out: Any, options: "Namespace") -> None:
    """Compute the proposals of a data module, and report what was written."""
    import dataclasses

    from ...datamodules.loading.loader import usable_cores
    from ...datamodules.proposals import ProposalJob, compute_proposals, read_proposals
    from ..launcher.messages import notice
    from .check import split_list

    sources = open_splits(data, split_list(options.splits))
    method = dataclasses.asdict(proposer)
    if proposer.method != "selective_search":
        del method["mode"]
    job = ProposalJob(name, sources, method)
    jobs = usable_cores() if options.jobs is None else options.jobs
    with advance_bar() as progress:
        unreadable = compute_proposals(job, ArrayProposer(proposer), out, jobs, progress)
    for message in unreadable:
        notice(f"unreadable, without proposals: {message}")
    table = read_proposals(out)
    counts = ", ".join(f"{split['images']:,} {split['name']}" for split in table.settings["splits"])
    mean = len(table.boxes) / max(len(table.names), 1)
    notice(f"{out}: {len(table.boxes):,} boxes of {counts} images, {mean:,.0f} per image")
    notice(f"to use it: add --data.proposals {out}")


def open_splits(data: "VisionDataModule", splits: Sequence[str]) -> "Mapping[str, Source]":
    """Open the splits of a data module that exist.

    Raises:
        ValueError: None of them does, or the data module has no objects to detect.
    """
    from ...datamodules.annotations.annotation_errors import AbsentSplitError
    from ..launcher.messages import notice

    if not data.variable_size_images:
        raise ValueError(
            f"data: must be a data module for detection or instance segmentation, got {type(data).__name__} for "
            "another task; set its task: detection"
        )
    data.prepare_data()
    sources = {}
    for split in splits:
        try:
            source = data.open_source(split)
        except AbsentSplitError:
            source = None
        if source is None:
            notice(f"no {split} split")
        else:
            sources[split] = source
    if not sources:
        raise ValueError(f"--splits: {type(data).__name__} has none of {', '.join(splits)}")
    return sources


@contextmanager
def advance_bar() -> "Iterator[Callable[[int, int], None]]":
    """Yield a function that moves a progress bar: number of finished images, and their total."""
    from .progress import progress_bar

    with progress_bar() as bar:
        task = bar.add_task("proposals", total=1)
        yield lambda done, total: bar.update(task, completed=done, total=max(total, 1))
