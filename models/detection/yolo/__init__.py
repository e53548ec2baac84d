"""YOLO v1."""
