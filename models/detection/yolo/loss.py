"""YOLO's grid and loss: assignment of objects to cells and predictors, and the five terms of squared errors.

Shape legend: B images of S x S cells, row by row; P predictors in each cell; N objects of an image; K classes.
A *grid box* is the output of a predictor: x and y of the center as fractions of its cell, from the cell's upper left
corner, and the square roots of width and height as fractions of the image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...ops.boxes import at_least_float32, paired_iou


class GridTarget(NamedTuple):
    """Target of each cell, with at most one object.

    Attributes:
        present: Whether the center of an object is in the cell, bool ``[B, S, S]``.
        boxes: Grid box of the object, ``[B, S, S, 4]``; without an object, a quarter of the image's sides.
        labels: Class of the object, int64 ``[B, S, S]``; 0 without an object.
    """

    present: Tensor
    boxes: Tensor
    labels: Tensor


class GridOutput(NamedTuple):
    """Prediction of each cell.

    Attributes:
        boxes: Grid boxes, ``[B, S, S, P, 4]``.
        confidence: Predicted IoU of the box with an object, ``[B, S, S, P]``.
        classes: Probability of each class, given an object, ``[B, S, S, K]``.
    """

    boxes: Tensor
    confidence: Tensor
    classes: Tensor


class YOLOTerms(NamedTuple):
    """The five weighted sums of the paper's equation 3, averaged over the images; scalars.

    Attributes:
        center: Errors of x and y of the responsible predictors.
        size: Errors of the square roots of their width and height.
        objects: Errors of their confidence.
        no_objects: Errors of the confidence of all other predictors.
        classes: Errors of the classes in cells with an object.
    """

    center: Tensor
    size: Tensor
    objects: Tensor
    no_objects: Tensor
    classes: Tensor


def split_grid(raw: Tensor, predictors: int) -> GridOutput:
    """Split the outputs of each cell into P boxes, P confidences and the classes, in float32 or wider.

    Args:
        raw: Output of the network.
        predictors: Number of predictors P.

    Shape:
        - raw: ``[B, S, S, 5 * P + K]``
    """
    raw = at_least_float32(raw)
    boxes, confidence, classes = raw.split([4 * predictors, predictors, raw.shape[-1] - 5 * predictors], dim=-1)
    return GridOutput(boxes.unflatten(-1, (predictors, 4)), confidence, classes)


def encode_grid(boxes: Sequence[Tensor], labels: Sequence[Tensor], grid_size: int, shuffle: bool = False) -> GridTarget:
    """Assign each object to the cell that contains its center.

    A cell has one object. Of several, the first is kept and the others are not learned, as in the authors' code
    (``fill_truth_region``), which shuffles the objects of an image first.

    Args:
        boxes: Boxes of each image, ``x1, y1, x2, y2`` as fractions of its sides.
        labels: Labels of each image, int64.
        grid_size: Number of cells per side S.
        shuffle: Whether objects are put into random order first, with torch's default generator.

    Shape:
        - boxes: B tensors ``[N, 4]``
        - labels: B tensors ``[N]``

    Example:
        >>> target = encode_grid([torch.tensor([[0.5, 0.0, 1.0, 0.5]])], [torch.tensor([3])], grid_size=2)
        >>> target.present[0].tolist(), target.boxes[0, 0, 1].tolist()
        ([[False, True], [False, False]], [0.5, 0.5, 0.7071067690849304, 0.7071067690849304])
    """
    all_boxes, classes = torch.cat(list(boxes)), torch.cat(list(labels))
    images, cells, count = len(boxes), grid_size**2, len(classes)
    image = torch.cat([each.new_full((len(each),), index) for index, each in enumerate(labels)])
    if shuffle:
        order = torch.randperm(count).to(all_boxes.device)
        all_boxes, classes, image = all_boxes[order], classes[order], image[order]
    center = (all_boxes[:, :2] + all_boxes[:, 2:]) / 2 * grid_size  # [objects of the batch, 2], in cells
    corner = center.floor().clamp(0, grid_size - 1)
    cell = image * cells + (corner[:, 1] * grid_size + corner[:, 0]).long()
    grid_boxes = torch.cat([center - corner, (all_boxes[:, 2:] - all_boxes[:, :2]).clamp(min=0).sqrt()], dim=1)
    # index of the first object of each cell; without one `count`, the index of a default box appended below
    first = torch.full((images * cells,), count, device=all_boxes.device)
    first = first.scatter_reduce(0, cell, torch.arange(count, device=all_boxes.device), "amin")
    grid_boxes = torch.cat([grid_boxes, grid_boxes.new_full((1, 4), 0.5)])
    classes = torch.cat([classes, classes.new_zeros(1)])
    shape = (images, grid_size, grid_size)
    return GridTarget((first < count).view(shape), grid_boxes[first].view(*shape, 4), classes[first].view(shape))


def decode_grid(grid_boxes: Tensor) -> Tensor:
    """Convert grid boxes to corners, as fractions of the image's sides. Boxes may leave the image.

    Square roots are squared regardless of their sign.

    Shape:
        - grid_boxes: ``[B, S, S, P, 4]``
        - output: ``[B, S, S, P, 4]``, ``x1, y1, x2, y2``
    """
    size = grid_boxes.shape[1]
    steps = torch.arange(size, dtype=grid_boxes.dtype, device=grid_boxes.device)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    corner = torch.stack([columns, rows], dim=-1)[:, :, None]  # [S, S, 1, 2]
    center = (grid_boxes[..., :2] + corner) / size
    half = grid_boxes[..., 2:].square() / 2
    return torch.cat([center - half, center + half], dim=-1)


@torch.no_grad()
def responsible_predictors(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Find the predictor of each cell that is responsible for its object, and the IoU of each predictor with it.

    It is the one with the highest IoU. If no predictor's box overlaps the object, it is the one with the lowest root
    mean square error of center and sides (as fractions of the image). On ties it is the first. There is no gradient.

    Shape:
        - predicted: grid boxes ``[B, S, S, P, 4]``
        - target: grid boxes ``[B, S, S, 4]``
        - output: bool ``[B, S, S, P]`` with one True per cell; IoU ``[B, S, S, P]``

    Reference:
        The paper's section 2.2 for the IoU; ``forward_detection_layer`` of the authors' code for the error.
    """
    target = target[..., None, :]
    iou = paired_iou(decode_grid(predicted), decode_grid(target))
    size = predicted.shape[1]
    center = (predicted[..., :2] - target[..., :2]) / size
    sides = predicted[..., 2:].square() - target[..., 2:].square()
    error = center.square().sum(-1) + sides.square().sum(-1)  # in the order of its root
    best = torch.where((iou > 0).any(-1, keepdim=True), -iou, error).argmin(-1, keepdim=True)
    return torch.zeros_like(iou, dtype=torch.bool).scatter_(-1, best, True), iou


def yolo_terms(
    output: GridOutput, target: GridTarget, coord_weight: float = 5.0, no_object_weight: float = 0.5
) -> YOLOTerms:
    """Compute the sums of squared errors of equation 3 over the cells of an image, averaged over the images.

    The target of a responsible predictor's confidence is its box's IoU with the object, taken as a constant. The
    target of all other predictors is 0, also in a cell with an object. Classes are trained per cell, not per predictor,
    and only in cells with an object.

    Args:
        output: Predictions of the cells, ``[B, S, S, …]``.
        target: Targets of the cells, ``[B, S, S, …]``.
        coord_weight: Weight of the box, the paper's lambda_coord.
        no_object_weight: Weight of a confidence with target 0, the paper's lambda_noobj.

    Reference:
        Redmon et al., "You only look once", CVPR 2016, equation 3. The authors' code omits the factor 2 in the
        derivative of a square: at the same learning rate, its steps are half as long as with this loss.
    """
    responsible, iou = responsible_predictors(output.boxes, target.boxes)
    responsible = responsible & target.present[..., None]
    images = max(len(target.present), 1)

    def total(error: Tensor, mask: Tensor) -> Tensor:
        """Sum of squares of ``[B, S, S, …]`` where the mask holds, a scalar."""
        return error.square().where(mask, error.new_zeros(())).sum() / images

    box = output.boxes - target.boxes[..., None, :]
    one_hot = torch.nn.functional.one_hot(target.labels, output.classes.shape[-1])
    return YOLOTerms(
        center=coord_weight * total(box[..., :2], responsible[..., None]),
        size=coord_weight * total(box[..., 2:], responsible[..., None]),
        objects=total(output.confidence - iou, responsible),
        no_objects=no_object_weight * total(output.confidence, ~responsible),
        classes=total(output.classes - one_hot, target.present[..., None]),
    )
