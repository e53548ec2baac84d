"""Records of a run: configuration, environment, metrics and media."""
