"""A corrected copy of a COCO data set."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..annotations import confined
from ..coco_columns import read_json
from ..segmentations import SegmentationBuilder
from ..targets import boxes_of_masks
from .findings import KINDS, judge, shown
from .fixes import ACTIONS, Excluded, Log, excluded, link, list_excluded, mend_boxes, plain, repeated
from .samples import boxes_apart

if TYPE_CHECKING:
    from .collecting import Report


def fix_coco(report: "Report", folder: Path, log: Log) -> dict[str, Any] | None:
    """``FOLDER/annotations/*.json``, and ``FOLDER/IMAGES/…`` linked; see `fixes.write_fix`."""
    data = report.data
    left_out = excluded(report, log)
    init_args: dict[str, Any] = {"root": str(folder)}
    done: dict[tuple[str, str], tuple[str, str]] = {}
    for split, (annotations, images) in data.files.items():  # type: ignore[attr-defined]
        if (annotations, images) not in done:
            names = _below(annotations, f"annotations/{split}.json"), _below(images, f"{split}_images")
            mend = _CocoFile(data, split, data.root / annotations, data.root / images, log)  # type: ignore[attr-defined]
            content = mend.content(left_out.get(split, {}))
            if content is None:
                continue
            target = folder / names[0]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(content), encoding="utf-8")
            for item in content["images"]:
                if not (copy := folder / names[1] / item["file_name"]).exists():
                    link(data.root / images / item["file_name"], copy)  # type: ignore[attr-defined]
            done[annotations, images] = names
        if split != "test" or (annotations, images) != data.files["val"]:  # type: ignore[attr-defined]
            init_args[f"{split}_annotations"], init_args[f"{split}_images"] = done[annotations, images]
    list_excluded(folder, left_out)
    return init_args


def _below(name: str, otherwise: str) -> str:
    return otherwise if not confined(name) else os.path.normpath(name)


class _CocoFile:
    """One annotation file being corrected."""

    def __init__(self, data: Any, split: str, file: Path, images: Path, log: Log) -> None:
        self.file, self.images, self.log = file, images, log
        self.with_boxes = data.task != "semantic_segmentation"
        self.with_masks = data.task != "detection"

    def content(self, left_out: dict[str, Excluded]) -> dict[str, Any] | None:
        """The corrected content; None where it cannot be read at all."""
        try:
            content = read_json(self.file)
            images, annotations, categories = (content[key] for key in ("images", "annotations", "categories"))
            known = {int(item["id"]) for item in categories}
            kept = self._kept_images(images, left_out)
        except (ValueError, OSError, KeyError, TypeError) as error:
            self.log.left.append(
                f"{self.file}: not corrected, since it cannot be read ({type(error).__name__}: {error})"
            )
            return None
        by_id = {item["id"]: item for item in kept}
        listed = []
        for place, item in enumerate(annotations):
            wrong = self._unusable(item, by_id, {image.get("id") for image in images}, known)
            if wrong is None:
                listed.append(item)
            elif wrong:
                self._note(item, place, wrong, "dropped")
        content |= {"images": kept, "annotations": self._mended(listed, by_id)}
        return content

    def _kept_images(self, images: list[Any], left_out: dict[str, Excluded]) -> list[Any]:
        kept, ids, names = [], set(), set()
        for place, item in enumerate(images):
            name, number = str(item.get("file_name")), item.get("id")
            path = os.path.abspath(self.images / name)  # noqa: PTH100
            if path in left_out:
                why = left_out[path]
                self.log.add(self.file, f"image {name}", why.kind, "left out, with its objects", why.reason)
            elif not confined(name) or not all(
                isinstance(item.get(k), int) and item[k] > 0 for k in ("width", "height")
            ):
                self.log.add(
                    self.file, f"images[{place}]", "bad-target", "left out, with its objects", "its name or size"
                )
            elif number in ids or name in names:
                self.log.add(self.file, f"images[{place}]", "duplicate-image", "left out", f"{name} is listed before")
            else:
                kept.append(item)
            ids.add(number)
            names.add(name)
        return kept

    def _unusable(self, item: Any, images: dict[int, Any], listed: set[Any], categories: set[int]) -> str | None:
        """The kind of what is wrong with an annotation, empty where its image is left out; None: nothing so far."""
        if not isinstance(item, dict):
            return "unusable-annotation"
        if item.get("image_id") not in listed:
            return "unknown-image"
        if item["image_id"] not in images:
            return ""
        if item.get("category_id") not in categories:
            return "label-outside"
        box = item.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
            return "unusable-annotation"
        if self.with_masks:
            image = images[item["image_id"]]
            wrong = SegmentationBuilder().add(item.get("segmentation"), image["height"], image["width"])
            return "bad-mask" if wrong else None
        return None

    def _mended(self, items: list[Any], images: dict[int, Any]) -> list[Any]:
        """Annotations with boxes put right, without those that cannot be, and without copies."""
        if not items:
            return items
        items = self._boxes_from_masks(items, images)
        sizes = np.array([[images[item["image_id"]][key] for key in ("width", "height")] for item in items])
        boxes = np.array([item["bbox"] for item in items], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        boxes, codes, kept = mend_boxes(boxes, sizes)
        if not self.with_boxes:
            codes, kept = np.full(len(items), ""), np.ones(len(items), np.bool_)
        for place in np.flatnonzero(codes != "").tolist():
            code = str(codes[place])
            before = str(items[place]["bbox"])
            if kept[place]:
                x1, y1, x2, y2 = boxes[place]
                items[place] = items[place] | {"bbox": [plain(value) for value in (x1, y1, x2 - x1, y2 - y1)]}
            self._note(items[place], place, code, ACTIONS[code] if kept[place] else "dropped", f"bbox {before}")
        labels = np.array([item["category_id"] for item in items])
        own = np.array([item["image_id"] for item in items])
        sound = np.flatnonzero(kept)
        copies = (
            sound[repeated(own[sound], labels[sound], boxes[sound], sizes[sound])] if self.with_boxes else sound[:0]
        )
        for place in copies.tolist():
            self._note(items[place], place, "duplicate-object", "dropped", f"bbox {items[place]['bbox']}")
        kept[copies] = False
        return [item for item, stays in zip(items, kept, strict=True) if stays]

    def _boxes_from_masks(self, items: list[Any], images: dict[int, Any]) -> list[Any]:
        """Objects without a pixel dropped, and boxes that are not their masks' replaced."""
        if not self.with_masks:
            return items
        taken = []
        for place, item in enumerate(items):
            image = images[item["image_id"]]
            height, width = image["height"], image["width"]
            builder = SegmentationBuilder()
            builder.add(item["segmentation"], height, width)
            mask = builder.build().decode([0], height, width)
            x, y, w, h = item["bbox"]
            if not mask.any():
                self._note(item, place, "empty-mask", "dropped")
                continue
            tight = boxes_of_masks(mask)
            if self.with_boxes and (kind := _box_fault([x, y, x + w, y + h], tight, width, height)):
                left, top, right, bottom = (int(side) for side in tight[0])
                reason = f"bbox {item['bbox']}, mask {shown(tight[0])}"
                self._note(item, place, kind, "box taken from the mask", reason)
                item = item | {"bbox": [left, top, right - left, bottom - top]}
            taken.append(item)
        return taken

    def _note(self, item: Any, place: int, kind: str, action: str, reason: str = "") -> None:
        name = item.get("id", place) if isinstance(item, dict) else place
        self.log.add(self.file, f"annotation {name}", kind, action, reason or KINDS[kind].title)


def _box_fault(box: list[float], tight: np.ndarray, width: int, height: int) -> str:
    """What is wrong with a box whose object has a mask, as a code; empty: nothing, or what clipping mends."""
    given = np.array([box], np.float64)
    code = str(judge(given, np.array([[width, height]]))[0])
    if code not in ("", "box-beyond"):
        return code
    return "mask-box" if boxes_apart(tight, np.clip(given, 0, [width, height, width, height]))[0] else ""
