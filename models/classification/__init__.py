"""Classifiers, classic and modern, and their input mixing and test-time views."""
