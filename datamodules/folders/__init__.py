"""Datasets in folders without annotation files: images by class, and masks beside images."""
