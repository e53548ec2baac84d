"""striate.datamodules."""

from .scenes import Scene as Scene
from .scenes import SceneComposer as SceneComposer
