"""Faster R-CNN over one feature map or a feature pyramid."""
