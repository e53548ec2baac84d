"""Data sets, samplers, collation and loaders: everything between a reader's samples and a task's batches."""
