"""striate.datamodules."""
