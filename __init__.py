"""striate: the lineage of deep vision in PyTorch Lightning, from LeNet to Mask R-CNN.

Five tasks (classification, classification with localization, semantic segmentation, object
detection, instance segmentation) over shared backbones and data modules. This module imports
nothing heavy; take what you need from ``striate.models``, ``striate.tasks``,
``striate.datamodules`` and ``striate.callbacks``.
"""

__version__ = "0.1.0"
