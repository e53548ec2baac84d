"""Export of data sets to disk in common formats: COCO, VOC, YOLO, masks, class folders."""

from .run import FORMATS, Exported, Track, export_data

__all__ = ["FORMATS", "Exported", "Track", "export_data"]
