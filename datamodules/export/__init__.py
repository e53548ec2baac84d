"""Data sets to disk, in the formats that people and their tools have: COCO, VOC, YOLO, masks, class folders."""

from .run import FORMATS, Exported, Track, export_data

__all__ = ["FORMATS", "Exported", "Track", "export_data"]
