"""Tests of ``striate sweep``."""
