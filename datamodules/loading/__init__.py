"""From raw samples to batches: augmentation, sampling, collation and loaders."""
