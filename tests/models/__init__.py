"""Tests of striate.models."""
