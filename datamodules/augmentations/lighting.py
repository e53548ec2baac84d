"""AlexNet's PCA lighting: a change of the light's intensity and colour, drawn once for each time an image is shown.

The paper runs PCA on the RGB values of all training pixels, and adds to every pixel of an image
``[p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T``: p and l are eigenvectors and eigenvalues of the 3 x 3 covariance matrix of
RGB, and each a is drawn from a normal distribution of mean 0 and standard deviation 0.1, anew whenever the image is
presented.

**Units.** The formula is not free of units: an eigenvalue is a variance, so its size depends on the scale of the
pixels. With pixels from 0 to 255 ImageNet's largest eigenvalue is about 14,000, and the offsets would come to a
thousand and more: no picture would survive. Two readings are in use. One takes the square root of the eigenvalues,
which frees the formula of units (offsets of about 7 grey levels a channel on ImageNet) but is not what the paper
writes. The other keeps the formula and takes pixels from 0 to 1 (about 3 grey levels). striate takes the second: it is
the paper's formula to the letter, and with the constants below it is what fb.resnet.torch and most code since then
trains with. So here **eigenvalues are those of RGB scaled to [0, 1]**, and offsets are multiplied by 255 for uint8
images. For the first reading, pass the square roots of the eigenvalues.

Reference:
    Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012, section
    4.1. albumentations' ``FancyPCA`` is another thing: it runs PCA on each image for itself.
"""

from collections.abc import Iterable
from typing import Any

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
from albumentations.core.transforms_interface import BaseTransformInitSchema

from ..base import VisionDataModule

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]

IMAGENET_EIGENVALUES: Vector = (0.2175, 0.0188, 0.0045)
"""Variances of ImageNet's training pixels, RGB in [0, 1], along their principal axes.

Source: fb.resnet.torch, ``datasets/imagenet.lua``."""

IMAGENET_EIGENVECTORS: Matrix = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""The principal axes as columns; rows are R, G, B. Source: as above."""


class RGBCovariance:
    """Mean and covariance of RGB over images that come one at a time, exact, in constant memory.

    Sums are integers, so the result depends neither on the order of the images nor on how they are shared out over
    processes: each worker runs its own, and `merge` joins them.

    Example:
        >>> stats = RGBCovariance()
        >>> stats.update(np.array([[[0, 0, 0], [255, 255, 0]]], dtype=np.uint8))
        >>> stats.covariance.tolist()
        [[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]]
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = [0] * 3
        self._products = [[0] * 3 for _ in range(3)]

    def update(self, image: npt.NDArray[np.uint8]) -> None:
        """Adds the pixels of an image.

        Args:
            image: RGB, uint8, ``[..., 3]``, so one image ``[H, W, 3]`` or a stack of them.

        Raises:
            TypeError: if the image is not uint8.
            ValueError: if the last axis is not RGB.
        """
        if image.dtype != np.uint8:
            raise TypeError(f"image is {image.dtype}; RGB statistics are counted on uint8 pixels, 0 to 255")
        if image.shape[-1:] != (3,):
            raise ValueError(f"image has shape {image.shape}; its last axis must be RGB, [H, W, 3]")
        # Whole numbers below 2**53 are exact in float64 (a billion pixels at a time would still be), and BLAS is quick.
        pixels = image.reshape(-1, 3).astype(np.float64)
        products = pixels.T @ pixels
        self.count += len(pixels)
        for i, total in enumerate(pixels.sum(0)):
            self._sum[i] += int(total)
            for j in range(3):
                self._products[i][j] += int(products[i, j])

    def merge(self, other: "RGBCovariance") -> None:
        """Adds all pixels that another accumulator has seen."""
        self.count += other.count
        for i in range(3):
            self._sum[i] += other._sum[i]
            for j in range(3):
                self._products[i][j] += other._products[i][j]

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean of R, G and B in [0, 1], ``[3]``."""
        return np.array(self._sum, dtype=np.float64) / (255 * self._counted())

    @property
    def covariance(self) -> npt.NDArray[np.float64]:
        """Covariance of RGB in [0, 1] (divided by the number of pixels), ``[3, 3]``."""
        n = self._counted()
        # Whole numbers up to the one division: nothing cancels. Python's integers do not overflow.
        numerators = [[n * self._products[i][j] - self._sum[i] * self._sum[j] for j in range(3)] for i in range(3)]
        return np.array([[entry / (n * n * 255**2) for entry in row] for row in numerators])

    def _counted(self) -> int:
        if self.count == 0:
            raise ValueError("no pixel has been counted yet: call update(image) first")
        return self.count

    def pca(self) -> tuple[Vector, Matrix]:
        """Eigenvalues, largest first, and eigenvectors as columns (rows R, G, B), each with its largest entry positive.

        As plain numbers: they go into `PCALighting` or into a YAML as they are.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
        red, green, blue = ((float(a), float(b), float(c)) for a, b, c in vectors)
        return (float(values[0]), float(values[1]), float(values[2])), (red, green, blue)


def rgb_pca(images: Iterable[npt.NDArray[np.uint8]]) -> tuple[Vector, Matrix]:
    """PCA of the RGB values of all pixels of all images, one image in memory at a time.

    Args:
        images: RGB images, uint8 ``[H, W, 3]``, of any sizes.

    Returns:
        eigenvalues of the covariance of RGB in [0, 1], largest first; eigenvectors as columns, rows R, G, B.
    """
    stats = RGBCovariance()
    for image in images:
        stats.update(image)
    return stats.pca()


def training_pca(data: VisionDataModule, limit: int | None = None) -> tuple[Vector, Matrix]:
    """PCA of the RGB values of a data module's training images, before augmentation: what the paper computes.

    Put the result into the YAML, as ``eigenvalues`` and ``eigenvectors`` of `PCALighting`.

    Args:
        data: Any data module of striate's.
        limit: Number of images to look at, spread evenly over the training set. None: all.

    Returns:
        eigenvalues of the covariance of RGB in [0, 1], largest first; eigenvectors as columns, rows R, G, B.
    """
    data.setup("fit")
    source = data.datasets["train"].source
    count = len(source) if limit is None else min(limit, len(source))
    chosen = np.linspace(0, len(source) - 1, count).round().astype(int)
    return rgb_pca(source[index]["image"] for index in chosen.tolist())


def lighting_offset(
    alphas: npt.ArrayLike, eigenvalues: npt.ArrayLike, eigenvectors: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """What is added to each pixel: ``[p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T``.

    Args:
        alphas: The three draws.
        eigenvalues: Of the covariance of RGB in [0, 1].
        eigenvectors: The axes as columns, rows R, G, B.

    Returns:
        the offsets of R, G and B, for pixels in [0, 1], ``[3]``.
    """
    return np.asarray(eigenvectors, dtype=np.float64) @ (np.asarray(alphas) * np.asarray(eigenvalues))


class PCALighting(A.ImageOnlyTransform):
    """PCA lighting as an albumentations transform: one draw of three alphas for each call, one offset for all pixels.

    Results are clipped to the range of pixels, and rounded for uint8.

    Args:
        eigenvalues: Of the covariance of RGB in [0, 1] over the training set, by `rgb_pca`. The default is ImageNet's.
        eigenvectors: The axes as columns, rows R, G, B.
        sigma: Standard deviation of the alphas.
        p: Probability of applying it.

    Targets:
        image

    Image types:
        uint8, float32 in [0, 1]; RGB ``[H, W, 3]``

    Raises:
        ValueError: if an image is not RGB, or an argument is out of range.
        TypeError: if an image is neither uint8 nor float32.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types and ranges that albumentations checks the arguments against."""

        eigenvalues: Vector
        eigenvectors: Matrix
        sigma: float

    def __init__(
        self,
        eigenvalues: Vector = IMAGENET_EIGENVALUES,
        eigenvectors: Matrix = IMAGENET_EIGENVECTORS,
        sigma: float = 0.1,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        if sigma < 0:
            raise ValueError(f"sigma={sigma}: a standard deviation is not negative (the paper takes 0.1)")
        if max(eigenvalues) > 1:
            raise ValueError(
                f"eigenvalues={tuple(eigenvalues)}: these are variances of RGB in [0, 1], at most 0.75; "
                "divide those of 0..255 pixels by 255 ** 2"
            )
        self.eigenvalues = eigenvalues
        self.eigenvectors = eigenvectors
        self.sigma = sigma

    def get_params(self) -> dict[str, Any]:
        """Draws the alphas of one presentation and makes them an offset of R, G and B in [0, 1]."""
        alphas = self.random_generator.normal(0.0, self.sigma, 3)
        return {"offset": lighting_offset(alphas, self.eigenvalues, self.eigenvectors)}

    def apply(
        self, img: npt.NDArray[Any], *args: Any, offset: npt.NDArray[np.float64] | None = None, **params: Any
    ) -> npt.NDArray[Any]:
        """Adds the offset to every pixel of ``img [H, W, 3]``."""
        if img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(f"image has shape {img.shape}; PCALighting takes RGB, [H, W, 3]")
        if offset is None:
            raise ValueError("apply() needs the offset that get_params() draws: call the transform, not apply()")
        if img.dtype == np.uint8:
            levels = np.arange(256.0)[:, None] + 255 * offset
            return np.asarray(cv2.LUT(img, levels.round().clip(0, 255).astype(np.uint8)[None]))
        if img.dtype == np.float32:
            return (img + offset.astype(np.float32)).clip(0, 1)
        raise TypeError(f"image is {img.dtype}; PCALighting takes uint8, or float32 in [0, 1]")
