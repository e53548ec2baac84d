"""Tests of striate.tasks."""
