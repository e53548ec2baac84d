"""Metrics of boxes and masks over two and three processes with unequal shards equal those of one process."""

import datetime
import subprocess
import sys

import torch

from striate.tasks.metrics import COCODetection, COCOInstances, VOCDetection

from ...helpers.processes import HANG
from ...helpers.random_detections import CLASSES, crowded, rounded_scores, with_ids
from ...helpers.random_instances import random_instances

IDS = [40, 50, 60, 7, 90, 80, 70, 30, 20]
FIRST = [0, 1]  # the ranks of the smaller group


def shards():
    """The batches of each of three ranks, with many equal scores; the second has none, the third the first images."""
    pairs = with_ids([*rounded_scores(crowded(5, 9))], IDS)
    for (detections, target), (predicted, expected) in zip(pairs, random_instances(5, 9), strict=True):
        detections["instances"], target["instances"] = predicted, expected | {"image_id": target["image_id"]}
    return [[pairs[:2], pairs[2:7]], [], [pairs[7:]]]


def results(batches, group=None):
    """All results of the metrics, by name; those of masks with ``masks/`` in front."""
    result = {}
    coco, voc = COCODetection(CLASSES, process_group=group), VOCDetection(CLASSES, process_group=group)
    for metric in (coco, voc):
        for batch in batches:
            metric.update([detections for detections, _ in batch], [target for _, target in batch])
        result |= metric.compute()
        result |= {f"{type(metric).__name__}/{name}": value for name, value in metric.class_table().items()}
    masks = COCOInstances(CLASSES, boundary=0.02, process_group=group)
    for batch in batches:
        masks.update(*([one["instances"] for one in part] for part in zip(*batch, strict=True)))
    result |= {f"masks/{name}": value for name, value in masks.compute().items()}
    result |= {f"masks/map_r/{protocol}": masks.map_r(0.5, protocol) for protocol in ("sds", "mnc")}
    result["masks/tide"] = torch.tensor(list(masks.tide()["delta_ap"].values()))
    result |= {"curves": coco.pr_curves()["precision"], "confusion": coco.confusion_matrix()}
    result["thresholds"] = torch.from_numpy(coco.best_thresholds().score)
    result["tide"] = torch.tensor(list(coco.tide()["delta_ap"].values()))
    assert sum(len(rows) for rows in coco.counts) == sum(len(batch) for batch in batches)  # the local state is restored
    return result


def as_rank(rank, folder):
    """Results of this process as one of two, and as one of three; they meet in a file of the folder."""
    limit = datetime.timedelta(seconds=HANG)
    address = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=3, timeout=limit)
    try:
        group = torch.distributed.new_group(FIRST, timeout=limit)
        shard = shards()[rank]
        return {2: results(shard, group) if rank in FIRST else {}, 3: results(shard)}
    finally:
        torch.distributed.destroy_process_group()


OTHER_PROCESS = """
import sys, torch
from striate.tests.tasks.metrics.test_detection_ranks import as_rank
torch.set_num_threads(1)
torch.save(as_rank(int(sys.argv[1]), sys.argv[2]), sys.argv[3])
"""


def test_several_processes_count_as_one(tmp_path, recwarn):
    command = [sys.executable, "-W", "ignore", "-c", OTHER_PROCESS]
    others = {rank: subprocess.Popen([*command, str(rank), tmp_path, tmp_path / f"{rank}.pt"]) for rank in (1, 2)}
    computed = {0: as_rank(0, tmp_path)}
    assert [process.wait(timeout=HANG) for process in others.values()] == [0, 0]
    computed |= {rank: torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in others}
    for world, ranks in ((2, FIRST), (3, [0, 1, 2])):
        pairs = [pair for shard in shards()[:world] for batch in shard for pair in batch]
        whole = results([sorted(pairs, key=lambda pair: pair[1]["image_id"].item())])
        assert len(whole) == 12 + 6 + 1 + 3 + 4 + 15 and whole["map"] > 0.05 and whole["masks/map"] > 0.02
        for rank in ranks:
            assert computed[rank][world].keys() == whole.keys()
            for name, value in whole.items():
                torch.testing.assert_close(
                    computed[rank][world][name], value, rtol=0, atol=0, equal_nan=True, msg=f"{rank}/{world}: {name}"
                )
