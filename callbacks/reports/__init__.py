"""Plots and tables that analyze the results of a run."""
