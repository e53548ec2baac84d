"""Writes the predictions of each task to files."""
