"""Readers of CSV and Parquet tables."""
