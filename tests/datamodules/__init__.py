"""Tests of striate.datamodules."""
