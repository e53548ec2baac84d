"""pycocotools' evaluation, the reference of the tests of metrics."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def evaluate(
    images: Sequence[dict[str, Any]],
    objects: Sequence[dict[str, Any]],
    results: Sequence[dict[str, Any]],
    classes: int,
    kind: str,
    max_detections: int = 100,
    overlaps: Callable[[COCOeval], Callable[[int, int], Any]] | None = None,
) -> COCOeval:
    """Evaluate results against objects, all in COCO's format.

    Args:
        images: The images.
        objects: The ground truth.
        results: The detections, with scores; may be empty, which pycocotools would not read.
        classes: Number of classes, whose ids are 0, 1, ….
        kind: ``bbox`` or ``segm``.
        max_detections: Maximum number of detections per class and image.
        overlaps: Makes the function that replaces pycocotools' IoUs.
    """
    ground_truth = COCO()
    ground_truth.dataset = {"images": list(images), "annotations": list(objects), "info": {}}
    ground_truth.dataset["categories"] = [{"id": label} for label in range(classes)]
    with contextlib.redirect_stdout(None):
        ground_truth.createIndex()
        found = ground_truth.loadRes(list(results)) if results else COCO()
        if not results:
            found.dataset = ground_truth.dataset | {"annotations": []}
            found.createIndex()
        evaluation = COCOeval(ground_truth, found, kind)
        evaluation.params.maxDets = [1, 10, max_detections]
        if overlaps is not None:
            evaluation.computeIoU = overlaps(evaluation)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
