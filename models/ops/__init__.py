"""Pure functions on boxes, anchors, images and arguments, shared by all models."""
