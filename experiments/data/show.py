"""``striate data show``: a page of samples with their targets, after the augmentation, in the order of training."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

USAGE = """\
usage: striate data show --config FILE [--KEY VALUE …]
       striate data show NAME [--KEY VALUE …]            NAME: a data module: digit_scenes, or mine.Data

Draws samples as the network will see them: those of an epoch's first batches, augmented, with their targets.

    --split train   train, val or test
    --count 16      number of samples
    --epoch 0       whose order and augmentation
    --out FILE.png  default: NAME_SPLIT.png
    --side 256      of each picture, pixels; default: 256, or 320 for images larger than that
    --KEY VALUE     any key of the YAML's data section: --image_size 96, or --data.image_size 96"""


def show(arguments: Sequence[str]) -> None:
    """Run the command."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)  # noqa: T201
        return
    from pathlib import Path
    from typing import Literal

    from PIL import Image

    from ..launcher.main import fail
    from .section import Option, answered, understand

    options = {
        "split": Option(Literal["train", "val", "test"], "train"),
        "count": Option(int, 16),
        "epoch": Option(int, 0),
        "out": Option(str | None),
        "side": Option(int | None),
    }
    call = understand(arguments, options)
    chosen = call.options
    if call.positionals:
        fail(f"{call.positionals[0]!r}: not known what that is for; keys are given as --KEY VALUE")
    for key, least in (("count", 1), ("epoch", 0), ("side", 64)):
        if chosen[key] is not None and chosen[key] < least:
            fail(f"--{key}: {chosen[key]}; give {least} or more")
    out = Path(chosen.out or f"{call.name}_{chosen.split}.png").expanduser()
    if out.suffix.lower() != ".png":
        fail(f"--out: {str(out)!r} is not a .png")
    if not out.parent.is_dir():
        fail(f"--out: no folder {str(out.parent)!r}")
    with answered("interrupted; nothing was written"):
        picture, drawn = page(call.build(), chosen.split, chosen.count, chosen.epoch, chosen.side, call.name)
        Image.fromarray(picture).save(out)
    sys.stderr.write(f"striate: {drawn} samples of {chosen.split} drawn in {out}\n")


def page(data: Any, split: str, count: int, epoch: int = 0, side: int | None = None, name: str = "") -> tuple[Any, int]:
    """A page of samples, and how many there are on it.

    Args:
        data: a LightningDataModule whose batches are those of `datamodules.batches`; it is set up here, with batches
            of at most `count` and no worker processes.
        split: train, val or test.
        count: of samples.
        epoch: whose order and augmentation.
        side: of each picture, pixels; None: 256, or 320 where the first image is larger than that.
        name: of the data, for the title.

    Shape:
        - Output: ``[H, W, 3]`` uint8, and a number.
    """
    from ...callbacks.drawing.canvas import grid
    from ...callbacks.drawing.overlays import target_of, target_panel, titled

    loader = _loader(data, split, count, epoch)
    size = len(loader.dataset) if hasattr(loader.dataset, "__len__") else None
    names = getattr(data, "class_names", [])
    panels = []
    for batch, place in _places(loader, split, count):
        image = batch["image"][place].permute(1, 2, 0).numpy()
        side = side or (256 if max(image.shape) <= 256 else 320)
        note = f"{image.shape[1]} x {image.shape[0]}"
        if "index" in batch:
            note = f"no. {int(batch['index'][place])}   {note}"
        if "path" in batch:
            note += f"   {batch['path'][place].replace(chr(92), '/').rsplit('/', 1)[-1]}"
        panels.append(target_panel(image, target_of(batch, place), names, note, side))
    near = math.ceil(math.sqrt(len(panels)))
    # full rows, if a number of columns near to the root allows it
    columns = next((c for c in range(near, min(2 * near, 8)) if len(panels) % c == 0), near)
    title = f"{name}   {split}, epoch {epoch}" if split == "train" else f"{name}   {split}"
    of = f" of {size:,}" if size else ""
    return titled(grid(panels, columns), f"{title}   {len(panels)}{of} samples"), len(panels)


def _loader(data: Any, split: str, count: int, epoch: int) -> Any:
    """The loader that training or evaluation would have, in this process and with small batches."""
    data.prepare_data()
    for key in ("batch_size", "eval_batch_size"):
        if isinstance(getattr(data, key, None), int):
            setattr(data, key, min(getattr(data, key), count))
    if hasattr(data, "num_workers"):
        data.num_workers = 0
    data.setup({"train": "fit", "val": "validate", "test": "test"}[split])
    loader = getattr(data, f"{split}_dataloader")()
    if isinstance(loader, list | tuple):
        if not loader:
            raise ValueError(f"{type(data).__name__} has no {split} split")
        loader = loader[0]
    for sampler in (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
        if (set_epoch := getattr(sampler, "set_epoch", None)) is not None:
            set_epoch(epoch)
    return loader


def _places(loader: Any, split: str, count: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The first `count` samples, as batches and places in them."""
    left, unreadable = count, []
    for batch in loader:
        if not isinstance(batch, dict) or "image" not in batch:
            raise TypeError(f"a batch of {split} is no dictionary with 'image' in it, but {type(batch).__name__}")
        unreadable += batch.get("unreadable", [])
        for place in range(min(left, len(batch["image"]))):
            yield batch, place
        left -= len(batch["image"])
        if left <= 0:
            break
    if left == count:
        first = f": {unreadable[0]}" if unreadable else ""
        raise ValueError(f"no sample of {split} can be read{first}")
    for message in unreadable:
        sys.stderr.write(f"striate: unreadable: {message}\n")
