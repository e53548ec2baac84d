"""Tests of ``striate runs``."""
