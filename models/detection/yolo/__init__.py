"""YOLO, version 1: the grid, its loss and the detector."""
