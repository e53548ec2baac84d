"""Tests of striate.experiments."""
