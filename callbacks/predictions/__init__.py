"""Writers of predictions to files, one per kind of task."""
