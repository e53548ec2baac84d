"""Metrics whose states add up over processes."""

from .localization import LocalizationMetrics

__all__ = ["LocalizationMetrics"]
