"""Random masks of detections and ground truth for the tests of metrics, and pycocotools' evaluation of them."""

import numpy as np
import torch
from pycocotools import mask as coco_mask

from striate.models.ops.masks import RunLengths

from .pycocotools_metrics import evaluate
from .random_detections import CLASSES


def random_masks(rng, count, height, width):
    """Ellipses and rectangles, some of one pixel or with a hole, one in ten empty: uint8 ``[count, H, W]``."""
    rows, columns = np.mgrid[:height, :width]
    masks = np.zeros((count, height, width), np.uint8)
    for mask in masks:
        y, x, h, w = (
            rng.uniform(0, height),
            rng.uniform(0, width),
            rng.uniform(0.5, height / 2),
            rng.uniform(0.5, width / 2),
        )
        distance = ((rows - y) / h) ** 2 + ((columns - x) / w) ** 2
        if rng.random() < 0.5:
            distance = np.maximum(np.abs(rows - y) / h, np.abs(columns - x) / w)
        mask[:] = (distance < 1) & ((distance > 0.3) | (rng.random() < 0.7))
        mask *= rng.random() > 0.1
    return masks


def random_instances(seed, count=8, size=(40, 60), most=12, classes=CLASSES, ties=True):
    """Pairs of detections with run lengths and targets with uint8 masks: crowds, ties, copies, images without any."""
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        objects, detected = (int(rng.integers(0, most)) * (number % 4 != 3 or rng.random() < 0.5) for _ in range(2))
        height, width = size[0] + int(rng.integers(0, 9)), size[1] + int(rng.integers(0, 9))
        masks, labels = random_masks(rng, objects, height, width), rng.integers(0, classes, objects)
        found, predicted = random_masks(rng, detected, height, width), rng.integers(0, classes, detected)
        for index in range(detected):
            if objects and rng.random() < 0.85:  # an object, moved by a pixel at most
                copied = int(rng.integers(0, objects))
                found[index] = np.roll(masks[copied], rng.integers(-1, 2, 2), (0, 1))
                predicted[index] = labels[copied]
        scores = rng.random(detected)
        scores = np.round(8 * scores) / 8 if ties else scores
        target = {"masks": torch.from_numpy(masks), "labels": torch.from_numpy(labels)}
        target["boxes"] = RunLengths.from_dense(target["masks"]).boxes()
        target["iscrowd"] = torch.from_numpy(rng.random(objects) < 0.2)
        if number % 2:
            target["area"] = torch.from_numpy(rng.choice([1.0, 1024, 1025, 9216, 20000], objects)).float()
        runs = RunLengths.from_dense(torch.from_numpy(found))
        detections = {"masks": runs, "boxes": runs.boxes(), "labels": torch.from_numpy(predicted)}
        pairs.append((detections | {"scores": torch.from_numpy(scores).float()}, target))
    return pairs


def encode(mask):
    """pycocotools' run lengths of a mask ``[H, W]``."""
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def evaluate_by_pycocotools(pairs, classes=CLASSES, max_detections=100, overlaps=None):
    """pycocotools' evaluation of masks, of images numbered in order; `overlaps` replaces its IoUs."""
    objects, results, images = [], [], []
    for image, (detections, target) in enumerate(pairs):
        height, width = target["masks"].shape[1:]
        images.append({"id": image, "height": height, "width": width})
        areas = target.get("area", target["masks"].sum((1, 2))).tolist()
        for mask, label, area, crowd in zip(
            target["masks"].numpy(), target["labels"].tolist(), areas, target["iscrowd"].tolist(), strict=True
        ):
            one = {"id": len(objects) + 1, "image_id": image, "category_id": label, "segmentation": encode(mask)}
            objects.append(one | {"area": area, "iscrowd": int(crowd)})
        for mask, score, label in zip(
            detections["masks"].dense().numpy(),
            detections["scores"].tolist(),
            detections["labels"].tolist(),
            strict=True,
        ):
            results.append({"image_id": image, "category_id": label, "segmentation": encode(mask), "score": score})
    return evaluate(images, objects, results, classes, "segm", max_detections, overlaps).eval
