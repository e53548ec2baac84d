"""The command ``striate``: finds experiments, parses configurations, starts runs and explains errors."""
