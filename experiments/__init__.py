"""The launcher, the data commands, and the YAML files of all experiments."""
