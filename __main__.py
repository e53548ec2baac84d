"""``python -m striate``: the launcher, for torchrun and for environments without scripts on the path."""

from .experiments.launcher.main import main

if __name__ == "__main__":
    main()
