"""AlexNet's PCA lighting: a random change of the intensity and color of the illumination, drawn once per presentation.

The paper runs PCA on the RGB values of all training pixels, and adds to every pixel of an image
``[p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T``: p and l are eigenvectors and eigenvalues of the 3 x 3 covariance matrix of
RGB, and each a is drawn from a normal distribution with mean 0 and standard deviation 0.1, anew for each presentation
of the image.

**Units.** The formula depends on units: an eigenvalue is a variance, so its size depends on the scale of the pixels.
With pixels from 0 to 255, ImageNet's largest eigenvalue is about 14,000, and offsets of a thousand and more would
destroy every image. Two readings are in use. One takes the square root of the eigenvalues, which makes the formula
independent of units (offsets of about 7 gray levels per channel on ImageNet) but is not what the paper states. The
other keeps the formula and takes pixels from 0 to 1 (about 3 gray levels). striate uses the second: it is the paper's
formula to the letter, and with the constants below it is what fb.resnet.torch and most later code trains with. So
**eigenvalues are those of RGB scaled to [0, 1]**, and offsets are multiplied by 255 for uint8 images. For the first
reading, pass the square roots of the eigenvalues.

Reference:
    Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012, section
    4.1. albumentations' ``FancyPCA`` differs: it runs PCA on each image separately.
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
    """Exact mean and covariance of RGB over a stream of images, in constant memory.

    Sums are integers, so the result depends neither on the order of the images nor on their distribution over
    processes: each worker runs its own accumulator, and `merge` combines them.

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
        """Add the pixels of an image.

        Args:
            image: RGB, uint8 ``[..., 3]``: one image ``[H, W, 3]`` or a stack of them.

        Raises:
            TypeError: The image is not uint8.
            ValueError: The last axis is not RGB.
        """
        if image.dtype != np.uint8:
            raise TypeError(f"image: must be uint8, got {image.dtype}")
        if image.shape[-1:] != (3,):
            raise ValueError(f"image: must be RGB, [H, W, 3], got {list(image.shape)}")
        # whole numbers below 2**53 are exact in float64 (even for a billion pixels at a time), and BLAS is fast
        pixels = image.reshape(-1, 3).astype(np.float64)
        products = pixels.T @ pixels
        self.count += len(pixels)
        for i, total in enumerate(pixels.sum(0)):
            self._sum[i] += int(total)
            for j in range(3):
                self._products[i][j] += int(products[i, j])

    def merge(self, other: "RGBCovariance") -> None:
        """Add all pixels of another accumulator."""
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
        # integers up to the single division: nothing cancels, and Python's integers do not overflow
        numerators = [[n * self._products[i][j] - self._sum[i] * self._sum[j] for j in range(3)] for i in range(3)]
        return np.array([[entry / (n * n * 255**2) for entry in row] for row in numerators])

    def _counted(self) -> int:
        if self.count == 0:
            raise ValueError("no pixels counted yet; call update(image) first")
        return self.count

    def pca(self) -> tuple[Vector, Matrix]:
        """Return eigenvalues, largest first, and eigenvectors as columns (rows R, G, B), largest entry positive.

        They are plain numbers, ready for `PCALighting` or a YAML file.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
        red, green, blue = ((float(a), float(b), float(c)) for a, b, c in vectors)
        return (float(values[0]), float(values[1]), float(values[2])), (red, green, blue)


def rgb_pca(images: Iterable[npt.NDArray[np.uint8]]) -> tuple[Vector, Matrix]:
    """Run PCA on the RGB values of all pixels of all images, with one image in memory at a time.

    Args:
        images: RGB images, uint8 ``[H, W, 3]``, of any sizes.

    Returns:
        Eigenvalues of the covariance of RGB in [0, 1], largest first; eigenvectors as columns, rows R, G, B.
    """
    stats = RGBCovariance()
    for image in images:
        stats.update(image)
    return stats.pca()


def training_pca(data: VisionDataModule, limit: int | None = None) -> tuple[Vector, Matrix]:
    """Run PCA on the RGB values of a data module's training images, before augmentation, as in the paper.

    Put the result into the YAML, as ``eigenvalues`` and ``eigenvectors`` of `PCALighting`.

    Args:
        data: A data module.
        limit: Number of images to use, spread evenly over the training set; None: all.

    Returns:
        Eigenvalues of the covariance of RGB in [0, 1], largest first; eigenvectors as columns, rows R, G, B.
    """
    data.setup("fit")
    source = data.datasets["train"].source
    count = len(source) if limit is None else min(limit, len(source))
    indices = np.linspace(0, len(source) - 1, count).round().astype(int)
    return rgb_pca(source[index]["image"] for index in indices.tolist())


def lighting_offset(
    alphas: npt.ArrayLike, eigenvalues: npt.ArrayLike, eigenvectors: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Compute the offset of each pixel: ``[p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T``.

    Args:
        alphas: The three random numbers, ``[3]``.
        eigenvalues: Eigenvalues of the covariance of RGB in [0, 1], ``[3]``.
        eigenvectors: The axes as columns, rows R, G, B: ``[3, 3]``.

    Returns:
        Offsets of R, G and B, for pixels in [0, 1]: ``[3]``.
    """
    return np.asarray(eigenvectors, dtype=np.float64) @ (np.asarray(alphas) * np.asarray(eigenvalues))


class PCALighting(A.ImageOnlyTransform):
    """PCA lighting as an albumentations transform: three alphas per call, one offset for all pixels.

    Results are clipped to the range of pixels and, for uint8, rounded.

    Args:
        eigenvalues: Eigenvalues of the covariance of RGB in [0, 1] over the training set, from `rgb_pca`. The default
            is ImageNet's, as fb.resnet.torch states it; AlexNet's authors published none.
        eigenvectors: The axes as columns, rows R, G, B.
        sigma: Standard deviation of the alphas.
        p: Probability of applying it.

    Targets:
        image

    Image types:
        uint8, float32 in [0, 1]; RGB ``[H, W, 3]``

    Raises:
        ValueError: An image is not RGB, or an argument is out of its range.
        TypeError: An image is neither uint8 nor float32.
    """

    class InitSchema(BaseTransformInitSchema):
        """Types against which albumentations checks the arguments."""

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
            raise ValueError(f"sigma: must be >= 0, got {sigma}; the paper uses 0.1")
        if max(eigenvalues) > 1:
            raise ValueError(
                f"eigenvalues: must be variances of RGB in [0, 1], at most 0.75, got {tuple(eigenvalues)}; divide "
                "those of pixels 0 to 255 by 255 ** 2"
            )
        self.eigenvalues = eigenvalues
        self.eigenvectors = eigenvectors
        self.sigma = sigma

    def get_params(self) -> dict[str, Any]:
        """Draw the alphas of one presentation, and return the offset of R, G and B in [0, 1]."""
        alphas = self.random_generator.normal(0.0, self.sigma, 3)
        return {"offset": lighting_offset(alphas, self.eigenvalues, self.eigenvectors)}

    def apply(
        self, img: npt.NDArray[Any], *args: Any, offset: npt.NDArray[np.float64] | None = None, **params: Any
    ) -> npt.NDArray[Any]:
        """Add the offset to every pixel of ``img [H, W, 3]``."""
        if img.ndim != 3 or img.shape[2] != 3:
            raise ValueError(f"image: PCALighting needs RGB, [H, W, 3], got {list(img.shape)}")
        if offset is None:
            raise ValueError("offset: apply() needs the offset from get_params(), got None; call the transform itself")
        if img.dtype == np.uint8:
            levels = np.arange(256.0)[:, None] + 255 * offset
            return np.asarray(cv2.LUT(img, levels.round().clip(0, 255).astype(np.uint8)[None]))
        if img.dtype == np.float32:
            return (img + offset.astype(np.float32)).clip(0, 1)
        raise TypeError(f"image: PCALighting needs uint8, or float32 in [0, 1], got {img.dtype}")
