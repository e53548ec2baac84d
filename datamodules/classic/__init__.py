"""Readers of published datasets that have a layout of their own."""
