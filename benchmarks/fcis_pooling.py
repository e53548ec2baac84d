"""Position-sensitive pooling of 300 regions for FCIS, compared with a plain loop over regions and bins.

Maps have the size of an image of 600 x 1,000 pixels at stride 16, and as many channels as FCIS has for VOC and COCO.
Regions are pooled from 7 x 7 groups to 21 x 21 bins. Both sides get the same tensors, and must agree. The loop has no
backward pass here: it would keep a gradient of all maps for each of 132,300 bins.
"""

import math
import statistics
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from striate.benchmarks.harness import Goal, Row, interleave, median_ratio, time_call

REGIONS, HEIGHT, WIDTH, STRIDE, GROUPS, SIZE = 300, 38, 63, 16, 7, 21
CASES = {"VOC": 20, "COCO": 80}
"""Data set -> number of classes."""
FASTER = Goal(1 / 20, at_least=False)


def make_case(classes: int) -> tuple[Tensor, Tensor]:
    """Make maps ``[1, 2 (K + 1) 49, 38, 63]``, channels-last as FCIS', and regions ``[300, 4]`` of 20 to 400 pixels."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 2 * (classes + 1) * GROUPS**2, HEIGHT, WIDTH, generator=generator)
    sides = torch.exp(torch.rand(REGIONS, 2, generator=generator) * 3 + 3)
    low = torch.rand(REGIONS, 2, generator=generator) * (torch.tensor([1000.0, 600.0]) - sides)
    return maps.contiguous(memory_format=torch.channels_last), torch.cat([low, low + sides], 1)


def pool_by_loop(maps: Tensor, regions: Tensor) -> Tensor:
    """Pool regions ``[R, 4]`` from maps of one image, ``[1, 49 * C, h, w]``: ``[R, C, 21, 21]``."""
    grouped = maps[0].unflatten(0, (GROUPS, GROUPS, -1))
    pooled = maps.new_zeros(len(regions), grouped.shape[2], SIZE, SIZE)
    for number, box in enumerate(regions.tolist()):
        x1, y1, x2, y2 = (math.floor(side + 0.5) for side in box)
        columns = [_cells(x1, x2, index, WIDTH) for index in range(SIZE)]
        for i in range(SIZE):
            rows = _cells(y1, y2, i, HEIGHT)
            for j in range(SIZE):
                cells = grouped[i * GROUPS // SIZE, j * GROUPS // SIZE, :, rows, columns[j]]
                if cells.numel():
                    pooled[number, :, i, j] = cells.mean((1, 2))
    return pooled


def _cells(low: int, high: int, index: int, limit: int) -> slice:
    """The cells that a bin touches along one side of a region of at least a tenth of a cell."""
    scale = 10 * STRIDE * SIZE
    length = max(10 * (high - low), STRIDE)
    first, end = 10 * low * SIZE + index * length, 10 * low * SIZE + (index + 1) * length
    return slice(min(max(first // scale, 0), limit), min(max(-(-end // scale), 0), limit))


def run(repetitions: int = 3) -> Iterator[Row]:
    """Measure both cases, and yield each row as soon as it is measured."""
    from striate.models.instance import position_sensitive_pool

    for name, classes in CASES.items():
        maps, regions = make_case(classes)
        pool = partial(position_sensitive_pool, maps, [regions], STRIDE, GROUPS, SIZE, True)
        loop = partial(pool_by_loop, maps, regions)
        difference = (pool() - loop()).abs().max().item()
        if difference > 1e-5:
            raise RuntimeError(f"{name}: outputs differ by {difference:.2g}")
        sides = {"ours": partial(_milliseconds, pool), "peer": partial(_milliseconds, loop)}
        times = interleave(sides, repetitions, warm_up=0)
        ours, peer = (f"{statistics.median(times[side]):.3g} ms" for side in sides)
        what = f"FCIS' pooling of {REGIONS} regions, {maps.shape[1]:,} maps ({name}); peer: a loop over bins"
        yield Row(what, ours, peer, median_ratio(times["ours"], times["peer"]), FASTER)


def _milliseconds(call: partial[Tensor]) -> float:
    """The CPU time of one call, in milliseconds; its result, ``[300, C, 21, 21]``, is dropped."""
    return time_call(call).cpu * 1000
