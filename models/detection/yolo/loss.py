"""YOLO's grid: where objects go, which predictor answers for one, and what each of them is told.

Shape legend: B images of S x S cells, row by row; P predictors in each cell; N objects of an image; K classes.
A *grid box* is the four numbers that a predictor gives: x and y of its centre as fractions of its cell, counted from
the cell's upper left corner, and the square roots of its width and height as fractions of the image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...ops.boxes import at_least_float32, paired_iou


class GridTruth(NamedTuple):
    """What each cell is to predict; one object at most.

    Attributes:
        present: bool ``[B, S, S]``, whether an object has its centre in the cell.
        boxes: ``[B, S, S, 4]``, its grid box; of a quarter of the image's sides where there is none.
        labels: int64 ``[B, S, S]``, its class; 0 where there is none.
    """

    present: Tensor
    boxes: Tensor
    labels: Tensor


class GridOutput(NamedTuple):
    """What each cell predicts.

    Attributes:
        boxes: ``[B, S, S, P, 4]``, grid boxes.
        confidence: ``[B, S, S, P]``, what the box's IoU with an object is thought to be.
        classes: ``[B, S, S, K]``, the probability of each class, if there is an object.
    """

    boxes: Tensor
    confidence: Tensor
    classes: Tensor


class YOLOTerms(NamedTuple):
    """The five sums of the paper's equation 3, weighted, as means over the images; each ``[]``.

    Attributes:
        centre: of x and y, of the responsible predictors.
        size: of the square roots of width and height, of the same.
        objects: of their confidence.
        no_objects: of every other predictor's confidence.
        classes: of the classes, of the cells with an object.
    """

    centre: Tensor
    size: Tensor
    objects: Tensor
    no_objects: Tensor
    classes: Tensor


def split_grid(raw: Tensor, predictors: int) -> GridOutput:
    """Names the numbers of each cell: P boxes of four, P confidences, then the classes; in float32 at least.

    Args:
        raw: what the network gives.
        predictors: P.

    Shape:
        - raw: ``[B, S, S, 5 * P + K]``
    """
    raw = at_least_float32(raw)
    boxes, confidence, classes = raw.split([4 * predictors, predictors, raw.shape[-1] - 5 * predictors], dim=-1)
    return GridOutput(boxes.unflatten(-1, (predictors, 4)), confidence, classes)


def encode_grid(boxes: Sequence[Tensor], labels: Sequence[Tensor], grid_size: int, shuffle: bool = False) -> GridTruth:
    """Puts each object into the cell in which its centre lies.

    A cell has one object: of several the first, the others are not learned, as in the authors' code
    (``fill_truth_region``), which puts an image's objects into random order before.

    Args:
        boxes: of each image, ``x1, y1, x2, y2`` as fractions of its sides.
        labels: of each image, int64.
        grid_size: S.
        shuffle: whether objects are put into random order before (torch's generator); else as given.

    Shape:
        - boxes: B times ``[N, 4]``
        - labels: B times ``[N]``

    Example:
        >>> truth = encode_grid([torch.tensor([[0.5, 0.0, 1.0, 0.5]])], [torch.tensor([3])], grid_size=2)
        >>> truth.present[0].tolist(), truth.boxes[0, 0, 1].tolist()
        ([[False, True], [False, False]], [0.5, 0.5, 0.7071067690849304, 0.7071067690849304])
    """
    every, classes = torch.cat(list(boxes)), torch.cat(list(labels))
    images, cells, count = len(boxes), grid_size**2, len(classes)
    image = torch.cat([own.new_full((len(own),), place) for place, own in enumerate(labels)])
    if shuffle:
        order = torch.randperm(count).to(every.device)
        every, classes, image = every[order], classes[order], image[order]
    centre = (every[:, :2] + every[:, 2:]) / 2 * grid_size  # [N, 2], in cells
    corner = centre.floor().clamp(0, grid_size - 1)
    place = image * cells + (corner[:, 1] * grid_size + corner[:, 0]).long()
    grid_boxes = torch.cat([centre - corner, (every[:, 2:] - every[:, :2]).clamp(min=0).sqrt()], dim=1)
    # the first object of each cell; `count` where there is none, which is the number of a box put behind all others
    first = torch.full((images * cells,), count, device=every.device)
    first = first.scatter_reduce(0, place, torch.arange(count, device=every.device), "amin")
    grid_boxes = torch.cat([grid_boxes, grid_boxes.new_full((1, 4), 0.5)])
    classes = torch.cat([classes, classes.new_zeros(1)])
    shape = (images, grid_size, grid_size)
    return GridTruth((first < count).view(shape), grid_boxes[first].view(*shape, 4), classes[first].view(shape))


def decode_grid(grid_boxes: Tensor) -> Tensor:
    """The corners of grid boxes, as fractions of the image's sides; a box may leave the image.

    Square roots are squared whatever their sign.

    Shape:
        - grid_boxes: ``[B, S, S, P, 4]``
        - output: ``[B, S, S, P, 4]``, ``x1, y1, x2, y2``
    """
    size = grid_boxes.shape[1]
    steps = torch.arange(size, dtype=grid_boxes.dtype, device=grid_boxes.device)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    corner = torch.stack([columns, rows], dim=-1)[:, :, None]  # [S, S, 1, 2]
    centre = (grid_boxes[..., :2] + corner) / size
    half = grid_boxes[..., 2:].square() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


@torch.no_grad()
def responsible_predictors(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Which predictor of each cell answers for its object, and the IoU of each with it; constants, without gradient.

    The one of the highest IoU; where no predictor's box meets the object, the one whose centre and sides (as fractions
    of the image) have the lowest root mean square error. Of equals the first.

    Shape:
        - predicted: ``[B, S, S, P, 4]``, grid boxes
        - truth: ``[B, S, S, 4]``, grid boxes
        - output: bool ``[B, S, S, P]``, one True a cell; ``[B, S, S, P]``

    Reference:
        The paper's section 2.2 for the IoU; ``forward_detection_layer`` of the authors' code for the error.
    """
    truth = truth[..., None, :]
    iou = paired_iou(decode_grid(predicted), decode_grid(truth))
    size = predicted.shape[1]
    centre = (predicted[..., :2] - truth[..., :2]) / size
    sides = predicted[..., 2:].square() - truth[..., 2:].square()
    error = centre.square().sum(-1) + sides.square().sum(-1)  # orders as its root does
    best = torch.where((iou > 0).any(-1, keepdim=True), -iou, error).argmin(-1, keepdim=True)
    return torch.zeros_like(iou, dtype=torch.bool).scatter_(-1, best, True), iou


def yolo_terms(
    output: GridOutput, truth: GridTruth, coord_weight: float = 5.0, no_object_weight: float = 0.5
) -> YOLOTerms:
    """The sums of squared errors of equation 3, each over the cells of an image, as means over the images.

    A responsible predictor's confidence is to be its box's IoU with the object, taken as a constant. Every other
    predictor's is to be 0, that of the other predictors in a cell with an object too. The classes are told to a
    cell, not to its predictors, and where there is an object only.

    Args:
        output: what the cells predict.
        truth: what they are to predict.
        coord_weight: weight of the box, the paper's lambda_coord.
        no_object_weight: weight of the confidence that is to be 0, the paper's lambda_noobj.

    Reference:
        Redmon et al., "You only look once", CVPR 2016, equation 3. The authors' code leaves the factor 2 out of the
        derivative of a square: at the same learning rate its steps are half as long as this loss's.
    """
    chosen, iou = responsible_predictors(output.boxes, truth.boxes)
    chosen = chosen & truth.present[..., None]
    images = max(len(truth.present), 1)

    def total(error: Tensor, where: Tensor) -> Tensor:
        return error.square().where(where, error.new_zeros(())).sum() / images

    box = output.boxes - truth.boxes[..., None, :]
    wanted = torch.nn.functional.one_hot(truth.labels, output.classes.shape[-1])
    return YOLOTerms(
        centre=coord_weight * total(box[..., :2], chosen[..., None]),
        size=coord_weight * total(box[..., 2:], chosen[..., None]),
        objects=total(output.confidence - iou, chosen),
        no_objects=no_object_weight * total(output.confidence, ~chosen),
        classes=total(output.classes - wanted, truth.present[..., None]),
    )
