"""Tests of striate.callbacks."""
