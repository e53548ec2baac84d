"""Readers of YOLO's text format."""
