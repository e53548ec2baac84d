"""striate.models."""
