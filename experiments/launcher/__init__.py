"""The `striate` command: finds experiments, parses configurations, starts runs and explains errors."""
