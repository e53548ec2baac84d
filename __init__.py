"""striate: classic and modern vision networks in PyTorch Lightning, each checked against its paper.

The five tasks (classification, classification with localization, semantic segmentation, object detection, instance
segmentation) share backbones and data modules. This module imports nothing heavy. Import what you need from
``striate.models``, ``striate.tasks``, ``striate.datamodules`` and ``striate.callbacks``.
"""

__version__ = "0.1.0"
