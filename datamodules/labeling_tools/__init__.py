"""Readers of the files that labeling tools save: labelme and Label Studio."""
