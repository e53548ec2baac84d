"""striate.experiments."""
