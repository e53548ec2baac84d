"""The `striate data` commands."""
