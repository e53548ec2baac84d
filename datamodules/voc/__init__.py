"""Readers of Pascal VOC's layout, with SBD."""
