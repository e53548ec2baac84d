"""Readers of folders of images, and of masks beside images."""
