"""A detector and an instance segmenter that know the right answer for any image: its connected components."""

import cv2
import numpy as np
import torch

from striate.models.detection import Detector, ResizeAndPad
from striate.models.instance import InstanceSegmenter
from striate.models.ops.masks import RunLengths


class ComponentBoxes(Detector):
    """Red pixels are class 0, green ones class 1. Connected pixels of one value are an object; its score is the value.

    Attributes:
        views: Number and size (height, width) of the images of each call.
    """

    def __init__(self):
        super().__init__(2, ResizeAndPad())
        self.views = []

    def detect(self, batch):
        self.views.append((len(batch.sizes), *batch.pixels.shape[-2:]))
        pixels = batch.pixels if batch.pixels.dtype == torch.uint8 else (batch.pixels * 255).round().to(torch.uint8)
        return [self.objects(one[:, :h, :w].numpy()) for one, (h, w) in zip(pixels, batch.sizes, strict=True)]

    def objects(self, pixels):
        """The objects of one image, uint8 ``[3, H, W]``, by descending score."""
        masks, scores, labels = [], [], []
        for label in (0, 1):
            for value in np.unique(pixels[label])[:0:-1]:
                count, numbers = cv2.connectedComponents((pixels[label] == value).astype(np.uint8), connectivity=4)
                masks += [numbers == number for number in range(1, count)]
                scores += [(value + label / 2) / 256] * (count - 1)
                labels += [label] * (count - 1)
        order = np.argsort(-np.array(scores), kind="stable")
        dense = torch.from_numpy(np.array(masks, bool).reshape(-1, *pixels.shape[1:])[order])
        runs = RunLengths.from_dense(dense)
        return {
            "boxes": runs.boxes(),
            "scores": torch.tensor(scores)[order].float(),
            "labels": torch.tensor(labels).long()[order],
        } | self.more(runs)

    def more(self, runs):
        """Fields beside boxes, scores and labels."""
        return {}

    def compute_losses(self, batch, targets):
        raise AssertionError("is never trained")


class Components(InstanceSegmenter, ComponentBoxes):
    """`ComponentBoxes` with the masks."""

    def more(self, runs):
        return {"masks": runs}

    def paste(self, detected, size):
        return detected["masks"]


def painted(size, regions):
    """An image uint8 ``[3, H, W]`` with regions, each: label, value, and the slices of its rows and columns."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[2] = 77  # which says nothing
    for label, value, rows, columns in regions:
        image[label, rows, columns] = value
    return image


def random_scene(size, seed, count=40, ellipses=True):
    """Rectangles, ellipses and bars of different values that may touch but not overlap: uint8 ``[3, H, W]``."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.zeros((3, *size), np.uint8)
    for value in range(1, count + 1):
        height, width = rng.integers(1, 30, 2)
        if value % 5 == 0:
            height, width = rng.permutation(
                [rng.integers(max(size) // 3, max(size)), rng.integers(1, 6)]
            )  # across many windows
        y, x = rng.integers(-5, size[0]), rng.integers(-5, size[1])
        shape = (rows >= y) & (rows < y + height) & (columns >= x) & (columns < x + width)
        if ellipses and value % 3 == 0:
            shape = ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 <= 1
        if shape.any() and not image[:, shape].any():
            image[value % 2, shape] = 2 * value
    return torch.from_numpy(image)
