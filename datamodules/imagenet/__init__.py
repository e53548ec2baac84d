"""Readers of ImageNet (ILSVRC2012) for classification and localization."""
