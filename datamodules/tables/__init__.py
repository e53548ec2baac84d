"""Datasets listed in tables, CSV or Parquet, with paths, labels and boxes, one module per task."""
