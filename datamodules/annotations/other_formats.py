"""Recognizes files of other tools' annotation formats by their content, and names what converts them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class OtherFormat(NamedTuple):
    """A format that is recognized.

    Attributes:
        name: The tool and its format.
        advice: What to do with such a file.
        matches: Returns whether parsed JSON is of this format; it may raise `LookupError`, `TypeError` or
            `AttributeError` for JSON of another shape.
    """

    name: str
    advice: str
    matches: Callable[[Any], bool]


def _keys(entry: Any, *keys: str) -> bool:
    """Return whether a JSON value is an object with these keys."""
    return isinstance(entry, dict) and all(key in entry for key in keys)


def _first(content: Any) -> Any:
    """Return the first entry of a JSON list or the first value of a JSON object."""
    return content[0] if isinstance(content, list) else next(iter(content.values()))


def _has_result_list(content: Any) -> bool:
    """Return whether a list of tasks has Label Studio's results."""
    task = _first(content)
    return _keys(task, "data") and ("annotations" in task or "completions" in task or "predictions" in task)


def _is_json_min(content: Any) -> bool:
    """Return whether a list is Label Studio's JSON-MIN: a value of each task lists labels in percent."""
    values = [value for value in _first(content).values() if isinstance(value, list) and value]
    return any(_keys(value[0], "original_width") or _keys(value[0], "x", "rectanglelabels") for value in values)


_EXPORT_COCO = "export it from there as COCO"
OTHER_FORMATS = (
    OtherFormat(
        "labelme's JSON",
        "read it with LabelmeJson: striate data export labelme_json --root FOLDER --format coco DIR converts it",
        lambda content: _keys(content, "shapes", "imagePath"),
    ),
    OtherFormat(
        "Label Studio's JSON",
        "read it with LabelStudioJson: striate data export label_studio_json --root FILE --format coco DIR converts it",
        lambda content: isinstance(content, list) and _has_result_list(content),
    ),
    OtherFormat(
        "Label Studio's JSON-MIN",
        "read it with LabelStudioJson: striate data export label_studio_json --root FILE --format coco DIR converts it",
        lambda content: isinstance(content, list) and _is_json_min(content),
    ),
    OtherFormat(
        "a project of VGG Image Annotator (VIA)",
        f"{_EXPORT_COCO} (Annotation, Export Annotations in COCO format)",
        lambda content: _keys(content, "_via_img_metadata") or _keys(_first(content), "filename", "regions"),
    ),
    OtherFormat(
        "CreateML's JSON",
        "export it as COCO, such as with Roboflow",
        lambda content: isinstance(content, list) and _keys(_first(_first(content)["annotations"]), "coordinates"),
    ),
    OtherFormat(
        "Supervisely's JSON",
        f"{_EXPORT_COCO} (app Export to COCO)",
        lambda content: _keys(content, "objects", "size") or _keys(_first(content["classes"]), "title", "shape"),
    ),
    OtherFormat(
        "FiftyOne's JSON",
        f"{_EXPORT_COCO}: dataset.export(dataset_type=fiftyone.types.COCODetectionDataset, ...)",
        lambda content: _keys(content, "classes", "labels") or _keys(_first(content["samples"]), "filepath"),
    ),
    OtherFormat(
        "Datumaro's JSON",
        "convert it: datum convert -f coco_instances",
        lambda content: _keys(content, "categories", "items"),
    ),
    OtherFormat(
        "Scalabel's JSON (BDD100K)",
        "convert it: python -m scalabel.label.to_coco",
        lambda content: isinstance(content, list) and _keys(_first(content), "name", "labels"),
    ),
    OtherFormat(
        "COCO's results",
        "they are predictions without images and categories; give the file of the annotations",
        lambda content: isinstance(content, list) and _keys(_first(content), "image_id", "category_id", "score"),
    ),
)


def other_format(content: Any) -> str | None:
    """Return the name of the other format of a file, and what to do with it; None: it is not recognized.

    Args:
        content: Parsed JSON.

    >>> other_format({"version": "5.4.1", "shapes": [], "imagePath": "a.jpg"}).partition(";")[0]
    "labelme's JSON"
    """
    for known in OTHER_FORMATS:
        try:
            if known.matches(content):
                return f"{known.name}; {known.advice}"
        except (LookupError, TypeError, AttributeError, StopIteration):
            continue
    return None


_TEXTS = (
    (rb"<annotations[\s>]", f"CVAT's XML; {_EXPORT_COCO}"),
    (rb"<annotation[\s>]", "Pascal VOC's XML; read it with VOCDetection (--format voc)"),
    (rb"^#?filename,file_size,file_attributes,region_count", f"a table of VGG Image Annotator (VIA); {_EXPORT_COCO}"),
    (rb"^\s*<", "XML"),
)


def other_format_of_text(text: bytes) -> str | None:
    """Return the same as `other_format` for a file that is not JSON."""
    return next((advice for pattern, advice in _TEXTS if re.search(pattern, text[:4096])), None)


def other_format_of_file(file: Path) -> str | None:
    """Return the same as `other_format` for a file; None also if it cannot be parsed."""
    text = file.read_bytes()
    try:
        return other_format(json.loads(text))
    except (ValueError, RecursionError):
        return other_format_of_text(text)


def other_format_below(folder: Path) -> str:
    """Return ``", but NAME: what to do"`` for the first files of a folder that are of another format, or ``""``."""
    files = sorted(path for path in folder.glob("*") if path.suffix in (".json", ".xml")) if folder.is_dir() else []
    for file in files[:3]:
        if (advice := other_format_of_file(file)) is not None:
            return f", but {file.name}, {advice}"
    return ""
