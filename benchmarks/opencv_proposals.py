"""Selective search of OpenCV's contributed modules, in a process of its own.

The package opencv-contrib-python-headless excludes the one that striate needs. Install it into a folder of its own, and
name that in the environment:

    pip install --no-deps --target build/opencv opencv-contrib-python-headless
    OPENCV_CONTRIB=build/opencv python -m benchmarks selective_search proposal_recall
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def opencv_proposals(images: Sequence[np.ndarray], mode: str) -> tuple[list[np.ndarray], list[float]] | None:
    """Propose boxes with OpenCV's selective search, in one thread; None: ``OPENCV_CONTRIB`` is not set.

    Args:
        images: RGB images, uint8 ``[H, W, 3]``.
        mode: ``fast`` or ``quality``.

    Returns:
        Boxes of each image, best first, ``[N, 4]``, and the CPU time of each image in seconds.
    """
    folder = os.environ.get("OPENCV_CONTRIB")
    if folder is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        source, result = Path(name, "images.npz"), Path(name, "boxes.npz")
        np.savez(source, *images)
        environment = {**os.environ, "PYTHONPATH": str(Path(folder).resolve())}
        command = [sys.executable, __file__, str(source), str(result), mode]
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        with np.load(result) as stored:
            return [stored[f"arr_{index}"] for index in range(len(images))], json.loads(output)


def main(source: str, result: str, mode: str) -> None:
    """Propose boxes for the images of an npz file, store them, and print the CPU times as JSON."""
    import cv2

    cv2.setNumThreads(1)
    boxes, seconds = [], []
    with np.load(source) as images:
        for name in images.files:
            image = np.ascontiguousarray(images[name][..., ::-1])
            begin = time.process_time()
            search = getattr(cv2, "ximgproc").segmentation.createSelectiveSearchSegmentation()  # noqa: B009 - of contrib
            search.setBaseImage(image)
            {"fast": search.switchToSelectiveSearchFast, "quality": search.switchToSelectiveSearchQuality}[mode]()
            found = search.process()
            seconds.append(time.process_time() - begin)
            boxes.append(np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1))
    np.savez(result, *boxes)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
