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
            for value in filter(None, np.unique(pixels[label])[::-1]):  # a window may have no background
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


class _Noisy(ComponentBoxes):
    """Inexact boxes and masks; narrow remnants are missed; and objects of low score that span two neighbors."""

    def __init__(self, seed, spanning_score=0.4):
        super().__init__()
        self.rng, self.spanning_score = np.random.default_rng(seed), spanning_score

    def objects(self, pixels):
        found = ComponentBoxes.objects(self, pixels)
        masks = [one for one in Components().objects(pixels)["masks"].dense().numpy() if not self.missed(one)]
        scores = list(self.rng.uniform(0.9, 1, len(masks)))
        centers = [np.argwhere(one).mean(0) for one in masks]
        masks = [self.inexact(one) for one in masks]
        for first in range(len(centers)):
            for second in range(first):
                y, x = centers[first] - centers[second]
                if np.hypot(y, x) < 30 and self.rng.random() < 0.6:
                    masks.append(self.spanning(masks[first], masks[second]))
                    scores.append(self.rng.uniform(0.05, self.spanning_score))
        runs = RunLengths.from_dense(torch.from_numpy(np.array(masks, bool).reshape(-1, *pixels.shape[1:])))
        size = torch.tensor([*pixels.shape[:0:-1]] * 2)
        jitter = torch.from_numpy(self.rng.uniform(-0.5, 0.5, (len(masks), 4))).float()
        boxes = (runs.boxes() + jitter).clamp(min=0).minimum(size)
        labels = torch.zeros(len(masks), dtype=found["labels"].dtype)
        return {"boxes": boxes, "scores": torch.tensor(scores).float(), "labels": labels} | self.more(runs)

    def missed(self, mask):
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        return min(rows, columns) <= 2 or (min(rows, columns) < 6 and self.rng.random() < 0.3)

    def inexact(self, mask):
        """The mask one pixel larger, or smaller, or moved by a pixel."""
        kernel = np.ones((3, 3), np.uint8)
        change = int(self.rng.integers(3))
        if change < 2:
            return (cv2.dilate, cv2.erode)[change](mask.astype(np.uint8), kernel, borderValue=change).astype(bool)
        return cv2.warpAffine(mask.astype(np.uint8), np.float32([[1, 0, 1], [0, 1, 0]]), mask.shape[::-1]).astype(bool)

    def spanning(self, one, other):
        """Both objects, or one and a strip of the other."""
        other = other.copy()
        if self.rng.random() < 0.5:
            distance = cv2.distanceTransform((~one).astype(np.uint8), cv2.DIST_L2, 3)
            other &= distance <= distance[other].min(initial=100) + 3
        return one | other


class NoisyBoxes(_Noisy):
    """`ComponentBoxes` with the noise of a network."""


class NoisyComponents(_Noisy, Components):
    """`Components` with the noise of a network."""


def separated_scene(size, seed, pitch=24, gap=5):
    """Rectangles and ellipses of 14 to ``pitch - gap`` pixels, at least the gap apart: uint8 ``[3, H, W]``."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = np.zeros((3, *size), np.uint8)
    value = 0
    for top in range(0, size[0] - pitch + 1, pitch):
        for left in range(0, size[1] - pitch + 1, pitch):
            height, width = rng.integers(14, pitch - gap + 1, 2)
            y, x = top + rng.integers(0, pitch - gap - height + 1), left + rng.integers(0, pitch - gap - width + 1)
            shape = (rows >= y) & (rows < y + height) & (columns >= x) & (columns < x + width)
            if rng.random() < 0.5:
                center = y + (height - 1) / 2, x + (width - 1) / 2
                shape = ((rows - center[0]) / height * 2) ** 2 + ((columns - center[1]) / width * 2) ** 2 <= 1
            value += 1
            if rng.random() < 0.85:
                image[0, shape] = 100 + value
    return torch.from_numpy(image)


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
