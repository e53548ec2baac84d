"""Classifiers, Mixup and CutMix, and ten-crop testing."""
