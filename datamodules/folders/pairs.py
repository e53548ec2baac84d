"""Pairs the images of a folder with the masks of another folder, by name."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, Fault, record_error
from ..annotations.dataset_layout import encode_paths, layout_error
from ..images.read import IMAGE_SUFFIXES


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
    images, masks = files_by_name(root, image_folder, image_ending), files_by_name(root, mask_folder, mask_ending)
    if image_folder == mask_folder and mask_ending:  # a mask may have the ending of an image, too
        images = {name: file for name, file in images.items() if file not in set(masks.values())}
    if not images:
        suffixes = ", ".join(image_ending + suffix for suffix in IMAGE_SUFFIXES)
        raise ValueError(f"{root / image_folder}: no images; searched for {suffixes}")
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


def files_by_name(root: Path, folder: str, ending: str = "") -> dict[str, str]:
    """List the image files below a folder.

    Args:
        root: Folder that the returned paths are relative to.
        folder: Folder below `root`, searched recursively.
        ending: End of the file names before their suffix; other files are skipped.

    Returns:
        The path of each file by its name: the path below `folder` without suffix and `ending`. Sorted.

    Raises:
        ValueError: Two files have the same name.
    """
    base = root / folder
    files: dict[str, str] = {}
    for path in sorted(base.rglob("*")):
        inner = path.relative_to(base)
        if path.suffix.lower() not in IMAGE_SUFFIXES or any(part.startswith(".") for part in inner.parts):
            continue
        name = inner.with_suffix("").as_posix()
        if not name.endswith(ending):
            continue
        name = name.removesuffix(ending)
        if name in files:
            raise ValueError(f"{base}: {Path(files[name]).name} and {path.name} have the same name; keep one")
        files[name] = (Path(folder) / inner).as_posix()
    return files
