"""``striate data show``: a figure of augmented samples with their targets, in the order of training."""

import math
from collections.abc import Iterator, Sequence, Sized
from typing import Any

USAGE = """\
usage: striate data show --config FILE [--KEY VALUE …]
       striate data show NAME [--KEY VALUE …]            NAME: a data module: digit_scenes, or mine.Data
       striate data show --format FORMAT PATH            as striate data check: coco, voc, yolo, …

Draws samples as the network sees them: augmented, with their targets, from the first batches of an epoch.

    --split train   train, val or test
    --count 16      number of samples
    --epoch 0       epoch of the order and the augmentation
    --out FILE.png  file to write; default: NAME_SPLIT.png
    --side 256      side of each panel in pixels; default: 256, 320 for images larger than that, and up to 512 for
                    images with many small objects
    --labels true   write the class at each box
    --KEY VALUE     any key of the data section: --image_size 96, or --data.image_size 96"""


def show(arguments: Sequence[str]) -> None:
    """Run ``striate data show``.

    Args:
        arguments: The command line behind ``striate data show``.
    """
    from pathlib import Path
    from typing import Literal

    from PIL import Image

    from ..launcher.messages import fail, notice
    from .build_data import Option, parse_data_command
    from .check import data_by_format

    options = {
        "format": Option(str | None),
        "split": Option(Literal["train", "val", "test"], "train"),
        "count": Option(int, 16),
        "epoch": Option(int, 0),
        "out": Option(str | None),
        "side": Option(int | None),
        "labels": Option(bool, True),
    }
    call = parse_data_command(arguments, options, data_by_format)
    values = call.options
    if call.positionals:
        fail(f"{call.positionals[0]}: unexpected argument; keys are given as --KEY VALUE")
    for key, least in (("count", 1), ("epoch", 0), ("side", 64)):
        if values[key] is not None and values[key] < least:
            fail(f"--{key}: must be >= {least}, got {values[key]}")
    out = Path(values.out or f"{call.name}_{values.split}.png").expanduser()
    if out.suffix.lower() != ".png":
        fail(f"--out: must end in .png, got {str(out)!r}")
    if not out.parent.is_dir():
        fail(f"--out: no folder {str(out.parent)!r}")
    with call.one_line_errors("interrupted; nothing was written"):
        figure, count = page(
            call.build(), values.split, values.count, values.epoch, values.side, call.name, values.labels
        )
        Image.fromarray(figure).save(out)
    notice(f"{out}: {count} samples of {values.split}")


def page(
    data: Any,
    split: str,
    count: int,
    epoch: int = 0,
    side: int | None = None,
    name: str = "",
    labels: bool = True,
) -> tuple[Any, int]:
    """Draw samples in one figure.

    Args:
        data: A LightningDataModule with the batches of `datamodules.batches`. It is set up here, with batches of at
            most `count` samples and without worker processes.
        split: ``train``, ``val`` or ``test``.
        count: Number of samples.
        epoch: Epoch of the order and the augmentation.
        side: Side of each panel in pixels; None: 256, or 320 if the first image is larger than that, and up to twice
            that if an image has many small objects.
        name: Name of the data in the title.
        labels: Write the class at each box.

    Returns:
        The figure and the number of samples on it.

    Shape:
        - Output: ``[H, W, 3]`` uint8, and an integer.
    """
    from ...callbacks.drawing.canvas import common_height, grid
    from ...callbacks.drawing.overlays import legible_side, target_of, target_panel, with_title
    from ...tasks.interfaces import HasClassNames

    loader = make_loader(data, split, count, epoch)
    size = len(loader.dataset) if isinstance(loader.dataset, Sized) else None
    names = data.class_names if isinstance(data, HasClassNames) else []
    samples = []
    for batch, position in first_samples(loader, split, count):
        image = batch["image"][position].permute(1, 2, 0).numpy()  # [H, W, 3]
        note = f"{image.shape[1]} x {image.shape[0]}"
        if "index" in batch:
            note = f"no. {int(batch['index'][position])}   {note}"
        if "path" in batch:
            note += f"   {batch['path'][position].replace(chr(92), '/').rsplit('/', 1)[-1]}"
        samples.append((image, target_of(batch, position), note))
    usual = 256 if max(samples[0][0].shape) <= 256 else 320
    side = side or max(legible_side(image, target, usual, 2 * usual) for image, target, _ in samples)
    height = common_height((image for image, _, _ in samples), side)
    panels = [
        target_panel(image, target, names, note, side, labels=labels, height=height) for image, target, note in samples
    ]
    root = math.ceil(math.sqrt(len(panels)))
    # full rows, if a number of columns near the square root allows it
    columns = next((c for c in range(root, min(2 * root, 8)) if len(panels) % c == 0), root)
    title = f"{name}   {split}, epoch {epoch}" if split == "train" else f"{name}   {split}"
    total = f" of {size:,}" if size else ""
    return with_title(grid(panels, columns), f"{title}   {len(panels)}{total} samples"), len(panels)


def make_loader(data: Any, split: str, count: int, epoch: int) -> Any:
    """The loader of training or evaluation, in this process and with batches of at most `count` samples."""
    from ...datamodules.annotations.annotation_errors import AbsentSplitError

    data.prepare_data()
    for key in ("batch_size", "eval_batch_size"):
        if isinstance(getattr(data, key, None), int):
            setattr(data, key, min(getattr(data, key), count))
    if hasattr(data, "num_workers"):
        data.num_workers = 0
    try:
        data.setup({"train": "fit", "val": "validate", "test": "test"}[split])
    except AbsentSplitError:
        if split not in getattr(data, "datasets", {}):  # to look at train, val is not needed
            raise
    loader = getattr(data, f"{split}_dataloader")()
    if isinstance(loader, list | tuple):
        if not loader:
            raise ValueError(f"--split: {type(data).__name__} has no {split} split")
        loader = loader[0]
    for sampler in (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
        if (set_epoch := getattr(sampler, "set_epoch", None)) is not None:
            set_epoch(epoch)
    return loader


def first_samples(loader: Any, split: str, count: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the first `count` samples: the batch and the position in it."""
    from ..launcher.messages import notice

    remaining, unreadable = count, []
    for batch in loader:
        if not isinstance(batch, dict) or "image" not in batch:
            raise TypeError(f"data: a {split} batch must be a dictionary with 'image', got {type(batch).__name__}")
        unreadable += batch.get("unreadable", [])
        for position in range(min(remaining, len(batch["image"]))):
            yield batch, position
        remaining -= len(batch["image"])
        if remaining <= 0:
            break
    if remaining == count:
        first = f", the first: {unreadable[0]}" if unreadable else ""
        raise ValueError(f"data: no sample of {split} can be read{first}")
    for message in unreadable:
        notice(f"unreadable: {message}")
