"""``python -m benchmarks [NAME …]``: run the benchmarks and print one table of ours beside the peers'."""

import argparse
import difflib
import importlib
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from striate.benchmarks.harness import Row, markdown, show

BENCHMARKS = {
    "input_pipeline": "images a second from JPEG to a training batch, against torchvision's reference preset",
    "detection_pipeline": "detection samples a second, from JPEG to short side 800, against torchvision's reference",
    "training_step": "one training step through Trainer and task, against a bare PyTorch loop",
    "training_networks": "a step of AlexNet, VGG-16, ResNet-50, against torchvision's and timm's training scripts",
    "coco_index": "opening annotations of COCO's size, and the workers' memory, against pycocotools",
    "segmentation_metrics": "mean IoU of 1,000 masks of VOC's size, against torchmetrics",
    "segmentation_networks": "FCN-8s against torchvision's fcn_resnet50, inference and training step",
    "segmentation_step": "a step of a U-Net, against segmentation-models-pytorch",
    "detection_metrics": "COCO evaluation of 500,000 detections, against pycocotools and torchmetrics",
    "detection_ops": "matching of 100,000 anchors, NMS of 100,000 boxes, against torchvision's",
    "detection_step": "a step and a pass of Faster R-CNN R50-FPN at 800 pixels, against torchvision's reference",
    "training_memory": "peak memory of that training, against the bare loop's",
}
"""Name, which is its module's too -> what it measures."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; none: all")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and stop")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to FILE too")
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(f"{name:<21} {what}" for name, what in BENCHMARKS.items()))
        return
    for name in given.names:
        if name not in BENCHMARKS:
            near = difflib.get_close_matches(name, BENCHMARKS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(BENCHMARKS)}"
            parser.error(f"there is no benchmark {name!r}; {hint}")
    rows: list[Row] = []
    failed = []
    for name in given.names or BENCHMARKS:
        try:
            rows += run(name)
        except Exception:  # what the others have measured, or will, is not to be lost
            traceback.print_exc()
            failed.append(name)
        if given.markdown:
            given.markdown.write_text(f"{markdown(rows)}\n{machine()}\n", encoding="utf-8")
    show(rows)
    if failed:
        sys.exit(f"not measured, for the errors above: {', '.join(failed)}")


def run(name: str) -> list[Row]:
    """Run one benchmark, saying so meanwhile."""
    sys.stderr.write(f"{name}: {BENCHMARKS[name]} …")
    sys.stderr.flush()
    begin = time.perf_counter()
    rows: list[Row] = importlib.import_module(f"striate.benchmarks.{name}").run()
    sys.stderr.write(f" {time.perf_counter() - begin:.0f} s\n")
    return rows


def machine() -> str:
    """What was measured on, with what."""
    import torch

    device = f"{torch.get_num_threads()} threads, no GPU used"
    return f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, {device}"


if __name__ == "__main__":
    main()
