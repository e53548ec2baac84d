"""Pairs the images of a folder with the masks of another folder, by name."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, Fault, record_error
from ..annotations.dataset_layout import encode_paths, layout_error
from ..annotations.skipped_files import report_skipped
from ..images.file_names import composed
from ..images.listing import SUPPORTED, Listing, list_folder


class Pairs(NamedTuple):
    """Images with one mask file each.

    Attributes:
        names: Name of each pair: the path below its folder, without suffix and ending.
        images: Image files, ``[N]`` bytes, see `encode_paths`.
        masks: Mask files, ``[N]`` bytes.
    """

    names: list[str]
    images: np.ndarray
    masks: np.ndarray


def pair_files(
    root: Path, image_folder: str, mask_folder: str, reader: type, image_ending: str = "", mask_ending: str = ""
) -> Pairs:
    """Pair images and masks with the same name.

    Args:
        root: Folder that the returned paths are relative to.
        image_folder, mask_folder: Folders below `root`, searched recursively; may be the same if the endings differ.
        reader: Data module, for messages.
        image_ending, mask_ending: End of the names of images and masks, before their suffix.

    Raises:
        FileNotFoundError: A folder or the mask of an image is missing.
        ValueError: There are no images, or two files have the same name.
    """
    for folder in (image_folder, mask_folder):
        if not (root / folder).is_dir():
            raise layout_error(f"no folder {str(root / folder)!r}", reader, root, AbsentSplitError)
    listings = {folder: list_folder(root / folder) for folder in (image_folder, mask_folder)}
    report_skipped(listings.values())
    images = files_by_name(image_folder, listings[image_folder], image_ending)
    masks = files_by_name(mask_folder, listings[mask_folder], mask_ending)
    if image_folder == mask_folder and mask_ending:  # a mask may have the ending of an image, too
        images = {name: file for name, file in images.items() if file not in set(masks.values())}
    if not images:
        ending = f" whose names end with {image_ending!r}" if image_ending else ""
        raise ValueError(f"{root / image_folder}: no images{ending}; searched for {SUPPORTED}")
    if unpaired := [name for name in images if name not in masks]:
        paths = [str(root / images[name]) for name in unpaired]
        more = f" and {len(unpaired) - 3} more" if len(unpaired) > 3 else ""
        record_error(
            Fault("missing-annotation", root / mask_folder, paths, "path", "no mask of its name", images=paths),
            f"{root / mask_folder}: no mask for {len(unpaired)} of {len(images)} images of {image_folder}: "
            f"{', '.join(name + mask_ending for name in unpaired[:3])}{more}",
        )
    names = [name for name in images if name in masks]
    return Pairs(names, encode_paths(images[name] for name in names), encode_paths(masks[name] for name in names))


def files_by_name(folder: str, listing: Listing, ending: str = "") -> dict[str, str]:
    """Return the image files of a folder by the names that images and masks share.

    Args:
        folder: Path of the folder, with which the returned paths begin.
        listing: What it contains.
        ending: End of the file names before their suffix; other files are skipped.

    Returns:
        The path of each file by its name: the path below `folder` without suffix and `ending`, in Unicode's composed
        form. Sorted by path.

    Raises:
        ValueError: Two files have the same name.
    """
    files: dict[str, str] = {}
    for inner in listing.images:
        stem = os.path.splitext(inner)[0]  # noqa: PTH122 - a hundred thousand times
        if not stem.endswith(ending):
            continue
        name = composed(stem.removesuffix(ending))
        if name in files:
            first, second = Path(files[name]).name, Path(inner).name
            raise ValueError(f"{listing.folder}: {first} and {second} have the same name; keep one")
        files[name] = (Path(folder) / inner).as_posix()
    return files
