"""A corrected copy of a COCO data set."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..annotations.fault_kinds import KINDS
from ..annotations.object_masks import ObjectMasksBuilder
from ..annotations.objects import confined
from ..annotations.validity import box_faults, differs_from_mask, repair_boxes, repeated_objects
from ..coco.json_columns import entry_name, entry_problem, read_json, with_integers
from ..loading.targets import boxes_of_masks
from .findings import shown
from .fixes import ACTIONS, Excluded, Log, excluded, link, list_excluded, plain

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
            lists = ("images", "annotations", "categories")
            content |= {key: [with_integers(key, item) for item in content[key]] for key in lists}
            images, annotations, categories = (content[key] for key in lists)
            known = {item["id"] for item in categories if entry_problem("categories", item) is None}
            kept = self._kept_images(images, left_out)
        except (ValueError, OSError, KeyError, TypeError) as error:
            self.log.left.append(
                f"{self.file}: not corrected, since it cannot be read ({type(error).__name__}: {error})"
            )
            return None
        by_id = {item["id"]: item for item in kept}
        listed_ids = {image["id"] for image in images if isinstance(image, dict) and isinstance(image.get("id"), int)}
        listed = []
        for place, item in enumerate(annotations):
            if wrong := entry_problem("annotations", item):
                where = entry_name("annotations", item, place)
                self.log.add(self.file, where, "unusable-annotation", "dropped", wrong)
            elif item["image_id"] not in listed_ids:
                self._note(item, place, "unknown-image", "dropped")
            elif item["image_id"] not in by_id:
                continue  # gone with its image
            elif item["category_id"] not in known:
                self._note(item, place, "label-outside", "dropped")
            else:
                listed.append(item)
        content |= {"images": kept, "annotations": self._mended(listed, by_id)}
        return content

    def _kept_images(self, images: list[Any], left_out: dict[str, Excluded]) -> list[Any]:
        kept, ids, names = [], set(), set()
        for place, item in enumerate(images):
            where, why = entry_name("images", item, place), entry_problem("images", item)
            if why is None:
                name, number, size = item["file_name"], item["id"], (item["width"], item["height"])
                if number in ids:
                    why = f"the id {number} is there more than once"
                elif not confined(name) or min(size) < 1:
                    why = "its file_name leads out" if not confined(name) else f"its size is {size[0]}x{size[1]}"
            if why is not None:
                self.log.add(self.file, where, "bad-target", "left out, with its objects", why)
                continue
            ids.add(number)
            if excluded_for := left_out.get(os.path.abspath(self.images / name)):  # noqa: PTH100
                reason = excluded_for.reason
                self.log.add(self.file, f"image {name}", excluded_for.kind, "left out, with its objects", reason)
            elif name in names:
                self.log.add(self.file, where, "duplicate-image", "left out, with its objects", "it is listed before")
            else:
                kept.append(item)
            names.add(name)
        return kept

    def _mended(self, items: list[Any], images: dict[int, Any]) -> list[Any]:
        """Annotations with boxes put right, without those that cannot be, and without copies."""
        if not items:
            return items
        items = self._boxes_from_masks(items, images)
        sizes = np.array([[images[item["image_id"]][key] for key in ("width", "height")] for item in items])
        boxes = np.array([item["bbox"] for item in items], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        boxes, codes, kept = repair_boxes(boxes, sizes)
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
            sound[repeated_objects(own[sound], labels[sound], _clipped(boxes, sizes)[sound])]
            if self.with_boxes
            else sound[:0]
        )
        for place in copies.tolist():
            self._note(items[place], place, "duplicate-object", "dropped", f"bbox {items[place]['bbox']}")
        kept[copies] = False
        return [item for item, stays in zip(items, kept, strict=True) if stays]

    def _boxes_from_masks(self, items: list[Any], images: dict[int, Any]) -> list[Any]:
        """Objects without a mask dropped, and boxes that are not their masks' replaced."""
        if not self.with_masks:
            return items
        taken = []
        for place, item in enumerate(items):
            image = images[item["image_id"]]
            height, width = image["height"], image["width"]
            x, y, w, h = item["bbox"]
            given = np.array([[x, y, x + w, y + h]], np.float64)
            # of an object with two faults the reader, which looks at boxes first, has named the box's
            kind = _box_fault(given, width, height) if self.with_boxes else ""
            builder = ObjectMasksBuilder()
            if wrong := builder.add(item.get("segmentation"), height, width):
                self._note(item, place, kind or "bad-mask", "dropped", wrong)
                continue
            mask = builder.build().decode([0], height, width)
            if self.with_boxes and not mask.any():
                self._note(item, place, kind or "empty-mask", "dropped")
                continue
            tight = boxes_of_masks(mask)
            if self.with_boxes and (kind or differs_from_mask(tight, np.clip(given, 0, [width, height] * 2))[0]):
                left, top, right, bottom = (int(side) for side in tight[0])
                reason = f"bbox {item['bbox']}, mask {shown(tight[0])}"
                self._note(item, place, kind or "mask-box", "box taken from the mask", reason)
                item = item | {"bbox": [left, top, right - left, bottom - top]}
            taken.append(item)
        return taken

    def _note(self, item: Any, place: int, kind: str, action: str, reason: str = "") -> None:
        self.log.add(self.file, f"annotation {item.get('id', place)}", kind, action, reason or KINDS[kind].title)


def _clipped(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.clip(boxes, 0, np.concatenate([sizes, sizes], axis=1))


def _box_fault(box: np.ndarray, width: int, height: int) -> str:
    """What is wrong with a box ``[1, 4]``, as a code; empty: nothing, or what clipping mends."""
    code = str(box_faults(box, np.array([[width, height]]))[0])
    return "" if code == "box-beyond" else code
