"""Draws samples with their targets and predictions."""
