"""Readers of COCO's JSON format."""
