"""striate.callbacks."""
