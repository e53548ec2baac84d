"""What the readers of all formats share: objects, masks, files, dataset layouts and annotation errors."""
