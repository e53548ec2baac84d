"""Masks of objects as run lengths, and pasting of small masks into the image.

Shape legend: M masks of an image of H by W pixels, E edges of all masks together; ``m`` cells per side of a small mask.
Boxes are ``x1, y1, x2, y2`` in pixels. Coordinates lie between pixels: the center of pixel (0, 0) is (0.5, 0.5).

Networks predict small masks in boxes, or coarse maps. Only one object at a time becomes pixels, and only in the window
of its box, so memory does not grow with the number of objects times the size of the image.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .checks import check_fraction

_AT_ONCE = 2**24
"""Number of pixels of dense masks that are encoded together, which bounds the memory."""


class RunLengths:
    """Binary masks of M objects of one image, stored as the edges of their runs of pixels.

    Pixels are numbered column by column, as in COCO's run lengths: pixel (x, y) is number ``x * H + y``. The edges of a
    mask are the numbers at which a run of ones starts and ends (exclusive), in turn: strictly ascending, an even count.

    Args:
        edges: The edges of all masks, mask after mask.
        offsets: Index of the first edge of each mask, and the number of all edges.
        size: Height H and width W of the image, in pixels.

    Shape:
        - edges: ``[E]`` int64
        - offsets: ``[M + 1]`` int64

    Example:
        >>> masks = RunLengths.from_dense(torch.tensor([[[0, 1, 1], [0, 1, 0]]]).bool())
        >>> masks.edges.tolist(), masks.area().tolist(), masks.counts(0)
        ([2, 5], [3], [2, 3, 1])
    """

    def __init__(self, edges: Tensor, offsets: Tensor, size: tuple[int, int]) -> None:
        self.edges, self.offsets, self.size = edges, offsets, size  # [E], [M + 1]

    @classmethod
    def from_dense(cls, masks: Tensor) -> "RunLengths":
        """Encode masks ``[M, H, W]``; pixels other than 0 are ones."""
        height, width = masks.shape[-2:]
        pixels = masks.detach().cpu()
        pixels = pixels if pixels.dtype in (torch.bool, torch.uint8) else pixels != 0
        edges, offsets = _dense_edges(pixels.view(torch.uint8))
        return cls(edges.to(masks.device), offsets.to(masks.device), (height, width))

    @classmethod
    def from_windows(
        cls, windows: Sequence[tuple[Tensor, int, int]], size: Sequence[int], device: torch.device | None = None
    ) -> "RunLengths":
        """Encode masks that are given in windows of the image.

        Args:
            windows: For each mask the pixels of its window, *transposed*, bool ``[w, h]``, and the x and y of the
                window's upper left pixel. The window lies inside the image.
            size: Height H and width W of the image, in pixels.
            device: Device of the result; None: that of the windows.
        """
        height, width = size
        edges = [_edges(pixels, x, y, height) for pixels, x, y in windows]
        counts = torch.tensor([0, *map(len, edges)]).cumsum(0)
        joined = torch.cat(edges) if edges else torch.zeros(0, dtype=torch.int64)
        return cls(joined.to(device or joined.device), counts.to(device or joined.device), (height, width))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Tensor | slice) -> "RunLengths":
        """Select masks by indices int64 ``[N]``, by flags bool ``[M]``, or by a slice, in that order."""
        chosen = torch.arange(len(self), device=self.device)[index]
        lengths = self.offsets.diff()[chosen]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        # the n-th edge of a selected mask is the n-th of the original
        shift = (self.offsets[:-1][chosen] - offsets[:-1]).repeat_interleave(lengths)
        return RunLengths(self.edges[torch.arange(len(shift), device=shift.device) + shift], offsets, self.size)

    @classmethod
    def cat(cls, parts: Sequence["RunLengths"]) -> "RunLengths":
        """Concatenate masks of the same image; at least one part."""
        lengths = torch.cat([part.offsets.diff() for part in parts])
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return cls(torch.cat([part.edges for part in parts]), offsets, parts[0].size)

    def placed(self, x: int, y: int, size: Sequence[int]) -> "RunLengths":
        """Put the masks of a part of an image into the whole image, whose other pixels are zeros.

        Args:
            x: Column of the image at which the part begins.
            y: Row of the image at which the part begins.
            size: Height and width of the image, in pixels. The part lies inside it.
        """
        (part, _), (height, width) = self.size, size
        if part == height:  # runs over several columns stay
            return RunLengths(self.edges + x * height, self.offsets, (height, width))
        starts, ends = self.edges[0::2], self.edges[1::2]
        first = starts // part
        pieces = (ends - 1) // part - first + 1  # columns of each run
        run = torch.arange(len(starts), device=self.device).repeat_interleave(pieces)
        piece = torch.arange(len(run), device=self.device) - (pieces.cumsum(0) - pieces)[run]
        column = first[run] + piece
        rows = [edge[run].clamp(column * part, (column + 1) * part) - column * part for edge in (starts, ends)]
        edges = torch.stack(rows, 1) + ((column + x) * height + y)[:, None]
        counts = torch.zeros(len(self), dtype=torch.int64, device=self.device)
        counts.index_add_(0, self.mask_of_edge()[0::2], 2 * pieces)
        return RunLengths(edges.flatten(), torch.cat([counts.new_zeros(1), counts.cumsum(0)]), (height, width))

    def to(self, device: torch.device | str) -> "RunLengths":
        """Return the masks on another device, as tensors do."""
        return RunLengths(self.edges.to(device), self.offsets.to(device), self.size)

    def cpu(self) -> "RunLengths":
        """Move the masks to the CPU, as tensors do."""
        return self.to("cpu")

    @property
    def device(self) -> torch.device:
        """The device on which the edges are stored."""
        return self.edges.device

    def dense(self) -> Tensor:
        """Decode all masks: bool ``[M, H, W]``."""
        height, width = self.size
        changes = torch.zeros(len(self), height * width + 1, dtype=torch.int8, device=self.device)
        changes[self.mask_of_edge(), self.edges] = 1 - 2 * self._is_end().to(torch.int8)
        ones = changes[:, :-1].cumsum(1, dtype=torch.int8)  # stays 0 or 1
        return ones.bool().unflatten(1, (width, height)).transpose(1, 2)

    def area(self) -> Tensor:
        """Number of pixels of each mask: int64 ``[M]``."""
        pixels = (self.edges[1::2] - self.edges[0::2]).cumsum(0)  # up to the end of each run
        return torch.nn.functional.pad(pixels, (1, 0))[self.offsets // 2].diff()

    def boxes(self) -> Tensor:
        """The tightest box around each mask: float32 ``[M, 4]``; zeros around an empty mask."""
        height, width = self.size
        starts, ends = self.edges[0::2], self.edges[1::2] - 1  # first and last pixel of each run
        rows, last_rows = starts % height, ends % height
        columns, last_columns = starts // height, ends // height
        spans = last_columns > columns  # a run over several columns touches the upper and the lower border
        top, bottom = torch.where(spans, 0, rows), torch.where(spans, height - 1, last_rows)
        run_mask = self.mask_of_edge()[0::2]
        limits = [(columns, width, "amin"), (top, height, "amin"), (last_columns, -1, "amax"), (bottom, -1, "amax")]
        sides = [
            torch.full((len(self),), start, dtype=torch.int64, device=self.device).scatter_reduce_(
                0, run_mask, values, reduction
            )
            for values, start, reduction in limits
        ]
        boxes = torch.stack([sides[0], sides[1], sides[2] + 1, sides[3] + 1], 1).float()
        return boxes * (self.offsets.diff() > 0)[:, None]

    def mask_of_edge(self) -> Tensor:
        """The mask to which each edge belongs: int64 ``[E]``."""
        return torch.arange(len(self), device=self.device).repeat_interleave(self.offsets.diff())

    def windows(self) -> Iterator[tuple[Tensor, int, int]]:
        """Decode the masks one by one, in the windows of their boxes, in the form that `from_windows` takes.

        Shape:
            - output: the *transposed* pixels of each window, bool ``[w, h]``, and x and y of its upper left pixel
        """
        height = self.size[0]
        starts, lengths = self.edges[0::2], self.edges[1::2] - self.edges[0::2]
        for (x1, y1, x2, y2), (start, stop) in zip(
            self.boxes().int().tolist(), itertools.pairwise((self.offsets // 2).tolist()), strict=True
        ):
            columns = torch.zeros((x2 - x1) * height + 1, dtype=torch.int8, device=self.device)
            columns[starts[start:stop] - x1 * height] = 1
            columns[starts[start:stop] + lengths[start:stop] - x1 * height] = -1
            ones = columns[:-1].cumsum(0, dtype=torch.int8).bool()
            yield ones.view(x2 - x1, height)[:, y1:y2], x1, y1

    def counts(self, index: int) -> list[int]:
        """COCO's uncompressed run lengths of one mask: zeros first, then ones, in turn, up to the last pixel."""
        start, stop = self.offsets[index : index + 2].tolist()
        pixels = self.size[0] * self.size[1]
        edges = self.edges[start:stop].cpu()
        ends = [] if len(edges) and int(edges[-1]) == pixels else [pixels]
        return torch.cat([edges.new_zeros(1), edges, edges.new_tensor(ends)]).diff().tolist()

    def coco(self) -> list[dict[str, Any]]:
        """Each mask as COCO's JSON has it uncompressed: ``size`` and ``counts``."""
        return [{"size": list(self.size), "counts": self.counts(index)} for index in range(len(self))]

    def __repr__(self) -> str:
        return f"RunLengths({len(self)} masks of {self.size[0]} x {self.size[1]} pixels)"

    def _is_end(self) -> Tensor:
        """Whether each edge ends a run: bool ``[E]``; every mask has an even number of edges."""
        return torch.arange(len(self.edges), device=self.device) % 2 == 1


def _edges(pixels: Tensor, x: int, y: int, height: int) -> Tensor:
    """The edges of a mask in a window: int64 ``[E]``, from transposed pixels bool ``[w, h]`` at column x, row y."""
    padded = torch.nn.functional.pad(pixels.to(torch.uint8), (1, 1))  # zeros above and below each column
    column, row = (padded[:, 1:] != padded[:, :-1]).nonzero(as_tuple=True)
    edges = (column + x) * height + (row + y)
    if pixels.shape[1] < height or not len(edges):
        return edges
    # a run that ends at the lower border goes on if the next column begins with a one
    joined = torch.zeros(len(edges), dtype=torch.bool, device=edges.device)
    equal = edges[1:-1:2] == edges[2::2]
    joined[1:-1:2], joined[2::2] = equal, equal
    return edges[~joined]


def _dense_edges(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Edges int64 ``[E]`` and offsets int64 ``[M + 1]`` of masks uint8 ``[M, H, W]``."""
    if not masks.numel():
        return torch.zeros(0, dtype=torch.int64), torch.zeros(len(masks) + 1, dtype=torch.int64)
    together = max(1, _AT_ONCE // masks[0].numel())  # masks that stay in the cache while they are encoded
    edges, counts = zip(*map(_encode, masks.split(together)), strict=True)
    return torch.from_numpy(np.concatenate(edges)), torch.from_numpy(np.append(0, np.concatenate(counts)).cumsum())


def _encode(masks: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges int64 ``[E]`` of masks uint8 ``[M, H, W]``, and the number of those of each mask, int64 ``[M]``.

    All pixels are read once, to find the rows of each mask. NumPy does this at the speed of the memory, and does not
    wait for other threads as torch would on a busy machine. Changes from row to row are then sought in the box of each
    mask only.
    """
    (_, height, width), pixels = masks.shape, masks.numpy()
    rows = np.bitwise_or.reduce(pixels, axis=2)
    if rows.max() > 1:
        return _encode((masks != 0).view(torch.uint8))
    (top, bottom), columns = _limits(rows), np.zeros((len(masks), width), np.uint8)
    for mask, present, y1, y2 in zip(pixels, columns, top.tolist(), bottom.tolist(), strict=True):
        np.bitwise_or.reduce(mask[y1:y2], 0, out=present)
    left, right = _limits(columns)
    widths = right - left
    ends = ((bottom - top + 1) * widths).cumsum()  # a row more, since there is a change before and after each run
    changes = np.empty(ends[-1], bool)
    start = 0
    for mask, x1, y1, x2, y2, end in zip(
        pixels, *(each.tolist() for each in (left, top, right, bottom, ends)), strict=True
    ):
        if end > start:
            box, changed = mask[y1:y2, x1:x2], changes[start:end].reshape(y2 - y1 + 1, x2 - x1)
            changed[0], changed[-1] = box[0], box[-1]
            np.not_equal(box[1:], box[:-1], out=changed[1:-1])
        start = end
    index = changes.nonzero()[0]
    counts = np.diff(np.searchsorted(index, ends), prepend=0)
    span = height * width + 1  # an edge may be at the end of the image
    kind = np.int32 if len(masks) * span < 2**31 else np.int64  # sorting is the faster the shorter numbers are
    first = np.arange(len(masks)) * span
    row, column = np.divmod(
        (index - np.repeat(np.append(0, ends[:-1]), counts)).astype(kind), np.repeat(widths.astype(kind), counts)
    )
    keys = column * kind(height) + row + np.repeat((left * height + top + first).astype(kind), counts)
    keys.sort()  # from row by row to column by column
    # a run that ends at the lower border goes on if the next column begins with a one: two equal edges
    equal = keys[1:] == keys[:-1]
    kept = np.ones(len(keys), bool)
    kept[1:] &= ~equal
    kept[:-1] &= ~equal
    keys = keys[kept]
    numbers = np.diff(np.searchsorted(keys, first), append=len(keys))
    return (keys - np.repeat(first, numbers)).astype(np.int64, copy=False), numbers.astype(np.int64, copy=False)


def _limits(present: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First index, and last index plus 1, at which each row of 0 and 1 ``[M, L]`` is 1; 0 and 0 if it never is."""
    flags = present.view(bool)
    last = present.shape[1] - flags[:, ::-1].argmax(1)
    return flags.argmax(1), last * flags.any(1)


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> RunLengths:
    """Paste small masks into the image and binarize them.

    The ``m x m`` values of a mask are at the centers of equal cells that tile its box. A pixel gets the bilinear
    interpolation at its center; beyond the outermost centers, the value falls to 0 over one cell. Boxes are not
    rounded. ``grid_sample`` (``align_corners=False``, zero padding), and so Detectron2, computes the same. torchvision
    rounds boxes to whole pixels and makes them a pixel wider and higher, so its masks are larger by up to a pixel.

    Args:
        masks: Values in [0, 1], such as probabilities.
        boxes: The box of each mask, in pixels. It may leave the image, where it is clipped.
        size: Height H and width W of the image, in pixels.
        threshold: Pixels with a higher value are ones.

    Shape:
        - masks: ``[M, m, m]``
        - boxes: ``[M, 4]``

    Raises:
        ValueError: Shapes are others than these, or ``threshold`` is outside [0, 1].
    """
    check_fraction(mask_threshold=threshold)
    if masks.ndim != 3 or boxes.shape != (len(masks), 4):
        raise ValueError(
            f"masks: must be [M, m, m] with boxes [M, 4], got {list(masks.shape)} and boxes {list(boxes.shape)}"
        )
    return RunLengths.from_windows(
        [_paste(mask, box, size, threshold) for mask, box in zip(masks.float(), boxes.double().tolist(), strict=True)],
        size,
        masks.device,
    )


def _paste(mask: Tensor, box: Sequence[float], size: tuple[int, int], threshold: float) -> tuple[Tensor, int, int]:
    """The pixels of a mask ``[h, w]`` in a window of the image, bool, transposed, and the window's x and y."""
    (height, width), (x1, y1, x2, y2) = size, box
    first_x, across = _interpolation(x1, x2, mask.shape[1], width, mask.device)
    first_y, down = _interpolation(y1, y2, mask.shape[0], height, mask.device)
    return across @ mask.T @ down.T > threshold, first_x, first_y


def resize_maps(maps: Tensor, cell: Sequence[float], size: tuple[int, int], threshold: float = 0.5) -> RunLengths:
    """Resize maps that cover the image, and binarize them.

    The values of a map are at the centers of its cells, the first of which begins at the image's upper left corner. A
    pixel gets the bilinear interpolation at its center; beyond the outermost centers, values stay the same
    (``align_corners=False``). Only the part of a map with values above the threshold becomes pixels.

    Args:
        maps: Values in [0, 1], such as probabilities.
        cell: Height and width of a cell, in pixels of the image.
        size: Height H and width W of the image, in pixels.
        threshold: Pixels with a higher value are ones.

    Shape:
        - maps: ``[M, h, w]``
    """
    above = maps > threshold
    extents = zip(_extents(above.any(2)), _extents(above.any(1)), strict=True)  # of rows and of columns
    padded = torch.nn.functional.pad(maps.float()[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    windows = []
    for values, ((top, bottom), (left, right)) in zip(padded, extents, strict=True):
        # with one cell more on each side, beyond whose center no value is above the threshold
        box = ((left - 1) * cell[1], (top - 1) * cell[0], (right + 1) * cell[1], (bottom + 1) * cell[0])
        windows.append(_paste(values[top : bottom + 2, left : right + 2], box, size, threshold))
    return RunLengths.from_windows(windows, size, maps.device)


def _extents(present: Tensor) -> list[list[int]]:
    """First index, and last index plus 1, at which each row of flags ``[M, L]`` is true; 0 and 0 if it never is."""
    ordered = present.to(torch.uint8)
    first, last = ordered.argmax(1), present.shape[1] - ordered.flip(1).argmax(1)
    return (torch.stack([first, last], 1) * present.any(1, keepdim=True)).tolist()


def _interpolation(low: float, high: float, cells: int, limit: int, device: torch.device) -> tuple[int, Tensor]:
    """The bilinear weights of a side of a box: the first pixel that it reaches, and float32 ``[pixels, cells]``."""
    cell = max(high - low, 1e-6) / cells  # side of a cell, in pixels
    # pixels whose center is less than a cell away from the centers of the outermost cells
    first = min(max(int(low - cell / 2 - 0.5), 0), limit)
    last = max(min(int(high + cell / 2 + 0.5) + 1, limit), first)
    positions = (torch.arange(first, last, dtype=torch.float64, device=device) + 0.5 - low) / cell - 0.5
    distances = positions[:, None] - torch.arange(cells, device=device)
    return first, (1 - distances.abs()).clamp_(min=0).float()
