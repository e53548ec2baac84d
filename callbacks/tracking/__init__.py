"""Records a run: configuration, environment, metrics and media."""
