"""Tests of striate; the folders mirror the package's."""
