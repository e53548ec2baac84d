"""labelme's JSON files, one beside each image."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations.annotation_errors import DataError, Fault, record_error, recording
from ..annotations.dataset_layout import layout_error
from ..annotations.json_files import read_json
from ..annotations.other_formats import other_format
from ..images.file_names import FileNames
from ..images.sizes import image_sizes
from .drawings import Drawing, Drawings, ellipse, image_size, rectangle
from .module import LabelingToolDataModule
from .png import decode_png

_NO_AREA = ("line", "linestrip", "point", "points")
_IGNORED, _BACKGROUND = "__ignore__", "_background_"  # what labelme's own converters do not take for classes


class LabelmeJson(LabelingToolDataModule):
    """Objects in labelme's JSON files, with boxes, with masks, or merged into one semantic mask per image.

    Expected layout::

        ROOT/a.jpg         ROOT/a.json
        ROOT/deep/b.jpg    ROOT/deep/b.json

    Folders are searched recursively. If `root` has a folder ``train``, the splits are the folders ``train``, ``val``
    and ``test``; otherwise all files are the training set. Rectangles, also rotated ones, polygons, circles and masks
    are objects. Shapes with the same label and ``group_id`` are one object. Lines and points have no area, and
    ``__ignore__`` and ``_background_`` are not classes; they are left out with one warning, like boxes outside their
    image, or stop the run if `strict`. A semantic mask cannot have the pixels of ``__ignore__``, which are refused.

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
        ignored = [name for name, problem in drawings.unusable if problem.startswith(_IGNORED)]
        if ignored and self.task == "semantic_segmentation":
            remedy = "write masks with labelme's example labelme2voc.py, and read them with MaskFolder"
            record_error(Fault("label-outside", root, ignored, "file", f"{_IGNORED!r}", remedy))
        return drawings


def _is_visible(path: Path) -> bool:
    return path.name[0] != "."


def _read_file(file: Path, drawings: Drawings, images: FileNames) -> None:
    """Add the image of a JSON file and its objects to `drawings`, or raise a `DataError` with a fault."""
    content = read_json(file, "labelme's JSON")
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        found = f"must be labelme's JSON with shapes and imagePath, got {other_format(content) or 'other JSON'}"
        raise DataError.of(Fault("annotation-file", file, [str(file)], "path", found))
    path = content.get("imagePath")
    if not isinstance(path, str) or not path:
        found = f"imagePath must be the path of the image, got {path!r}"
        raise DataError.of(Fault("annotation-file", file, [str(file)], "path", found))
    name, exists = _image_name(file, path, drawings.root, images)
    if not exists and isinstance(content.get("imageData"), str):
        remedy = f"{file.name} holds it as imageData, in base64: write it to that file"
        raise DataError.of(Fault("missing-image", drawings.root, [name], "file", remedy=remedy))
    width, height = content.get("imageWidth"), content.get("imageHeight")
    size = image_size(width, height)
    if width is None and height is None:  # as in files of labelme before 3.5
        size = tuple(image_sizes([drawings.root / name])[0].tolist())
    if size is None:
        found = f"imageWidth and imageHeight must be numbers of pixels, got {width!r} and {height!r}"
        raise DataError.of(Fault("annotation-file", file, [str(file)], "path", found))
    image = len(drawings.names)
    drawings.names.append(name)
    drawings.sizes.append(size)
    groups: dict[Any, Drawing] = {}
    for number, shape in enumerate(content["shapes"], start=1):
        place = f"{file.relative_to(drawings.root).as_posix()}, shape {number}"
        try:
            drawing = _read_shape(shape, image, place, size)
        except (ValueError, OverflowError) as error:
            drawings.unusable.append((place, str(error)))
            continue
        group = shape.get("group_id")
        key = number if group is None else (drawing.label, str(group))
        groups[key] = _joined(groups[key], drawing) if key in groups else drawing
    drawings.objects += groups.values()


def _image_name(file: Path, path: str, root: Path, images: FileNames) -> tuple[str, bool]:
    """Return the image of a JSON file, below the root, and whether it exists.

    It is where the file says, or else the image of its name beside the file.
    """
    folder = file.parent.relative_to(root).as_posix()
    below = "" if folder == "." else f"{folder}/"
    slashes = path.replace("\\", "/")
    candidates = [below + slashes, below + slashes.rpartition("/")[2]]
    found = (images.resolve(name) for name in candidates if ".." not in name.split("/"))
    name = next((name for name in found if name is not None), None)
    return (candidates[1], False) if name is None else (name, True)


def _read_shape(shape: Any, image: int, name: str, size: tuple[int, int]) -> Drawing:
    """Return the object of a shape, or raise a `ValueError` that says what is wrong with it."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
        raise ValueError("a shape must have a label, which is text")
    points, kind = shape.get("points"), shape.get("shape_type") or "polygon"
    if not isinstance(points, list) or not all(map(_is_point, points)):
        raise ValueError("points must be a list of pairs of numbers")
    label, coordinates = shape["label"].strip(), [float(side) for point in points for side in point]
    if label in (_IGNORED, _BACKGROUND):
        raise ValueError(f"{label} is not a class, and the shape is not an object")
    if kind in _NO_AREA:
        raise ValueError(f"a {kind} has no area, and is not an object")
    if kind == "polygon" and len(points) >= 3:
        return Drawing(image, name, label, [coordinates])
    if kind in ("oriented_rectangle", "rotation") and len(points) == 4:  # the latter is X-AnyLabeling's
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
    """Return the mask of a shape: a PNG in base64, whose first pixel is at the first corner: ``[H, W]`` uint8.

    As in labelme, what lies outside the image, or beyond corners of whole pixels, is cut off.
    """
    try:
        part = decode_png(text) != 0
    except ValueError as error:
        raise ValueError(f"mask {error}") from error
    if part.ndim != 2:
        raise ValueError(f"mask must have one channel, got the shape {list(part.shape)}")
    left, top, right, bottom = (round(corner) for corner in corners)
    if all(corner == int(corner) for corner in corners):
        part = part[: max(bottom - top + 1, 0), : max(right - left + 1, 0)]
    width, height = size
    inside = part[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    if not inside.any():
        raise ValueError(f"mask at {left}, {top} has no pixel in the image of {width}x{height}")
    mask = np.zeros((height, width), np.uint8)
    mask[max(top, 0) :, max(left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return mask


def _joined(first: Drawing, second: Drawing) -> Drawing:
    """Return two parts of one object as one."""
    masks = [one.mask for one in (first, second) if one.mask is not None]
    mask = None if not masks else masks[0] if len(masks) == 1 else masks[0] | masks[1]
    return first._replace(polygons=first.polygons + second.polygons, mask=mask)
