"""MATLAB files of the Semantic Boundaries Dataset (SBD): masks of the classes and of the objects of an image."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from ..images.read import ImageError


def read_class_mat(path: Path) -> np.ndarray:
    """Read the class of each pixel: ``GTcls.Segmentation`` in a file of SBD's folder ``cls``.

    Returns:
        0 = background, 1 to 20 = VOC's classes.

    Shape:
        - Output: ``[H, W]`` uint8.

    Raises:
        ImageError: The file cannot be read, or is not SBD's.
    """
    return _check_plane(path, "GTcls", _fields(path, "GTcls", ("Segmentation",))[0])


def read_instance_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the objects: ``GTinst.Segmentation`` and ``GTinst.Categories`` in a file of SBD's folder ``inst``.

    Returns:
        Object of each pixel, counted from 1, 0 = background; class of each object, 1 to 20.

    Shape:
        - Output: ``[H, W]`` uint8; ``[N]`` int64.

    Raises:
        ImageError: The file cannot be read, or is not SBD's.
    """
    plane, categories = _fields(path, "GTinst", ("Segmentation", "Categories"))
    if categories.dtype.kind not in "ui":
        raise ImageError(path, f"GTinst.Categories must be whole numbers, got {categories.dtype}")
    return _check_plane(path, "GTinst", plane), categories.astype(np.int64).ravel()


def _fields(path: Path, name: str, fields: tuple[str, ...]) -> list[np.ndarray]:
    """Return fields of the structure `name` in a file, such as ``[H, W]`` or ``[N, 1]``; see the callers."""
    import scipy.io  # a dependency of scikit-learn; slow to import

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    try:
        content: dict[str, Any] = scipy.io.loadmat(io.BytesIO(data), variable_names=[name])
    except Exception as error:  # scipy raises ValueError, TypeError, zlib.error, NotImplementedError … for bad files
        raise ImageError(path, f"not a readable MATLAB file ({str(error).strip() or type(error).__name__})") from error
    known = getattr(content.get(name), "dtype", np.dtype(np.uint8)).names or ()
    if missing := [field for field in fields if field not in known]:
        raise ImageError(path, f"no {name}.{missing[0]} in it; use a file of SBD")
    if content[name].size != 1:
        raise ImageError(path, f"{name} must be a single structure, got {content[name].size}; use a file of SBD")
    record = content[name].reshape(-1)[0]
    return [np.asarray(record[field]) for field in fields]


def _check_plane(path: Path, name: str, plane: np.ndarray) -> np.ndarray:
    """Return a mask ``[H, W]`` as uint8.

    Raises:
        ImageError: It has another shape or type, or values that do not fit.
    """
    if plane.ndim != 2 or plane.dtype.kind not in "ui" or (plane.size and not 0 <= plane.min() <= plane.max() <= 255):
        raise ImageError(
            path,
            f"{name}.Segmentation must be [H, W], whole numbers 0 to 255, got {plane.dtype} {list(plane.shape)}",
        )
    return plane.astype(np.uint8)
