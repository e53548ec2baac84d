"""The commands ``striate data show``, ``export`` and ``check``."""
