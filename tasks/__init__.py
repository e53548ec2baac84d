"""striate.tasks."""
