"""striate.datamodules."""

from .lighting import PCALighting, RGBCovariance, rgb_pca

__all__ = ["PCALighting", "RGBCovariance", "rgb_pca"]
