"""Plots of samples with their targets and predictions."""
