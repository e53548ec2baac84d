"""Label Studio's exports ``JSON`` and ``JSON-MIN``."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ..annotations.annotation_errors import DataError, Fault, record_error, record_warning
from ..annotations.argument_checks import check_choice
from ..annotations.dataset_layout import layout_error
from ..annotations.json_files import read_json
from ..annotations.other_formats import other_format
from ..base import Unpack
from ..images.file_names import FileNames
from ..images.listing import IMAGE_SUFFIXES
from .brush import decode_brush
from .drawings import Drawing, Drawings, ellipse, image_size, rectangle
from .module import LabelingToolDataModule, LabelingToolOptions, ToolTask
from .png import decode_png

Several = Literal["error", "first", "last"]

_LABEL_KEYS = (
    *("rectanglelabels", "polygonlabels", "brushlabels", "bitmasklabels", "ellipselabels", "vectorlabels"),
    *("keypointlabels", "labels"),
)
_GEOMETRY = ("x", "points", "rle", "imageDataURL", "vertices")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # before the name of an uploaded file
_FOLDERS = ("", "images/", "upload/", "media/upload/")  # where images lie beside an export


class LabelStudioJson(LabelingToolDataModule):
    """Objects in Label Studio's exports JSON and JSON-MIN, with boxes, with masks, or as one semantic mask per image.

    Expected layout::

        ROOT/project-1.json             (or any other name; it may be root itself)
        ROOT/images/3fd2a1b0-a.jpg …    (or beside the file; the eight characters and the hyphen may be missing)

    Rectangles, rotated ones, polygons, ellipses, masks drawn with a brush or as bit masks, and closed vectors without
    curves are objects. Their units are percent of the image, which become pixels. Keypoints and other vectors have no
    area; they are left out with one warning, like boxes outside their image, or stop the run if `strict`. Predictions,
    drafts, and cancelled annotations are ignored. Tasks without an annotation are left out with one warning; one whose
    annotation is empty is an image without objects.

    Args:
        root: The JSON file, or the folder of the only JSON file.
        task: ``detection``; ``instance_segmentation``: with masks; ``semantic_segmentation``: the masks of an image
            merged into one, with class 0 as background, and small objects on top of large ones.
        image_folder: Folder of the images, below the folder of the JSON file or absolute.
        several: What to do with a task that several people annotated: ``error``: stop the run; ``first`` or ``last``:
            use that annotation, by time of creation. One that is marked as ground truth is always used.
        **kwargs: ``class_names``: names of the classes; None: those of the file, sorted. ``val_fraction``: fraction of
            the images to hold out for validation, drawn with `seed`. ``min_visibility`` and ``group_by_aspect`` of
            `ObjectDataModule`, and the loader options of `VisionDataModule`: ``batch_size``, ``seed``, ….

    Raises:
        FileNotFoundError: Files or images are missing; the message shows the expected layout.
        ValueError: The file is not Label Studio's; the message has the task.

    Batches are `DetectionBatch`, `InstanceSegmentationBatch` or `SemanticSegmentationBatch`. An ``image_id`` is the
    position of the task in the file.
    """

    def __init__(
        self,
        root: str,
        task: ToolTask = "detection",
        image_folder: str = ".",
        several: Several = "error",
        **kwargs: Unpack[LabelingToolOptions],
    ) -> None:
        super().__init__(root, task, **kwargs)
        check_choice("several", several, get_args(Several))
        self.image_folder, self.several = image_folder, several

    def read_drawings(self, split: str) -> Drawings | None:
        """Return the images and objects of a split's own files; None if it has none."""
        if split != "train":
            return None
        file = self._file()
        content = read_json(file, "Label Studio's JSON")
        if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
            found = other_format(content) or f"{type(content).__name__}"
            raise DataError(f"{file}: must be Label Studio's JSON or JSON-MIN, a list of tasks, got {found}")
        if not content:
            raise DataError(f"{file}: must list at least one task, got []")
        folder = file.parent / self.image_folder
        drawings, images, unlabeled = Drawings(folder, file, "entry"), FileNames(folder), []
        tasks = list(_tasks(content, file))
        for task in tasks:
            try:
                if (results := self._select(task.annotations)) is None:
                    unlabeled.append(task.name)
                else:
                    self._add(task, results, drawings, images)
            except (ValueError, OverflowError) as error:
                record_error(Fault("bad-target", file, [task.name], "entry", str(error)))
        if unlabeled:
            message = (
                f"{len(unlabeled)} of {len(tasks)} tasks left out (no annotation, or only cancelled ones; first: "
                f"{unlabeled[0]}): submit an empty annotation in Label Studio for an image without objects"
            )
            record_warning(Fault("unlabeled-task", file, unlabeled, "entry"), message)
        return drawings

    def _file(self) -> Path:
        if self.root.is_file():
            return self.root
        files = sorted(self.root.glob("*.json")) if self.root.is_dir() else []
        if len(files) != 1:
            problem = f"root: must be a JSON file or the folder of one, got {len(files)} in {str(self.root)!r}"
            raise layout_error(problem, type(self), self.root)
        return files[0]

    def _add(self, task: "_Task", results: list[dict[str, Any]], drawings: Drawings, images: FileNames) -> None:
        """Add a task's image and objects to `drawings`, or raise a `ValueError` that says what is wrong with it."""
        name = _find_image(_image_of(task.data), images)
        sizes = {(result.get("original_width"), result.get("original_height")) for result in results}
        if len(sizes) > 1:
            raise ValueError(f"original_width and original_height must be the same throughout, got {sorted(sizes)}")
        stated = next(iter(sizes), None)
        size = (0, 0) if stated is None else image_size(*stated)  # 0: unknown
        if size is None:
            raise ValueError(f"original_width and original_height must be numbers of pixels, got {stated}")
        image = len(drawings.names)
        drawings.names.append(name)
        drawings.sizes.append(size)
        for number, result in enumerate(results, start=1):
            place = f"{task.name}, region {result.get('id', number)}"
            try:
                drawings.objects.append(_read_result(result, image, place, size))
            except (ValueError, OverflowError) as error:
                drawings.unusable.append((place, str(error)))

    def _select(self, annotations: list[Any]) -> list[dict[str, Any]] | None:
        """Return the results with labels of the annotation to use; None: there is none."""
        if not all(isinstance(one, dict) and isinstance(one.get("result"), list) for one in annotations):
            raise ValueError("annotations must be a list of annotations, each with a list result")
        valid = [one for one in annotations if not (one.get("was_cancelled") or one.get("skipped"))]
        valid = [one for one in valid if one.get("ground_truth")][:1] or valid
        if not valid:
            return None
        if len(valid) > 1 and self.several == "error":
            raise ValueError(f"it has {len(valid)} annotations; set several: first or several: last to use one of them")
        # JSON-MIN has the newest first
        valid.sort(key=lambda one: str(one.get("created_at") or ""))
        results = valid[-1 if self.several == "last" else 0]["result"]
        if not all(isinstance(result, dict) for result in results):
            raise ValueError("result must be a list of regions")
        labeled = [result for result in results if _labels(result)]
        known = {result.get("id") for result in labeled}
        bare = [result for result in results if _has_geometry(result) and result.get("id") not in known]
        return labeled + bare


class _Task(NamedTuple):
    """A task: its file and name for messages, its data (such as the image), and its annotations."""

    file: Path
    name: str
    data: dict[str, Any]
    annotations: list[Any]


def _tasks(content: list[dict[str, Any]], file: Path) -> Iterator[_Task]:
    """Yield the tasks of a file, in either form; rows of JSON-MIN with the same id are annotations of one task."""
    by_id: dict[Any, _Task] = {}
    for index, task in enumerate(content):
        name = f"task {task.get('id', index)}"
        if isinstance(task.get("data"), dict):
            annotations = task.get("annotations", task.get("completions", []))
            yield _Task(file, name, task["data"], annotations if isinstance(annotations, list) else [None])
            continue
        regions = [region for values in task.values() if isinstance(values, list) for region in values]
        results = [region | {"value": region} for region in regions if isinstance(region, dict)]
        known = by_id.setdefault(str(task.get("id", -index - 1)), _Task(file, name, task, []))
        if results or task.get("annotation_id", 0) is not None:
            known.annotations.append({"result": results, "created_at": task.get("created_at")})
    yield from by_id.values()


def _image_of(data: dict[str, Any]) -> str:
    """Return the address of a task's image."""
    found = {key: value for key, value in data.items() if isinstance(value, str) and _is_image(value)}
    if len(found) != 1 and "image" not in found:
        raise ValueError(f"data must have the path of one image, got {', '.join(found) or 'none'}")
    return found["image"] if "image" in found else next(iter(found.values()))


def _is_image(address: str) -> bool:
    return any(path.lower().endswith(IMAGE_SUFFIXES) for path in _paths_in(address))


def _paths_in(address: str) -> list[str]:
    """Return the paths that an address may mean, the likeliest first.

    >>> _paths_in("/data/local-files/?d=disk/a%20b.png")[0], _paths_in("s3://bucket/a.png?token=1")
    ('disk/a b.png', ['/a.png'])
    """
    parts = urlsplit(address.replace("\\", "/"))
    query = parse_qs(parts.query)
    inner = [value for key in ("d", "filepath") for value in query.get(key, [])]
    for value in query.get("fileuri", []):  # of a task's own address: a storage's address in base64
        try:
            inner += _paths_in(base64.urlsafe_b64decode(value).decode())
        except ValueError:
            inner.append(value)
    return list(dict.fromkeys([*inner, parts.path, unquote(parts.path)]))


def _find_image(address: str, images: FileNames) -> str:
    """Return the name of an image below its folder: the longest end of its path that exists there."""
    names: list[str] = []
    for path in _paths_in(address):
        *folders, file = ["", *(part for part in path.split("/") if part not in ("", ".", ".."))]
        names += ["/".join([*folders[start:], file]) for start in range(1, len(folders) + 1)]
        names.append(_UPLOAD.sub("", file))
    names = [name for name in names if name]
    found = (images.resolve(folder + name) for name in names for folder in _FOLDERS)
    return next((name for name in found if name is not None), _base_name(address))


def _base_name(address: str) -> str:
    """Return the file name of an address, for messages."""
    path = next((path for path in _paths_in(address) if path.lower().endswith(IMAGE_SUFFIXES)), address)
    return path.rpartition("/")[2]


def _labels(result: dict[str, Any]) -> list[str]:
    """Return the labels of a region."""
    value = result.get("value")
    found = [value[key] for key in _LABEL_KEYS if value.get(key)] if isinstance(value, dict) else []
    return found[0] if found and isinstance(found[0], list) and _has_geometry(result) else []


def _has_geometry(result: dict[str, Any]) -> bool:
    value = result.get("value")
    return isinstance(value, dict) and any(key in value for key in _GEOMETRY)


def _read_result(result: dict[str, Any], image: int, place: str, size: tuple[int, int]) -> Drawing:
    """Return the object of a region, or raise a `ValueError` that says what is wrong with it."""
    value, labels = result["value"], _labels(result)
    if len(labels) != 1 or not isinstance(labels[0], str):
        raise ValueError(f"a region must have one label, got {labels}")
    if result.get("image_rotation"):
        raise ValueError(f"the image must not be rotated, got image_rotation {result['image_rotation']}")
    if "keypointlabels" in value or str(result.get("type")).startswith("keypoint"):
        raise ValueError("a keypoint has no area, and is not an object")
    label, (width, height) = labels[0], size
    if "rle" in value:
        if not isinstance(value["rle"], list):
            raise ValueError(f"rle must be a list of numbers, got {type(value['rle']).__name__}")
        return Drawing(image, place, label, [], decode_brush(value["rle"], height, width))
    if "imageDataURL" in value:
        return Drawing(image, place, label, [], _read_bit_mask(value["imageDataURL"], height, width))
    if "points" in value or "vertices" in value:
        points = value["points"] if "points" in value else _corners_of(value)
        if not isinstance(points, list) or len(points) < 3:
            raise ValueError("a polygon must have three points")
        pairs = [(_number(x) * width / 100, _number(y) * height / 100) for x, y in points]
        return Drawing(image, place, label, [[side for pair in pairs for side in pair]])
    x, y, turn = (_number(value.get(key, 0)) for key in ("x", "y", "rotation"))
    x, y = x * width / 100, y * height / 100
    if "radiusX" in value:
        radii = _number(value["radiusX"]) * width / 100, _number(value.get("radiusY")) * height / 100
        return Drawing(image, place, label, [ellipse(x, y, *radii, turn)])
    across, down = _number(value.get("width")) * width / 100, _number(value.get("height")) * height / 100
    return Drawing(image, place, label, [_turned(x, y, across, down, turn)])


def _read_bit_mask(url: Any, height: int, width: int) -> np.ndarray:
    """Return a bit mask, whose PNG has opaque pixels on a transparent background: ``[H, W]`` uint8."""
    try:
        pixels = decode_png(url)
    except ValueError as error:
        raise ValueError(f"imageDataURL {error}") from error
    if pixels.ndim != 3 or pixels.shape[2] not in (2, 4):
        raise ValueError("imageDataURL must be a PNG with an alpha channel")
    if pixels.shape[:2] != (height, width):
        raise ValueError(f"imageDataURL is {pixels.shape[1]}x{pixels.shape[0]}, the image is {width}x{height}")
    return (pixels[..., -1] > 0).astype(np.uint8)


def _corners_of(value: dict[str, Any]) -> list[Any]:
    """Return the corners of a closed vector, as those of a polygon."""
    vertices = value["vertices"]
    if not isinstance(vertices, list) or not all(isinstance(one, dict) for one in vertices):
        raise ValueError("vertices must be a list of points")
    if not value.get("closed") or any(one.get("isBezier") for one in vertices):
        raise ValueError("a vector is an object only if it is closed and has no curves; draw a polygon")
    return [(one.get("x"), one.get("y")) for one in vertices]


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"coordinates must be numbers in percent, got {value!r}")
    return float(value)


def _turned(x: float, y: float, width: float, height: float, degrees: float) -> list[float]:
    """Return the polygon of a rectangle that is turned clockwise about its first corner."""
    if not degrees:
        return rectangle(x, y, x + width, y + height)
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    corners = ((0, 0), (width, 0), (width, height), (0, height))
    return [float(side) for dx, dy in corners for side in (x + dx * cos - dy * sin, y + dx * sin + dy * cos)]
