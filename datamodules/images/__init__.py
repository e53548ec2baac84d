"""Reads image files and their sizes."""
