"""MATLAB files of the Semantic Boundaries Dataset (SBD): classes and objects of an image's pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from ..images.read import ImageError


def read_class_mat(path: Path) -> np.ndarray:
    """The classes of an image's pixels: ``GTcls.Segmentation`` of a file of SBD's ``cls``.

    Returns:
        0 = background, 1 to 20 as VOC counts them.

    Shape:
        - Output: ``[H, W]`` uint8.

    Raises:
        ImageError: when the file cannot be read, or is not SBD's.
    """
    return _plane(path, "GTcls", _fields(path, "GTcls", ("Segmentation",))[0])


def read_instance_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The objects of an image: ``GTinst.Segmentation`` and ``GTinst.Categories`` of a file of SBD's ``inst``.

    Returns:
        The object of each pixel, 0 = none, counted from 1; the class of each object, 1 to 20.

    Shape:
        - Output: ``[H, W]`` uint8; ``[N]`` int64.

    Raises:
        ImageError: when the file cannot be read, or is not SBD's.
    """
    plane, categories = _fields(path, "GTinst", ("Segmentation", "Categories"))
    if categories.dtype.kind not in "ui":
        raise ImageError(path, f"GTinst.Categories is {categories.dtype}, and must be whole numbers")
    return _plane(path, "GTinst", plane), categories.astype(np.int64).ravel()


def _fields(path: Path, name: str, fields: tuple[str, ...]) -> list[np.ndarray]:
    """Some fields of the structure `name` in a file."""
    import scipy.io  # comes with scikit-learn; slow to import

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    try:
        content: dict[str, Any] = scipy.io.loadmat(io.BytesIO(data), variable_names=[name])
    except Exception as error:  # scipy raises ValueError, TypeError, zlib.error, NotImplementedError … for bad files
        raise ImageError(path, f"not a readable MATLAB file ({str(error).strip() or type(error).__name__})") from error
    known = getattr(content.get(name), "dtype", np.dtype(np.uint8)).names or ()
    if lacking := [field for field in fields if field not in known]:
        raise ImageError(path, f"no {name}.{lacking[0]} in it; expected a file of SBD")
    if content[name].size != 1:
        raise ImageError(path, f"{name} is a list of {content[name].size}, and must be one; expected a file of SBD")
    record = content[name].reshape(-1)[0]
    return [np.asarray(record[field]) for field in fields]


def _plane(path: Path, name: str, plane: np.ndarray) -> np.ndarray:
    """A map of small numbers, checked."""
    if plane.ndim != 2 or plane.dtype.kind not in "ui" or (plane.size and not 0 <= plane.min() <= plane.max() <= 255):
        raise ImageError(
            path, f"{name}.Segmentation is {plane.dtype} {list(plane.shape)}, and must be [H, W], whole, 0 to 255"
        )
    return plane.astype(np.uint8)
