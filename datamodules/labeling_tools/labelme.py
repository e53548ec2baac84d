"""labelme's JSON files, one beside each image."""

import base64
import binascii
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..annotations.annotation_errors import DataError, Fault, record_error, recording
from ..annotations.dataset_layout import layout_error
from ..annotations.json_files import read_json
from ..annotations.other_formats import other_format
from ..images.file_names import FileNames
from .drawings import Drawing, Drawings, ellipse, image_size, rectangle
from .module import LabelingToolDataModule

_NO_AREA = ("line", "linestrip", "point", "points")


class LabelmeJson(LabelingToolDataModule):
    """Objects in labelme's JSON files, with boxes, with masks, or merged into one semantic mask per image.

    Expected layout::

        ROOT/a.jpg         ROOT/a.json
        ROOT/deep/b.jpg    ROOT/deep/b.json

    Folders are searched recursively. If `root` has a folder ``train``, the splits are the folders ``train``, ``val``
    and ``test``; otherwise all files are the training set. Rectangles, polygons, circles and masks are objects. Shapes
    with the same label and ``group_id`` are one object. Lines and points have no area; they are left out with one
    warning, like boxes outside their image, or stop the run if `strict`.

    Args:
        root: Folder of the JSON files, or one of them.
        task: ``detection``; ``instance_segmentation``: with masks; ``semantic_segmentation``: the masks of an image
            merged into one, with class 0 as background, and small objects on top of large ones.
        class_names: Names of the classes; None: those of the training set, sorted.
        val_fraction: Fraction of the images to hold out for validation, drawn with `seed`, if there is no folder
            ``val``.
        **kwargs: ``min_visibility`` and ``group_by_aspect`` of `ObjectDataModule`, and the loader options of
            `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files or images are missing; the message shows the expected layout.
        ValueError: A file is not labelme's; the message has the file and the shape.

    Batches are `DetectionBatch`, `InstanceSegmentationBatch` or `SemanticSegmentationBatch`. An ``image_id`` is the
    position of the JSON file, sorted by path.
    """

    def read_drawings(self, split: str) -> Drawings | None:
        """Return the images and objects of a split's own files; None if it has none."""
        in_folders = (self.root / "train").is_dir()
        folder = self.root / split if in_folders else self.root
        if not in_folders and split != "train":
            return None
        files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*.json") if _is_visible(path))
        if not files:
            if split != "train":
                return None
            raise layout_error(f"root: no JSON files in {str(folder)!r}", type(self), self.root)
        root = self.root.parent if self.root.is_file() else self.root
        drawings, images = Drawings(root, root, "file"), FileNames(root)
        for file in files:
            try:
                _read_file(file, drawings, images)
            except DataError as error:
                if error.fault is None or not recording():
                    raise
                record_error(error.fault)
        return drawings


def _is_visible(path: Path) -> bool:
    return path.name[0] != "."


def _read_file(file: Path, drawings: Drawings, images: FileNames) -> None:
    """Add the image of a JSON file and its objects to `drawings`, or raise a `DataError` with a fault."""
    content = read_json(file, "labelme's JSON")
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        found = f"must be labelme's JSON with shapes and imagePath, got {other_format(content) or 'other JSON'}"
        raise DataError.of(Fault("annotation-file", file, [str(file)], "path", found))
    width, height = content.get("imageWidth"), content.get("imageHeight")
    if (size := image_size(width, height)) is None:
        found = f"imageWidth and imageHeight must be numbers of pixels, got {width!r} and {height!r}"
        raise DataError.of(Fault("annotation-file", file, [str(file)], "path", found))
    path = content.get("imagePath")
    if not isinstance(path, str) or not path:
        found = f"imagePath must be the path of the image, got {path!r}"
        raise DataError.of(Fault("annotation-file", file, [str(file)], "path", found))
    image = len(drawings.names)
    drawings.names.append(_image_name(file, path, drawings.root, images))
    drawings.sizes.append(size)
    groups: dict[Any, Drawing] = {}
    for number, shape in enumerate(content["shapes"], start=1):
        name = f"{file.relative_to(drawings.root).as_posix()}, shape {number}"
        try:
            drawing = _read_shape(shape, image, name, size)
        except (ValueError, OverflowError) as error:
            drawings.unusable.append((name, str(error)))
            continue
        group = shape.get("group_id")
        key = number if group is None else (drawing.label, str(group))
        groups[key] = _joined(groups[key], drawing) if key in groups else drawing
    drawings.objects += groups.values()


def _image_name(file: Path, path: str, root: Path, images: FileNames) -> str:
    """Return the image of a JSON file, below the root: where it says, or else the image of its name beside it."""
    folder = file.parent.relative_to(root).as_posix()
    below = "" if folder == "." else f"{folder}/"
    slashes = path.replace("\\", "/")
    candidates = [below + slashes, below + slashes.rpartition("/")[2]]
    found = (images.resolve(name) for name in candidates if ".." not in name.split("/"))
    return next((name for name in found if name is not None), candidates[1])


def _read_shape(shape: Any, image: int, name: str, size: tuple[int, int]) -> Drawing:
    """Return the object of a shape, or raise a `ValueError` that says what is wrong with it."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
        raise ValueError("a shape must have a label, which is text")
    points, kind = shape.get("points"), shape.get("shape_type") or "polygon"
    if not isinstance(points, list) or not all(map(_is_point, points)):
        raise ValueError("points must be a list of pairs of numbers")
    label, coordinates = shape["label"].strip(), [float(side) for point in points for side in point]
    if kind in _NO_AREA:
        raise ValueError(f"a {kind} has no area, and is no object")
    if kind == "polygon" and len(points) >= 3:
        return Drawing(image, name, label, [coordinates])
    if kind == "rotation" and len(points) == 4:  # X-AnyLabeling's oriented box
        return Drawing(image, name, label, [coordinates])
    if kind == "rectangle" and len(points) in (2, 4):  # four corners in X-AnyLabeling
        across, down = coordinates[::2], coordinates[1::2]
        return Drawing(image, name, label, [rectangle(min(across), min(down), max(across), max(down))])
    if kind == "circle" and len(points) == 2:
        x, y, on_x, on_y = coordinates
        radius = math.hypot(on_x - x, on_y - y)
        return Drawing(image, name, label, [ellipse(x, y, radius, radius)])
    if kind == "mask" and len(points) == 2:
        return Drawing(image, name, label, [], _read_mask(shape.get("mask"), coordinates, size))
    raise ValueError(f"shape_type {kind!r} with {len(points)} points is not supported")


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(type(side) in (int, float) for side in point)


def _read_mask(text: Any, corners: list[float], size: tuple[int, int]) -> np.ndarray:
    """Return the mask of a shape: a PNG in base64, whose first pixel is at the first corner: ``[H, W]`` uint8."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as opened:
            part = np.asarray(opened.convert("L")) > 0
    except (TypeError, ValueError, OSError, binascii.Error) as error:
        raise ValueError(f"mask must be a PNG in base64 ({error})") from error
    mask = np.zeros((size[1], size[0]), np.uint8)
    left, top = round(corners[0]), round(corners[1])
    height, width = part.shape
    if left < 0 or top < 0 or top + height > size[1] or left + width > size[0]:
        raise ValueError(f"mask of {width}x{height} at {left}, {top} extends beyond the image of {size[0]}x{size[1]}")
    mask[top : top + height, left : left + width] = part
    return mask


def _joined(first: Drawing, second: Drawing) -> Drawing:
    """Return two parts of one object as one."""
    masks = [one.mask for one in (first, second) if one.mask is not None]
    mask = None if not masks else masks[0] if len(masks) == 1 else masks[0] | masks[1]
    return first._replace(polygons=first.polygons + second.polygons, mask=mask)
