"""Prediction of images of any kind, outside a trainer: reading them, batches of one size, and the names of classes."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..datamodules.images.bit_depth import BitDepthError, ReadOptions
from ..datamodules.images.listing import find_images
from ..datamodules.images.read import ImageError, read_image
from ..datamodules.loading.collate import collate_whole
from ..datamodules.loading.dataset import TransformedDataset
from ..datamodules.loading.sources import Sample, prediction_sample
from ..models.modes import evaluation_mode
from ..models.ops.pixels import PixelRange, layout_hint

AnyImage: TypeAlias = "str | PathLike[str] | Image.Image | np.ndarray | Tensor"
"""A path, a PIL image, an array ``[H, W, 3]`` or ``[H, W]``, or a tensor ``[3, H, W]`` or ``[1, H, W]``; RGB."""

Images: TypeAlias = "AnyImage | Sequence[AnyImage]"

CHUNK = 16
"""Maximum number of images of one size that are predicted together."""

_MODES_OF_8_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "La", "RGBa")


class GivenImages:
    """Images of any kind as a source of samples, read one at a time.

    Args:
        images: The images.
        options: How image files are read.
    """

    def __init__(self, images: Sequence[AnyImage], options: ReadOptions | None = None) -> None:
        self.images, self.options = list(images), options or ReadOptions()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index]
        name = f"images[{index}]"
        return prediction_sample(
            read_any(image, name, self.options), str(image) if isinstance(image, str | PathLike) else name
        )


def read_any(image: AnyImage, name: str, options: ReadOptions | None = None) -> np.ndarray:
    """Return an image of any kind as RGB uint8.

    Args:
        image: See `AnyImage`.
        name: Name of the image in messages.
        options: How a file is read.

    Shape:
        - output: ``[H, W, 3]``

    Raises:
        TypeError: The image is of another kind, or has another type of numbers.
        ValueError: It has another shape, or floating point pixels are outside [0, 1].
        ImageError, BitDepthError: A file cannot be read, or not with these options.
    """
    if isinstance(image, str | PathLike):
        try:
            return read_image(str(image), options=options or ReadOptions())
        except (ImageError, BitDepthError) as error:
            if error.option:  # the message names the argument of a data module, of which there is none here
                problem = str(error).rpartition("; set ")[0]
                remedy = f"set task.read_options = striate.datamodules.ReadOptions({error.option})"
                error.args = (f"{problem}; {remedy}, or as the training images were read", *error.args[1:])
            raise
    if isinstance(image, Image.Image):
        if image.mode not in _MODES_OF_8_BITS:
            raise ValueError(
                f"{name}: must be a PIL image of 8 bits per channel, got the mode {image.mode!r}; give the path of its "
                "file, or scale and convert it to 'RGB'"
            )
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if isinstance(image, np.ndarray):
        return _to_uint8(_array_pixels(image, name), name).numpy()
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] not in (1, 3):
            hint = layout_hint(image.shape)
            raise ValueError(f"{name}: must be a tensor [3, H, W] or [1, H, W], got {list(image.shape)}{hint}")
        return _to_uint8(image.detach().cpu().expand(3, -1, -1).permute(1, 2, 0), name).contiguous().numpy()
    raise TypeError(f"{name}: must be a path, PIL image, array or tensor, got {type(image).__name__}")


def _array_pixels(array: np.ndarray, name: str) -> Tensor:
    """An array ``[H, W, 3]``, ``[H, W, 1]`` or ``[H, W]`` as a tensor ``[H, W, 3]``."""
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        fix = ""
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
            fix = "; move channels to the end with array.transpose(1, 2, 0)"
        elif pixels.ndim == 3 and pixels.shape[2] == 4:
            fix = "; remove the alpha channel with array[..., :3]"
        raise ValueError(f"{name}: must be an array [H, W, 3] or [H, W], got {list(array.shape)}{fix}")
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise TypeError(f"{name}: must be uint8 or floating point in [0, 1], got {array.dtype}; scale it to uint8")
    return torch.from_numpy(np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))


def _to_uint8(pixels: Tensor, name: str) -> Tensor:
    """Pixels ``[H, W, 3]`` as uint8; floating point in [0, 1] is rounded to the nearest of 256 levels."""
    if 0 in pixels.shape:
        raise ValueError(f"{name}: must have at least one pixel, got {list(pixels.shape[:2])} (height, width)")
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.is_floating_point():
        raise TypeError(f"{name}: must be uint8 or floating point in [0, 1], got {pixels.dtype}; scale it to uint8")
    PixelRange().check([pixels], training=False, names=[name])
    return (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8)


def predict_images(task: Any, images: Images) -> list[dict[str, Any]]:
    """Predict images of any kind and size; see `striate.tasks.Task.predict`.

    Shape:
        - images: tensors ``[3, H, W]``, or a batch ``[B, 3, H, W]``
    """
    with evaluation_mode(task), torch.no_grad():
        if isinstance(images, Tensor) and images.ndim == 4:
            predictions = task.predict_batch(images.to(task.device)) if len(images) else []
            return [prediction | name_labels(prediction, task.class_names) for prediction in predictions]
        listed: list[AnyImage]
        if isinstance(images, str | PathLike):
            listed = list(find_images(str(images)))
        elif isinstance(images, list | tuple):
            listed = list(images)
        else:
            listed = [images]  # type: ignore[list-item]
        if not listed:
            return []
        dataset = TransformedDataset(GivenImages(listed, task.read_options), _steps(task.val_transform), strict=True)
        results: list[dict[str, Any]] = []
        for samples in _equal_sizes(dataset):
            batch = collate_whole(samples)
            batch["image"] = batch["image"].to(task.device)
            for prediction in task.predict_step(batch, 0):
                image = listed[len(results)]
                source = {"path": str(image)} if isinstance(image, str | PathLike) else {}
                results.append(source | prediction | name_labels(prediction, task.class_names))
    return results


def _steps(transform: Any) -> Any:
    return list(transform) if isinstance(transform, list | tuple) else transform


def _equal_sizes(dataset: TransformedDataset) -> Iterator[list[Sample]]:
    """Yield the samples in order, in lists of at most `CHUNK` whose images have one size."""
    samples: list[Sample] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        if samples and (len(samples) == CHUNK or sample["image"].shape != samples[0]["image"].shape):
            yield samples
            samples = []
        samples.append(sample)
    if samples:
        yield samples


def name_labels(prediction: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the names of the classes in a prediction; the number of a class as text where it has no name.

    >>> name_labels({"label": 1, "top_labels": [1, 0]}, ["cat", "dog"])
    {'name': 'dog', 'top_names': ['dog', 'cat']}
    >>> name_labels({"mask": torch.tensor([[0, 2]])}, ["sky", "tree", "road"])
    {'names': {0: 'sky', 2: 'road'}}

    Args:
        prediction: One item of the list that `striate.tasks.Task.predict` returns.
        names: Name of each class.
    """

    def name(label: int) -> str:
        return names[label] if label < len(names) else str(label)

    named: dict[str, Any] = {}
    if "label" in prediction:
        named["name"] = name(prediction["label"])
    if "top_labels" in prediction:
        named["top_names"] = [name(label) for label in prediction["top_labels"]]
    if "labels" in prediction:
        named["names"] = [name(label) for label in prediction["labels"].tolist()]
    if "mask" in prediction:
        named["names"] = {label: name(label) for label in prediction["mask"].unique().tolist()}
    return named
