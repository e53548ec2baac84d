"""``python -m benchmarks [NAME …]``: run the benchmarks and print a table row for each measurement as it is made."""

import argparse
import difflib
import importlib
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from striate.benchmarks import gpu
from striate.benchmarks.harness import Row, markdown, versions

BENCHMARKS = {
    "input_pipeline": "images per second from JPEG to training batch; peer: torchvision's reference preset",
    "detection_pipeline": "detection samples per second, from JPEG to short side 800; peer: torchvision's reference",
    "training_step": "training step through task and Trainer; peer: a bare PyTorch loop",
    "training_networks": "training step of AlexNet, VGG-16, ResNet-50; peers: torchvision's and timm's scripts",
    "coco_index": "opening annotations of COCO's size, and memory of the workers; peer: pycocotools",
    "segmentation_metrics": "mean IoU of 1,000 masks of VOC's size; peer: torchmetrics",
    "segmentation_networks": "inference and training step of FCN-8s, compared with torchvision's fcn_resnet50",
    "segmentation_step": "training step of U-Net; peer: segmentation-models-pytorch",
    "detection_metrics": "COCO evaluation of 500,000 detections; peers: pycocotools and torchmetrics",
    "mask_metrics": "COCO evaluation of 1,000 images with 100 masks each; peers: torchmetrics' two backends",
    "detection_ops": "matching 100,000 anchors, NMS of 100,000 boxes; peer: torchvision",
    "fcis_pooling": "position-sensitive pooling of 300 regions for FCIS; peer: a loop over bins",
    "detection_step": "step and inference of Faster R-CNN R50-FPN at 800 pixels; peer: torchvision's reference",
    "instance_step": "step and inference of Mask R-CNN R50-FPN at 800 pixels; peer: torchvision's reference",
    "mask_rcnn_training": "mask AP of Mask R-CNN after the same training, three seeds; peer: torchvision",
    "mask_pasting": "pasting 100 masks into an image of 1333 x 800 pixels; peer: torchvision",
    "large_image": "memory of 1,000 instances of an image of 2048 x 2048 pixels, against a limit",
    "selective_search": "selective search of 500x375 photographs; peer: OpenCV's contributed module, if installed",
    "proposal_recall": "recall and MABO of selective search at the same number of boxes; peer: OpenCV, if installed",
    "sliding_window": "all windows of an image in one pass per scale; peer: window by window",
    "region_features": "features of regions from one map, and SVMs; peers: each region by itself, all negatives",
    "sweep_overhead": "a trial of `striate sweep`; peer: `striate fit` with the same values",
    "wandb_epoch": "an epoch that W&B records offline with all media; peer: no logger",
    "training_memory": "peak memory of training_step; peer: its bare loop",
}
"""Description of each benchmark by name, which is also the name of its module."""

ALONE = {
    "gpu": "checks and benchmarks on a GPU, at most 8 minutes; has its own options: python -m benchmarks gpu --help",
    "region_lineage": "from the sliding window to Faster R-CNN, time and AP50; options: region_lineage --help",
}
"""Commands that do not run with the benchmarks."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks given on the command line; none: all."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["gpu"]:
        gpu.main(given[1:])
        return
    if given[:1] == ["region_lineage"]:
        importlib.import_module("striate.benchmarks.region_lineage").main(given[1:])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; none: all")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and exit")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to FILE, as it grows")
    options = parser.parse_args(given)
    if options.list:
        print("\n".join(f"{name:<21} {description}" for name, description in {**BENCHMARKS, **ALONE}.items()))
        return
    for name in options.names:
        if name not in BENCHMARKS:
            near = difflib.get_close_matches(name, BENCHMARKS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(BENCHMARKS)}"
            parser.error(f"NAME: no benchmark {name!r}; {hint}")
    rows: list[Row] = []
    failed = []
    print(markdown([]), end="", flush=True)
    for name in options.names or BENCHMARKS:
        try:
            for row in run(name):
                rows.append(row)
                print(row.markdown(), flush=True)
                if options.markdown:
                    options.markdown.write_text(f"{markdown(rows)}\n{machine()}\n", encoding="utf-8")
        except Exception:  # keep the results of the other benchmarks
            traceback.print_exc()
            failed.append(name)
    if failed:
        sys.exit(f"failed with the errors above: {', '.join(failed)}")


def run(name: str) -> Iterator[Row]:
    """Run one benchmark, and print its name and duration; yield each row as soon as it is measured."""
    sys.stderr.write(f"{name}: {BENCHMARKS[name]} …\n")
    begin = time.perf_counter()
    yield from importlib.import_module(f"striate.benchmarks.{name}").run()
    sys.stderr.write(f"{name}: {time.perf_counter() - begin:.0f} s\n")


def machine() -> str:
    """Describe the machine and the versions of Python and torch."""
    import torch

    return f"{versions()}, {torch.get_num_threads()} threads, no GPU used"


if __name__ == "__main__":
    main()
